"""Exponentials of scores that stay finite."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]

# Leaves room for sums over all pairs and for the slope of the tangents, and none of cosines at τ = 0.02 reaches it.
_SHARE = 0.6


def continued(fn: Elementwise, growth: tuple[float, float], dtype: torch.dtype) -> Elementwise:
    """Return a function of the scores with its tangents in place of itself where it is about to overflow.

    Scores of a few hundred are ordinary for unnormalised embeddings or low temperatures, and their exponentials are no
    floating-point numbers. Past 60% of the exponents that there are (scores of 53 in single precision, for e^s) the
    function goes on as a straight line: values, their sums and gradients stay finite, and convex functions convex.

    Parameters
    ----------
    fn
        An elementwise function.
    growth
        (p, q) if it grows at most like e^{−ps} for s → −∞ and like e^{qs} for s → ∞; zero leaves that side alone.
    dtype
        Of the scores.
    """
    largest = largest_exponent(dtype)
    low, high = (largest / rate if rate else math.inf for rate in growth)
    if low == high == math.inf:
        return fn
    below, above = (0.0 if at in (math.inf, -math.inf) else _slope(fn, at, dtype) for at in (-low, high))

    def safe(scores: Tensor) -> Tensor:
        values = fn(scores.clamp(-low, high))
        if high < math.inf:
            values = values + above * (scores - high).relu()
        return values if low == math.inf else values - below * (-low - scores).relu()

    return safe


def largest_exponent(dtype: torch.dtype) -> float:
    """Return the c up to which e^c is left as it is."""
    return _SHARE * math.log(torch.finfo(dtype).max)


def _slope(fn: Elementwise, at: float, dtype: torch.dtype) -> float:
    with torch.enable_grad():
        point = torch.tensor(at, dtype=dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(fn(point), point)
    return float(slope)
