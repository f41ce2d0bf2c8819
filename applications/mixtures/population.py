r"""InfoNCE on a Gaussian mixture in the population, where the negatives' expectation is known.

.. math::
    L(A) = -E⟨Aᵀx, Aᵀx̂⟩ + E_x \log \sum_k w_k \exp(xᵀMμ_k + ½ xᵀMΣMx), \qquad M = AAᵀ

(after Bansal, Kavis & Sanghavi 2025, arXiv 2411.03517). With probability δ the pair x̂ of x is a fresh draw of the same
component, else of any: E⟨Aᵀx, Aᵀx̂⟩ = δ Σ_k w_k μ_kᵀMμ_k, as the mean is zero.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from applications.mixtures.mixture import Mixture, even_points

POINTS_PER_COMPONENT = 4096
ITERATIONS = 500


def population_loss(
    A: Float[Tensor, "d r"], mixture: Mixture, x: Float[Tensor, "n d"], kept: float = 1.0
) -> Float[Tensor, ""]:
    """Return L(A); the outer expectation is the mean over the points `x`, of the type of A."""
    means, covariance = mixture.means.to(A), mixture.covariance.to(A)
    M = A @ A.mT
    positive = kept * (means @ M * means).sum() / mixture.n_components
    tilted = x @ M
    spread = 0.5 * (tilted @ covariance * tilted).sum(1)
    negative = torch.logsumexp(tilted @ means.mT, dim=1) - math.log(mixture.n_components) + spread
    return negative.mean() - positive


def minimise(mixture: Mixture, rank: int, start: float, seed: int, kept: float = 1.0) -> Float[Tensor, "d rank"]:
    """Return a minimiser A of the population loss, by L-BFGS from random entries of the size of `start`."""
    x = even_points(mixture, POINTS_PER_COMPONENT, seed)
    generator = torch.Generator().manual_seed(seed)
    A = (start * torch.randn(x.shape[1], rank, dtype=x.dtype, generator=generator)).requires_grad_()
    optimizer = torch.optim.LBFGS([A], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = population_loss(A, mixture, x, kept)
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return A.detach()
