"""SimSiam with linear maps: positives alone, a predictor, and a gradient that is stopped."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

import probcl as pcl
from probcl.datasets import Pairs

MOMENTUM = 0.9


@dataclass(frozen=True)
class SimSiam:
    """How to train: stochastic gradient descent with momentum and a cosine schedule."""

    steps: int
    batch_size: int
    lr: float
    start: float


def simsiam(pairs: Pairs, rank: int, config: SimSiam, seed: int) -> Float[Tensor, "d rank"]:
    """Return the linear map x ↦ Aᵀx that SimSiam learns (Chen & He 2021, arXiv 2011.10566, eqs. 1 and 4).

    The loss is −½ cos(W z, ẑ) − ½ cos(W ẑ, z), z = Aᵀx and ẑ = Aᵀx̂, without gradient through the second argument.
    It has no negatives, hence no scores of all pairs; `probcl.Cosine` still gives those of the matched ones.
    """
    generator = torch.Generator().manual_seed(seed)
    A = (config.start * torch.randn(pairs.u.shape[1], rank, generator=generator)).requires_grad_()
    W = torch.eye(rank).requires_grad_()
    optimizer = torch.optim.SGD([A, W], lr=config.lr, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    cosine = pcl.Cosine()
    for _ in range(config.steps):
        rows = torch.randint(pairs.n_pairs, (config.batch_size,), generator=generator)
        one, other = pairs.u[rows] @ A, pairs.v[rows] @ A
        agreement = cosine.matched(one @ W, other.detach()) + cosine.matched(other @ W, one.detach())
        optimizer.zero_grad()
        (-agreement.mean() / 2).backward()
        optimizer.step()
        schedule.step()
    return A.detach()
