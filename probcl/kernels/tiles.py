"""One tile of the score matrix at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.alignment import at_most, sum_present, summed
from probcl.kernels.base import Elementwise, ScoreTerms, Slope

# Entries of a tile: two of them, and the factors' blocks, stay in a core's second cache. On a GPU a tile is to fill it.
_TILE_ON_CPU = (256, 512)
_TILE_ELSEWHERE = (4096, 8192)


class Arguments(NamedTuple):
    """The tensors that scores are a function of: link(min(⟨x_i, y_j⟩ + row_i + column_j, ceiling)) · scale + biases.

    `scale` is None if the temperature has been taken into the others. `excluded` is a column for each row whose entry
    does not count, −1 for none. A reduction over the other axis is the same reduction of the `transposed` arguments.
    """

    x: Float[Tensor, "n k"]
    y: Float[Tensor, "m k"]
    row: Float[Tensor, " n"] | None
    column: Float[Tensor, " m"] | None
    bias_u: Float[Tensor, " n"] | None
    bias_v: Float[Tensor, " m"] | None
    scale: Float[Tensor, ""] | None
    excluded: Int[Tensor, " n"] | None

    def transposed(self) -> "Arguments":
        """Return the arguments of the transposed matrix."""
        excluded = None if self.excluded is None else _inverted(self.excluded, len(self.y))
        return Arguments(self.y, self.x, self.column, self.row, self.bias_v, self.bias_u, self.scale, excluded)


@dataclass(frozen=True)
class Form:
    """What of the formula is no tensor, and the link's parameters. Row i is matched with column i + `offset`."""

    link: Elementwise | None
    slope: Slope | None
    parameters: tuple[Tensor, ...]
    ceiling: float | None
    widths: tuple[int, ...] = ()
    offset: int = 0

    def transposed(self) -> "Form":
        """Return the form of the transposed matrix."""
        return replace(self, offset=-self.offset)


def arrange(terms: ScoreTerms) -> tuple[Form, Arguments]:
    """Write the scores as few operations for each entry, differentiably: whatever can be is taken into the factors."""
    x, y, row, column, ceiling = terms.x.contiguous(), terms.y.contiguous(), terms.row, terms.column, terms.ceiling
    bias_u, bias_v = terms.bias_u, terms.bias_v
    tau = torch.as_tensor(terms.temperature, dtype=x.dtype, device=x.device)
    if terms.link is not None:
        form = Form(terms.link, terms.slope, terms.parameters, ceiling, terms.widths, terms.offset)
        return form, Arguments(x, y, row, column, bias_u, bias_v, 1 / tau, terms.excluded)
    x, row, column = x / tau, None if row is None else row / tau, None if column is None else column / tau
    if ceiling is None:
        row, column, bias_u, bias_v = sum_present(row, bias_u), sum_present(column, bias_v), None, None
    elif ceiling:
        ceiling = ceiling / float(tau)
    form = Form(None, None, (), ceiling, offset=terms.offset)
    return form, Arguments(x, y, row, column, bias_u, bias_v, None, terms.excluded)


def rows_at(arguments: Arguments, rows: slice | Int[Tensor, " k"]) -> Arguments:
    """Return the arguments of some rows of the matrix."""
    row, bias_u, excluded = (
        part if part is None else part[rows] for part in (arguments.row, arguments.bias_u, arguments.excluded)
    )
    return arguments._replace(x=arguments.x[rows], row=row, bias_u=bias_u, excluded=excluded)


