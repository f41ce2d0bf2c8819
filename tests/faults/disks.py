"""Disks that are full, at every stage of a write, and folders that nothing can be written to."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from faults import things
from faults.processes import Row, contents, run, temporaries
from probcl.cli.outputs import write_arrays

SIZE = 2**20


@dataclass(frozen=True)
class Target:
    """Something to write on a small disk, an older one and a newer one, and what is read back."""

    write: Callable[[Path, int], object]
    name: str
    read: Callable[[Path], str]
    room: int


def _arrays(path: Path, seed: int) -> None:
    write_arrays(path, {"x": torch.randn(5000, generator=torch.Generator().manual_seed(seed))})


def _library(path: Path, seed: int) -> None:
    path.mkdir(exist_ok=True)
    things.add_to_library(path) if seed else things.create_library(path)


TARGETS: dict[str, Target] = {
    "model": Target(lambda path, seed: things.model(seed).save(path), "model", things.of_model, 5_000),
    "checkpoint": Target(things.write_checkpoint, "checkpoint", things.of_checkpoint, 5_000),
    "library": Target(_library, "shelf", things.of_library, 120_000),
    "netCDF": Target(
        lambda path, seed: things.write(things.posterior(path.parents[1], seed), path),
        "posterior.nc",
        things.of_posterior,
        90_000,
    ),
    "zarr": Target(
        lambda path, seed: things.write(things.posterior(path.parents[1], seed), path),
        "posterior.zarr",
        things.of_posterior,
        180_000,
    ),
    "result of the command line": Target(_arrays, "x.npz", lambda path: str(contents(path)), 20_000),
}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """Mount a small disk in memory on a folder; False where that is not permitted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disks(name: str, cases: int, seed: int, scratch: Path) -> Row:
    """Write with less and less room: it is written, or refused by name, and then the old one is there still."""
    target, row = TARGETS[name], Row(f"full disk: {name}")
    rng = np.random.default_rng(seed)
    disk = scratch / "disk"
    assert not run(things.write_ocean, scratch).error
    with mounted(disk, f"size={SIZE}") as done:
        if not done:
            row.messages["not tried: mounting a disk is not permitted here"] += 1
            return row
        for room in rng.integers(0, target.room, cases).tolist():
            _once(target, row, disk, room)
            for path in disk.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return row


def _once(target: Target, row: Row, disk: Path, room: int) -> None:
    path = disk / target.name
    first = run(target.write, path, 0)
    old = run(target.read, path)
    assert old.value, (first, old)
    before = contents(path)
    _fill(disk, room)
    ended = run(target.write, path, 1)
    after, found = contents(path), run(target.read, path)
    if not ended.error and not ended.signal:
        lost = "" if found.value and found.value != old.value else f"{row.fault}: written, but not readable"
        row.add("there was room", lost=lost)
    elif before != after or temporaries(disk):
        row.add(ended.error, lost=f"{row.fault}: changed though refused, left {temporaries(disk)}")
    else:
        clear = "No space left on device" in ended.error and target.name in ended.error
        row.add("No space left on device: '…'", silent="" if clear else f"{row.fault}: {ended}")


def _fill(disk: Path, room: int) -> None:
    """Leave so many bytes free, or fewer."""
    free = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file:
        file.write(bytes(max(free.f_bavail * free.f_frsize - room, 0)))


def read_only(cases: int, seed: int, scratch: Path) -> Row:
    """Write everything into a folder on a disk that is mounted to be read only."""
    row, disk = Row("read-only folder: all of these"), scratch / "disk"
    assert not run(things.write_ocean, scratch).error
    with mounted(disk, "size=1m,ro") as done:
        if not done:
            row.messages["not tried: mounting a disk is not permitted here"] += 1
            return row
        for name, target in list(TARGETS.items())[:cases]:
            ended = run(target.write, disk / target.name, 0)
            clear = str(disk) in ended.error and any(text in ended.error for text in ("Read-only", "be written"))
            told = "Read-only file system: '…'" if "Read-only" in ended.error else "nothing can be written here: '…'"
            row.add(told, silent="" if clear else f"read-only {name}: {ended}")
    return row
