"""Two processes that write the same target at once: one of them whole, or a clear error, and never a mixture."""

import io
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from faults import things
from faults.processes import Ended, Row, Running, run, temporaries


@dataclass(frozen=True)
class Contest:
    """What both write, each in its own way, and what is read back of the winner.

    `joint` says that one who writes after the other adds to what is there, and does not replace it.
    """

    prepare: Callable[[Path], object]
    write: Callable[[Path, int], object]
    read: Callable[[Path], str]
    joint: bool = False


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
    with redirect_stderr(io.StringIO()) as said:
        code = things.fit(folder, "--seed", str(seed))
    if code:
        raise RuntimeError(said.getvalue())


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
        lambda folder: things.create_library(folder / "out"),
        _add,
        lambda folder: things.of_library(folder / "out"),
        joint=True,
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
    """Let two processes write: what is there must be what those that were not refused write, one after the other."""
    contest, row = CONTESTS[name], Row(f"two writers: {name}")
    # By who wrote: what is there then.
    wholes = {order: _alone(contest, scratch, order) for order in ((0,), (1,), *(((0, 1), (1, 0)) * contest.joint))}
    for case in range(cases):
        folder = _prepared(contest, scratch / "here")
        both = [Running(_at, time.time() + 0.05, contest.write, folder, which) for which in (0, 1)]
        ends = [one.end() for one in both]
        found = run(contest.read, folder)
        _judge(row, contest, folder, [end.error or end.signal for end in ends], wholes, found)
        folder.rename(scratch / f"done-case-{case}")
    return row


def _alone(contest: Contest, scratch: Path, order: tuple[int, ...]) -> str:
    """Return what is read when they write one after the other."""
    folder = _prepared(contest, scratch / "here")
    for which in order:
        ended = run(contest.write, folder, which)
        assert not ended.error, ended
    read = run(contest.read, folder)
    assert read.value, read
    folder.rename(scratch / f"done-{order}")
    return read.value


def _judge(
    row: Row, contest: Contest, folder: Path, errors: list[str | int], wholes: dict[tuple[int, ...], str], found: Ended
) -> None:
    wrote = {which for which, error in enumerate(errors) if not error}
    # Where they add to each other all of them are there, else the last, which may be any.
    kept = [value for order, value in wholes.items() if set(order) == wrote or (set(order) < wrote and len(wholes) < 3)]
    unclear = [error for error in errors if error and str(folder / "out") not in str(error)]
    if not wrote or found.value not in kept:
        row.add(lost=f"{row.fault}: {found} after {errors}")
    elif temporaries(folder):
        row.add(lost=f"{row.fault}: left {temporaries(folder)} after {errors}")
    else:
        both = "both wrote, both are there" if contest.joint else "both wrote, the last is whole"
        told = "one refused, the other whole" if any(errors) else both
        row.add(told, silent=f"{row.fault}: {unclear}" if unclear else "")


def _prepared(contest: Contest, folder: Path) -> Path:
    start = folder.with_name("start")
    if not start.exists():
        (start / "out").mkdir(parents=True)
        ended = run(contest.prepare, start)
        assert not ended.error, ended
    shutil.copytree(start, folder)
    return folder


def _at(moment: float, work: Callable[[Path, int], object], folder: Path, which: int) -> None:
    time.sleep(max(0.0, moment - time.time()))
    work(folder, which)
