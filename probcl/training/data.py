"""Where the batches of a fit come from: tensors, a `torch.utils.data.Dataset`, or a `DataLoader`.

The batches of an epoch are a function of the seed and the epoch alone, and can be taken up in the middle.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sized
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Subset, TensorDataset

from probcl.checks import require_tensor
from probcl.randomness import Stream, derive_seed, generator, rank_seed, seed_everything
from probcl.training.pairs import Batch, as_pair, check_count, check_pairs, describe_kind, describe_pair, digest

Pairs = tuple[Tensor, Tensor] | Dataset[Any] | DataLoader[Any]

# In-memory pairs up to this size move to the accelerator as a whole.
_RESIDENT_BYTES = 2**31
# How many pairs of a tensor enter its digest: enough to tell two data sets apart, few enough to cost nothing.
_DIGEST_ROWS = 1000
# How many pairs are embedded together before training.
_ROWS_AT_ONCE = 1024


class Plan(NamedTuple):
    """How to go through the pairs, on one of several ranks that share out every batch."""

    batch_size: int | None
    seed: int
    device: torch.device
    shuffle: bool
    rank: int = 0
    ranks: int = 1

    def share(self, pairs: int) -> slice:
        """Return which pairs of a batch are this rank's: equally many, give or take one."""
        return slice(pairs * self.rank // self.ranks, pairs * (self.rank + 1) // self.ranks)

    @property
    def noise_seed(self) -> int:
        """The seed of what this rank draws on its own."""
        return rank_seed(self.seed, self.rank)


class PairSource(ABC):
    """Batches of matched pairs, epoch by epoch."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    @abstractmethod
    def count(self) -> int | None:
        """Batches in an epoch, None if that cannot be known."""

    @abstractmethod
    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield this rank's share of the batches of an epoch from number `start` on, on the device."""

    @abstractmethod
    def sample(self) -> Batch:
        """Return two or more pairs to try the model on."""

    @abstractmethod
    def describe(self, sample: Batch) -> dict[str, Any]:
        """Return what a checkpoint remembers of the data, as JSON."""

    def describe_first(self, sample: Batch) -> dict[str, Any]:
        """Return what all ranks must find equal in the sample, as JSON."""
        return {}

    def _to_device(self, u: Tensor, v: Tensor) -> Batch:
        return Batch(u.to(self.plan.device, non_blocking=True), v.to(self.plan.device, non_blocking=True))


class _CountedSource(PairSource):
    """A known number of pairs in any order."""

    pairs: int

    def _require_shares(self, name: str) -> None:
        smallest = self.pairs // self.count
        if smallest < self.plan.ranks:
            raise ValueError(
                f"{name}batches must have a pair for each of {self.plan.ranks} ranks, got {smallest} pairs"
            )

    @property
    def count(self) -> int:
        return batch_count(self.pairs, self.plan.batch_size)

    def _rows(self, epoch: int) -> tuple[Int[Tensor, " k"], ...]:
        """Return which pairs go into this rank's share of each batch of an epoch."""
        # The order of the terms in a single batch would only change its rounding.
        if self.plan.shuffle and self.count > 1:
            order = torch.randperm(self.pairs, generator=generator(self.plan.seed, Stream.ORDER, epoch))
        else:
            order = torch.arange(self.pairs)
        return tuple(rows[self.plan.share(len(rows))] for rows in order.tensor_split(self.count))


class TensorSource(_CountedSource):
    """Pairs held in memory, indexed without a loader in between."""

    def __init__(self, u: Tensor, v: Tensor, plan: Plan, name: str = "") -> None:
        super().__init__(plan)
        check_pairs(u, v, name)
        self.pairs = len(u)
        self._require_shares(name)
        self._original = Batch(u, v)
        resident = u.nbytes + v.nbytes <= _RESIDENT_BYTES
        self._u, self._v = self._to_device(u, v) if resident else self._original

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        if self.count == 1:
            share = self.plan.share(self.pairs)
            yield from [self._to_device(self._u[share], self._v[share])][start:]
            return
        for rows in self._rows(epoch)[start:]:
            rows = rows.to(self._u.device)
            yield self._to_device(self._u[rows], self._v[rows])

    def sample(self) -> Batch:
        return self._to_device(self._u[:2], self._v[:2])

    def in_order(self) -> Iterator[tuple[int, Batch]]:
        """Yield all pairs once, some at a time, each time with the number of the first."""
        # No more than in training, where a batch may be all that memory holds.
        rows = min(_ROWS_AT_ONCE, self.plan.batch_size or _ROWS_AT_ONCE)
        for start in range(0, self.pairs, rows):
            stop = start + rows
            yield start, self._to_device(self._u[start:stop], self._v[start:stop])

    def describe(self, sample: Batch) -> dict[str, Any]:
        rows = torch.linspace(0, self.pairs - 1, min(self.pairs, _DIGEST_ROWS), dtype=torch.float64).long()
        chosen = Batch(*(tensor[rows.to(tensor.device)] for tensor in self._original))
        return {"pairs": self.pairs, **describe_pair(sample), "contents": digest(chosen)}


class DatasetSource(_CountedSource):
    """A map-style data set of pairs (u_i, v_i)."""

    def __init__(self, dataset: Dataset[Any], plan: Plan, name: str = "") -> None:
        super().__init__(plan)
        self.pairs, self._dataset, self._name = len(cast(Sized, dataset)), dataset, name
        check_count(self.pairs, name)
        self._require_shares(name)

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        return self._load([rows.tolist() for rows in self._rows(epoch)], epoch, start)

    def _load(self, rows: list[list[int]], epoch: int, start: int) -> Generator[Batch]:
        seed_everything(derive_seed(self.plan.seed, Stream.DATA, epoch), self.plan.device)
        loader = iter(DataLoader(self._dataset, batch_sampler=rows[start:]))
        for number in range(start, len(rows)):
            # An augmentation in the data set must draw the same numbers whether or not earlier batches were skipped.
            seed_everything(derive_seed(self.plan.noise_seed, Stream.DATA, epoch, number), self.plan.device)
            yield self._to_device(*as_pair(next(loader), f"{self._name}batch {number}"))

    def sample(self) -> Batch:
        return next(self._load([[0, 1]], epoch=0, start=0))

    def describe(self, sample: Batch) -> dict[str, Any]:
        return {"pairs": self.pairs, **describe_pair(sample)}


class LoaderSource(PairSource):
    """A user's own loader, whose batches are taken as they come; those of a single pair are passed over.

    Of several ranks each reads every batch and keeps its share, unless the loader has a `DistributedSampler`: then what
    a rank reads is its share, and the batches are the union of what all ranks read.
    """

    def __init__(self, loader: DataLoader[Any], plan: Plan, name: str = "") -> None:
        super().__init__(plan)
        self._loader, self._name = loader, name
        self._shared_out = plan.ranks > 1 and _is_shared_out(loader, plan, name)
        if loader.batch_size == 1 and not self._shared_out:
            raise ValueError(f"{name}batches of one pair cannot make a contrast: give the DataLoader batch_size ≥ 2")

    @property
    def count(self) -> int | None:
        try:
            return len(self._loader)
        except TypeError:
            return None

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        with closing(self._whole(epoch, start)) as batches:
            for u, v in batches:
                share = slice(None) if self._shared_out else self.plan.share(len(u))
                yield self._to_device(u[share], v[share])

    def _whole(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches as the loader makes them."""
        seed = self.plan.noise_seed if self._shared_out else self.plan.seed
        fewest = 1 if self._shared_out else max(2, self.plan.ranks)
        with _generators_restored(self._generators()):
            self._seed(epoch)
            loader, number = iter(self._loader), 0
            while True:
                # Replayed from the start after a resume, so each batch draws from a seed of its own.
                seed_everything(derive_seed(seed, Stream.DATA, epoch, number), self.plan.device)
                raw = next(loader, None)
                if raw is None:
                    return
                u, v = as_pair(raw, f"{self._name}batch {number} of the DataLoader")
                if len(u) < fewest:
                    continue
                if number >= start:
                    yield Batch(u, v)
                number += 1

    def sample(self) -> Batch:
        batch = next(self._whole(epoch=0), None)
        if batch is None:
            raise ValueError(f"{self._name}pairs must not be empty, got a DataLoader without a batch of two or more")
        return self._to_device(*batch)

    def describe(self, sample: Batch) -> dict[str, Any]:
        return {"batches": self.count, "loader_batch_size": self._loader.batch_size, **describe_pair(sample)}

    def describe_first(self, sample: Batch) -> dict[str, Any]:
        return {} if self._shared_out else {"digest": digest(sample)}

    def _seed(self, epoch: int) -> None:
        seed = derive_seed(self.plan.seed, Stream.DATA, epoch)
        seed_everything(seed, self.plan.device)
        for own in self._generators():
            own.manual_seed(seed)
        for sampler in (self._loader.sampler, self._loader.batch_sampler):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def _generators(self) -> list[torch.Generator]:
        """Return the generators that this loader draws from beside the global ones."""
        owners = [self._loader, self._loader.sampler, getattr(self._loader.batch_sampler, "sampler", None)]
        found = {id(own): own for owner in owners if (own := getattr(owner, "generator", None)) is not None}
        return list(found.values())


def pair_source(pairs: Pairs, plan: Plan, name: str = "") -> PairSource:
    """Return the source for any kind of pairs. `name` prefixes what error messages call them.

    Raises
    ------
    TypeError
        If `pairs` is none of the kinds that `probcl.fit` takes.
    ValueError
        If there are fewer than two pairs, their numbers differ, or a tensor is not finite.
    """
    if isinstance(pairs, DataLoader):
        return LoaderSource(pairs, plan, name)
    tensors = as_tensors(pairs, name)
    if tensors is not None:
        return TensorSource(*tensors, plan, name)
    if isinstance(pairs, Dataset) and not isinstance(pairs, IterableDataset) and hasattr(pairs, "__len__"):
        return DatasetSource(pairs, plan, name)
    raise TypeError(
        f"{name}pairs must be a tuple (u, v) of tensors, a torch Dataset with a length whose items are (u_i, v_i), "
        f"or a DataLoader of (u, v) batches, got {describe_kind(pairs)}"
    )


def split(pairs: Pairs, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
    """Set a random fraction of the pairs aside; returns what is left and what was set aside.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1, either part would have fewer than two pairs, or `pairs` is a loader.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation must be pairs or a fraction between 0 and 1, got {fraction}")
    if isinstance(pairs, DataLoader):
        raise ValueError("validation must be pairs, not a fraction, when the training pairs come from a DataLoader")
    tensors = as_tensors(pairs)
    if tensors is not None:
        check_pairs(*tensors, name="")
    count = len(cast(Sized, pairs)) if tensors is None else len(tensors[0])
    held_out = round(fraction * count)
    if min(held_out, count - held_out) < 2:
        raise ValueError(
            f"validation must leave at least two pairs on either side, got {held_out} and {count - held_out}"
        )
    order = torch.randperm(count, generator=generator(seed, Stream.SPLIT))
    # Sorted, so that both parts keep the order of the pairs.
    rows = [part.sort().values for part in (order[held_out:], order[:held_out])]
    if tensors is None:
        dataset = cast(Dataset[Any], pairs)
        return Subset(dataset, rows[0].tolist()), Subset(dataset, rows[1].tolist())
    (u, v), (kept, held) = tensors, rows
    return (u[kept], v[kept]), (u[held], v[held])


def batch_count(pairs: int, batch_size: int | None) -> int:
    """Return the number of batches, of equal size give or take one pair, none a single pair; one if size is None."""
    return 1 if batch_size is None else max(1, min(math.ceil(pairs / batch_size), pairs // 2))


def as_tensors(pairs: object, name: str = "") -> tuple[Tensor, Tensor] | None:
    """Return u and v if the pairs are held in memory."""
    if type(pairs) is TensorDataset and len(pairs.tensors) == 2:
        return pairs.tensors[0], pairs.tensors[1]
    if isinstance(pairs, tuple) and len(pairs) == 2:
        return require_tensor(f"{name}u", pairs[0]), require_tensor(f"{name}v", pairs[1])
    return None


def _is_shared_out(loader: DataLoader[Any], plan: Plan, name: str) -> bool:
    """Whether each rank's loader reads pairs of its own; raises if they are meant for other ranks."""
    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    sampler = next((sampler for sampler in samplers if isinstance(sampler, DistributedSampler)), None)
    if sampler is not None and (sampler.rank, sampler.num_replicas) != (plan.rank, plan.ranks):
        raise ValueError(
            f"{name}pairs are sampled for rank {sampler.rank} of {sampler.num_replicas}, "
            f"on rank {plan.rank} of {plan.ranks}"
        )
    return sampler is not None


@contextmanager
def _generators_restored(generators: list[torch.Generator]) -> Iterator[None]:
    states = [own.get_state() for own in generators]
    try:
        yield
    finally:
        for own, state in zip(generators, states, strict=True):
            own.set_state(state)
