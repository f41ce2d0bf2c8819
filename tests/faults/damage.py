"""Files that are cut short or of which one bit is flipped: each is refused by name, or what is read is the same."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from faults import things
from faults.processes import Row, allow, files, run
from probcl.assimilation.archive import COMPONENTS, load_values

CHUNK, SECONDS_EACH = 100, 20.0


@dataclass(frozen=True)
class Subject:
    """What is damaged: how it is written, and read as a digest of all that it says; which of its files."""

    write: Callable[[Path], object]
    read: Callable[[Path], str]
    name: str
    inside: str = ""
    checked: bool = True


def _dataset(path: Path) -> str:
    """Return what read_archive reads, attributes too."""
    found = things.read_archive(path)
    for name in COMPONENTS:
        load_values(found, name)  # as whoever uses an archive does, with an error that names it
    return things.of_dataset(found.drop_attrs(deep=False).assign_attrs(_attributes(found)))


def _attributes(found: xr.Dataset) -> dict:
    """Return what a file says, without its name, which reading adds."""
    return {key: value for key, value in found.attrs.items() if key != "archive_source"}


def _posterior(path: Path) -> None:
    things.write_ocean(path.parent)
    things.write(things.posterior(path.parent), path)


def _assimilator(path: Path) -> None:
    (path.parent / "out").mkdir()
    things.write_assimilator(path.parent)
    shutil.move(path.parent / "whole", path)


def _shelf(path: Path) -> None:
    path.mkdir()
    things.create_library(path, 40)


def _foreign(path: Path) -> None:
    """Write netCDF without checksums, as others do."""
    archive = things.random_fourier(1, 3, seed=1).isel(member=0)
    archive.to_netcdf(path)


SUBJECTS: dict[str, Subject] = {
    "model": Subject(lambda path: things.model().save(path), things.of_model, "the-model", "model.safetensors"),
    "checkpoint": Subject(things.write_checkpoint, things.of_checkpoint, "the-checkpoint"),
    "library, shard": Subject(_shelf, things.of_library, "the-shelf", "shard-"),
    "library, manifest": Subject(_shelf, things.of_library, "the-shelf", "library.json"),
    "assimilator": Subject(_assimilator, things.of_assimilator, "the-learned", "assimilator.safetensors"),
    "our netCDF": Subject(_posterior, _dataset, "posterior.nc"),
    "our zarr, chunks": Subject(_posterior, _dataset, "posterior.zarr", "/"),
    "our zarr, metadata": Subject(_posterior, _dataset, "posterior.zarr", ".z"),
    "IDX, gzipped": Subject(
        things.write_idx, lambda path: things.digest(things.read_idx(path)), "train-images-idx3-ubyte.gz"
    ),
    "IDX, plain": Subject(
        things.write_idx, lambda path: things.digest(things.read_idx(path)), "train-images-idx3-ubyte", checked=False
    ),
    "netCDF of others, without checksums": Subject(_foreign, _dataset, "archive.nc", checked=False),
}


def damaged(name: str, cases: int, seed: int, scratch: Path) -> Row:
    """Damage a file in many ways, and read it.

    Where the format has no checksum nobody can tell what a flipped bit has changed: that is counted apart; truncations
    count as for all.
    """
    subject, row = SUBJECTS[name], Row(f"damaged: {name}")
    path = scratch / subject.name
    written = run(subject.write, path)
    whole = run(subject.read, path)
    assert whole.value, (written, whole)
    found = [file for file in ([path] if path.is_file() else files(path)) if _is_meant(file, path, subject.inside)]
    first = 0
    while first < cases:
        # Libraries in C may crash or loop for ever on a file; then go on after it.
        progress = scratch / "progress"
        progress.write_text("")
        last = min(first + CHUNK, cases)
        ended = run(_damage_all, subject, path, found, range(first, last), seed, progress, whole.value)
        lines = progress.read_text().splitlines()
        for line in lines:
            _count(row, subject, *line.split("\t", 2))
        first += len(lines)
        if first < last:
            assert ended.signal, ended
            row.add(f"the process died in a library: {signal.Signals(ended.signal).name}", died=True)
            first += 1
    return row


def _is_meant(file: Path, path: Path, inside: str) -> bool:
    name = file.relative_to(path).as_posix() if file != path else ""
    if inside == "/":
        return "/" in name and not file.name.startswith(".")
    return file.name.startswith(inside) if inside else True


def _damage_all(
    subject: Subject, path: Path, found: list[Path], cases: range, seed: int, progress: Path, whole: str
) -> None:
    wholes = {file: file.read_bytes() for file in found}
    with progress.open("w") as lines:
        for case in cases:
            allow(SECONDS_EACH)
            rng = np.random.default_rng([seed, case])
            file = found[int(rng.integers(len(found)))]
            content = bytearray(wholes[file])
            way = "cut short" if case % 5 == 0 else "flipped"
            if way == "cut short":
                del content[int(rng.integers(len(content))) :]
            else:
                bit = int(rng.integers(8 * len(content)))
                content[bit // 8] ^= 1 << bit % 8
            # A lone file has another name each time, for libraries remember what they opened.
            spoiled = file.with_name(f"{case}-{file.name}") if file == path else file
            spoiled.write_bytes(content)
            lines.write(f"{way}\t{_verdict(subject, spoiled if file == path else path, spoiled, whole)}\n")
            lines.flush()
            spoiled.unlink()
            file.write_bytes(wholes[file])


def _verdict(subject: Subject, path: Path, file: Path, whole: str) -> str:
    try:
        same = subject.read(path) == whole
    except Exception as error:
        said = " ".join(str(error).split())
        named = path.name in said or file.name in said
        return f"refused by name\t{said}" if named else f"refused\t{type(error).__name__}: {said}"
    return "the same\t" if same else f"changed\t{file.name}"


def _count(row: Row, subject: Subject, way: str, verdict: str, said: str) -> None:
    if verdict == "changed" and not subject.checked and way == "flipped":
        row.add("read with the flipped bit", unseen=True)
        return
    row.add(verdict, silent=f"{row.fault}, {way}: {verdict} {said}" if verdict in ("changed", "refused") else "")
