"""What users name as a source (paths, globs, zarr folders, open datasets), opened without reading the data."""

import glob
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import xarray as xr
from scipy.io import netcdf_file

from probcl.checks import describe
from probcl.errors import DataFileError
from probcl.files import put_back
from probcl.zarr_folders import require_readable

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.Dataset

READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    EOFError,
    zlib.error,
)
"""What the libraries below xarray raise at damaged files."""

_WILDCARDS = frozenset("*?[")
_CLASSIC = (b"CDF\x01", b"CDF\x02")
_ZARR_MARKS = (".zgroup", ".zmetadata", "zarr.json")


class Opened(NamedTuple):
    """A dataset, neither decoded in time nor read, what to call it in messages, and whether it is of a file."""

    label: str
    dataset: xr.Dataset
    of_file: bool


def open_source(source: Source) -> list[Opened]:
    """Open each file of a source.

    Raises
    ------
    DataFileError
        If there is no file, or one cannot be opened.
    TypeError
        If `source` is none of what it may be.
    """
    if isinstance(source, xr.Dataset):
        return [Opened("source", source, of_file=False)]
    opened: list[Opened] = []
    try:
        for path in _paths(source):
            opened.append(Opened(path.name, _open(path), of_file=True))
    except BaseException:
        close(opened)
        raise
    return opened


def close(opened: Sequence[Opened]) -> None:
    """Close the files of a source, but not a dataset, which is the user's own."""
    for _, dataset, of_file in opened:
        if of_file:
            dataset.close()


def _paths(source: object) -> list[Path]:
    """Return the paths that a source names, in order."""
    if isinstance(source, str) and _WILDCARDS & set(source) and not Path(source).exists():
        paths = [Path(path) for path in sorted(glob.glob(source, recursive=True))]
    elif isinstance(source, str | os.PathLike):
        paths = [Path(source)]
    elif isinstance(source, Sequence) and all(isinstance(path, str | os.PathLike) for path in source):
        paths = [Path(path) for path in source]
    else:
        raise TypeError(
            f"source must be a path, a pattern of paths, a list of paths or an xarray.Dataset, got {describe(source)}"
        )
    if not paths:
        raise DataFileError(f"source must name one file or more, got {source!r}, which names none")
    return paths


def source_name(opened: Sequence[Opened]) -> str:
    """Return file names, without folders, for messages and for the record."""
    first, last = opened[0].label, opened[-1].label
    return first if len(opened) == 1 else f"{first} to {last} ({len(opened)} files)"


def has_dask() -> bool:
    """Return whether dask is importable."""
    return find_spec("dask") is not None


def _open(path: Path) -> xr.Dataset:
    put_back(path)
    folder = path.is_dir()
    if not path.exists():
        raise DataFileError(f"source must be a file, got {path.name!r}, which does not exist")
    if folder and not any((path / mark).exists() for mark in _ZARR_MARKS):
        raise DataFileError(f"source must be a file or a zarr folder, got {path.name!r}, a folder that is no zarr")
    if folder and find_spec("zarr") is None:
        raise ImportError(f'{path.name} is zarr, which needs the extra: pip install "probcl[zarr]"')
    if folder:
        require_readable(path)
    else:
        _require_whole(path)
    try:
        # xarray warns where it looks for consolidated metadata in vain.
        how = {"engine": "zarr", "consolidated": (path / ".zmetadata").exists()} if folder else {"engine": "netcdf4"}
        return xr.open_dataset(path, decode_times=False, decode_timedelta=False, cache=False, **how)
    except READ_ERRORS as error:
        kind = "a zarr folder" if folder else "a netCDF file"
        raise DataFileError(f"{path.name} must be {kind} that can be read: {error}") from error


def _require_whole(path: Path) -> None:
    """Refuse a truncated file of the classic formats, of which netCDF's own library reads zeros."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic in _CLASSIC:
            with netcdf_file(path, mmap=True):
                pass
    except READ_ERRORS as error:
        raise DataFileError(
            f"{path.name} must be a netCDF file that can be read, got one cut short or damaged, of "
            f"{path.stat().st_size} bytes: {error}"
        ) from error


@contextmanager
def named(label: str) -> Iterator[None]:
    """Turn what the libraries below say of a damaged file into `DataFileError`; what names the file itself passes."""
    try:
        yield
    except READ_ERRORS as error:
        if isinstance(error, ValueError | TypeError) and label in str(error):
            raise
        raise DataFileError(f"{label} must be readable: {type(error).__name__}: {error}") from error
