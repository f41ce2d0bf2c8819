"""The kernel that never stores the matrix."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.kernels import search
from probcl.kernels.base import Dim, Elementwise, Kernel, ScoreTerms
from probcl.kernels.dense import DenseKernel
from probcl.kernels.logsumexp import LogSumExp, TotalLogSumExp
from probcl.kernels.sums import TotalSum, WeightedSum
from probcl.kernels.tiles import Arguments, arrange, entries


class TiledKernel(Kernel):
    """Reduce the scores tile by tile, and compute them again for the gradient: O((n + m) · d) of memory.

    First derivatives only. A tile stays in a core's cache, so that what is done to it costs little beside the matrix
    product; rows are shared out among threads (`probcl.kernels.workers`).

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> pcl.Scores(torch.eye(3), torch.eye(3), method="tiled").logsumexp(dim=1)
    tensor([1.5514, 1.5514, 1.5514])
    """

    def __init__(self, terms: ScoreTerms) -> None:
        super().__init__(terms)
        self.form, self.arguments = arrange(terms)
        if not self.differentiable:
            self.form = replace(self.form, parameters=())
            self.arguments = Arguments(*(part if part is None else part.detach() for part in self.arguments))  # type: ignore[arg-type]
        self._logsumexp: dict[bool, tuple[Tensor, Tensor]] = {}

    def matrix(self) -> Float[Tensor, "n m"]:
        with torch.set_grad_enabled(self.differentiable):
            return DenseKernel(self.terms).matrix()

    def logsumexp(self, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        if dim is None:
            return self._total(diagonal)
        if diagonal not in self._logsumexp:
            # One pass gives both; whoever wants one often wants the other.
            with torch.set_grad_enabled(self.differentiable):
                self._logsumexp[diagonal] = self._margins(diagonal)
        rows, columns = self._logsumexp[diagonal]
        return rows if dim == 1 else columns

    def _margins(self, diagonal: bool) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
        """Log-sum-exp of every row and of every column."""
        margins: tuple[Tensor, Tensor] = LogSumExp.apply(self.form, diagonal, *self._inputs(1))
        return margins

    def _total(self, diagonal: bool) -> Float[Tensor, ""]:
        """Log-sum-exp of everything."""
        total: Tensor = TotalLogSumExp.apply(self.form, diagonal, *self._inputs(None))
        return total

    def sum(self, fn: Elementwise, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        _require_closed(fn)
        if dim is None:
            total: Tensor = TotalSum.apply(self.form, fn, diagonal, *self._inputs(None))
            return total
        ones = self.arguments.x.new_ones(len(self._oriented(dim).y), 1)
        form = self.form if dim == 1 else self.form.transposed()
        sums: Tensor = WeightedSum.apply(form, fn, diagonal, ones, *self._inputs(dim))[:, 0]
        return sums

    def weighted_sum(self, weights: Float[Tensor, "length p"], fn: Elementwise, dim: Dim) -> Float[Tensor, "count p"]:
        _require_closed(fn)
        sums: Tensor = WeightedSum.apply(self.form, fn, True, weights, *self._inputs(dim))
        return sums

    def topk(self, k: int, dim: Dim) -> tuple[Float[Tensor, "count k"], Int[Tensor, "count k"]]:
        with torch.no_grad():
            values, indices = search.topk(self.form, self._oriented(dim), k)
        if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in self._inputs(dim)):
            values = entries(self.form, self._oriented(dim), indices)
        return values, indices

    def sample(self, num_samples: int, dim: Dim, generator: torch.Generator | None) -> Int[Tensor, "num_samples count"]:
        with torch.no_grad():
            return search.sample(self.form, self._oriented(dim), num_samples, generator)

    def _oriented(self, dim: Dim | None) -> Arguments:
        """Return the arguments of the matrix whose rows are to be reduced."""
        return self.arguments.transposed() if dim == 0 else self.arguments

    def _inputs(self, dim: Dim | None) -> tuple[Tensor | None, ...]:
        return (*self._oriented(dim), *self.form.parameters)


def _require_closed(fn: Elementwise) -> None:
    """Raise if a function depends on tensors that require a gradient, which it would not get."""
    with torch.enable_grad():
        if fn(torch.zeros(1)).requires_grad:
            raise ValueError(
                "fn depends on a tensor that requires a gradient, which only Scores(..., method='dense') can give it"
            )
