"""Zarr folders: checksums beside what probcl writes, and a look at any before it is opened.

Zarr reads a chunk that is missing as fill values, and checks nothing of its metadata; a codec that unpickles may be
named in them. What is written here has a list of digests, ``SHA256SUMS``, which ``sha256sum -c`` reads too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probcl.errors import DataFileError
from probcl.files import digest_of_file

SUMS = "SHA256SUMS"
_METADATA = (".zmetadata", ".zarray", ".zattrs", ".zgroup", "zarr.json")


def seal(folder: Path) -> None:
    """List the digests of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{digest_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def require_readable(folder: Path) -> None:
    """Look at a folder before zarr does: reading it must run no code, and if it is sealed, nothing may be missing.

    Of a sealed folder the metadata are compared with their digests. The chunks, which may be many, must only be there:
    those of ours have checksums of their own, which reading compares.

    Raises
    ------
    DataFileError
        If its metadata are damaged or changed or name a codec that unpickles, or a chunk is missing.
    """
    for path in _metadata(folder):
        if any("pickle" in str(codec) for codec in _codecs(_parsed(path, folder))):
            raise DataFileError(f"{_name(path, folder)} names a codec that unpickles, which can run any code; not read")
    if (folder / SUMS).is_file():
        _require_sealed(folder)


def _require_sealed(folder: Path) -> None:
    listed = _listed(folder)
    absent = [name for name in listed if not (folder / name).is_file()]
    if absent:
        raise DataFileError(f"{folder.name} is damaged: {absent[0]}, which its {SUMS} lists, is missing")
    for path in _metadata(folder):
        if listed.get(path.relative_to(folder).as_posix()) != digest_of_file(path):
            raise DataFileError(
                f"{_name(path, folder)} was damaged or changed since it was written: it does not match {SUMS} "
                "(remove that file if the change was meant)"
            )


def _listed(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        return {name: digest for digest, name in pairs}
    except ValueError as error:
        raise DataFileError(f"{folder.name}/{SUMS} is damaged: {error}") from error


def _metadata(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        # What is behind a link is not looked at here, and zarr would follow it.
        if path.is_symlink():
            raise DataFileError(f"{_name(path, folder)} must be a file or a folder, got a link")
        if path.name in _METADATA and path.is_file():
            yield path


def _parsed(path: Path, folder: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{_name(path, folder)} is damaged: {error}") from error


def _codecs(value: Any) -> Iterator[Any]:
    """Yield what may be the name of a codec, wherever it stands."""
    if isinstance(value, dict):
        yield from (value[key] for key in ("id", "name") if key in value)
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _codecs(item)


def _name(path: Path, folder: Path) -> str:
    return f"{folder.name}/{path.relative_to(folder).as_posix()}"
