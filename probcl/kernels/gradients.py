"""Gradients in the scores, pulled back to what the scores are a function of, and summed over tiles."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.kernels.tiles import Arguments, Tiles

# Those with an entry for each row of the matrix, of which every block of rows has its own.
_OF_ROWS = ("x", "row", "bias_u")

Needs = Sequence[bool]
"""Whether each of the arguments, and then of the link's parameters, needs a gradient."""


class Gradients:
    """Sums, over the tiles of a block of rows, of Σ weights · d scores.

    Parameters
    ----------
    tiles
        Whose arguments the gradients are in.
    needs
        Which of them.
    of_rows
        Where the sums for arguments of rows are written; blocks share them.
    block
        The rows of this block.
    """

    def __init__(self, tiles: Tiles, needs: Needs, of_rows: dict[str, Tensor], block: slice) -> None:
        self.tiles, self.of_rows, self.block = tiles, of_rows, block
        names = [*Arguments._fields, *range(len(tiles.form.parameters))]
        tensors = [*tiles.arguments, *tiles.form.parameters]
        self.others = {
            name: torch.zeros_like(tensor)
            for name, tensor, need in zip(names, tensors, needs, strict=True)
            if need and tensor is not None and name not in _OF_ROWS
        }

    def add(self, weights: Float[Tensor, "r c"], rows: slice, columns: slice) -> None:
        """Add a tile. Its buffers are overwritten, the one that holds the weights included."""
        if not (self.of_rows or self.others):
            return
        self._add_margins(weights, "bias_u", rows, "bias_v", columns)
        if self.tiles.form.link is not None:
            weights = self._through_link(weights, rows, columns)
        self._add_margins(weights, "row", rows, "column", columns)
        with torch.autocast(weights.device.type, enabled=False):
            self._add_factors(weights, rows, columns)

    def _add_factors(self, weights: Tensor, rows: slice, columns: slice) -> None:
        x, y = self.tiles.arguments.x[rows], self.tiles.arguments.y[columns]
        widths = self.tiles.form.widths or (x.shape[1],)
        of_products = weights if self.tiles.form.widths else weights[None]
        if "x" in self.of_rows:
            for part, total, factor in zip(
                of_products, self.of_rows["x"][rows].split(widths, 1), y.split(widths, 1), strict=True
            ):
                total.addmm_(part, factor)
        if "y" in self.others:
            for part, total, factor in zip(
                of_products, self.others["y"][columns].split(widths, 1), x.split(widths, 1), strict=True
            ):
                total.addmm_(part.mT, factor)

    def _add_margins(self, weights: Tensor, row: str, rows: slice, column: str, columns: slice) -> None:
        if row in self.of_rows:
            self.of_rows[row][rows] += weights.sum(1)
        if column in self.others:
            self.others[column][columns] += weights.sum(0)

    def _through_link(self, weights: Float[Tensor, "r c"], rows: slice, columns: slice) -> Float[Tensor, "..."]:
        """Return the gradient in the product that the link is applied to; add those in the scale and in parameters."""
        form, scale = self.tiles.form, self.tiles.arguments.scale
        assert form.link is not None
        assert scale is not None
        assert form.slope is not None
        weights = weights.clone()
        product = self.tiles.product(rows, columns)
        slope = form.slope(product)
        if slope is not None:
            if "scale" in self.others:
                self.others["scale"] += (form.link(product) * weights).sum()
            return slope.mul_(weights.mul_(scale))
        product = product.clone().requires_grad_()
        with torch.enable_grad():
            linked = form.link(product)
            parameters = {k: parameter for k, parameter in enumerate(form.parameters) if k in self.others}
            inputs = (product, *parameters.values())
            pulled, *in_parameters = torch.autograd.grad(linked, inputs, weights * scale, allow_unused=True)
        if "scale" in self.others:
            self.others["scale"] += (linked.detach() * weights).sum()
        for k, gradient in zip(parameters, in_parameters, strict=True):
            if gradient is not None:
                self.others[k] += gradient
        return torch.zeros_like(product) if pulled is None else pulled

    def scale_(self, factor: float) -> None:
        """Multiply everything that has been added."""
        for total in self.of_rows.values():
            total[self.block] *= factor
        for total in self.others.values():
            total *= factor


def of_rows(arguments: Arguments, needs: Needs) -> dict[str, Tensor]:
    """Return zeros for the arguments of rows that need a gradient."""
    return {
        name: torch.zeros_like(tensor)
        for name, tensor, need in zip(Arguments._fields, arguments, needs, strict=False)
        if need and tensor is not None and name in _OF_ROWS
    }


def collect(parts: Sequence[Gradients]) -> list[Tensor | None]:
    """Add up the blocks' sums: the gradient of each argument and parameter, None for those that need none."""
    first = parts[0]
    for part in parts[1:]:
        for name, total in part.others.items():
            first.others[name] += total
    found = first.of_rows | first.others
    return [found.get(name) for name in (*Arguments._fields, *range(len(first.tiles.form.parameters)))]
