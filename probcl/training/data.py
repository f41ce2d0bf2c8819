"""Where the batches of a fit come from: tensors, a `torch.utils.data.Dataset`, or a `DataLoader`.

The batches of an epoch are a function of the seed and the epoch alone, and can be taken up in the middle.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from probcl.checks import describe, require_finite, require_tensor
from probcl.randomness import Stream, derive_seed, generator, seed_everything

Pairs = tuple[Tensor, Tensor] | Dataset | DataLoader

# In-memory pairs up to this size move to the accelerator as a whole.
_RESIDENT_BYTES = 2**31
# How many pairs of a tensor enter its digest: enough to tell two data sets apart, few enough to cost nothing.
_DIGEST_ROWS = 1000
# How many pairs are embedded together before training.
_ROWS_AT_ONCE = 1024


class Batch(NamedTuple):
    """Matched pairs: row i of `u` belongs to row i of `v`."""

    u: Shaped[Tensor, "n *event_u"]
    v: Shaped[Tensor, "n *event_v"]


class Plan(NamedTuple):
    """How to go through the pairs."""

    batch_size: int | None
    seed: int
    device: torch.device
    shuffle: bool


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
        """Yield the batches of an epoch from number `start` on, on the device."""

    @abstractmethod
    def sample(self) -> Batch:
        """Return two or more pairs to try the model on."""

    @abstractmethod
    def describe(self, sample: Batch) -> dict[str, Any]:
        """Return what a checkpoint remembers of the data, as JSON."""

    def _to_device(self, u: Tensor, v: Tensor) -> Batch:
        return Batch(u.to(self.plan.device, non_blocking=True), v.to(self.plan.device, non_blocking=True))


class _CountedSource(PairSource):
    """A known number of pairs in any order."""

    pairs: int

    @property
    def count(self) -> int:
        return batch_count(self.pairs, self.plan.batch_size)

    def _rows(self, epoch: int) -> tuple[Int[Tensor, " k"], ...]:
        """Return which pairs go into each batch of an epoch."""
        # The order of the terms in a single batch would only change its rounding.
        if self.plan.shuffle and self.count > 1:
            order = torch.randperm(self.pairs, generator=generator(self.plan.seed, Stream.ORDER, epoch))
        else:
            order = torch.arange(self.pairs)
        return order.tensor_split(self.count)


class TensorSource(_CountedSource):
    """Pairs held in memory, indexed without a loader in between."""

    def __init__(self, u: Tensor, v: Tensor, plan: Plan, name: str = "") -> None:
        super().__init__(plan)
        _check_pairs(u, v, name)
        self.pairs = len(u)
        self._original = Batch(u, v)
        resident = u.nbytes + v.nbytes <= _RESIDENT_BYTES
        self._u, self._v = self._to_device(u, v) if resident else self._original

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        if self.count == 1:
            yield from [self._to_device(self._u, self._v)][start:]
            return
        for rows in self._rows(epoch)[start:]:
            rows = rows.to(self._u.device)
            yield self._to_device(self._u[rows], self._v[rows])

    def sample(self) -> Batch:
        return self._to_device(self._u[:2], self._v[:2])

    def in_order(self) -> Iterator[tuple[int, Batch]]:
        """Yield all pairs once, some at a time, each time with the number of the first."""
        for start in range(0, self.pairs, _ROWS_AT_ONCE):
            stop = start + _ROWS_AT_ONCE
            yield start, self._to_device(self._u[start:stop], self._v[start:stop])

    def describe(self, sample: Batch) -> dict[str, Any]:
        rows = torch.linspace(0, self.pairs - 1, min(self.pairs, _DIGEST_ROWS), dtype=torch.float64).long()
        digest = hashlib.sha256()
        for tensor in self._original:
            chosen = tensor[rows.to(tensor.device)].detach().cpu().contiguous()
            digest.update(chosen.reshape(-1).view(torch.uint8).numpy().tobytes())
        return {"pairs": self.pairs, **_describe_pair(sample), "contents": digest.hexdigest()[:16]}


class DatasetSource(_CountedSource):
    """A map-style data set of pairs (u_i, v_i)."""

    def __init__(self, dataset: Dataset, plan: Plan, name: str = "") -> None:
        super().__init__(plan)
        self.pairs, self._dataset, self._name = len(cast(Sized, dataset)), dataset, name
        _check_count(self.pairs, name)

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        return self._load([rows.tolist() for rows in self._rows(epoch)], epoch, start)

    def _load(self, rows: list[list[int]], epoch: int, start: int) -> Generator[Batch]:
        seed_everything(derive_seed(self.plan.seed, Stream.DATA, epoch), self.plan.device)
        loader = iter(DataLoader(self._dataset, batch_sampler=rows[start:]))
        for number in range(start, len(rows)):
            # An augmentation in the data set must draw the same numbers whether or not earlier batches were skipped.
            seed_everything(derive_seed(self.plan.seed, Stream.DATA, epoch, number), self.plan.device)
            yield self._to_device(*_as_pair(next(loader), f"{self._name}batch {number}"))

    def sample(self) -> Batch:
        return next(self._load([[0, 1]], epoch=0, start=0))

    def describe(self, sample: Batch) -> dict[str, Any]:
        return {"pairs": self.pairs, **_describe_pair(sample)}


class LoaderSource(PairSource):
    """A user's own loader, whose batches are taken as they come; those of a single pair are passed over."""

    def __init__(self, loader: DataLoader, plan: Plan, name: str = "") -> None:
        super().__init__(plan)
        self._loader, self._name = loader, name
        if loader.batch_size == 1:
            raise ValueError(f"{name}batches of one pair cannot make a contrast: give the DataLoader batch_size ≥ 2")

    @property
    def count(self) -> int | None:
        try:
            return len(self._loader)
        except TypeError:
            return None

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        with _generators_restored(self._generators()):
            self._seed(epoch)
            loader, number = iter(self._loader), 0
            while True:
                # Replayed from the start after a resume, so each batch draws from a seed of its own.
                seed_everything(derive_seed(self.plan.seed, Stream.DATA, epoch, number), self.plan.device)
                raw = next(loader, None)
                if raw is None:
                    return
                u, v = _as_pair(raw, f"{self._name}batch {number} of the DataLoader")
                if len(u) < 2:
                    continue
                if number >= start:
                    yield self._to_device(u, v)
                number += 1

    def sample(self) -> Batch:
        batch = next(self.batches(epoch=0), None)
        if batch is None:
            raise ValueError(f"{self._name}pairs must not be empty, got a DataLoader without a batch of two or more")
        return batch

    def describe(self, sample: Batch) -> dict[str, Any]:
        return {"batches": self.count, "loader_batch_size": self._loader.batch_size, **_describe_pair(sample)}

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
    tensors = as_tensors(pairs)
    if tensors is not None:
        return TensorSource(*tensors, plan, name)
    if isinstance(pairs, Dataset) and not isinstance(pairs, IterableDataset) and hasattr(pairs, "__len__"):
        return DatasetSource(pairs, plan, name)
    raise TypeError(
        f"{name}pairs must be a tuple (u, v) of tensors, a torch Dataset with a length whose items are (u_i, v_i), "
        f"or a DataLoader of (u, v) batches, got {_describe_kind(pairs)}"
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
        _check_pairs(*tensors, name="")
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
        dataset = cast(Dataset, pairs)
        return Subset(dataset, rows[0].tolist()), Subset(dataset, rows[1].tolist())
    (u, v), (kept, held) = tensors, rows
    return (u[kept], v[kept]), (u[held], v[held])


def batch_count(pairs: int, batch_size: int | None) -> int:
    """Return the number of batches, of equal size give or take one pair, none a single pair; one if size is None."""
    return 1 if batch_size is None else max(1, min(math.ceil(pairs / batch_size), pairs // 2))


def as_tensors(pairs: object) -> tuple[Tensor, Tensor] | None:
    """Return u and v if the pairs are held in memory."""
    if type(pairs) is TensorDataset and len(pairs.tensors) == 2:
        return pairs.tensors[0], pairs.tensors[1]
    if isinstance(pairs, tuple) and len(pairs) == 2:
        return require_tensor("u", pairs[0]), require_tensor("v", pairs[1])
    return None


def _check_pairs(u: Tensor, v: Tensor, name: str) -> None:
    for label, tensor in (("u", u), ("v", v)):
        if tensor.ndim == 0:
            raise ValueError(f"{name}{label} must have a first dimension that counts pairs, got {describe(tensor)}")
    if len(u) != len(v):
        raise ValueError(f"{name}u and v must hold equally many pairs, got {len(u)} and {len(v)}")
    _check_count(len(u), name)
    require_finite(f"{name}u", u)
    require_finite(f"{name}v", v)


def _check_count(count: int, name: str) -> None:
    if count < 2:
        raise ValueError(f"{name}pairs must be at least two for a contrast, got {count or 'none: the data are empty'}")


def _as_pair(batch: object, name: str) -> Batch:
    """Check a batch that user code made, which no check before training can do."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise TypeError(f"{name} must be a pair (u, v) of tensors, got {_describe_kind(batch)}")
    u, v = batch
    if u.ndim == 0 or v.ndim == 0 or len(u) != len(v):
        raise ValueError(f"{name}: u and v must hold equally many pairs, got {describe(u)} and {describe(v)}")
    return Batch(require_finite(f"u in {name}", u), require_finite(f"v in {name}", v))


def _describe_pair(batch: Batch) -> dict[str, str]:
    return {name: f"{part.dtype} of shape {tuple(part.shape[1:])}" for name, part in batch._asdict().items()}


def _describe_kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {[type(part).__name__ for part in value[:4]]}"
    return f"a {type(value).__name__}"


@contextmanager
def _generators_restored(generators: list[torch.Generator]) -> Iterator[None]:
    states = [own.get_state() for own in generators]
    try:
        yield
    finally:
        for own, state in zip(generators, states, strict=True):
            own.set_state(state)
