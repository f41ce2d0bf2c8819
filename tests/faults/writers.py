"""Two processes that write the same target at once: one of them whole, or a clear error, and never a mixture."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults import things
from faults.processes import Row, Running, run, temporaries


@dataclass(frozen=True)
class Contest:
    """What both write, each in its own way, and what is read back of the winner."""

    prepare: Callable[[Path], object]
    write: Callable[[Path, int], object]
    read: Callable[[Path], str]


def _add(folder: Path, seed: int) -> None:
    things.add_to_library(folder / "out", 200 + 50 * seed, 250 + 50 * seed)


def _posterior(suffix: str) -> Contest:
    def path(folder: Path) -> Path:
        return folder / "out" / f"posterior{suffix}"

    return Contest(
        things.write_ocean,
        lambda folder, seed: things.write(things.posterior(folder, seed), path(folder)),
        lambda folder: things.of_posterior(path(folder)),
    )


def _nothing(folder: Path) -> None:
    """Most need nothing."""


def _fit(folder: Path, seed: int) -> None:
    code = things.fit(folder, "--seed", str(seed), "--debug")
    if code:
        raise RuntimeError(f"{folder / 'out'}: exit code {code}")


CONTESTS: dict[str, Contest] = {
    "model": Contest(
        _nothing,
        lambda folder, seed: things.model(seed).save(folder / "out" / "model"),
        lambda folder: things.of_model(folder / "out" / "model"),
    ),
    "checkpoint": Contest(
        _nothing,
        lambda folder, seed: things.write_checkpoint(folder / "out" / "checkpoint", seed),
        lambda folder: things.of_checkpoint(folder / "out" / "checkpoint"),
    ),
    "folder of `probcl fit`": Contest(things.write_fit_inputs, _fit, things.of_fit),
    "library, created": Contest(
        _nothing,
        lambda folder, seed: things.create_library(folder / "out", 100 + 50 * seed),
        lambda folder: things.of_library(folder / "out"),
    ),
    "library, added to": Contest(
        lambda folder: things.create_library(folder / "out"), _add, lambda folder: things.of_library(folder / "out")
    ),
    "assimilator": Contest(
        things.write_assimilator,
        things.save_assimilator,
        lambda folder: things.of_assimilator(folder / "out" / "learned"),
    ),
    "netCDF": _posterior(".nc"),
    "zarr": _posterior(".zarr"),
}


def writers(name: str, cases: int, seed: int, scratch: Path) -> Row:
    """Let two processes write; compare with what each writes alone, and with one after the other."""
    contest, row = CONTESTS[name], Row(f"two writers: {name}")
    alone = []
    for which in (0, 1):
        folder = _prepared(contest, scratch / "here")
        ended = run(contest.write, folder, which)
        read = run(contest.read, folder)
        assert read.value, (ended, read)
        alone.append(read.value)
        folder.rename(scratch / f"done-{which}")
    for case in range(cases):
        folder = _prepared(contest, scratch / "here")
        both = [Running(_at, time.time() + 0.05, contest.write, folder, which) for which in (0, 1)]
        ends = [one.end() for one in both]
        found = run(contest.read, folder)
        errors = [end.error for end in ends if end.error]
        unclear = [error for error in errors if "out" not in error]
        if found.value not in alone and not (name == "library, added to" and not errors and found.value):
            row.add(lost=f"{row.fault}: {found} after {ends}")
        elif len(errors) == 2 or temporaries(folder):
            row.add(lost=f"{row.fault}: both refused, or left {temporaries(folder)}: {ends}")
        else:
            told = "one refused, the other whole" if errors else "both wrote, the last is whole"
            row.add(told, silent=f"{row.fault}: {unclear}" if unclear else "")
        folder.rename(scratch / f"done-case-{case}")
    return row


def _prepared(contest: Contest, folder: Path) -> Path:
    (folder / "out").mkdir(parents=True)
    ended = run(contest.prepare, folder)
    assert not ended.error, ended
    return folder


def _at(moment: float, work: Callable[[Path, int], object], folder: Path, which: int) -> None:
    time.sleep(max(0.0, moment - time.time()))
    work(folder, which)
