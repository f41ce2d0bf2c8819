"""Posteriors of a Gaussian mean that are right, or wrong in a way that can be written down."""

from dataclasses import dataclass

import torch
from small_models import seeded
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

# u ~ N(0, I) and v = u + N(0, I), so that u|v ~ N(v/2, I/2).
DEVIATION = 0.5**0.5


@dataclass(frozen=True)
class Case:
    truth: Tensor
    v: Tensor
    samples: Tensor

    @property
    def standardised_truth(self) -> Tensor:
        return (self.truth - self.v / 2) / DEVIATION


def gaussian_case(
    pairs: int, num_samples: int, dimensions: int = 1, width: float = 1.0, bias: float = 0.0, seed: int = 0
) -> Case:
    """Draws of N(v/2 + bias · sd, width² sd²) beside truths of the right posterior; scalars if there is 1 dimension."""
    generator = seeded(seed)
    shape = (pairs,) if dimensions == 1 else (pairs, dimensions)
    u, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    v = u + noise
    standard = torch.randn(num_samples, *shape, generator=generator, dtype=torch.float64)
    return Case(u, v, v / 2 + DEVIATION * (bias + width * standard))


def gaussian_posterior(v: Tensor, width: float = 1.0) -> Distribution:
    components = Normal(v / 2, torch.full_like(v, width * DEVIATION))
    return components if v.ndim == 1 else Independent(components, v.ndim - 1)


def prior_case(pairs: int, num_samples: int, seed: int = 0) -> Case:
    """Draws of the prior for every v: a posterior that has learned nothing."""
    right = gaussian_case(pairs, num_samples, seed=seed)
    samples = torch.randn(num_samples, pairs, generator=seeded(seed + 1), dtype=torch.float64)
    return Case(right.truth, right.v, samples)
