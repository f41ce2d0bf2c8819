"""What a kernel is given, and what it must compute."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor], Tensor | None]
Dim = Literal[0, 1]

# What a maximum is taken for where there is nothing but −∞, whose difference to itself is no number.
FLOOR = -1e30


@dataclass(frozen=True)
class ScoreTerms:
    """The score matrix as a formula, s_ij = link(min(⟨x_i, y_j⟩ + row_i + column_j, ceiling)) / τ + bias_ui + bias_vj.

    Absent terms are None, and so is a link that is the identity. `slope` is the link's derivative, or returns None if
    it is to be found by autograd. `widths` are those of several products, as in `probcl.alignment.Factors`, and
    `parameters` what the link depends on and is to be differentiated in. `diagonal` is s_ii, computed from the matched
    rows themselves, or None if there are none.

    `precision` is the embeddings' type, from which half precision has been widened.

    The rows may be a part of a larger matrix: row i is then matched with column i + `offset`.

    `excluded` is a column for each row, no two the same, whose entry no reduction sees; its score is −∞.

    Examples
    --------
    >>> import torch
    >>> from probcl.kernels import DenseKernel, ScoreTerms
    >>> nothing = dict.fromkeys(["row", "column", "ceiling", "link", "slope", "bias_u", "bias_v"])
    >>> x, single = torch.eye(2), torch.float32
    >>> terms = ScoreTerms(x, x, widths=(), parameters=(), temperature=0.5, diagonal=None, precision=single, **nothing)
    >>> DenseKernel(terms).matrix()
    tensor([[2., 0.],
            [0., 2.]])
    """

    x: Float[Tensor, "n k"]
    y: Float[Tensor, "m k"]
    row: Float[Tensor, " n"] | None
    column: Float[Tensor, " m"] | None
    ceiling: float | None
    widths: tuple[int, ...]
    link: Elementwise | None
    slope: Slope | None
    parameters: tuple[Tensor, ...]
    temperature: float | Tensor
    bias_u: Float[Tensor, " n"] | None
    bias_v: Float[Tensor, " m"] | None
    diagonal: Float[Tensor, " n"] | None
    precision: torch.dtype
    offset: int = 0
    excluded: Int[Tensor, " n"] | None = None


class Kernel(ABC):
    """One way to reduce the score matrix; every method agrees with the dense one to rounding.

    Along ``dim=1`` a reduction runs over the columns and returns one value for each row; along ``dim=0`` the other way
    round; ``dim=None`` reduces everything. With ``diagonal=False`` the entries of matched pairs are left out.

    Examples
    --------
    >>> from probcl.kernels import KERNELS, Kernel
    >>> all(issubclass(kernel, Kernel) for kernel in KERNELS.values())
    True
    >>> sorted(KERNELS)
    ['dense', 'tiled', 'triton']
    """

    def __init__(self, terms: ScoreTerms) -> None:
        self.terms = terms
        # Later reductions follow the mode the terms were made in: half of a graph would be a wrong gradient.
        self.differentiable = torch.is_grad_enabled()

    @property
    def diagonal(self) -> Float[Tensor, " n"] | None:
        """Scores of the matched pairs, None if there are none."""
        return self.terms.diagonal

    @abstractmethod
    def matrix(self) -> Float[Tensor, "n m"]:
        """Return all scores at once."""

    @abstractmethod
    def logsumexp(self, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        """Return log Σ e^s."""

    @abstractmethod
    def sum(self, fn: Elementwise, dim: Dim | None, diagonal: bool) -> Float[Tensor, "*shape"]:
        """Return Σ fn(s)."""

    @abstractmethod
    def weighted_sum(self, weights: Float[Tensor, "length p"], fn: Elementwise, dim: Dim) -> Float[Tensor, "count p"]:
        """Return Σ_j fn(s_ij) weights_jp (``dim=1``) or Σ_i fn(s_ij) weights_ip (``dim=0``)."""

    @abstractmethod
    def topk(self, k: int, dim: Dim) -> tuple[Float[Tensor, "count k"], Int[Tensor, "count k"]]:
        """Return the k largest scores in descending order and where they are."""

    @abstractmethod
    def sample(self, num_samples: int, dim: Dim, generator: torch.Generator | None) -> Int[Tensor, "num_samples count"]:
        """Draw indices with probabilities softmax(s) along `dim`."""
