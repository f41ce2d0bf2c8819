"""Embedded queries, and the scores of a library's items with them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.gauge import Side
from probcl.kernels.base import Dim
from probcl.kernels.tiles import Arguments, Form, arrange
from probcl.model import BimodalModel
from probcl.retrieval.shards import Shard
from probcl.scores import Method, Scores


@dataclass(frozen=True)
class Queries:
    """Queries of one modality, embedded, for items of the other.

    Attributes
    ----------
    model
        Whose alignment and temperature make the scores.
    side
        The modality of the items.
    z
        Embeddings of the queries, shape (B, d).
    bias
        What the gauge adds to all scores of a query, shape (B,), or None for nothing.
    """

    model: BimodalModel
    side: Side
    z: Float[Tensor, "B d"]
    bias: Float[Tensor, " B"] | None

    def __len__(self) -> int:
        return len(self.z)

    @property
    def dim(self) -> Dim:
        """The axis of the scores along which the items run."""
        return 0 if self.side == "u" else 1

    def at(self, rows: slice | Int[Tensor, " k"]) -> "Queries":
        """Return some of the queries."""
        return Queries(self.model, self.side, self.z[rows], None if self.bias is None else self.bias[rows])

    def split(self, rows: int) -> list["Queries"]:
        """Return this many queries at a time."""
        return [self.at(slice(first, first + rows)) for first in range(0, len(self), rows)]

    @torch.no_grad()
    def scores(self, items: Shard, method: Method = "auto") -> Scores:
        """Return the scores of items, which run along `dim`, with the queries."""
        z, temperature = items.embeddings.to(self.z.device), self.model.temperature()
        bias = None if items.log_prior is None else items.log_prior.to(self.z.device)
        if self.side == "u":
            return Scores(z, self.z, self.model.alignment, temperature, method, bias_u=bias, bias_v=self.bias)
        return Scores(self.z, z, self.model.alignment, temperature, method, bias_u=self.bias, bias_v=bias)

    def arranged(self, items: Shard) -> tuple[Form, Arguments]:
        """Return the scores as `probcl.kernels.search` takes them, with a row for each query."""
        form, arguments = arrange(self.scores(items)._kernel.terms)
        return (form, arguments) if self.dim == 1 else (form.transposed(), arguments.transposed())

    def matrix(self, items: Shard) -> Float[Tensor, "B n"]:
        """Return the scores of each query with every item."""
        matrix = self.scores(items).matrix()
        return matrix if self.dim == 1 else matrix.mT

    def matched(self, items: Shard) -> Float[Tensor, " B"]:
        """Return the score of query i with item i."""
        return self.scores(items).diagonal()
