"""The programs that a GPU runs: log-sum-exp of rows and columns, and its gradient, without storing a score.

Both go along blocks of rows, one program each, and tile by tile over a span of columns. Scores are

    s_ij = min(scale · ⟨x_i, y_j⟩ + row_i + column_j, ceiling) + bias_u_i + bias_v_j,

and an absent term is None. They are −∞ outside the matrix, which spares every later step a mask. Nothing is added
atomically: results are the same, to the last bit, in every run.

Triton is imported here and nowhere else, so that the package works without it.
"""

from typing import no_type_check

import triton
import triton.language as tl

# What a maximum is taken for where there is nothing but −∞, whose difference to itself is no number.
FLOOR = tl.constexpr(-1e30)
# How far apart, in nats, the maxima of a tile's rows and columns may lie for one exponential to serve them all: what
# single precision can hold (87 nats), less what a sum's smallest terms that count may lie below its largest.
SPREAD = tl.constexpr(60.0)
INFINITY = tl.constexpr(float("inf"))


@triton.jit
@no_type_check
def _vector(source, where, length, other):
    """Entries of a vector that may be absent (0), and what stands outside of it."""
    if source is None:
        values = tl.where(where < length, 0.0, other)
    else:
        values = tl.load(source + where, mask=where < length, other=other)
    return values


@triton.jit
@no_type_check
def _matrix(source, rows, columns, height, width):
    offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
    return tl.load(source + offsets, mask=(rows < height)[:, None] & (columns < width)[None, :], other=0.0)


