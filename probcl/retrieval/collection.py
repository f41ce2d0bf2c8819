"""Embedded items, in memory or in a folder, which can be added to and taken from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from probcl.checks import require_integers
from probcl.retrieval.folder import read_library, write_library
from probcl.retrieval.shards import Shard, Source, joined, next_id_after, resized, without


class Collection:
    """Shards in the order of their ids, which ascend and are never given twice.

    Parameters
    ----------
    record
        What the manifest of a folder is to say about the items.
    path
        The folder they are in, or None if they are in memory.
    shards, next_id
        What there is already, and the id of the next item.

    Attributes
    ----------
    version
        How often it has changed.
    """

    def __init__(
        self, record: Mapping[str, Any], path: Path | None = None, shards: Sequence[Source] = (), next_id: int = 0
    ) -> None:
        # Resolved, so that a folder is known again under another name.
        self.path = None if path is None else path.resolve()
        self.record, self.next_id, self.version = dict(record), next_id, 0
        self.shards: list[Source] = list(shards)

    @classmethod
    def read(cls, path: Path, verify: bool) -> "Collection":
        """Open what is in a folder; see `probcl.retrieval.folder.read_library`."""
        record, shards = read_library(path.resolve(), verify)
        next_id = record.pop("next_id")
        return cls(record, path, shards, next_id)

    def write(self, path: Path) -> None:
        """Write a copy into a folder."""
        write_library(path.resolve(), self.record, self.shards, self.next_id)

    def add(self, shards: Iterable[Shard]) -> Int[Tensor, " N"]:
        """Add items whose ids go on from `next_id`, and return these ids."""
        first = self.next_id
        # A last shard that is not full is filled up.
        last = [source.load() for source in self.shards[-1:]]
        self._become(chain(self.shards[:-1], resized(chain(last, shards))))
        return torch.arange(first, self.next_id)

    def remove(self, ids: Int[Tensor, " k"]) -> None:
        """Remove items.

        Raises
        ------
        TypeError
            If ids are not integers.
        ValueError
            If an id is not in the collection, or no item would be left.
        """
        require_integers("ids", ids)
        absent = ids[~torch.isin(ids, self.ids)]
        if len(absent):
            raise ValueError(f"ids must be of items in the library, {int(absent[0])} is of none")
        if len(ids.unique()) == len(self):
            raise ValueError("ids must leave at least one item in the library, got all of them")
        self._become(without(self.shards, ids))

    def _become(self, shards: Iterator[Source]) -> None:
        if self.path is None:
            self.shards = list(shards)
            self.next_id = next_id_after(self.shards, self.next_id)
        else:
            files, self.next_id = write_library(self.path, self.record, shards, self.next_id, self.shards)
            self.shards = list(files)
        self.version += 1

    @property
    def ids(self) -> Int[Tensor, " N"]:
        """Ids of all items, ascending."""
        return torch.cat([shard.ids for shard in self])

    def all(self) -> Shard:
        """Return all items as one shard, in memory."""
        return joined(self)

    def at(self, positions: Int[Tensor, " k"]) -> Shard:
        """Return the items at these positions, of which the first item's is 0; shards without one are not read."""
        order = positions.argsort()
        ends = torch.tensor(list(accumulate(map(len, self.shards))))
        counts = torch.bincount(torch.searchsorted(ends, positions, right=True), minlength=len(ends))
        found = []
        for source, end, some in zip(self.shards, ends.tolist(), order.split(counts.tolist()), strict=True):
            if len(some):
                found.append(source.load().at(positions[some] - (end - len(source))))
        return joined(found).at(order.argsort())

    def __iter__(self) -> Iterator[Shard]:
        return (source.load() for source in self.shards)

    def __len__(self) -> int:
        return sum(map(len, self.shards))
