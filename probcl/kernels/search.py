"""The largest scores of each row, and draws from its softmax, tile by tile."""

from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.alignment import at_most, summed
from probcl.kernels.base import FLOOR
from probcl.kernels.tiles import Arguments, Form, Grid, Tiles, rows_at
from probcl.kernels.workers import run_blocks

# The k largest scores of a row are in the k groups of columns with the largest maxima, which cost one pass to find.
# Groups this small leave few scores to compute again, in tiles this wide their maxima run along memory.
_GROUP = 16
_TOPK_WIDTH = 2048
# Columns whose groups are held at a time, and numbers of the candidates' factors, to stay in the cache.
_SPAN = 65_536
_CANDIDATES_AT_A_TIME = 2**19
# Candidates have to be this many times fewer than the columns, or all scores are compared.
_LEAST_GAIN = 4
# Columns of a block, from which draws are made by its log-sum-exp.
BLOCK = 512
# Rows whose tables of log-sum-exps are held at a time, and draws whose rows' scores in a block are.
_ROWS_AT_A_TIME = 1024
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
        for rows, strip in groupby(grid.tiles(block), key=itemgetter(0)):
            contest = _Contest(tiles, rows, k)
            for _, columns in strip:
                contest.enter(columns)
            values[rows], indices[rows] = contest.best

    run_blocks(search, grid.strips, values.device)
    return values, indices


