"""Sums of elementwise functions of the scores, tile by tile."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.kernels.base import Elementwise
from probcl.kernels.first_order import first_order
from probcl.kernels.gradients import Gradients, collect, of_rows
from probcl.kernels.tiles import Form, Tiles, read
from probcl.kernels.workers import run_blocks


class TotalSum(torch.autograd.Function):
    """Sum of fn over everything, with its gradient in the same pass."""

    @staticmethod
    def forward(ctx: Any, form: Form, fn: Elementwise, diagonal: bool, *tensors: Tensor | None) -> Tensor:
        arguments, grid = read(tensors)
        needs = ctx.needs_input_grad[3:]
        shared = of_rows(arguments, needs)

        def reduce(block: range) -> tuple[Tensor, Gradients]:
            tiles = Tiles(form, arguments, grid)
            gradients = Gradients(tiles, needs, shared, grid.rows_of(block))
            total = arguments.x.new_zeros((), dtype=torch.float64)
            for where, across in grid.tiles(block):
                scores = tiles.scores(where, across, diagonal, fill=0.0)
                values, derivative = _with_derivative(fn, scores) if any(needs) else (fn(scores), None)
                tiles.leave_out(values, where, across, diagonal)
                total += values.sum(dtype=torch.float64)
                if derivative is not None:
                    tiles.leave_out(derivative, where, across, diagonal)
                    gradients.add(derivative, where, across)
            return total, gradients

        parts = run_blocks(reduce, grid.strips, arguments.x.device)
        ctx.gradients = collect([gradients for _, gradients in parts])
        ctx.save_for_backward(*tensors)
        return torch.stack([total for total, _ in parts]).sum().to(arguments.x.dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        return (None, None, None, *(None if total is None else total * upstream for total in ctx.gradients))


class WeightedSum(torch.autograd.Function):
    """Σ_j fn(s_ij) w_jp for every row i, and a second pass for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, form: Form, fn: Elementwise, diagonal: bool, weights: Tensor, *tensors: Tensor | None
    ) -> Tensor:
        arguments, grid = read(tensors)
        sums = arguments.x.new_zeros(grid.n, weights.shape[1], dtype=torch.float64)

        def reduce(block: range) -> None:
            tiles = Tiles(form, arguments, grid)
            for where, across in grid.tiles(block):
                values = fn(tiles.scores(where, across, diagonal, fill=0.0))
                tiles.leave_out(values, where, across, diagonal)
                sums[where] += values @ weights[across]

        run_blocks(reduce, grid.strips, sums.device)
        ctx.form, ctx.fn, ctx.diagonal = form, fn, diagonal
        ctx.save_for_backward(weights, *tensors)
        return sums.to(weights.dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        weights, *tensors = ctx.saved_tensors
        arguments, grid = read(tensors)
        weights_needed, needs = ctx.needs_input_grad[3], ctx.needs_input_grad[4:]
        shared = of_rows(arguments, needs)

        def pull(block: range) -> tuple[Tensor, Gradients]:
            tiles = Tiles(ctx.form, arguments, grid)
            gradients = Gradients(tiles, needs, shared, grid.rows_of(block))
            in_weights = torch.zeros_like(weights) if weights_needed else weights[:0]
            for where, across in grid.tiles(block):
                scores = tiles.scores(where, across, ctx.diagonal, fill=0.0)
                values, derivative = _with_derivative(ctx.fn, scores)
                tiles.leave_out(values, where, across, ctx.diagonal)
                tiles.leave_out(derivative, where, across, ctx.diagonal)
                if weights_needed:
                    in_weights[across].addmm_(values.mT, upstream[where])
                derivative.mul_(torch.mm(upstream[where], weights[across].mT, out=tiles.spare(scores)))
                gradients.add(derivative, where, across)
            return in_weights, gradients

        parts = run_blocks(pull, grid.strips, weights.device)
        in_weights = torch.stack([part for part, _ in parts]).sum(0) if weights_needed else None
        return (None, None, None, in_weights, *collect([gradients for _, gradients in parts]))


def _with_derivative(
    fn: Elementwise, scores: Float[Tensor, "r c"]
) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
    """Return fn(scores) and its derivative."""
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        values = fn(leaf)
        if not values.requires_grad:  # a constant
            return values, torch.zeros_like(scores)
        (derivative,) = torch.autograd.grad(values, leaf, torch.ones_like(values))
    return values.detach(), derivative
