"""Similarity graphs: whom each node is alike, and how surely."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sklearn.neighbors import kneighbors_graph
from torch import Tensor


class Edges(NamedTuple):
    """Pairs of nodes and their weights, π_ij where the rows of π are distributions."""

    rows: Int[Tensor, " e"]
    columns: Int[Tensor, " e"]
    weights: Float[Tensor, " e"]


class Labelled(NamedTuple):
    """A graph, and the classes its nodes were drawn from; for a bipartite one, of rows and then of columns."""

    adjacency: Float[Tensor, "n m"]
    labels: Int[Tensor, " nodes"]

    @property
    def is_bipartite(self) -> bool:
        """Whether rows and columns of the adjacency are different nodes."""
        return len(self.labels) != len(self.adjacency)


def edges_of(similarity: Float[Tensor, "n m"]) -> Edges:
    """Return the entries of a similarity that are not zero."""
    rows, columns = similarity.nonzero(as_tuple=True)
    return Edges(rows, columns, similarity[rows, columns])


def bipartite_edges(adjacency: Float[Tensor, "n m"]) -> Edges:
    """Return the edges between two modalities, each weighted by π_ij + π_ji: both its ends choose it."""
    return edges_of(distributions(adjacency) + distributions(adjacency.mT).mT)


def distributions(adjacency: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Return π, the adjacency with rows that sum to one.

    Raises
    ------
    ValueError
        If a node has no neighbour.
    """
    degrees = adjacency.sum(1, keepdim=True)
    if (degrees == 0).any():
        raise ValueError(f"adjacency must give every node a neighbour, node {int(degrees[:, 0].argmin())} has none")
    return adjacency / degrees


def laplacian(pi: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return L = diag(S1) − S of S = (π + πᵀ)/2."""
    S = (pi + pi.mT) / 2
    return S.sum(1).diag() - S


def off_diagonal(n: int) -> Bool[Tensor, "n n"]:
    """Which nodes may be neighbours in one modality: all but a node and itself."""
    return ~torch.eye(n, dtype=torch.bool)


def across(n: int, m: int) -> Bool[Tensor, "nodes nodes"]:
    """Which nodes may be neighbours in two modalities of n and m: those of different ones."""
    side = torch.arange(n + m) < n
    return side[:, None] != side


def bipartite(adjacency: Float[Tensor, "n m"]) -> Float[Tensor, "nodes nodes"]:
    """Return π of the graph on the nodes of both modalities."""
    n, m = adjacency.shape
    pi = adjacency.new_zeros(n + m, n + m)
    pi[:n, n:], pi[n:, :n] = distributions(adjacency), distributions(adjacency.mT)
    return pi


def block_graph(n: int, blocks: int, p_in: float, p_out: float, seed: int) -> Labelled:
    """Draw edges, with one probability within blocks of equal size and with another between them."""
    labels = torch.arange(n) * blocks // n
    draws = _draw(labels, labels, p_in, p_out, seed).triu(1)
    return Labelled(draws + draws.mT, labels)


def block_bipartite(n: int, m: int, blocks: int, p_in: float, p_out: float, seed: int) -> Labelled:
    """Draw edges between two modalities in the same way."""
    rows, columns = torch.arange(n) * blocks // n, torch.arange(m) * blocks // m
    return Labelled(_draw(rows, columns, p_in, p_out, seed), torch.cat([rows, columns]))


def neighbour_graph(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], neighbours: int) -> Labelled:
    """Join each point with its nearest ones, in either direction."""
    nearest = torch.from_numpy(kneighbors_graph(x.numpy(), neighbours).toarray()).to(x)
    return Labelled(torch.maximum(nearest, nearest.mT), labels)


def _draw(rows: Tensor, columns: Tensor, p_in: float, p_out: float, seed: int) -> Tensor:
    probability = torch.where(rows[:, None] == columns, p_in, p_out)
    return torch.bernoulli(probability, generator=torch.Generator().manual_seed(seed))
