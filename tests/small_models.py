"""Models with weights set by hand, so small that every probability can be written down."""

import torch
from torch import Tensor, nn

import probcl as pcl


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def table_model(scores: Tensor, **settings) -> pcl.BimodalModel:
    """A model of labels u and v, whose inner products are the entries of a table."""
    n_v = scores.shape[1]
    model = pcl.BimodalModel(
        nn.Embedding.from_pretrained(scores), pcl.encoders.Label(n_v), pcl.InnerProduct(), **settings
    )
    return model.to(scores.dtype)


def linear_model(
    n_u: int, n_v: int, d: int, alignment=None, temperature: float = 1.0, dtype: torch.dtype = torch.float64
) -> pcl.BimodalModel:
    """A model of vectors u and v with random linear encoders."""
    model = pcl.BimodalModel(
        pcl.encoders.Linear(n_u, d), pcl.encoders.Linear(n_v, d), alignment or pcl.InnerProduct(), temperature
    ).to(dtype)
    with torch.no_grad():
        model.encoder_u.weight.copy_(normal(d, n_u, seed=101))
        model.encoder_v.weight.copy_(normal(d, n_v, seed=102))
    return model


def reference_scores(model: pcl.BimodalModel, u: Tensor, v: Tensor) -> Tensor:
    """s(u_i, v_j) of `Cosine`, `InnerProduct` and `L2`, from the formulas, in float64."""
    with torch.no_grad():
        x, y = model.encoder_u(u).double(), model.encoder_v(v).double()
    match model.alignment:
        case pcl.Cosine():
            aligned = torch.cosine_similarity(x[:, None], y[None], dim=-1)
        case pcl.L2():
            aligned = -0.5 * torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        case _:
            aligned = torch.einsum("id,jd->ij", x, y)
    return aligned / model.temperature.value
