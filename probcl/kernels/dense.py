"""The reference kernel: the whole matrix, stored, and torch's own reductions of it."""

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.alignment import add_outer, at_most, products
from probcl.kernels.base import Dim, Elementwise, Kernel


class DenseKernel(Kernel):
    """Store the n × m scores, once, and reduce them: the fastest way while they fit in the cache.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> pcl.Scores(torch.eye(3), torch.eye(3), method="dense").logsumexp(dim=1)
    tensor([1.5514, 1.5514, 1.5514])
    """

    @cached_property
    def _matrix(self) -> Float[Tensor, "n m"]:
        terms = self.terms
        with torch.set_grad_enabled(self.differentiable):
            product = add_outer(products(terms.x, terms.y, terms.widths), terms.row, terms.column)
            product = at_most(product, terms.ceiling)
            linked = product if terms.link is None else terms.link(product)
            scores = add_outer(linked / terms.temperature, terms.bias_u, terms.bias_v)
            return self._without(scores, -torch.inf)

    def matrix(self) -> Float[Tensor, "n m"]:
        return self._matrix

    def logsumexp(self, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        scores = self._matrix if diagonal else self._others
        axes = (0, 1) if dim is None else (dim,)
        if self.terms.bias_u is None and self.terms.bias_v is None:
            return torch.logsumexp(scores, axes)
        # Of nothing but −∞ the gradient would be no number.
        impossible = scores.isneginf().all(axes[0], keepdim=True).all(axes[-1], keepdim=True)
        return torch.logsumexp(scores.masked_fill(impossible, 0.0), axes).masked_fill(
            impossible.squeeze(axes), -torch.inf
        )

    @cached_property
    def _others(self) -> Float[Tensor, "n m"]:
        """The scores with −∞ for matched pairs, which rows and columns share."""
        with torch.set_grad_enabled(self.differentiable):
            return self._without(self._matrix, -torch.inf, diagonal=False)

    def sum(self, fn: Elementwise, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        # Filled before fn as well: where fn overflows on the diagonal, its gradient would be 0 · ∞.
        values = self._without(fn(self._without(self._matrix, 0.0, diagonal)), 0.0, diagonal)
        return values.sum(dim=(0, 1) if dim is None else dim)

    def weighted_sum(self, weights: Float[Tensor, "length p"], fn: Elementwise, dim: Dim) -> Float[Tensor, "count p"]:
        values = self._without(fn(self._without(self._matrix, 0.0)), 0.0)
        return (values if dim == 1 else values.mT) @ weights

    def topk(self, k: int, dim: Dim) -> tuple[Float[Tensor, "count k"], Int[Tensor, "count k"]]:
        values, indices = self._rows(dim).topk(k, dim=1)
        return values, indices

    def sample(self, num_samples: int, dim: Dim, generator: torch.Generator | None) -> Int[Tensor, "num_samples count"]:
        scores = self._rows(dim).detach()
        draws = [_gumbel_argmax(scores, generator) for _ in range(num_samples)]
        return torch.stack(draws)

    def _without(self, matrix: Float[Tensor, "n m"], fill: float, diagonal: bool = True) -> Float[Tensor, "n m"]:
        """Return a matrix with this value in place of what is excluded and, without `diagonal`, of matched pairs."""
        if diagonal and self.terms.excluded is None:
            return matrix
        out = torch.zeros_like(matrix, dtype=torch.bool)
        if not diagonal:
            out.diagonal(self.terms.offset).fill_(True)
        if self.terms.excluded is not None:
            out[torch.arange(len(out), device=out.device), self.terms.excluded] = True
        return matrix.masked_fill(out, fill)

    def _rows(self, dim: Dim) -> Float[Tensor, "count length"]:
        return self._matrix if dim == 1 else self._matrix.mT


def _gumbel_argmax(scores: Float[Tensor, "n m"], generator: torch.Generator | None) -> Int[Tensor, " n"]:
    # −log of a standard exponential is a standard Gumbel, and the argmax of s + Gumbel is a draw from softmax(s).
    exponential = torch.empty_like(scores).exponential_(generator=generator)
    return (scores - exponential.log_()).argmax(dim=1)
