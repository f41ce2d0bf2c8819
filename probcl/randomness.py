"""Randomness without global state.

Every random number of a fit is a function of its seed and of where it is drawn. Because each step starts from a seed of
its own, a fit that was killed continues with the numbers it would have drawn anyway, and a checkpoint need not hold the
state of any generator.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a random number is for; streams do not overlap."""

    SPLIT = 0
    ORDER = 1
    DATA = 2
    MODEL = 3
    RANK = 4


def derive_seed(seed: int, stream: Stream, *position: int) -> int:
    """Return the seed of a position (an epoch, a step) in a stream."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, *position))
    return int(sequence.generate_state(1, np.uint64)[0])


def rank_seed(seed: int, rank: int) -> int:
    """Return the seed of what each of several ranks draws on its own; the first one's is the seed itself."""
    return derive_seed(seed, Stream.RANK, rank) if rank else seed


def generator(seed: int, stream: Stream, *position: int) -> torch.Generator:
    """Return a CPU generator for a position in a stream."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, *position))


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of this device, and no other device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed what a user's data set may draw from: torch, NumPy's legacy generator and Python's."""
    seed_torch(seed, device)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - data sets in the wild use the legacy generator
    random.seed(seed)


@contextmanager
def randomness_restored(device: torch.device) -> Iterator[None]:
    """Give the caller's global generators back as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed and give the global generators back as they were; with no seed, do nothing."""
    if seed is None:
        yield
        return
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    with randomness_restored(device):
        seed_torch(seed, device)
        yield
