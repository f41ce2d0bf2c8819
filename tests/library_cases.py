"""Libraries of a few items in shards of a few rows, and their scores from the formulas."""

import pytest
import torch
from small_models import linear_model, normal
from torch import Tensor

import probcl as pcl
from probcl.retrieval import shards

WIDTH = 4
ALIGNMENTS = [
    pcl.InnerProduct(),
    pcl.Cosine(),
    pcl.L2(),
    pcl.Laplace(),
    pcl.Power(1.5),
    pcl.SumMixture(),
    pcl.FGaussian(mu=2.0),
    pcl.WithPotentials(),
    pcl.WithPotentials(pcl.L2()),
]
U, V = normal(60, 5, seed=1), normal(9, 3, seed=2)
# Every seventh item is excluded.
PHI = normal(60, seed=3).masked_fill(torch.arange(60) % 7 == 6, -torch.inf)


def library_model(alignment=None, temperature=0.5, dtype=torch.float64) -> pcl.BimodalModel:
    return linear_model(5, 3, WIDTH, alignment, temperature, dtype)


def shards_of(patch: pytest.MonkeyPatch, rows: int, dtype: torch.dtype = torch.float64) -> None:
    """Make shards of new libraries of width `WIDTH` this short."""
    patch.setattr(shards, "SHARD_BYTES", rows * WIDTH * dtype.itemsize)


def aligned(alignment: pcl.Alignment, x: Tensor, y: Tensor) -> Tensor:
    """a(x_i, y_j) of every alignment, written out."""
    distance = (x[:, None] - y[None]).norm(dim=-1)
    match alignment:
        case pcl.Cosine():
            return torch.cosine_similarity(x[:, None], y[None], dim=-1)
        case pcl.L2():
            return -distance.square() / 2
        case pcl.Laplace():
            return -distance
        case pcl.Power():
            return -(distance**alignment.gamma)
        case pcl.SumMixture():
            return ((-distance.square() / 0.2).exp() + (-distance / 0.2).exp()).log()
        case pcl.FGaussian():
            unit = [z / z.norm(dim=-1, keepdim=True) for z in (x, y)]
            return torch.tensor(2.0).double().log() - (unit[0][:, None] - unit[1][None]).square().sum(-1)
        case pcl.WithPotentials():
            (g, k), (h, m) = ((z[:, : WIDTH // 2], z[:, WIDTH // 2 :]) for z in (x, y))
            potentials = k.square().sum(-1)[:, None] + m.square().sum(-1)[None]
            return aligned(alignment.base, g, h) - potentials / 2
    return x @ y.T


@torch.no_grad()
def brute_force(model: pcl.BimodalModel, u: Tensor = U, v: Tensor = V, phi: Tensor | None = None) -> Tensor:
    """s(u_i, v_j) + φ_i, in float64, for a model without a gauge."""
    x, y = model.encoder_u(u).double(), model.encoder_v(v).double()
    scores = aligned(model.alignment, x, y) / model.temperature.value
    return scores if phi is None else scores + phi[:, None]
