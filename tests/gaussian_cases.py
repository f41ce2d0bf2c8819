"""Random covariances of known canonical correlations, for the tests of the Gaussian oracle."""

import torch
from small_models import seeded
from torch import Tensor

C_2D = torch.tensor([[1.5, 1.0], [1.0, 1.5]], dtype=torch.float64)
"""The covariance of THEORY's two-dimensional illustration."""


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_covariance(n_u: int, n_v: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A covariance of coordinates that differ in scale, and the canonical correlations it was given.

    They stay away from zero, where one-sided L2 has a valley so flat (σ⁴/4 deep) that no minimiser gets through.
    """
    generator = seeded(100 * seed + 10 * n_u + n_v)
    k = min(n_u, n_v)
    sigma = (0.2 + 0.75 * torch.rand(k, generator=generator, dtype=torch.float64)).sort(descending=True).values
    bases, roots = [], []
    for n in (n_u, n_v):
        bases.append(torch.linalg.qr(normal(generator, n, n)).Q[:, :k])
        scale = torch.logspace(-0.7, 0.7, n, dtype=torch.float64)
        roots.append(normal(generator, n, n).tril(-1) * scale[:, None] + scale.diag())
    cross = roots[0] @ bases[0] @ sigma.diag() @ bases[1].T @ roots[1].T
    top = torch.cat([roots[0] @ roots[0].T, cross], dim=1)
    return torch.cat([top, torch.cat([cross.T, roots[1] @ roots[1].T], dim=1)]), sigma
