"""The kernel of rows that are shared out among ranks."""

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.distributed import Rows, total, total_logsumexp
from probcl.kernels.base import Dim, Elementwise, Kernel


class ShardedKernel(Kernel):
    """Reduce scores of which every rank has some rows, with all columns: another kernel does that part.

    Every reduction is over all ranks, has the same value on each of them, and is to be called on each of them.

    Parameters
    ----------
    local
        The kernel of this rank's rows.
    rows
        How the rows are shared out.
    """

    def __init__(self, local: Kernel, rows: Rows) -> None:
        super().__init__(local.terms)
        assert rows.group is not None
        self.local, self.rows, self.group = local, rows, rows.group

    @cached_property
    def _diagonal(self) -> Float[Tensor, " n"] | None:
        if self.local.diagonal is None:
            return None
        with torch.set_grad_enabled(self.differentiable):
            return self.rows.gather(self.local.diagonal)

    @property
    def diagonal(self) -> Float[Tensor, " n"] | None:
        return self._diagonal

    def matrix(self) -> Float[Tensor, "n m"]:
        return self.rows.gather(self.local.matrix())

    def logsumexp(self, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        part = self.local.logsumexp(dim, diagonal)
        return self.rows.gather(part) if dim == 1 else total_logsumexp(part, self.group)

    def sum(self, fn: Elementwise, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        part = self.local.sum(fn, dim, diagonal)
        return self.rows.gather(part) if dim == 1 else total(part, self.group)

    def weighted_sum(self, weights: Float[Tensor, "length p"], fn: Elementwise, dim: Dim) -> Float[Tensor, "count p"]:
        if dim == 1:
            return self.rows.gather(self.local.weighted_sum(weights, fn, dim))
        return total(self.local.weighted_sum(self.rows.take(weights), fn, dim), self.group)

    def topk(self, k: int, dim: Dim) -> tuple[Float[Tensor, "count k"], Int[Tensor, "count k"]]:
        if dim == 1:
            values, indices = self.local.topk(k, dim)
            return self.rows.gather(values), self.rows.gather(indices)
        # Of each column every rank offers its k largest, or all that it has.
        offers = Rows(self.group, self.rows.rank, tuple(min(k, size) for size in self.rows.sizes))
        values, indices = self.local.topk(offers.sizes[offers.rank], dim)
        values, indices = offers.gather(values.mT).mT, offers.gather(indices.mT + self.rows.own.start).mT
        largest = values.topk(k, dim=1)
        return largest.values, indices.gather(1, largest.indices)

    def sample(self, num_samples: int, dim: Dim, generator: torch.Generator | None) -> Int[Tensor, "num_samples count"]:
        raise NotImplementedError(
            "scores of several ranks draw no samples: draw on each rank for its own rows, from Scores without group="
        )
