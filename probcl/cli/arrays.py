"""Arrays in files: NumPy, safetensors, netCDF, zarr and tables. Nothing is unpickled."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from probcl.cli.reader import nearest
from probcl.errors import DataFileError
from probcl.files import put_back
from probcl.zarr_folders import require_readable

if TYPE_CHECKING:
    import xarray

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt")
_GRIDDED = (".nc", ".nc4", ".cdf", ".zarr")
_TABLES = (".csv", ".parquet")
SUFFIXES = (".npy", ".npz", ".safetensors", *_GRIDDED, *_TABLES)


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """An array in a file, whose first axis counts samples.

    Attributes
    ----------
    path
        Ends in .npy, .npz, .safetensors, .nc, .zarr, .csv or .parquet.
    key
        Which array of an .npz or .safetensors; may be left out where there is one only.
    variables
        Which variables of a netCDF file or a zarr store, stacked along the second axis; by default all that are numbers
        and have the sample dimension.
    sample_dim
        Their dimension that counts samples; by default the first of the first variable.
    columns
        Which columns of a table, in this order; by default all. A row is a sample.
    """

    SHORTHAND: ClassVar[str] = "path"

    path: str
    key: str | None = None
    variables: list[str] | None = None
    sample_dim: str | None = None
    columns: list[str] | None = None

    def __post_init__(self) -> None:
        suffix = Path(self.path).suffix.lower()
        if suffix in _PICKLES:
            raise ValueError(
                f"{self.path} is a pickle by its suffix, which can run any code as it is read; "
                "save the array as .safetensors or .npy"
            )
        if suffix not in SUFFIXES:
            raise ValueError(f"{self.path} must end in one of {', '.join(SUFFIXES)}")
        if self.key is not None and suffix not in (".npz", ".safetensors"):
            raise ValueError(f"key is for .npz and .safetensors, not for {self.path}")
        if (self.variables, self.sample_dim) != (None, None) and suffix not in _GRIDDED:
            raise ValueError(f"variables and sample_dim are for netCDF and zarr, not for {self.path}")
        if self.columns is not None and suffix not in _TABLES:
            raise ValueError(f"columns is for {' and '.join(_TABLES)}, not for {self.path}")

    def __str__(self) -> str:
        inside = self.key or ",".join(self.variables or self.columns or ())
        return f"{self.path}:{inside}" if inside else self.path


def array_file(text: str) -> ArrayFile:
    """Read how the command line names an array.

    ``FILE``, ``FILE:KEY``, ``FILE:COLUMN,COLUMN``, or ``FILE:VARIABLE,VARIABLE@SAMPLE_DIM``.
    """
    path, colon, inside = text.rpartition(":")
    if not colon or Path(text).exists() or not path:
        return ArrayFile(path=text)
    suffix = Path(path).suffix.lower()
    if suffix in _TABLES:
        return ArrayFile(path=path, columns=inside.split(","))
    if suffix not in _GRIDDED:
        return ArrayFile(path=path, key=inside)
    names, _, dim = inside.partition("@")
    return ArrayFile(path=path, variables=names.split(",") if names else None, sample_dim=dim or None)


def array_suffix(text: str) -> str | None:
    """Return the suffix of the array file that a text names, of one that is not there too; None if it names none."""
    path, _, _ = text.rpartition(":")
    return next((suffix for name in (text, path) if (suffix := Path(name).suffix.lower()) in SUFFIXES), None)


def read_array(file: ArrayFile) -> Shaped[Tensor, "n *event"]:
    """Read an array.

    Raises
    ------
    DataFileError
        If the file is missing or damaged, has no such array, or the array does not hold numbers in rows.
    """
    path = Path(file.path)
    put_back(path)
    if not path.exists():
        raise DataFileError(f"{path}: no such file")
    with _naming(path):
        match path.suffix.lower():
            case ".npy":
                array = np.load(path, allow_pickle=False)
            case ".npz":
                array = _from_npz(path, file.key)
            case ".safetensors":
                array = _from_safetensors(path, file.key)
            case ".csv" | ".parquet":
                array = _from_table(path, file.columns)
            case _:
                array = _from_dataset(path, file)
    return _as_rows(array, path)


def names_in(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz or .safetensors file."""
    with _naming(path):
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return list(archive.files)
        from safetensors import safe_open

        with safe_open(path, framework="pt") as archive:
            return list(archive.keys())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (DataFileError, ImportError):
        raise
    # A damaged file makes its reader fail in whatever way it happens to.
    except Exception as error:
        raise DataFileError(
            f"{path}: cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def _from_npz(path: Path, key: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        array: np.ndarray = archive[_chosen(path, key, list(archive.files))]
        return array


def _from_safetensors(path: Path, key: str | None) -> Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as archive:
        tensor: Tensor = archive.get_tensor(_chosen(path, key, list(archive.keys())))
        return tensor


def _chosen(path: Path, key: str | None, names: list[str]) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key is None:
        raise DataFileError(f"{path}: needs a key, one of {', '.join(names) or 'none: it is empty'}")
    if key not in names:
        raise DataFileError(f"{path}: no array is called {key!r}{nearest(key, names)}")
    return key


def _from_dataset(path: Path, file: ArrayFile) -> np.ndarray:
    import xarray

    if path.suffix.lower() == ".zarr":
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise ImportError(f'{path}: reading zarr needs the package zarr: pip install "probcl[zarr]"') from error
        require_readable(path)
        opened: xarray.Dataset = xarray.open_zarr(path, chunks=None)
    else:
        opened = xarray.open_dataset(path)
    with opened as dataset:
        return _stacked(dataset, path, file)


def _stacked(dataset: "xarray.Dataset", path: Path, file: ArrayFile) -> np.ndarray:
    known = [str(name) for name in dataset.data_vars]
    numeric = [name for name in known if dataset[name].dtype.kind in "iuf" and dataset[name].ndim]
    for name in file.variables or ():
        if name not in known:
            raise DataFileError(f"{path}: no variable is called {name!r}{nearest(name, known)}")
    chosen = file.variables or numeric
    if not chosen or not dataset[chosen[0]].ndim:
        raise DataFileError(f"{path}: no variable with numbers in rows; there are {', '.join(known) or 'none'}")
    first = chosen[0]
    dim = file.sample_dim or str(dataset[first].dims[0])
    if dim not in dataset.dims:
        raise DataFileError(f"{path}: no dimension is called {dim!r}{nearest(dim, map(str, dataset.dims))}")
    names = file.variables or [name for name in numeric if dim in dataset[name].dims]
    rest = [other for other in dataset[first].dims if other != dim]
    for name in names:
        if set(dataset[name].dims) != {dim, *rest}:
            raise DataFileError(
                f"{path}: variables must all have the dimensions {(dim, *rest)}, {name} has {dataset[name].dims}; "
                "choose some with variables"
            )
    return np.stack([dataset[name].transpose(dim, *rest).values for name in names], axis=1)


def _from_table(path: Path, columns: list[str] | None) -> np.ndarray:
    import pandas as pd  # type: ignore[import-untyped]

    is_csv = path.suffix.lower() == ".csv"
    if not is_csv and find_spec("pyarrow") is None:
        raise ImportError(f'{path}: reading Parquet needs the package pyarrow: pip install "probcl[parquet]"')
    table = pd.read_csv(path, skipinitialspace=True) if is_csv else pd.read_parquet(path)
    known = [str(name) for name in table.columns]
    table.columns = known
    for name in columns or known:
        if known.count(name) != 1:
            count = known.count(name) or "no"
            raise DataFileError(f"{path}: {count} columns are called {name!r}{nearest(name, known)}")
        if table[name].dtype.kind not in "iuf":
            raise DataFileError(
                f"{path}: column {name!r} must hold numbers, got {table[name].dtype}; choose others with columns, and "
                "number the classes from 0 if these are some"
            )
    return np.array(table[columns or known])


def _as_rows(array: Any, path: Path) -> Tensor:
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "biuf":
            raise DataFileError(f"{path}: must hold real numbers, got {array.dtype}")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        wide = np.float64 if native.dtype.itemsize > 8 else native.dtype
        array = torch.from_numpy(np.ascontiguousarray(native, dtype=wide))
    if array.is_complex() or array.ndim == 0 or len(array) == 0:
        raise DataFileError(f"{path}: must hold rows of real numbers, got {array.dtype} of shape {tuple(array.shape)}")
    rows: Tensor = array
    return rows
