"""How the programs of `probcl.kernels.triton_programs` are laid over the matrix, and their parts put together."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.kernels.triton_tiles import Tile, backward_tile, forward_tile, interpreted_tile

# Numbers of scratch that the parts of a result may take: 256 MB.
_SCRATCH = 1 << 26
# Programs that keep a large GPU busy to the end. Where blocks of rows are fewer, their columns are shared out.
_BUSY = 512
# Columns that are summed in one go in single precision; tensor cores round towards zero at every step of it.
_SPAN = 1 << 14


@cache
def programs() -> ModuleType:
    """Import the programs, and Triton with them."""
    try:
        return import_module("probcl.kernels.triton_programs")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        raise ImportError('method="triton" needs Triton, an extra: pip install "probcl[triton]"') from error


@dataclass(frozen=True)
class Matrix:
    """Scores as the programs read them: min(scale · ⟨x_i, y_j⟩ + row_i + column_j, ceiling) + biases.

    `x` and `y` may be of half precision, everything else is of single. `precision` is how single precision factors are
    multiplied: ``"ieee"``, or ``"tf32x3"`` on tensor cores. Without `diagonal` the scores of matched pairs, row i with
    column i + `offset`, are −∞.
    """

    x: Float[Tensor, "n k"]
    y: Float[Tensor, "m k"]
    row: Float[Tensor, " n"] | None
    column: Float[Tensor, " m"] | None
    bias_u: Float[Tensor, " n"] | None
    bias_v: Float[Tensor, " m"] | None
    scale: Float[Tensor, ""]
    ceiling: float | None
    offset: int
    diagonal: bool
    precision: str

    def transposed(self) -> "Matrix":
        """Return the transposed matrix."""
        return replace(
            self,
            x=self.y,
            y=self.x,
            row=self.column,
            column=self.row,
            bias_u=self.bias_v,
            bias_v=self.bias_u,
            offset=-self.offset,
        )

    def terms(self) -> dict[str, Any]:
        """Return the terms by the names that the programs have for them."""
        names = ("x", "y", "row", "column", "bias_u", "bias_v", "scale", "ceiling", "offset")
        return {name: getattr(self, name) for name in names}


class Side(NamedTuple):
    """Log-sum-exp of rows or columns, and the gradient in it."""

    value: Float[Tensor, " k"]
    gradient: Float[Tensor, " k"]

    def possible(self) -> "Side":
        """Where nothing is possible there is no gradient, and e^{−∞ − ∞} is zero where e^{−∞ + ∞} is no number."""
        nothing = self.value.isneginf()
        return Side(self.value.masked_fill(nothing, torch.inf), self.gradient.float().masked_fill(nothing, 0.0))


class Layout:
    """Blocks of rows, each in spans of columns: one program for each of both."""

    def __init__(self, matrix: Matrix, tile: Tile, slices: int = 1) -> None:
        self.n, m = len(matrix.x), len(matrix.y)
        self.tile = tile
        self.blocks, tiles = -(-self.n // tile.height), -(-m // tile.width)
        wanted = max(-(-m // _SPAN), min(_BUSY // (self.blocks * slices), tiles), 1)
        self.span = -(-tiles // wanted) * tile.width
        self.spans = -(-m // self.span)

    def launches(self, scratch: int) -> Iterator[tuple[range, slice]]:
        """Rows that programs are launched for at a time, whole blocks of them, and those of them that exist.

        `scratch` is how many numbers the programs of one block write.
        """
        height = self.tile.height
        step = height * min(self.blocks, max(1, _SCRATCH // scratch))
        for first in range(0, self.blocks * height, step):
            last = min(first + step, self.blocks * height)
            yield range(first, last), slice(first, min(last, self.n))


def log_sum_exps(matrix: Matrix, both: bool) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"] | None]:
    """Log-sum-exp of the rows, and if asked for of the columns, in one pass."""
    n, m = len(matrix.x), len(matrix.y)
    tile = _forward_tile(matrix)
    layout = Layout(matrix, tile)
    rows = matrix.scale.new_empty(n)
    columns = matrix.scale.new_full((m,), -torch.inf, dtype=torch.float64) if both else None
    for covered, existing in layout.launches(m + layout.spans * tile.height):
        blocks = len(covered) // tile.height
        of_rows = rows.new_empty(layout.spans, len(covered))
        of_columns = rows.new_empty(blocks, m) if both else None
        _launch(
            programs().log_sum_exps[blocks, layout.spans],
            matrix,
            tile,
            of_rows=of_rows,
            of_columns=of_columns,
            first=covered.start,
            span=layout.span,
        )
        rows[existing] = _logsumexp(of_rows)[: existing.stop - existing.start]
        if columns is not None and of_columns is not None:
            torch.logaddexp(columns, _logsumexp(of_columns), out=columns)
    return rows, None if columns is None else columns.to(rows.dtype)


def gradients(
    matrix: Matrix, row: Side | None, column: Side | None, product: bool, margin: bool
) -> tuple[Float[Tensor, "n k"] | None, Float[Tensor, " n"] | None]:
    """Σ_j w_ij y_j if `product`, and Σ_j w_ij if `margin`; w_ij is the gradient in s_ij that rows and columns give."""
    n, k = matrix.x.shape
    tile = _backward_tile(matrix)
    slices = -(-k // tile.slice) if product else 1
    layout = Layout(matrix, tile, slices)
    in_x = matrix.scale.new_empty(n, k) if product else None
    in_row = matrix.scale.new_empty(n) if margin else None
    for covered, existing in layout.launches(layout.spans * tile.height * (k + 1)):
        parts = {
            "in_x": None if in_x is None else in_x.new_empty(layout.spans, len(covered), k),
            "in_row": None if in_row is None else in_row.new_empty(layout.spans, len(covered)),
        }
        _launch(
            programs().gradients[len(covered) // tile.height, slices, layout.spans],
            matrix,
            tile,
            **parts,
            of_rows=row and row.value,
            in_rows=row and row.gradient,
            of_columns=column and column.value,
            in_columns=column and column.gradient,
            first=covered.start,
            span=layout.span,
            BY_ROW=row is not None,
            BY_COLUMN=column is not None,
            SLICE=tile.slice,
            **weights(matrix.x.dtype, matrix.precision),
        )
        for total, part in ((in_x, parts["in_x"]), (in_row, parts["in_row"])):
            if total is not None and part is not None:
                total[existing] = part.sum(0)[: existing.stop - existing.start]
    return in_x, in_row


def _launch(program: Any, matrix: Matrix, tile: Tile, **rest: Any) -> None:
    (n, k), m = matrix.x.shape, len(matrix.y)
    with torch.cuda.device_of(matrix.x):
        program(
            **matrix.terms(),
            **tile.options(k),
            n=n,
            m=m,
            d=k,
            DIAGONAL=matrix.diagonal,
            PRECISION=matrix.precision,
            WIDEN=programs().INTERPRETED,
            **rest,
        )


def _logsumexp(parts: Float[Tensor, "p k"]) -> Float[Tensor, " k"]:
    return parts[0] if len(parts) == 1 else parts.logsumexp(0)


def weights(dtype: torch.dtype, precision: str) -> dict[str, Any]:
    """In which type, and how, weights are multiplied: they may be smaller than what a float16 can hold."""
    language = programs().tl
    if dtype == torch.bfloat16:
        return {"WEIGHTS": language.bfloat16, "PULL": "ieee"}
    return {"WEIGHTS": language.float32, "PULL": "tf32" if dtype == torch.float16 else precision}


def _forward_tile(matrix: Matrix) -> Tile:
    d = matrix.x.shape[1]
    return interpreted_tile(d) if programs().INTERPRETED else forward_tile(matrix.x.dtype, d)


def _backward_tile(matrix: Matrix) -> Tile:
    d = matrix.x.shape[1]
    if programs().INTERPRETED:
        return interpreted_tile(d)
    properties = torch.cuda.get_device_properties(matrix.x.device)
    shared_memory = getattr(properties, "shared_memory_per_block_optin", 0)
    return backward_tile(matrix.x.dtype, d, matrix.precision, shared_memory)
