"""Alignments: how alike two embeddings are, a(x, y), larger for closer.

An alignment and a temperature turn a pair of encoders into the score s(u, v) = a(g_u(u), g_v(v)) / τ, the
learned logarithm of the density ratio between the joint law and the product of its marginals.

Every alignment here is a matrix product with something done to its entries::

    a(x_i, y_j) = link(min(⟨x'_i, y'_j⟩ + row_i + column_j, ceiling)) + potential_i + potential_j

or something done to the entries of several products at once, and a subclass says what those parts are
(`Alignment.factorize`, `Alignment.link`, `Alignment.potentials`). This one description is what lets the reductions of
`probcl.Scores` be carried out densely, in tiles, or in a fused kernel.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probcl.checks import describe, require_count
from probcl.serialization import register


class Factors(NamedTuple):
    """The matrix product inside an alignment: min(⟨x_i, y_j⟩ + row_i + column_j, ceiling).

    The ceiling is a bound that holds but for rounding, such as 0 for a squared distance, negated.

    With `widths` there are as many products, each of that many columns of x and y, one after another; `row` and
    `column` are then None, and the link takes all products, stacked along a first axis, to one value for each pair.
    """

    x: Float[Tensor, "n k"]
    y: Float[Tensor, "m k"]
    row: Float[Tensor, " n"] | None = None
    column: Float[Tensor, " m"] | None = None
    ceiling: float | None = None
    widths: tuple[int, ...] = ()


class Potentials(NamedTuple):
    """What is added to row i and to column j of an alignment, outside its link."""

    row: Float[Tensor, " n"] | None = None
    column: Float[Tensor, " m"] | None = None


class Alignment(nn.Module):
    """Base class: subclasses define `factorize`, and where needed `link` and `potentials`.

    Calling an alignment gives a for all pairs, ``(n, d), (m, d) -> (n, m)``; `matched` gives it for row i with
    row i, ``(n, d), (n, d) -> (n,)``.

    Examples
    --------
    >>> import torch
    >>> from probcl.alignment import Alignment, Factors
    >>> class Bilinear(Alignment):
    ...     def __init__(self, weights):
    ...         super().__init__()
    ...         self.weights = torch.nn.Parameter(weights)
    ...
    ...     def factorize(self, x, y):
    ...         return Factors(x @ self.weights, y)
    >>> alignment = Bilinear(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> alignment.matched(torch.eye(2), torch.eye(2)).tolist()
    [1.0, 2.0]
    """

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        """Prepare the embeddings, once for the whole matrix."""
        raise NotImplementedError

    def link(self, product: Float[Tensor, "*products"]) -> Float[Tensor, "*shape"]:
        """Elementwise function of the product, or of the stacked products; the identity unless overridden."""
        return product

    def slope(self, product: Float[Tensor, "*products"]) -> Float[Tensor, "*products"] | None:
        """Return the derivative of `link` at the product, if there is a formula for it: tiles are then faster.

        None leaves it to autograd, as parameters of the link need it.
        """
        return None

    @property
    def is_linear(self) -> bool:
        """Whether `link` is the identity, which spares the tiles a detour."""
        return type(self).link is Alignment.link

    def potentials(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Potentials:
        """Functions of one embedding alone; none unless overridden."""
        return Potentials()

    def forward(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Alignment of every row of `x` with every row of `y`."""
        factors = self.factorize(x, y)
        product = add_outer(products(factors.x, factors.y, factors.widths), factors.row, factors.column)
        aligned = self.link(at_most(product, factors.ceiling))
        return add_outer(aligned, *self.potentials(x, y))

    def matched(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Alignment of row i of `x` with row i of `y`."""
        return add_matched(self.paired(self.factorize(x, y)), *self.potentials(x, y))

    def paired(self, factors: Factors) -> Float[Tensor, " n"]:
        """Alignment of row i with row i, without the potentials, of embeddings that have been factorized."""
        product = add_matched(summed(factors.x * factors.y, factors.widths), factors.row, factors.column)
        return self.link(at_most(product, factors.ceiling))


@register
class InnerProduct(Alignment):
    """⟨x, y⟩, on encoders that are not normalised (Baptista, Stuart & Tran 2025, eq. 25).

    Examples
    --------
    >>> import torch
    >>> from probcl import InnerProduct
    >>> InnerProduct()(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[11.,  2.]])
    """

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        return Factors(x, y)


@register
class Cosine(Alignment):
    """⟨x, y⟩ / (|x| |y|), in [−1, 1]: the alignment of CLIP (Baptista, Stuart & Tran 2025, eq. 14).

    Raises
    ------
    ValueError
        If an embedding is the zero vector, which has no direction.

    Examples
    --------
    >>> import torch
    >>> from probcl import Cosine
    >>> Cosine()(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [-6.0, -8.0]]))
    tensor([[ 0.6000, -1.0000]])
    >>> Cosine()(torch.zeros(1, 2), torch.eye(2))
    Traceback (most recent call last):
        ...
    ValueError: Cosine has no value for a zero vector, got one in row 0 of the first embeddings
    """

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        return Factors(unit(x, "first", "Cosine"), unit(y, "second", "Cosine"))


@register
class L2(Alignment):
    """−½ |x − y|²: half the squared Euclidean distance, negated (Baptista, Stuart & Tran 2025, eq. 26).

    The square is expanded around the mean of the second embeddings, so that a common offset costs no digits.

    Examples
    --------
    >>> import torch
    >>> from probcl import L2
    >>> L2()(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[-12.5000,  -0.5000]])
    """

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        centre = y.detach().mean(0)
        x, y = x - centre, y - centre
        return Factors(x, y, -0.5 * x.square().sum(-1), -0.5 * y.square().sum(-1), ceiling=0.0)

    def matched(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return -0.5 * (x - y).square().sum(-1)


class OnBase(Alignment):
    """A base alignment with something added outside of its link."""

    base: Alignment

    def link(self, product: Float[Tensor, "*products"]) -> Float[Tensor, "*shape"]:
        return self.base.link(product)

    def slope(self, product: Float[Tensor, "*products"]) -> Float[Tensor, "*products"] | None:
        return self.base.slope(product)

    @property
    def is_linear(self) -> bool:
        return self.base.is_linear


@register
class WithPotentials(OnBase):
    """A base alignment plus a potential for each modality: base(g, h) − ½|k_x|² − ½|k_y|².

    The encoders return the alignment's features and the potential's features side by side, x = (g, k_x) and
    y = (h, k_y). With an inner product as its base this is the indefinite quadratic form that represents a jointly
    Gaussian law exactly, which neither `InnerProduct` nor `L2` can (`probcl.gaussian`, ``alignment="potentials"``).

    Start with small potentials (scale their initial weights down): large ones in wrong directions are a saddle.

    Parameters
    ----------
    base
        The alignment of g with h; `InnerProduct` by default.
    potential_dim
        How many trailing columns are k. By default half of the columns.

    Raises
    ------
    ValueError
        On use, if the embeddings are too narrow, or have an odd width and no `potential_dim` was given.

    Examples
    --------
    >>> import torch
    >>> from probcl import WithPotentials
    >>> x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    >>> WithPotentials()(x, y)  # 1 · 3 − ½ 2² − ½ 4²
    tensor([[-7.]])
    """

    def __init__(self, base: Alignment | None = None, potential_dim: int | None = None) -> None:
        super().__init__()
        self.base = InnerProduct() if base is None else require_alignment("base", base)
        self.potential_dim = None if potential_dim is None else require_count("potential_dim", potential_dim)

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        (g, _), (h, _) = self.split(x), self.split(y)
        return self.base.factorize(g, h)

    def potentials(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Potentials:
        (g, k_x), (h, k_y) = self.split(x), self.split(y)
        inner = self.base.potentials(g, h)
        row, column = _potential(k_x), _potential(k_y)
        return Potentials(sum_present(row, inner.row), sum_present(column, inner.column))

    def matched(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        (g, k_x), (h, k_y) = self.split(x), self.split(y)
        return self.base.matched(g, h) + _potential(k_x) + _potential(k_y)

    def split(self, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """Return the features of the base alignment and those of the potential."""
        return split_columns(x, self.potential_dim, "WithPotentials", "potential_dim")


def split_columns(x: Float[Tensor, "n d"], last: int | None, user: str, argument: str) -> tuple[Tensor, Tensor]:
    """Return the leading columns and the `last` ones, halves if that is None; raise `ValueError` if one is empty."""
    width = x.shape[-1]
    if last is None and width % 2:
        raise ValueError(
            f"{user}() splits an embedding into halves, got {width} columns; "
            f"give {argument} or an encoder of even width"
        )
    last = width // 2 if last is None else last
    if last >= width:
        raise ValueError(f"{argument} must be below the embedding's width {width}, got {last}")
    return x[:, : width - last], x[:, width - last :]


def require_alignment(name: str, value: object) -> Alignment:
    """Return `value` if it is an alignment; raise `TypeError` otherwise, as for a class that was not called."""
    if not isinstance(value, Alignment):
        raise TypeError(f"{name} must be an Alignment such as Cosine(), got {describe(value)}")
    return value


def products(x: Float[Tensor, "n k"], y: Float[Tensor, "m k"], widths: tuple[int, ...] = ()) -> Float[Tensor, "..."]:
    """Return all inner products, in the embeddings' own precision also under a caller's autocast.

    Shape (n, m), or (p, n, m) for p widths.
    """
    with torch.autocast(x.device.type, enabled=False):
        if not widths:
            return x @ y.mT
        return torch.stack([a @ b.mT for a, b in zip(x.split(widths, 1), y.split(widths, 1), strict=True)])


def summed(terms: Float[Tensor, "*shape k"], widths: tuple[int, ...] = ()) -> Float[Tensor, "..."]:
    """Add up the terms of inner products, shape (*shape,), or (p, *shape) for p widths."""
    return torch.stack([part.sum(-1) for part in terms.split(widths, -1)]) if widths else terms.sum(-1)


def add_outer(
    product: Float[Tensor, "*p n m"], row: Float[Tensor, " n"] | None, column: Float[Tensor, " m"] | None
) -> Float[Tensor, "*p n m"]:
    """Add row_i + column_j, skipping what is None."""
    product = product if row is None else product + row[:, None]
    return product if column is None else product + column[None, :]


def add_matched(
    product: Float[Tensor, "*p n"], row: Float[Tensor, " n"] | None, column: Float[Tensor, " n"] | None
) -> Float[Tensor, "*p n"]:
    """Add row_i + column_i, skipping what is None."""
    product = product if row is None else product + row
    return product if column is None else product + column


def sum_present(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return a + b, taking what is absent as zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def at_most(product: Float[Tensor, "*shape"], ceiling: float | None) -> Float[Tensor, "*shape"]:
    """Cut off what rounding has put above the ceiling."""
    return product if ceiling is None else product.clamp(max=ceiling)


def _potential(k: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return -0.5 * k.square().sum(-1)


def unit(x: Float[Tensor, "n d"], which: str, user: str) -> Float[Tensor, "n d"]:
    """Return the embeddings at unit length; raise `ValueError` for a zero vector, which has no direction."""
    largest = x.detach().abs().amax(-1, keepdim=True)
    if (largest == 0).any():
        row = int((largest[:, 0] == 0).nonzero()[0, 0])
        raise ValueError(f"{user} has no value for a zero vector, got one in row {row} of the {which} embeddings")
    smallest_square, largest_square = torch.finfo(x.dtype).tiny / torch.finfo(x.dtype).eps, torch.finfo(x.dtype).max
    if largest.amin() ** 2 < smallest_square or largest.amax() ** 2 > largest_square / x.shape[1]:
        # Dividing by the largest entry first keeps the norm of tiny and huge vectors from under- and overflowing.
        x = x / largest
    units: Tensor = x / x.norm(dim=-1, keepdim=True)
    return units
