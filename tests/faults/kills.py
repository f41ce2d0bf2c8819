"""Processes killed with SIGKILL: at random moments, and before random changes of files."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults import things
from faults.processes import Row, Running, changes, files, run, temporaries


@dataclass(frozen=True)
class Job:
    """Something that writes into `out` below a folder, over an older one or where there is none.

    Attributes
    ----------
    prepare
        Writes what the job needs beside `out`.
    before
        Writes what is there before it, or does nothing.
    work, again
        The job, and what a user runs after it was killed.
    state
        Returns digests of what `out` holds, by name, where nothing is left out; raises what is none.
    """

    prepare: Callable[[Path], object]
    before: Callable[[Path], object]
    work: Callable[[Path], object]
    again: Callable[[Path], object]
    state: Callable[[Path], dict[str, str]]


def _fit_state(folder: Path) -> dict[str, str]:
    there = (folder / "out" / "model" / "model.safetensors").exists()
    return {"model": things.of_fit(folder) if there else ""}


def _library_state(folder: Path) -> dict[str, str]:
    there = (folder / "out" / "library" / "library.json").exists()
    return {"library": things.of_library(folder / "out") if there else ""}


def _assimilation_state(folder: Path, suffix: str) -> dict[str, str]:
    learned, posterior = folder / "out" / "learned", folder / "out" / f"posterior{suffix}"
    return {
        "learned": things.of_assimilator(learned) if learned.exists() else "",
        "posterior": things.of_posterior(posterior) if posterior.exists() else "",
    }


def _again_create(folder: Path) -> None:
    if not (folder / "out" / "library" / "library.json").exists():
        things.create_library(folder / "out")


def _again_add(folder: Path) -> None:
    from probcl.retrieval import Library

    if len(Library.open(folder / "out" / "library", things.model())) == 200:
        things.add_to_library(folder / "out")


def _assimilation(suffix: str) -> Job:
    return Job(
        things.write_ocean,
        lambda folder: things.write(things.posterior(folder, seed=9), folder / "out" / f"posterior{suffix}"),
        lambda folder: things.assimilate(folder, suffix),
        lambda folder: things.assimilate(folder, suffix),
        lambda folder: _assimilation_state(folder, suffix),
    )


def _nothing(folder: Path) -> None:
    """Before most jobs there is nothing."""


JOBS: dict[str, Job] = {
    "`fit`, a new model": Job(
        things.write_fit_inputs,
        _nothing,
        lambda folder: things.fit(folder, "--resume"),
        lambda folder: things.fit(folder, "--resume"),
        _fit_state,
    ),
    "`fit --overwrite`": Job(
        things.write_fit_inputs,
        lambda folder: things.fit(folder, "--seed", "8"),
        lambda folder: things.fit(folder, "--overwrite"),
        lambda folder: things.fit(folder, "--overwrite"),
        _fit_state,
    ),
    "`embed`: `Library.create`": Job(
        _nothing, _nothing, lambda folder: things.create_library(folder / "out"), _again_create, _library_state
    ),
    "`embed`: `Library.add`": Job(
        _nothing,
        lambda folder: things.create_library(folder / "out"),
        lambda folder: things.add_to_library(folder / "out"),
        _again_add,
        _library_state,
    ),
    "`Assimilator.save` over another": Job(
        things.write_assimilator,
        lambda folder: things.save_assimilator(folder, 0),
        lambda folder: things.save_assimilator(folder, 1),
        lambda folder: things.save_assimilator(folder, 1),
        lambda folder: {"learned": things.of_assimilator(folder / "out" / "learned")},
    ),
    "`assimilate`, netCDF": _assimilation(".nc"),
    "`assimilate`, zarr": _assimilation(".zarr"),
}


def _counted(folder: Path, job: Job) -> int:
    seen = changes(folder / "out")
    job.work(folder)
    return len(seen)


def _doomed(folder: Path, job: Job, event: int) -> None:
    changes(folder / "out", event)
    job.work(folder)


def kills(name: str, cases: int, seed: int, scratch: Path) -> Row:
    """Kill a job in many ways, look at what is there, and run it again: `out` must be the old or the new, then the new.

    Every second kill is before a random change of a file, the others are at random moments. One that came too late is
    no case: there is another instead.
    """
    job, row = JOBS[name], Row(f"kill -9 of {name}")
    rng = np.random.default_rng(seed)
    start, whole = scratch / "start", scratch / "whole"
    for folder in (start, whole):
        (folder / "out").mkdir(parents=True)
    prepared = run(lambda: (job.prepare(start), job.before(start)))
    assert not prepared.error, prepared
    old = run(job.state, start)
    # What is made anew must not depend on the folder's name.
    shutil.rmtree(whole)
    shutil.copytree(start, whole)
    work = scratch / "work"
    whole.rename(work)
    ended = run(_counted, work, job)
    events, seconds = ended.value, ended.seconds
    new, number = run(job.state, work), len(list(files(work / "out")))
    assert None not in (new.value, old.value), (ended, new, old)
    while row.cases < cases:
        shutil.rmtree(work)
        shutil.copytree(start, work)
        if row.cases % 2:
            ended = Running(_doomed, work, job, int(rng.integers(events))).end()
        else:
            ended = Running(job.work, work).kill_after(float(rng.uniform(0, seconds)))
        if ended.signal == signal.SIGKILL:
            _judge(row, job, work, (old.value, new.value), number)
    return row


def _judge(row: Row, job: Job, work: Path, states: tuple[dict, dict], number: int) -> None:
    found = run(job.state, work)
    if found.value is None:
        row.add(lost=f"{row.fault}: {found.error or found.signal}")
        return
    halves = {name for name, value in found.value.items() if value not in (states[0][name], states[1][name], "")}
    gone = {name for name, value in found.value.items() if states[0][name] and not value}
    # A fit in its last moment is its checkpoint, from which the next run goes on.
    gone -= {"model"} if (work / "out" / "model" / "checkpoint.safetensors").exists() else set()
    again = run(job.again, work)
    after = run(job.state, work)
    left = temporaries(work)
    if halves or gone:
        row.add(lost=f"{row.fault}: half {halves}, gone {gone}")
    elif again.error or after.value != states[1]:
        row.add(lost=f"{row.fault}: the next run came to something else: {again.error} {after}, not {states[1]}")
    elif left or len(list(files(work / "out"))) != number:
        row.add(lost=f"{row.fault}: left {left or list(files(work / 'out'))}")
    else:
        kept = "old" if found.value == states[0] else "new" if found.value == states[1] else "in between"
        row.add(f"{kept}, then new")
