"""The pieces of a library: some items' embeddings, ids and log-priors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from probcl.checks import as_tensor_hint, describe, is_table, require_finite, require_logarithms, require_tensor

# Bytes of embeddings in a shard: the most that is held at a time.
SHARD_BYTES = 2**24

Items = Shaped[Tensor, "N *event"] | np.ndarray | Iterable[Any]
"""Items as one array, which may be memory-mapped, or as an iterable of batches."""


@dataclass(frozen=True)
class Shard:
    """Some items of a library, in memory."""

    embeddings: Float[Tensor, "n d"]
    ids: Int[Tensor, " n"]
    log_prior: Float[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def load(self) -> "Shard":
        """Return the shard itself."""
        return self

    def at(self, rows: slice | Int[Tensor, " k"] | Bool[Tensor, " n"]) -> "Shard":
        """Return some of the items."""
        log_prior = None if self.log_prior is None else self.log_prior[rows]
        return Shard(self.embeddings[rows], self.ids[rows], log_prior)

    def split(self, rows: int) -> list["Shard"]:
        """Return shards of this many items; the last may have fewer."""
        return [self.at(slice(first, first + rows)) for first in range(0, len(self), rows)]


@runtime_checkable
class Source(Protocol):
    """What a shard can be loaded from, each time it is needed."""

    def load(self) -> Shard:
        """Return the shard."""

    def __len__(self) -> int: ...


def joined(shards: Iterable[Shard]) -> Shard:
    """Return several shards as one; where only some have a log-prior, the others' is zero."""
    shards = list(shards)
    log_prior = None
    if any(shard.log_prior is not None for shard in shards):
        parts = [
            shard.embeddings.new_zeros(len(shard)) if shard.log_prior is None else shard.log_prior for shard in shards
        ]
        log_prior = torch.cat(parts)
    embeddings, ids = (torch.cat([getattr(shard, name) for shard in shards]) for name in ("embeddings", "ids"))
    return Shard(embeddings, ids, log_prior)


def next_id_after(shards: Sequence[Source], next_id: int) -> int:
    """Return the id of the next item, which is past the last one's and no smaller than it was."""
    return max(next_id, int(shards[-1].load().ids[-1]) + 1)


def resized(shards: Iterable[Shard]) -> Iterator[Shard]:
    """Return the same items in shards of `SHARD_BYTES`."""
    waiting: list[Shard] = []
    for shard in shards:
        rows = _rows_of(shard)
        waiting.append(shard)
        if sum(map(len, waiting)) >= rows:
            *full, rest = joined(waiting).split(rows)
            yield from full
            waiting = [rest]
    if waiting:
        yield joined(waiting)


def _rows_of(shard: Shard) -> int:
    """How many items like a shard's make a full one."""
    return max(1, SHARD_BYTES // (shard.embeddings.shape[1] * shard.embeddings.element_size()))


def embedded(
    name: str,
    items: Items,
    embed: Callable[[Tensor], Tensor],
    log_prior: Float[Tensor, " N"] | None,
    batch_size: int,
    first_id: int,
) -> Iterator[Shard]:
    """Embed items, a batch at a time, and number them."""
    log_prior = None if log_prior is None else _require_log_prior(log_prior, _length(items))
    start = 0
    for batch in _batches(name, items, batch_size):
        stop = start + len(batch)
        if log_prior is not None and stop > len(log_prior):
            raise _wrong_length(log_prior, f"{stop} or more")
        z = embed(batch)
        # Copied, so that a shard in memory keeps no larger tensor alive; in half precision it would lose its digits.
        dtype = torch.promote_types(z.dtype, torch.float32)
        of_batch = None if log_prior is None else log_prior[start:stop].to(z.device, dtype, copy=True)
        yield Shard(z, torch.arange(first_id + start, first_id + stop), of_batch)
        start = stop
    if start == 0:
        raise ValueError(f"{name} must have at least one batch of items, got none")
    if log_prior is not None and len(log_prior) != start:
        raise _wrong_length(log_prior, start)


def _batches(name: str, items: Items, batch_size: int) -> Iterator[Tensor]:
    whole = isinstance(items, Tensor | np.ndarray)
    if is_table(items) or (not whole and not isinstance(items, Iterable)):
        raise TypeError(
            f"{name} must be a torch.Tensor, an array or an iterable of batches, got "
            f"{describe(items)}{as_tensor_hint(name, items)}"
        )
    for part in [items] if whole else items:
        array = part if isinstance(part, np.ndarray) else require_tensor(name, part)
        if array.ndim == 0 or len(array) == 0:
            raise ValueError(f"{name} must have at least one entry along its first axis, got {describe(array)}")
        for first in range(0, len(array), batch_size):
            batch = array[first : first + batch_size]
            # Copied, because an array that is mapped from a file may not be written to, and torch would not know.
            yield require_finite(name, torch.from_numpy(np.array(batch)) if isinstance(batch, np.ndarray) else batch)


def _length(items: Items) -> int | None:
    return len(items) if isinstance(items, Tensor | np.ndarray) and items.ndim else None


def _require_log_prior(log_prior: object, length: int | None) -> Tensor:
    tensor = require_tensor("log_prior", log_prior)
    if tensor.ndim != 1 or (length is not None and len(tensor) != length):
        raise _wrong_length(tensor, "N" if length is None else length)
    return require_logarithms("log_prior", tensor)


def _wrong_length(log_prior: Tensor, items: int | str) -> ValueError:
    return ValueError(f"log_prior must have shape ({items},), one for each item, got {describe(log_prior)}")


def without(shards: Iterable[Source], ids: Int[Tensor, " k"]) -> Iterator[Source | Shard]:
    """Return the shards less some items; those that have none of them as they are."""
    for source in shards:
        shard = source.load()
        kept = ~torch.isin(shard.ids, ids)
        if kept.all():
            yield source
        elif kept.any():
            yield shard.at(kept)
