"""Reductions over a library of any size, for which one shard at a time is in memory.

Here `scores` makes the scores of a shard's items, along `dim`, with the embedded queries z.
"""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.kernels import search
from probcl.kernels.base import Dim
from probcl.kernels.search import BLOCK
from probcl.kernels.tiles import Arguments, Form, arrange
from probcl.retrieval.collection import Collection
from probcl.retrieval.shards import Shard
from probcl.scores import Scores, TopK

# Log-sum-exps of a query that are kept, at least half as many for a large library, and the queries for which they are.
_BLOCKS = 4096
_QUERIES_AT_A_TIME = 1024

ScoresOf = Callable[..., Scores]
"""Makes the scores of a shard's items with embedded queries, by a method: scores(shard, z, method)."""


def topk(shards: Iterable[Shard], scores: ScoresOf, z: Float[Tensor, "B d"], dim: Dim, k: int) -> TopK:
    """Return the k largest scores of each query, in descending order, and the ids of their items."""
    best = TopK(z.new_empty(len(z), 0), torch.empty(len(z), 0, dtype=torch.long, device=z.device))
    for shard in shards:
        found = scores(shard, z).topk(min(k, len(shard)), dim)
        values = torch.cat([best.values.to(found.values), found.values], 1)
        ids = torch.cat([best.indices, shard.ids.to(z.device)[found.indices]], 1)
        largest = values.topk(min(k, values.shape[1]), dim=1)
        best = TopK(largest.values, ids.gather(1, largest.indices))
    _require_numbers(best.values)
    return best


def log_normalizer(shards: Iterable[Shard], scores: ScoresOf, z: Float[Tensor, "B d"], dim: Dim) -> Float[Tensor, " B"]:
    """Return the log-sum-exp of each query's scores, in float64."""
    of_shards = [search.logsumexp_of_blocks(*_arranged(scores, shard, z, dim), BLOCK).logsumexp(1) for shard in shards]
    found = torch.stack(of_shards).logsumexp(0)
    _require_numbers(found)
    return found


def sample(
    shards: Collection,
    scores: ScoresOf,
    z: Float[Tensor, "B d"],
    dim: Dim,
    num_samples: int,
    generator: torch.Generator | None,
) -> Int[Tensor, "num_samples B"]:
    """Draw ids with probabilities softmax(scores), for some queries at a time."""
    width = BLOCK
    while len(shards) > width * _BLOCKS:
        width *= 2
    some = [_sample(shards, scores, few, dim, width, num_samples, generator) for few in z.split(_QUERIES_AT_A_TIME)]
    return torch.cat(some, 1)


def _sample(
    shards: Collection,
    scores: ScoresOf,
    z: Float[Tensor, "B d"],
    dim: Dim,
    width: int,
    num_samples: int,
    generator: torch.Generator | None,
) -> Int[Tensor, "num_samples B"]:
    """Draw a block of a shard by its log-sum-exp, and then within it."""
    tables = [search.logsumexp_of_blocks(*_arranged(scores, shard, z, dim), width) for shard in shards]
    table = torch.cat(tables, 1)
    _require_numbers(table)
    if table.isneginf().all(1).any():
        raise ValueError("log_prior leaves no item that is possible")
    points = torch.rand(2, len(z), num_samples, dtype=torch.float64, device=z.device, generator=generator)
    blocks = search.invert(table, points[0])
    draws = torch.empty_like(blocks)
    first = 0
    for shard, blocks_of_shard in zip(shards, tables, strict=True):
        last = first + blocks_of_shard.shape[1]
        here = (blocks >= first) & (blocks < last)
        if here.any():
            rows = here.nonzero()[:, 0]
            arranged = _arranged(scores, shard, z, dim)
            columns = search.draw_in_blocks(*arranged, width, rows, blocks[here] - first, points[1][here])
            draws[here] = shard.ids.to(z.device)[columns]
        first = last
    return draws.mT


def _arranged(scores: ScoresOf, shard: Shard, z: Float[Tensor, "B d"], dim: Dim) -> tuple[Form, Arguments]:
    """Return the scores as the search takes them, a row for each query."""
    form, arguments = arrange(scores(shard, z, "tiled")._kernel.terms)
    return (form, arguments) if dim == 1 else (form.transposed(), arguments.transposed())


def _require_numbers(values: Tensor) -> None:
    if (values.isnan() | (values == torch.inf)).any():
        raise ValueError(
            f"scores overflow {values.dtype}: embeddings of the queries or of the items are too large, or the "
            "temperature too small, for their inner products"
        )
