"""Log-sum-exp of rows, columns and everything, tile by tile."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probcl.kernels.base import FLOOR
from probcl.kernels.first_order import first_order
from probcl.kernels.gradients import Gradients, collect, of_rows
from probcl.kernels.tiles import Form, Tiles, read
from probcl.kernels.workers import run_blocks

# How far a sum's largest term, in nats, stays above what makes its smallest terms that count underflow.
_MARGIN = 10.0
# A running maximum is raised by this much more than it need be, in nats, so that it is seldom raised.
_HEADROOM = 20.0


class LogSumExp(torch.autograd.Function):
    """Log-sum-exp of every row and of every column in one pass, and a second one for the gradient.

    In either pass one exponential an entry serves rows and columns, wherever the maxima of a tile's rows and columns
    lie close enough together. Sums over tiles are kept in float64.
    """

    @staticmethod
    def forward(ctx: Any, form: Form, diagonal: bool, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        arguments, grid = read(tensors)
        rows = arguments.x.new_full((grid.n,), -torch.inf, dtype=torch.float64)

        def reduce(block: range) -> Tensor:
            tiles = Tiles(form, arguments, grid)
            columns = rows.new_full((grid.m,), -torch.inf)
            for where, across in grid.tiles(block):
                of_rows, of_columns = _of_tile(tiles, tiles.scores(where, across, diagonal))
                torch.logaddexp(rows[where], of_rows, out=rows[where])
                torch.logaddexp(columns[across], of_columns, out=columns[across])
            return columns

        columns = torch.stack(run_blocks(reduce, grid.strips, rows.device)).logsumexp(0)
        ctx.form, ctx.diagonal = form, diagonal
        ctx.save_for_backward(rows, columns, *tensors)
        ctx.set_materialize_grads(False)
        return rows.to(arguments.x.dtype), columns.to(arguments.x.dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, in_rows: Tensor | None, in_columns: Tensor | None) -> tuple[Any, ...]:
        rows, columns, *tensors = ctx.saved_tensors
        arguments, grid = read(tensors)
        needs = ctx.needs_input_grad[2:]
        if in_rows is None and in_columns is None:
            return (None,) * len(ctx.needs_input_grad)
        by_row, by_column = _side(rows, in_rows), _side(columns, in_columns)
        shared = of_rows(arguments, needs)

        def pull(block: range) -> Gradients:
            tiles = Tiles(ctx.form, arguments, grid)
            gradients = Gradients(tiles, needs, shared, grid.rows_of(block))
            for where, across in grid.tiles(block):
                scores = tiles.scores(where, across)
                weights = _weights(tiles, scores, by_row and by_row.at(where), by_column and by_column.at(across))
                tiles.leave_out(weights, where, across, ctx.diagonal)
                gradients.add(weights, where, across)
            return gradients

        return (None, None, *collect(run_blocks(pull, grid.strips, rows.device)))


class TotalLogSumExp(torch.autograd.Function):
    """Log-sum-exp of everything, with its gradient in the same pass."""

    @staticmethod
    def forward(ctx: Any, form: Form, diagonal: bool, *tensors: Tensor | None) -> Tensor:
        arguments, grid = read(tensors)
        needs = ctx.needs_input_grad[2:]
        shared = of_rows(arguments, needs)

        def reduce(block: range) -> tuple[float, float, Gradients]:
            tiles = Tiles(form, arguments, grid)
            gradients = Gradients(tiles, needs, shared, grid.rows_of(block))
            shift, total = FLOOR, 0.0
            for where, across in grid.tiles(block):
                scores = tiles.scores(where, across, diagonal)
                top = float(scores.amax())
                if top > shift + _HEADROOM:
                    factor = math.exp(shift - top)
                    gradients.scale_(factor)
                    shift, total = top, total * factor
                weights = scores.sub_(shift).exp_()
                total += float(weights.sum(dtype=torch.float64))
                gradients.add(weights, where, across)
            return shift, total, gradients

        parts = run_blocks(reduce, grid.strips, arguments.x.device)
        value = _merge([(shift, total) for shift, total, _ in parts])
        for shift, _, gradients in parts:
            gradients.scale_(math.exp(shift - value) if value > -math.inf else 0.0)
        ctx.gradients = collect([gradients for _, _, gradients in parts])
        ctx.save_for_backward(*tensors)
        return arguments.x.new_tensor(value)

    @staticmethod
    @first_order
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        return (None, None, *(None if total is None else total * upstream for total in ctx.gradients))


class _Side(NamedTuple):
    """Log-sum-exp of rows or columns, and the gradient in it, both in float64."""

    value: Float[Tensor, " k"]
    gradient: Float[Tensor, " k"]

    def at(self, where: slice) -> "_Side":
        return _Side(self.value[where], self.gradient[where])


def _side(value: Float[Tensor, " k"], gradient: Float[Tensor, " k"] | None) -> _Side | None:
    if gradient is None:
        return None
    # Where nothing was possible there is no gradient, and any number does for the value: one that widens no range.
    possible = value.isfinite()
    least = value[possible].min() if possible.any() else value.new_zeros(())
    return _Side(torch.where(possible, value, least), torch.where(possible, gradient.double(), 0.0))


def _of_tile(tiles: Tiles, scores: Float[Tensor, "r c"]) -> tuple[Float[Tensor, " r"], Float[Tensor, " c"]]:
    """Log-sum-exp of the rows and the columns of a tile, which is overwritten."""
    row_top, column_top = scores.amax(1).clamp_(min=FLOOR), scores.amax(0).clamp_(min=FLOOR)
    if _close(row_top, column_top, scores.dtype):
        top = float(row_top.amax())
        exponential = scores.sub_(top).exp_()
        return exponential.sum(1).double().log_().add_(top), exponential.sum(0).double().log_().add_(top)
    by_row = torch.sub(scores, row_top[:, None], out=tiles.spare(scores)).exp_().sum(1)
    by_column = scores.sub_(column_top).exp_().sum(0)
    return by_row.double().log_().add_(row_top), by_column.double().log_().add_(column_top)


def _weights(
    tiles: Tiles, scores: Float[Tensor, "r c"], row: _Side | None, column: _Side | None
) -> Float[Tensor, "r c"]:
    """Return g_i e^{s_ij − l_i} + h_j e^{s_ij − m_j} for the scores of a tile, which are overwritten."""
    if column is None:
        assert row is not None
        return _softmax(scores, row.value[:, None], row.gradient[:, None], out=scores)
    if row is None:
        return _softmax(scores, column.value, column.gradient, out=scores)
    if _close(row.value, column.value, scores.dtype):
        top = float(torch.maximum(row.value.amax(), column.value.amax()))
        p, q = ((side.gradient * (top - side.value).exp()).to(scores.dtype) for side in (row, column))
        return scores.sub_(top).exp_().mul_(torch.add(p[:, None], q, out=tiles.spare(scores)))
    by_row = _softmax(scores, row.value[:, None], row.gradient[:, None], out=tiles.spare(scores))
    return _softmax(scores, column.value, column.gradient, out=scores).add_(by_row)


def _softmax(scores: Tensor, shift: Tensor, factor: Tensor, out: Tensor) -> Tensor:
    return torch.sub(scores, shift.to(scores.dtype), out=out).exp_().mul_(factor.to(scores.dtype))


def _close(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether one shift does for the exponentials of all rows (a) and columns (b): no sum loses what it consists of."""
    if a.is_cuda:  # where to ask is to wait
        return False
    limits = torch.finfo(dtype)
    spread = max(float(a.amax()), float(b.amax())) - min(float(a.amin()), float(b.amin()))
    return spread < math.log(limits.eps) - math.log(limits.tiny) - _MARGIN


def _merge(parts: list[tuple[float, float]]) -> float:
    logs = [shift + math.log(total) for shift, total in parts if total > 0]
    return float(np.logaddexp.reduce(logs)) if logs else -math.inf
