"""The f-Gaussian that makes the bound of an f-mutual information largest."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from probcl.checks import require_count, require_embeddings
from probcl.diagnostics.held_out import EmbeddedPairs, in_batches, require_matched
from probcl.distance import FGaussian
from probcl.divergences import KL, Divergence, as_divergence
from probcl.errors import ProbclWarning
from probcl.losses.continuation import continued
from probcl.scores import Scores

# A fit of two numbers needs no larger products, and takes many steps.
_FIT_BATCH_SIZE = 256
_FIT_STEPS = 200
# Limits of log μ and log σ. For σ = e^8 the score is a constant; below e^−16 it is rounding.
_LOWEST, _HIGHEST = np.array([-300.0, -16.0]), np.array([300.0, 8.0])
_START = np.array([0.0, -0.5 * math.log(2)])
_STATIONARY = 1e-4
# What two equal squares may differ by, one of them from a product.
_ROUNDING = 1e-12


def fit_f_gaussian(
    u: Float[Tensor, "n d"],
    v: Float[Tensor, "n d"],
    divergence: Divergence | str = "kl",
    *,
    batch_size: int = _FIT_BATCH_SIZE,
) -> FGaussian:
    """Return the f-Gaussian log μ − |u − v|²/2σ² with the μ and σ of the largest bound of the f-mutual information.

    It is found by L-BFGS, for "kl" first: there the bound is concave in log μ and 1/σ², and has one maximum. From there
    it climbs to the next maximum for f. The bound of a sample may have none, when f* gives weight to the few extreme
    pairs (as "pearson" and "neyman" do): then the μ and σ of "kl" are kept.

    Parameters
    ----------
    u, v
        Pairs of embeddings, of any length but zero.
    divergence
        A `probcl.divergences.Divergence` or the name of one.
    batch_size
        Pairs are unmatched with one another within batches of about this size.

    Raises
    ------
    ValueError
        If there are not as many u as v, fewer than two, or an embedding is zero. Also if the mean squared distance of
        the pairs is not above the least one of unmatched pairs, as for v = u or very few pairs: then the bound for "kl"
        has no maximum, and rises for σ → 0.

    Warns
    -----
    ProbclWarning
        If the μ and σ are those of "kl" for want of a maximum for f.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import fit_f_gaussian
    >>> rng = torch.Generator().manual_seed(0)
    >>> u = torch.randn(500, 3, generator=rng)
    >>> alignment = fit_f_gaussian(u, u + torch.randn(500, 3, generator=rng))
    >>> alignment(u, u).shape, type(alignment).__name__
    (torch.Size([500, 500]), 'FGaussian')
    """
    divergence = as_divergence(divergence)
    u, v = require_embeddings("u", u), require_embeddings("v", v)
    require_matched(u, v)
    batches = in_batches(u.detach().double(), v.detach().double(), require_count("batch_size", batch_size, 2))
    _require_maximum(batches)
    found, _ = _maximise(batches, KL(), _START)
    if divergence != KL():
        own, is_maximum = _maximise(batches, divergence, found)
        if is_maximum:
            found = own
        else:
            warnings.warn(
                f"on these pairs the bound for {divergence} rises without end: mu and sigma are those for KL()",
                ProbclWarning,
                stacklevel=2,
            )
    return FGaussian(math.exp(found[0]), math.exp(found[1]))


def _require_maximum(batches: EmbeddedPairs) -> None:
    """Raise if no unmatched pair is nearer than the matched ones on average.

    The bound is a + 1 − E_μ b|u − v|²/2 − E e^{a − b|u − v|²/2}: it rises for ever along a = bt, b → ∞, if all the
    unmatched have |u − v|² ≥ 2t and the matched ones no more than that on average.
    """
    scores = [Scores(u, v, FGaussian(sigma=math.sqrt(0.5)), method="dense") for u, v in batches]
    matched = -float(torch.cat([batch.diagonal() for batch in scores]).mean())
    least = min(-float(batch.matrix().fill_diagonal_(-math.inf).max()) for batch in scores)
    if matched <= least + _ROUNDING:
        raise ValueError(
            "u and v must be pairs of which some unmatched ones are nearer than the matched ones on average, or no "
            f"sigma is best: got a mean |u - v|^2 of {matched:.3g} in pairs, and {least:.3g} at least in unmatched ones"
        )


def _maximise(batches: EmbeddedPairs, divergence: Divergence, start: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return log μ and log σ where an ascent from `start` ends, and whether that is a maximum."""
    result = minimize(
        _objective(batches, divergence),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(_LOWEST, _HIGHEST, strict=True)),
        options={"gtol": 1e-9, "ftol": 1e-15, "maxiter": _FIT_STEPS},
    )
    within = (result.x > _LOWEST).all() and result.x[0] < _HIGHEST[0]
    step = np.clip(result.x - result.jac, _LOWEST, _HIGHEST) - result.x
    return result.x, bool(within and np.abs(step).max() < _STATIONARY)


def _objective(batches: EmbeddedPairs, divergence: Divergence) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return −asinh of the bound: of the same maxima, and of moderate slopes where the bound is an exponential."""
    total = sum(len(u) for u, _ in batches)
    kernel = FGaussian(learnable=True).double()
    critic, conjugate = (
        continued(fn, divergence.growth, torch.float64) for fn in (divergence.derivative, divergence.conjugate)
    )

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.no_grad():
            for parameter, value in zip((kernel.log_mu, kernel.log_sigma), x.tolist(), strict=True):
                parameter.fill_(value)
        bound = torch.zeros((), dtype=torch.float64)
        for u, v in batches:
            scores = Scores(u, v, kernel, method="dense")
            unmatched = scores.mean(conjugate, diagonal=False)
            bound = bound + len(u) / total * (critic(scores.diagonal()).mean() - unmatched)
        gradient = torch.stack(torch.autograd.grad(bound, [kernel.log_mu, kernel.log_sigma])).numpy()
        value = float(bound.detach())
        return -math.asinh(value), -gradient / math.hypot(1, value)

    return objective