class Grid:
    """The tiles of an n × m matrix: strips of rows, and tiles along a strip."""

    def __init__(self, n: int, m: int, height: int, width: int) -> None:
        self.n, self.m, self.height, self.width = n, m, height, width

    @classmethod
    def of(cls, arguments: Arguments, width: int | None = None) -> "Grid":
        device = arguments.x.device
        height, usual = _TILE_ON_CPU if device.type == "cpu" else _TILE_ELSEWHERE
        return cls(len(arguments.x), len(arguments.y), height, usual if width is None else width)

    @property
    def strips(self) -> int:
        """How many strips there are."""
        return -(-self.n // self.height)

    def rows_of(self, block: range) -> slice:
        """Rows of a range of strips."""
        return slice(block.start * self.height, block.stop * self.height)

    def tiles(self, block: range) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the tiles of a range of strips, strip by strip."""
        for top in range(block.start * self.height, min(block.stop * self.height, self.n), self.height):
            for left in range(0, self.m, self.width):
                yield slice(top, min(top + self.height, self.n)), slice(left, min(left + self.width, self.m))


def read(tensors: Sequence[Any]) -> tuple[Arguments, Grid]:
    """Return the arguments, without the link's parameters that follow them, and their tiles."""
    arguments = Arguments(*tensors[: len(Arguments._fields)])
    return arguments, Grid.of(arguments)


def entries(form: Form, arguments: Arguments, columns: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Return the scores in some columns of each row, differentiably."""
    x, y, row, column, bias_u, bias_v, scale, excluded = arguments
    out = summed(x[:, None, :] * y[columns], form.widths)
    out = at_most(_add_entries(out, row, column, columns), form.ceiling)
    if form.link is not None and scale is not None:
        out = form.link(out) * scale
    out = _add_entries(out, bias_u, bias_v, columns)
    return out if excluded is None else out.masked_fill(columns == excluded[:, None], -torch.inf)


class Tiles:
    """The tiles of a formula, written into one buffer, and a second one for whoever needs it. One for each thread."""

    def __init__(self, form: Form, arguments: Arguments, grid: Grid) -> None:
        self.form, self.arguments, self.grid = form, arguments, grid
        size = min(grid.height, grid.n) * min(grid.width, grid.m)
        self._buffers = [arguments.x.new_empty(count * size) for count in (max(1, len(form.widths)), 1)]

    def spare(self, like: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        """Return the second buffer in the shape of a tile."""
        return self._buffers[1][: like.numel()].view(like.shape)

    def product(self, rows: slice, columns: slice) -> Float[Tensor, "..."]:
        """Write what the link is applied to into the first buffer: one matrix, or a stack of them."""
        x, y = self.arguments.x[rows], self.arguments.y[columns]
        widths = self.form.widths or (x.shape[1],)
        stack = self._buffers[0][: len(widths) * len(x) * len(y)].view(len(widths), len(x), len(y))
        with torch.autocast(x.device.type, enabled=False):
            for a, b, out in zip(x.split(widths, 1), y.split(widths, 1), stack, strict=True):
                torch.mm(a, b.mT, out=out)
        _add_outer(stack[0], self.arguments.row, self.arguments.column, rows, columns)
        product = stack if self.form.widths else stack[0]
        return product if self.form.ceiling is None else product.clamp_(max=self.form.ceiling)

    def scores(
        self, rows: slice, columns: slice, diagonal: bool = True, fill: float = -torch.inf
    ) -> Float[Tensor, "r c"]:
        """Write a tile into the first buffer; what is left out of it is filled with a value."""
        out = self.product(rows, columns)
        if self.form.link is not None and self.arguments.scale is not None:
            linked = self.form.link(out)
            out = out[0] if self.form.widths else out
            torch.mul(linked, self.arguments.scale, out=out)
        _add_outer(out, self.arguments.bias_u, self.arguments.bias_v, rows, columns)
        self.leave_out(out, rows, columns, diagonal, fill)
        return out

    def leave_out(
        self, tile: Float[Tensor, "r c"], rows: slice, columns: slice, diagonal: bool, fill: float = 0.0
    ) -> None:
        """Fill what is excluded from a tile and, without `diagonal`, the matched pairs."""
        first = rows.start + self.form.offset - columns.start
        if not diagonal and -len(tile) < first < tile.shape[1]:
            tile.diagonal(first).fill_(fill)
        if self.arguments.excluded is not None:
            place = self.arguments.excluded[rows] - columns.start
            (here,) = ((place >= 0) & (place < tile.shape[1])).nonzero(as_tuple=True)
            tile[here, place[here]] = fill


def _add_outer(out: Tensor, row: Tensor | None, column: Tensor | None, rows: slice, columns: slice) -> None:
    if row is not None:
        out += row[rows, None]
    if column is not None:
        out += column[None, columns]


def _inverted(columns: Int[Tensor, " n"], count: int) -> Int[Tensor, " m"]:
    """Return the row that each column stands at, −1 for those that stand at none."""
    rows = torch.full((count,), -1, device=columns.device)
    (some,) = (columns >= 0).nonzero(as_tuple=True)
    return rows.index_put((columns[some],), some)


def _add_entries(out: Tensor, row: Tensor | None, column: Tensor | None, columns: Tensor) -> Tensor:
    out = out if row is None else out + row[:, None]
    return out if column is None else out + column[columns]
