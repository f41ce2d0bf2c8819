r"""Three ways to write one number, and the curvature of collapse (Tan et al. 2024, arXiv 2303.15103).

With S = (π + πᵀ)/2, L = diag(S1) − S and the kernel exp(−|z_i − z_j|²/2τ) between nodes that may be neighbours,

.. math::
    -E_{W∼π} \log P(W; K) = \sum_i \mathrm{InfoNCE}_i = \frac1τ \mathrm{tr}(ZᵀLZ) + \sum_i \log \sum_j K_{ij},

where W runs over the graphs in which every node has one neighbour, and P(W; K) ∝ ∏ K_{i W(i)}.
"""

from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import probcl as pcl
from applications.spectral.graphs import (
    across,
    bipartite,
    bipartite_edges,
    distributions,
    edges_of,
    laplacian,
    off_diagonal,
)
from applications.spectral.losses import graph_clip, graph_info_nce
from applications.tables import Row

N_NODES, N_ROWS, N_COLUMNS, DIM, TEMPERATURE = 5, 3, 4, 3, 0.7
N_COLLAPSED = 12


def cross_entropy(
    log_kernel: Float[Tensor, "n n"], pi: Float[Tensor, "n n"], allowed: Bool[Tensor, "n n"]
) -> Float[Tensor, ""]:
    """Return −E log P(W; K) by going through all graphs W of out-degree one."""
    choices = [row.nonzero()[:, 0].tolist() for row in allowed]
    graphs = torch.tensor(list(product(*choices)))
    nodes = torch.arange(len(pi))
    energies = log_kernel[nodes, graphs].sum(1)
    return -(pi[nodes, graphs].prod(1) * (energies - energies.logsumexp(0))).sum()


def trace_form(
    z: Float[Tensor, "n d"], pi: Float[Tensor, "n n"], allowed: Bool[Tensor, "n n"], temperature: float
) -> Float[Tensor, ""]:
    """Return tr(ZᵀLZ)/τ + Σ_i log Σ_j K_ij."""
    candidates = gaussian_log_kernel(z, temperature).masked_fill(~allowed, -torch.inf)
    return (z.mT @ laplacian(pi) @ z).trace() / temperature + candidates.logsumexp(1).sum()


def gaussian_log_kernel(z: Float[Tensor, "n d"], temperature: float) -> Float[Tensor, "n n"]:
    """Return −|z_i − z_j|²/2τ, from the differences themselves."""
    return -(z[:, None] - z).square().sum(-1) / (2 * temperature)


def collapse_hessian(pi: Float[Tensor, "n n"], temperature: float) -> Float[Tensor, "n n"]:
    """Return (2/τ)[L − n/(n−1) (I − 11ᵀ/n)], the second derivative at Z = 0 in one column of Z."""
    n = len(pi)
    centring = torch.eye(n, dtype=pi.dtype) - 1 / n
    return 2 / temperature * (laplacian(pi) - n / (n - 1) * centring)


def check(seed: int) -> list[Row]:
    """Return the identities on random graphs and embeddings, in float64."""
    return [_one_modality(seed), _two_modalities(seed), _collapse(seed)]


def _one_modality(seed: int) -> Row:
    pi, z = _random_pi(N_NODES, seed), _normal(N_NODES, DIM, seed)
    allowed = off_diagonal(N_NODES)
    loss = graph_info_nce(z, edges_of(pi), pcl.L2(), TEMPERATURE)
    exact = cross_entropy(gaussian_log_kernel(z, TEMPERATURE), pi, allowed)
    return _row("InfoNCE, 4⁵ graphs", exact, loss, trace_form(z, pi, allowed, TEMPERATURE))


def _two_modalities(seed: int) -> Row:
    adjacency = torch.rand(N_ROWS, N_COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z_u, z_v = _normal(N_ROWS, DIM, seed), _normal(N_COLUMNS, DIM, seed + 1)
    z, pi, allowed = torch.cat([z_u, z_v]), bipartite(adjacency), across(N_ROWS, N_COLUMNS)
    loss = graph_clip(z_u, z_v, bipartite_edges(adjacency), pcl.L2(), TEMPERATURE)
    exact = cross_entropy(gaussian_log_kernel(z, TEMPERATURE), pi, allowed)
    return _row("CLIP, 4³ · 3⁴ graphs", exact, loss, trace_form(z, pi, allowed, TEMPERATURE))


def _collapse(seed: int) -> Row:
    pi = _random_pi(N_COLLAPSED, seed)
    edges = edges_of(pi)

    def loss(column: Tensor) -> Tensor:
        return graph_info_nce(column[:, None], edges, pcl.L2(), TEMPERATURE)

    found = torch.autograd.functional.hessian(loss, torch.zeros(N_COLLAPSED, dtype=torch.float64))
    expected = collapse_hessian(pi, TEMPERATURE)
    return {
        "identity": "Hessian at collapse",
        "difference": f"{(found - expected).abs().max():.0e}",
        "brute force": "",
        "loss": float(found.norm()),
        "closed form": float(expected.norm()),
    }


def _row(name: str, exact: Tensor, loss: Tensor, trace: Tensor) -> Row:
    difference = max(abs(loss - exact), abs(trace - exact))
    return {
        "identity": name,
        "difference": f"{difference:.0e}",
        "brute force": float(exact),
        "loss": float(loss),
        "closed form": float(trace),
    }


def _random_pi(n: int, seed: int) -> Float[Tensor, "n n"]:
    weights = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return distributions(weights.masked_fill(~off_diagonal(n), 0))


def _normal(n: int, dim: int, seed: int) -> Float[Tensor, "n dim"]:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