class _Contest:
    """The search for the k largest scores of some rows, to which tiles are given from left to right."""

    def __init__(self, tiles: Tiles, rows: slice, k: int) -> None:
        self.tiles, self.rows, self.k = tiles, rows, k
        x, m = tiles.arguments.x, tiles.grid.m
        self.by_groups = _LEAST_GAIN * _GROUP * k <= m
        height = rows.stop - rows.start
        self.best = _Best(x.new_empty(height, 0), torch.empty(height, 0, dtype=torch.long, device=x.device))
        # Of the groups that wait: their largest scores, their first columns, and the steps to their next ones.
        self.largest = x.new_empty(height, min(m, _SPAN) // _GROUP) if self.by_groups else x.new_empty(height, 0)
        self.first = torch.empty(self.largest.shape[1], dtype=torch.long, device=x.device)
        self.step = torch.empty_like(self.first)
        self.waiting = 0

    def enter(self, columns: slice) -> None:
        """Let some columns compete."""
        scores = self.tiles.scores(self.rows, columns)
        count = scores.shape[1] // _GROUP if self.by_groups else 0
        if count:
            self._wait(scores[:, : count * _GROUP], columns.start)
        if count * _GROUP < scores.shape[1]:
            alone = torch.arange(columns.start + count * _GROUP, columns.stop, device=scores.device)
            self.best = self.best.merged(scores[:, count * _GROUP :], alone.expand(len(scores), -1), self.k)
        if self.waiting and (columns.stop == self.tiles.grid.m or columns.stop % _SPAN == 0):
            self._settle()

    def _wait(self, scores: Float[Tensor, "r c"], start: int) -> None:
        """Note the groups of some columns: group j holds the columns j, j + count, j + 2 · count, ..."""
        height, width = scores.shape
        count = width // _GROUP
        where = slice(self.waiting, self.waiting + count)
        torch.amax(scores.reshape(height, _GROUP, count), 1, out=self.largest[:, where])
        torch.arange(start, start + count, out=self.first[where])
        self.step[where] = count
        self.waiting += count

    def _settle(self) -> None:
        """Let the members of the best groups that wait compete, and have none wait."""
        chosen = self.largest[:, : self.waiting].topk(min(self.k, self.waiting), dim=1, sorted=False).indices
        members = torch.arange(_GROUP, device=chosen.device)
        columns = (self.first[chosen][:, :, None] + self.step[chosen][:, :, None] * members).flatten(1)
        self.best = self.best.merged(self._scores(columns), columns, self.k)
        self.waiting = 0

    def _scores(self, columns: Int[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        height = max(1, _CANDIDATES_AT_A_TIME // (columns.shape[1] * self.tiles.arguments.x.shape[1]))
        own = rows_at(self.tiles.arguments, self.rows)
        tops = range(0, len(columns), height)
        parts = [
            _entries(self.tiles.form, rows_at(own, slice(top, top + height)), some)
            for top, some in zip(tops, columns.split(height), strict=True)
        ]
        return torch.cat(parts)


def _entries(form: Form, arguments: Arguments, columns: Int[Tensor, "r c"]) -> Float[Tensor, "r c"]:
    """Return what `tiles.entries` does, without a gradient and several times as fast."""
    x, y, row, column, bias_u, bias_v, scale, excluded = arguments

    def at(values: Tensor) -> Tensor:
        return values.index_select(0, columns.flatten()).view(*columns.shape, *values.shape[1:])

    out = summed(at(y).mul_(x[:, None]), form.widths)
    out = out if row is None else out.add_(row[:, None])
    out = at_most(out if column is None else out.add_(at(column)), form.ceiling)
    if form.link is not None and scale is not None:
        out = form.link(out) * scale
    out = out if bias_u is None else out + bias_u[:, None]
    out = out if bias_v is None else out + at(bias_v)
    return out if excluded is None else out.masked_fill(columns == excluded[:, None], -torch.inf)


def sample(
    form: Form, arguments: Arguments, num_samples: int, generator: torch.Generator | None
) -> Int[Tensor, "num_samples n"]:
    """Draw columns with the probabilities of each row's softmax: first a block, by its log-sum-exp, then within it."""
    n, device = len(arguments.x), arguments.x.device
    draws = torch.empty(num_samples, n, dtype=torch.long, device=device)
    for low in range(0, n, _ROWS_AT_A_TIME):
        rows = torch.arange(low, min(low + _ROWS_AT_A_TIME, n), device=device)
        some = rows_at(arguments, rows)
        table = logsumexp_of_blocks(form, some, BLOCK)
        points = torch.rand(2, len(rows), num_samples, dtype=torch.float64, device=device, generator=generator)
        blocks = invert(table, points[0])
        of_draw = torch.arange(len(rows), device=device).repeat_interleave(num_samples)
        drawn = draw_in_blocks(form, some, BLOCK, of_draw, blocks.flatten(), points[1].flatten())
        draws[:, rows] = drawn.view(blocks.shape).mT
    return draws


def logsumexp_of_blocks(form: Form, arguments: Arguments, width: int) -> Float[Tensor, "n blocks"]:
    """Log-sum-exp of each row over blocks of columns, in float64; their width is a multiple of `BLOCK`."""
    usual = Grid.of(arguments)
    grid = Grid(usual.n, usual.m, 2 * usual.height, BLOCK)
    table = arguments.x.new_empty(grid.n, -(-grid.m // BLOCK), dtype=torch.float64)

    def reduce(block: range) -> None:
        tiles = Tiles(form, arguments, grid)
        for where, across in grid.tiles(block):
            scores = tiles.scores(where, across)
            top = scores.amax(1).clamp_(min=FLOOR)
            total = scores.sub_(top[:, None]).exp_().sum(1)
            table[where, across.start // BLOCK] = total.double().log_().add_(top)

    run_blocks(reduce, grid.strips, table.device)
    if width == BLOCK:
        return table
    return torch.stack([few.logsumexp(1) for few in table.split(width // BLOCK, dim=1)], 1)


def draw_in_blocks(
    form: Form,
    arguments: Arguments,
    width: int,
    rows: Int[Tensor, " draws"],
    blocks: Int[Tensor, " draws"],
    points: Float[Tensor, " draws"],
) -> Int[Tensor, " draws"]:
    """Draw a column of a row in each given block of columns, where the cumulative probability passes a point."""
    order = blocks.argsort()
    grid = Grid(len(blocks), len(arguments.y), _DRAWS_AT_A_TIME, width)
    drawn = torch.empty_like(blocks)

    def draw(strips: range) -> None:
        for part in order[grid.rows_of(strips)].split(grid.height):
            tiles = Tiles(form, rows_at(arguments, rows[part]), grid)
            numbers, counts = blocks[part].unique_consecutive(return_counts=True)
            stop = 0
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                start, stop = stop, stop + count
                across = slice(number * grid.width, min((number + 1) * grid.width, grid.m))
                scores = tiles.scores(slice(start, stop), across)
                column = invert(scores.double(), points[part[start:stop], None])
                drawn[part[start:stop]] = across.start + column[:, 0]

    run_blocks(draw, grid.strips, drawn.device)
    return drawn


def invert(logits: Float[Tensor, "r c"], points: Float[Tensor, "r s"]) -> Int[Tensor, "r s"]:
    """Return where the cumulative probabilities of a softmax pass these points of [0, 1)."""
    cumulative = (logits - logits.amax(1, keepdim=True)).exp_().cumsum_(1)
    return torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True)
