"""Pickles that touch a file when they are read, in the place of every file that probcl reads."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from faults import things
from faults.processes import Row, files, run
from probcl.cli import documents
from probcl.cli.arrays import ArrayFile, read_array


class _Exploding:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.mark,)


def bomb(mark: Path) -> bytes:
    """Return a pickle that makes the folder `mark` when it is read."""
    return pickle.dumps(_Exploding(mark))


def objects(mark: Path) -> bytes:
    """Return an .npy file of one object."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Exploding(mark)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def archive(mark: Path) -> bytes:
    """Return an .npz file of objects."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("x.npy", objects(mark))
    return buffer.getvalue()


def _zarr(path: Path, mark: Path, version: int) -> None:
    xr.Dataset({"x": ("n", np.arange(4.0))}).to_zarr(path, zarr_format=version, consolidated=True)
    for file in files(path):
        if file.name in (".zarray", ".zmetadata", "zarr.json"):
            said = json.loads(file.read_text())
            for part in (said, *said.get("metadata", {}).values()):
                if isinstance(part, dict) and "compressor" in part:
                    part |= {"filters": [{"id": "pickle", "protocol": 5}], "compressor": None}
                if isinstance(part, dict) and "codecs" in part:
                    part["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
            file.write_text(json.dumps(said))
        elif not file.name.startswith("."):
            file.write_bytes(bomb(mark))


def _in_place(write: Callable[[Path], object], name: str) -> Callable[[Path, Path], None]:
    """Put a pickle in the place of one file of what is written."""

    def put(path: Path, mark: Path) -> None:
        write(path)
        found = [file for file in ([path] if path.is_file() else files(path)) if file.name.startswith(name)]
        for file in found:
            file.write_bytes(bomb(mark))

    return put


def _yaml(path: Path, mark: Path) -> None:
    path.write_text(f"data: !!python/object/apply:os.mkdir ['{mark}']\n")


def _array(path: Path) -> object:
    return read_array(ArrayFile(path=str(path)))


# By name: the file, how it is made, and what reads it.
BOMBS: dict[str, tuple[str, Callable[[Path, Path], object], Callable[[Path], object]]] = {
    "model": ("m", _in_place(lambda path: things.model().save(path), "model.safetensors"), things.of_model),
    "config.json": ("m", _in_place(lambda path: things.model().save(path), "config.json"), things.of_model),
    "checkpoint": ("c", _in_place(things.write_checkpoint, "c"), things.of_checkpoint),
    "pickle as .npy": ("x.npy", lambda path, mark: path.write_bytes(bomb(mark)), _array),
    "objects in .npy": ("x.npy", lambda path, mark: path.write_bytes(objects(mark)), _array),
    "objects in .npz": ("x.npz", lambda path, mark: path.write_bytes(archive(mark)), _array),
    "pickle as .safetensors": ("x.safetensors", lambda path, mark: path.write_bytes(bomb(mark)), _array),
    "pickle as netCDF": ("x.nc", lambda path, mark: path.write_bytes(bomb(mark)), _array),
    "pickle as IDX": ("x.idx", lambda path, mark: path.write_bytes(bomb(mark)), things.read_idx),
    "pickle as tracks": ("x.csv", lambda path, mark: path.write_bytes(bomb(mark)), things.read_tracks),
    "pickle as image": ("x.png", lambda path, mark: path.write_bytes(bomb(mark)), things.read_image),
    "zarr 2 with a codec that unpickles": ("x.zarr", lambda path, mark: _zarr(path, mark, 2), _array),
    "zarr 3 with a codec that unpickles": ("x.zarr", lambda path, mark: _zarr(path, mark, 3), _array),
    "archive in zarr, likewise": (
        "x.zarr",
        lambda path, mark: _zarr(path, mark, 2),
        lambda path: things.read_archive(path).load(),
    ),
    "YAML with !!python/object": ("x.yaml", _yaml, documents.read),
    "library": (
        "library",
        _in_place(lambda path: things.create_library(path.parent, 40), "shard-"),
        lambda path: things.of_library(path.parent),
    ),
    "manifest of a library": (
        "library",
        _in_place(lambda path: things.create_library(path.parent, 40), "library.json"),
        lambda path: things.of_library(path.parent),
    ),
}


def bombs(scratch: Path) -> Row:
    """Read each: nothing may run, and it must be refused, but for a copy that is only for people."""
    row = Row("code in a file that is read")
    pickle.loads(bomb(scratch / "proof"))
    assert (scratch / "proof").exists(), "the bomb is a dud"
    for number, (name, (file, make, read)) in enumerate(BOMBS.items()):
        folder = scratch / str(number)
        folder.mkdir()
        mark = folder / "it-ran"
        made = run(make, folder / file, mark)
        assert (made.error, made.signal) == ("", 0), (name, made)
        ended = run(read, folder / file)
        if mark.exists():
            row.add(lost=f"{name}: code ran: {ended}")
            continue
        refused = ended.error.startswith(("DataFileError", "CheckpointError", "ConfigError"))
        fine = refused or name == "config.json"
        row.add("nothing ran, refused" if refused else "nothing ran", silent="" if fine else f"{name}: {ended}")
    return row
