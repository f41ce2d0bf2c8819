"""Models and scores whose density ratio is known: Gaussian pairs with given canonical correlations."""

import torch
from small_models import seeded
from torch import Tensor

import probcl as pcl

CORRELATIONS = torch.tensor([0.8, 0.5], dtype=torch.float64)
INFORMATION = float(-0.5 * torch.log1p(-CORRELATIONS.square()).sum())


def gaussian_pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pairs (u, v), standard normal with `CORRELATIONS` between components."""
    generator = seeded(seed)
    u, noise = (torch.randn(count, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return u, CORRELATIONS * u + (1 - CORRELATIONS.square()).sqrt() * noise


def gaussian_log_ratio(u: Tensor, v: Tensor) -> Tensor:
    """log dμ/(dμ_u dμ_v) of every u with every v, from the densities."""
    law = torch.distributions.Normal
    deviation = (1 - CORRELATIONS.square()).sqrt()
    given_u = law(CORRELATIONS * u[:, None], deviation).log_prob(v[None])
    return (given_u - law(0.0, 1.0).log_prob(v)[None]).sum(-1)


def gaussian_model(temperature: float = 1.0, learn_temperature: bool = False) -> pcl.BimodalModel:
    """The model whose score at τ = 1 is the log density ratio of `gaussian_pairs` up to a constant (THEORY §1)."""
    inner = CORRELATIONS / (1 - CORRELATIONS.square())
    potential = inner * CORRELATIONS
    weight = torch.cat([inner.sqrt().diag(), potential.sqrt().diag()])
    model = pcl.BimodalModel(
        pcl.encoders.Linear(2, 4),
        pcl.encoders.Linear(2, 4),
        pcl.WithPotentials(),
        temperature,
        learn_temperature,
    ).double()
    with torch.no_grad():
        model.encoder_u.weight.copy_(weight)
        model.encoder_v.weight.copy_(weight)
    return model
