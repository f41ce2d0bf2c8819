"""Embeddings of a graph's nodes, without an encoder: one free vector for each node."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from applications.spectral.graphs import Labelled, bipartite_edges, distributions, edges_of
from applications.spectral.kernels import kernel
from applications.spectral.losses import graph_clip, graph_info_nce

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Space:
    """Where the nodes are embedded, and by which kernel; `planted` starts each class at a place of its own."""

    kernel: str
    dim: int
    tau: float
    sphere: bool = False
    planted: bool = False

    @property
    def title(self) -> str:
        """As shown in tables."""
        place = "sphere" if self.sphere else "free"
        return f"{place}, {self.kernel}" + (", planted" if self.planted else "")


@dataclass(frozen=True)
class Descent:
    """How to train: Adam on all nodes at once, from normal vectors of standard deviation `start`."""

    steps: int
    lr: float
    start: float


def embed(graph: Labelled, space: Space, descent: Descent, seed: int) -> Float[Tensor, "nodes dim"]:
    """Return the vectors that InfoNCE finds for the nodes; those of a bipartite graph's rows come first."""
    z = _first(graph, space, descent, seed).requires_grad_()
    loss = loss_of(graph, space)
    optimizer = torch.optim.Adam([z], lr=descent.lr)
    for _ in range(descent.steps):
        optimizer.zero_grad()
        loss(_placed(z, space)).backward()
        optimizer.step()
    return _placed(z.detach(), space)


def loss_of(graph: Labelled, space: Space) -> Loss:
    """Return InfoNCE as a function of all vectors: of one modality if every node has a row, else of two."""
    adjacency, (alignment, temperature) = graph.adjacency, kernel(space.kernel, space.tau)
    if not graph.is_bipartite:
        edges = edges_of(distributions(adjacency))
        return lambda z: graph_info_nce(z, edges, alignment, temperature)
    edges, n = bipartite_edges(adjacency), len(adjacency)
    return lambda z: graph_clip(z[:n], z[n:], edges, alignment, temperature)


def _first(graph: Labelled, space: Space, descent: Descent, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = descent.start * torch.randn(len(graph.labels), space.dim, generator=generator)
    if space.planted:
        z = z + torch.randn(int(graph.labels.max()) + 1, space.dim, generator=generator)[graph.labels]
    return z


def _placed(z: Tensor, space: Space) -> Tensor:
    return normalize(z) if space.sphere else z
