"""The largest scores of each row, and draws from its softmax, tile by tile."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.kernels.tiles import Arguments, Form, Grid, Tiles, rows_at
from probcl.kernels.workers import run_blocks

# A tile's columns are compared with the largest so far in groups, of which most have none that is large enough.
_GROUP = 16
_TOPK_WIDTH = 1024
# Rows whose tables of log-sum-exps are held at a time, and draws whose rows' scores in a tile are.
_ROWS_AT_A_TIME = 4096
_DRAWS_AT_A_TIME = 256


class _Best(NamedTuple):
    """The largest scores of some rows, in descending order, and their columns."""

    values: Float[Tensor, "r k"]
    columns: Int[Tensor, "r k"]

    def merged(self, values: Float[Tensor, "r c"], columns: Int[Tensor, "r c"], k: int) -> "_Best":
        values, columns = torch.cat([self.values, values], 1), torch.cat([self.columns, columns], 1)
        largest = values.topk(min(k, values.shape[1]), dim=1)
        return _Best(largest.values, columns.gather(1, largest.indices))


def topk(form: Form, arguments: Arguments, k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Return the k largest scores of each row, in descending order, and their columns."""
    grid = Grid.of(arguments, width=_TOPK_WIDTH)
    values = arguments.x.new_empty(grid.n, k)
    indices = torch.empty_like(values, dtype=torch.long)

    def search(block: range) -> None:
        tiles = Tiles(form, arguments, grid)
        best = _Best(values[:0, :0], indices[:0, :0])
        for where, across in grid.tiles(block):
            if across.start == 0:
                best = _Best(values[where, :0], indices[where, :0])
            best = _compete(best, tiles.scores(where, across), across.start, k)
            if across.stop == grid.m:
                values[where], indices[where] = best

    run_blocks(search, grid.strips, values.device)
    return values, indices


def _compete(best: _Best, scores: Float[Tensor, "r c"], first: int, k: int) -> _Best:
    """Return the largest of those so far and of the scores of some columns."""
    height, width = scores.shape
    groups = width // _GROUP
    if best.values.shape[1] < k or groups <= k or groups * _GROUP != width:
        return best.merged(scores, torch.arange(first, first + width, device=scores.device).expand(height, -1), k)
    # Group j holds the columns j, j + groups, j + 2 · groups, ..., so that the maxima run along memory.
    largest = scores.view(height, _GROUP, groups).amax(1)
    rows = (largest > best.values[:, -1:]).any(1).nonzero()
    if len(rows):
        candidates = largest[rows[:, 0]].topk(k, dim=1).indices
        members = groups * torch.arange(_GROUP, device=scores.device)
        columns = (candidates[:, :, None] + members).flatten(1)
        some = _Best(best.values[rows[:, 0]], best.columns[rows[:, 0]])
        best.values[rows[:, 0]], best.columns[rows[:, 0]] = some.merged(scores[rows, columns], columns + first, k)
    return best


def sample(
    form: Form, arguments: Arguments, num_samples: int, generator: torch.Generator | None
) -> Int[Tensor, "num_samples n"]:
    """Draw columns with the probabilities of each row's softmax: first a tile, by its log-sum-exp, then within it."""
    n, device = len(arguments.x), arguments.x.device
    draws = torch.empty(num_samples, n, dtype=torch.long, device=device)
    for low in range(0, n, _ROWS_AT_A_TIME):
        rows = torch.arange(low, min(low + _ROWS_AT_A_TIME, n), device=device)
        some = rows_at(arguments, rows)
        table = _of_tiles(form, some)
        points = torch.rand(2, len(rows), num_samples, dtype=torch.float64, device=device, generator=generator)
        tile = _invert(table, points[0])
        draws[:, rows] = _within(form, some, tile.flatten(), points[1].flatten()).view(tile.shape).mT
    return draws


def _of_tiles(form: Form, arguments: Arguments) -> Float[Tensor, "n tiles"]:
    """Log-sum-exp of each row over the columns of each tile."""
    grid = Grid.of(arguments)
    table = arguments.x.new_empty(grid.n, -(-grid.m // grid.width), dtype=torch.float64)

    def reduce(block: range) -> None:
        tiles = Tiles(form, arguments, grid)
        for where, across in grid.tiles(block):
            table[where, across.start // grid.width] = tiles.scores(where, across).logsumexp(1)

    run_blocks(reduce, grid.strips, table.device)
    return table


def _within(
    form: Form, arguments: Arguments, tile: Int[Tensor, " draws"], points: Float[Tensor, " draws"]
) -> Int[Tensor, " draws"]:
    """Draw a column in each given tile; draws belong to the rows in equal shares."""
    order = tile.argsort()
    share = len(tile) // len(arguments.x)
    grid = Grid(len(tile), len(arguments.y), _DRAWS_AT_A_TIME, Grid.of(arguments).width)
    drawn = torch.empty_like(tile)

    def draw(block: range) -> None:
        for part in order[grid.rows_of(block)].split(grid.height):
            tiles = Tiles(form, rows_at(arguments, part // share), grid)
            numbers, counts = tile[part].unique_consecutive(return_counts=True)
            stop = 0
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                start, stop = stop, stop + count
                across = slice(number * grid.width, min((number + 1) * grid.width, grid.m))
                scores = tiles.scores(slice(start, stop), across)
                column = _invert(scores.double(), points[part[start:stop], None])
                drawn[part[start:stop]] = across.start + column[:, 0]

    run_blocks(draw, grid.strips, drawn.device)
    return drawn


def _invert(logits: Float[Tensor, "r c"], points: Float[Tensor, "r s"]) -> Int[Tensor, "r s"]:
    """Return where the cumulative probabilities of a softmax pass these points of [0, 1)."""
    cumulative = (logits - logits.amax(1, keepdim=True)).exp_().cumsum_(1)
    return torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True)
