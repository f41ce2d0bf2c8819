"""What the diagnostics take: draws of a posterior, or the distribution to draw from, beside the true values."""

from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.distributions import Distribution

from probcl import randomness
from probcl.checks import describe, require_count, require_finite

Posterior = Real[Tensor, "S B *event"] | Real[np.ndarray, "S B *event"] | Distribution
"""Draws ``(S, B, *event_shape)`` for each of B conditions, or a distribution with ``batch_shape`` (B,)."""

Truth = Real[Tensor, "B *event"] | Real[np.ndarray, "B *event"]
"""The true values, one for each condition."""


def as_real(name: str, values: object) -> Float[Tensor, "*shape"]:
    """Return real numbers as a float64 tensor on the CPU, without their graph."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values)
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or a NumPy array, got {describe(values)}")
    if values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name} must be real numbers, got {describe(values)}")
    return require_finite(name, values.detach().to("cpu", torch.float64))


def as_truth(truth: Truth) -> Float[Tensor, "B *event"]:
    """Return the true values in float64."""
    values = as_real("truth", truth)
    if values.ndim == 0 or values.numel() == 0:
        raise ValueError(f"truth must have one value for each condition along its first axis, got {describe(values)}")
    return values


def as_samples(posterior: Posterior, truth: Float[Tensor, "B *event"], num_samples: int) -> Float[Tensor, "S B *event"]:
    """Return draws that fit the true values: those given, or `num_samples` of a distribution."""
    require_count("num_samples", num_samples)
    require_conditioned(posterior)
    if isinstance(posterior, Distribution):
        posterior = posterior.sample(torch.Size([num_samples]))
    samples = as_real("posterior", posterior)
    if samples.ndim != truth.ndim + 1 or samples.shape[1:] != truth.shape or len(samples) == 0:
        raise ValueError(f"posterior must have draws of shape (S, {_listed(truth.shape)}), got {describe(samples)}")
    return samples


def require_conditioned(posterior: object) -> None:
    """Raise `TypeError` for what is on its way to a posterior: a model, or a conditional without its condition."""
    if isinstance(posterior, nn.Module):
        raise TypeError(
            "posterior must be draws, or a distribution such as model.u_given_v(prior).condition(v), got a "
            f"{type(posterior).__name__}"
        )


def by_component(values: Float[Tensor, "*shape"], batch_ndim: int) -> Float[Tensor, "*batch D"]:
    """Flatten the event into one axis, of length one if the event is a scalar."""
    return values.reshape(*values.shape[:batch_ndim], -1)


def seeded(seed: int | None) -> AbstractContextManager[None]:
    """Draw from a hash of the seed, so that the numbers are not those a caller drew after manual_seed(seed)."""
    if seed is None:
        return randomness.seeded(None)
    sequence = np.random.SeedSequence(require_count("seed", seed, minimum=0))
    return randomness.seeded(int(sequence.generate_state(1, np.uint64)[0]))


def _listed(shape: torch.Size) -> str:
    return ", ".join(map(str, shape))