@triton.jit
@no_type_check
def _dot(a, b, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    if WIDEN:  # the interpreter takes bfloat16 for integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
@no_type_check
def _scores(
    x, y, x_block, y_block, scale, row, bias_u, column, bias_v, rows, columns, n, m, d, ceiling, offset,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, SHALLOW: tl.constexpr,
    DIAGONAL: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """One tile. `row` and `bias_u` are of the tile already, `column` and `bias_v` are pointers."""
    s = tl.zeros((HEIGHT, WIDTH), tl.float32)
    if SHALLOW:  # the embeddings' whole width at once: no loop within the loop over tiles, which can be pipelined then
        s = _dot(x_block, tl.trans(y_block), s, PRECISION, WIDEN)
    else:
        for start in range(0, d, DEPTH):
            inner = start + tl.arange(0, DEPTH)
            x_part = _matrix(x, rows, inner, n, d)
            y_part = _matrix(y, columns, inner, m, d)
            s = _dot(x_part, tl.trans(y_part), s, PRECISION, WIDEN)
    # The terms are added to each other first: they may be large and cancel the product.
    s = s * scale + (row[:, None] + _vector(column, columns, m, -INFINITY)[None, :])
    if ceiling is not None:
        s = tl.minimum(s, ceiling)
        s += bias_u[:, None] + _vector(bias_v, columns, m, 0.0)[None, :]
    if not DIAGONAL:
        s = tl.where((rows + offset)[:, None] == columns[None, :], -INFINITY, s)
    return s


@triton.jit
@no_type_check
def log_sum_exps(
    x, y, row, column, bias_u, bias_v, scale, of_rows, of_columns, first, n, m, d, span, ceiling, offset,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, SHALLOW: tl.constexpr,
    DIAGONAL: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Write the log-sum-exp of rows over a span of columns, and of columns over a block of rows.

    `first` is the row that the first block starts with, `offset` the column that row 0 is matched with. `of_rows` is
    (spans, rows of all blocks), `of_columns` is (blocks, m) or None.
    """
    block, across = tl.program_id(0), tl.program_id(1)
    local = block * HEIGHT + tl.arange(0, HEIGHT)
    rows = first + local
    factor = tl.load(scale)
    of_row = _vector(row, rows, n, -INFINITY)
    of_bias = _vector(bias_u, rows, n, 0.0)
    x_block = _matrix(x, rows, tl.arange(0, DEPTH), n, d)  # is not loaded unless it is used
    shift = tl.full((HEIGHT,), FLOOR, tl.float32)
    total = tl.zeros((HEIGHT,), tl.float32)
    for start in range(across * span, tl.minimum((across + 1) * span, m), WIDTH):
        columns = start + tl.arange(0, WIDTH)
        y_block = _matrix(y, columns, tl.arange(0, DEPTH), m, d)
        s = _scores(
            x, y, x_block, y_block, factor, of_row, of_bias, column, bias_v, rows, columns, n, m, d, ceiling, offset,
            HEIGHT, WIDTH, DEPTH, SHALLOW, DIAGONAL, PRECISION, WIDEN,
        )  # fmt: skip
        row_top = tl.maximum(tl.max(s, 1), FLOOR)
        if of_columns is None:
            raised = tl.maximum(shift, row_top)
            total = total * tl.exp(shift - raised) + tl.sum(tl.exp(s - raised[:, None]), 1)
        else:
            column_top = tl.maximum(tl.max(s, 0), FLOOR)
            top = tl.max(row_top)
            # Rows and columns without anything possible sum to nothing under any shift.
            lowest = tl.minimum(
                tl.min(tl.where(row_top > FLOOR, row_top, top)), tl.min(tl.where(column_top > FLOOR, column_top, top))
            )
            raised = tl.maximum(shift, row_top)
            if top - lowest < SPREAD:
                shared = tl.exp(s - top)
                # No more than SPREAD, except where the row has nothing to sum.
                in_row = tl.sum(shared, 1) * tl.exp(tl.minimum(top - raised, SPREAD))
                column_top = tl.full((WIDTH,), 0.0, tl.float32) + top
                in_column = tl.sum(shared, 0)
            else:
                in_row = tl.sum(tl.exp(s - raised[:, None]), 1)
                in_column = tl.sum(tl.exp(s - column_top[None, :]), 0)
            total = total * tl.exp(shift - raised) + in_row
            place = of_columns + block.to(tl.int64) * m + columns
            tl.store(place, column_top + tl.log(in_column), mask=columns < m)
        shift = raised
    length = tl.num_programs(0).to(tl.int64) * HEIGHT
    tl.store(of_rows + across * length + local, shift + tl.log(total))


@triton.jit
@no_type_check
def _weights(s, row, g, column, h, BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr):
    """g_i e^{s_ij − row_i} + h_j e^{s_ij − column_j}, where row and column are +∞ wherever nothing is possible."""
    if BY_ROW and BY_COLUMN:
        highest = tl.max(tl.where(row < INFINITY, row, FLOOR))
        top = tl.maximum(highest, tl.max(tl.where(column < INFINITY, column, FLOOR)))
        if top - tl.minimum(tl.min(row), tl.min(column)) < SPREAD:
            w = tl.exp(s - top) * ((g * tl.exp(top - row))[:, None] + (h * tl.exp(top - column))[None, :])
        else:
            w = tl.exp(s - row[:, None]) * g[:, None] + tl.exp(s - column[None, :]) * h[None, :]
    elif BY_ROW:
        w = tl.exp(s - row[:, None]) * g[:, None]
    else:
        w = tl.exp(s - column[None, :]) * h[None, :]
    return w


@triton.jit
@no_type_check
def gradients(
    x, y, row, column, bias_u, bias_v, scale, of_rows, in_rows, of_columns, in_columns, in_x, in_row,
    first, n, m, d, span, ceiling, offset,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, SHALLOW: tl.constexpr,
    DIAGONAL: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr, SLICE: tl.constexpr, WEIGHTS: tl.constexpr, PULL: tl.constexpr,
):  # fmt: skip
    """Write Σ_j w_ij y_j and Σ_j w_ij over a span of columns, of which either may be None.

    `in_x` is (spans, rows of all blocks, d), of which each program writes a slice of columns, and `in_row` the same
    without d. WEIGHTS is the type in which w is multiplied, with precision PULL.
    """
    block, part, across = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    local = block * HEIGHT + tl.arange(0, HEIGHT)
    rows = first + local
    wanted = part * SLICE + tl.arange(0, SLICE)
    factor = tl.load(scale)
    of_row = _vector(row, rows, n, -INFINITY)
    of_bias = _vector(bias_u, rows, n, 0.0)
    l_row, g = _vector(of_rows, rows, n, INFINITY), _vector(in_rows, rows, n, 0.0)
    x_block = _matrix(x, rows, tl.arange(0, DEPTH), n, d)
    pulled = tl.zeros((HEIGHT, SLICE), tl.float32)
    margin = tl.zeros((HEIGHT,), tl.float32)
    for start in range(across * span, tl.minimum((across + 1) * span, m), WIDTH):
        columns = start + tl.arange(0, WIDTH)
        y_block = _matrix(y, columns, tl.arange(0, DEPTH), m, d)
        s = _scores(
            x, y, x_block, y_block, factor, of_row, of_bias, column, bias_v, rows, columns, n, m, d, ceiling, offset,
            HEIGHT, WIDTH, DEPTH, SHALLOW, DIAGONAL, PRECISION, WIDEN,
        )  # fmt: skip
        l_column, h = _vector(of_columns, columns, m, INFINITY), _vector(in_columns, columns, m, 0.0)
        w = _weights(s, l_row, g, l_column, h, BY_ROW, BY_COLUMN)
        if in_row is not None:
            margin += tl.sum(w, 1)
        if in_x is not None:
            if not SHALLOW or SLICE != DEPTH:
                y_block = _matrix(y, columns, wanted, m, d)
            pulled = _dot(w.to(WEIGHTS), y_block.to(WEIGHTS), pulled, PULL, WIDEN)
    length = tl.num_programs(0).to(tl.int64) * HEIGHT
    if in_x is not None:
        place = (across * length + local)[:, None] * d + wanted[None, :]
        tl.store(in_x + place, pulled, mask=(wanted < d)[None, :])
    if in_row is not None:
        tl.store(in_row + across * length + local, margin)


# With TRITON_INTERPRET=1 in the environment when this module is loaded, programs are run by numpy, on the CPU as well.
INTERPRETED = not isinstance(gradients, triton.JITFunction)
