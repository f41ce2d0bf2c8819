"""Reductions over a library of any size, for which one shard at a time is in memory."""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.kernels import search
from probcl.kernels.search import BLOCK
from probcl.retrieval.queries import Queries
from probcl.retrieval.shards import Shard
from probcl.scores import TopK

# Blocks of a large library whose log-sum-exps are kept, and queries for which they are: 16 MB.
_BLOCKS = 2048
_QUERIES_AT_A_TIME = 1024


def topk(shards: Iterable[Shard], queries: Queries, k: int) -> TopK:
    """Return the k largest scores of each query, in descending order, and the ids of their items."""
    best: TopK | None = None
    for shard in shards:
        found = queries.scores(shard).topk(min(k, len(shard)), queries.dim)
        found = TopK(found.values, shard.ids.to(found.indices.device)[found.indices])
        best = found if best is None else _merged(best, found, k)
    assert best is not None
    return best


def _merged(a: TopK, b: TopK, k: int) -> TopK:
    values, ids = (torch.cat(parts, 1) for parts in zip(a, b, strict=True))
    largest = values.topk(min(k, values.shape[1]), dim=1)
    return TopK(largest.values, ids.gather(1, largest.indices))


def log_normalizer(shards: Iterable[Shard], queries: Queries) -> Float[Tensor, " B"]:
    """Return the log-sum-exp of each query's scores, in float64."""
    parts = [search.logsumexp_of_blocks(*queries.arranged(shard), BLOCK).logsumexp(1) for shard in shards]
    return torch.stack(parts).logsumexp(0)


def sample(
    shards: Callable[[], Iterator[Shard]],
    items: int,
    queries: Queries,
    num_samples: int,
    generator: torch.Generator | None,
) -> Int[Tensor, "num_samples B"]:
    """Draw ids with probabilities softmax(scores), for some queries at a time, from this many items."""
    width = BLOCK
    while items > width * _BLOCKS:
        width *= 2
    return torch.cat(
        [_sample(shards, few, width, num_samples, generator) for few in queries.split(_QUERIES_AT_A_TIME)], 1
    )


def _sample(
    shards: Callable[[], Iterator[Shard]],
    queries: Queries,
    width: int,
    num_samples: int,
    generator: torch.Generator | None,
) -> Int[Tensor, "num_samples B"]:
    """Draw a block of a shard by its log-sum-exp, and then within it."""
    table = torch.cat([search.logsumexp_of_blocks(*queries.arranged(shard), width) for shard in shards()], 1)
    if table.isneginf().all(1).any():
        raise ValueError("log_prior leaves no item that is possible")
    device = table.device
    points = torch.rand(2, len(queries), num_samples, dtype=torch.float64, device=device, generator=generator)
    blocks = search.invert(table, points[0])
    draws = torch.empty_like(blocks)
    first = 0
    for shard in shards():
        last = first + -(-len(shard) // width)
        here = (blocks >= first) & (blocks < last)
        if here.any():
            rows = here.nonzero()[:, 0]
            columns = search.draw_in_blocks(
                *queries.arranged(shard), width, rows, blocks[here] - first, points[1][here]
            )
            draws[here] = shard.ids.to(device)[columns]
        first = last
    return draws.mT
