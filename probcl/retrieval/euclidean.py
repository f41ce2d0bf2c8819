"""Scores as distances, which is what libraries for nearest neighbours can search.

The largest ⟨x, y_j⟩ + c_j are the smallest distances of x' = (x, 1, 0) to y'_j = (y_j, c_j, (R² − |y_j|² − c_j²)^½),
which all have the norm R (Bachrach et al. 2014, "Speeding up the Xbox recommender system", RecSys). The largest
−½|x − y_j|² + c_j are the smallest distances of x' = (x, 0) to y'_j = (y_j, (2 (max c − c_j))^½).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.alignment import L2, Alignment, Cosine, InnerProduct, WithPotentials


class Features(NamedTuple):
    """One side of an alignment that is ⟨x, y⟩ or −½|x − y|² plus offsets."""

    vectors: Float[Tensor, "n k"]
    offset: Float[Tensor, " n"]


def features(alignment: Alignment, z: Float[Tensor, "n d"]) -> Features:
    """Return what an alignment makes of the embeddings of one side.

    Raises
    ------
    ValueError
        If its order is not that of distances.
    """
    # By exact type: a subclass may be anything.
    if type(alignment) in (InnerProduct, L2):
        return Features(z, z.new_zeros(len(z)))
    if type(alignment) is Cosine:
        return Features(alignment.factorize(z, z).x, z.new_zeros(len(z)))
    if type(alignment) is WithPotentials:
        base, potential = alignment.split(z)
        vectors, offset = features(alignment.base, base)
        return Features(vectors, offset - 0.5 * potential.square().sum(-1))
    raise ValueError(
        "an index is for InnerProduct, Cosine, L2, and WithPotentials of one of them, got "
        f"{alignment!r}; search the library itself"
    )


@dataclass(frozen=True)
class Space:
    """Where the order of the scores is that of distances: what of the map to it depends on all items.

    Attributes
    ----------
    by_distance
        Whether the scores are −½|x − y|² plus offsets, and not ⟨x, y⟩.
    largest
        The largest offset.
    radius
        R, the largest norm of an item, its offset included.
    width
        How many dimensions it has.
    """

    by_distance: bool
    largest: float
    radius: float
    width: int

    @classmethod
    def of(cls, alignment: Alignment, items: Iterable[Features]) -> "Space":
        """Return the space for items with finite offsets, of which some are given at a time."""
        while isinstance(alignment, WithPotentials):
            alignment = alignment.base
        by_distance = isinstance(alignment, L2)
        largest, smallest, square, width = -torch.inf, torch.inf, 0.0, 0
        for vectors, offset in items:
            largest, smallest = max(largest, float(offset.max())), min(smallest, float(offset.min()))
            square = max(square, float(vectors.double().square().sum(1).max()))
            width = vectors.shape[1] + (1 if by_distance else 2)
        return cls(by_distance, largest, (square + (largest - smallest) ** 2) ** 0.5, width)

    def items(self, items: Features) -> Float[Tensor, "n q"]:
        """Map items, with finite offsets."""
        vectors, below = items.vectors.double(), (self.largest - items.offset.double()).clamp(min=0)
        if self.by_distance:
            return torch.cat([vectors, (2 * below)[:, None].sqrt()], 1).float()
        rest = self.radius**2 - vectors.square().sum(1) - below.square()
        return torch.cat([vectors, -below[:, None], rest.clamp(min=0)[:, None].sqrt()], 1).float()

    def queries(self, queries: Features) -> Float[Tensor, "n q"]:
        """Map queries, whose offsets do not matter."""
        vectors = queries.vectors.double()
        zero = vectors.new_zeros(len(vectors), 1)
        return torch.cat([vectors, zero] if self.by_distance else [vectors, zero + 1, zero], 1).float()
