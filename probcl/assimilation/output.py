"""A posterior as a CF dataset and as a file."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int, Shaped

from probcl.assimilation.archive import COMPONENTS, load_values, require_archive
from probcl.assimilation.output_attributes import AXES, FIELD_ENCODING, OTHERS, field_attributes, global_attributes
from probcl.checks import describe
from probcl.files import replacing, require_path
from probcl.zarr_folders import seal

_MAP = ("latitude", "longitude")
_PIECE = 2**26
_BLOCK = 2**20
_ORIGINS = ("archive_time", "archive_member", "archive_latitude", "archive_longitude")
_STATISTICS = tuple(f"{name}_{kind}" for name in COMPONENTS for kind in ("mean", "stddev"))


def to_cf(
    analysis: xr.Dataset | Sequence[xr.Dataset], archive: xr.Dataset, *, history: Mapping[str, object] | None = None
) -> xr.Dataset:
    """Return a posterior as a dataset of the CF conventions 1.8, on the archive's grid and land, bit for bit.

    Parameters
    ----------
    analysis : xarray.Dataset, or several of them
        What a method's `analyse` returns: `u`, `v` on (realization, [time,] latitude, longitude); `u_mean`, `v_mean`,
        `u_stddev`, `v_stddev`; `time`. Several of equally many members are put in order of time. Optional:
        `member_weight`, `archive_time` and `archive_member` on realization, `n_obs` (also as an attribute) and
        `effective_sample_size`.
    archive : xarray.Dataset
        What the method was fitted to, as from `read_archive`: its grid, land and attributes go into the result.
    history : mapping, optional
        What else to record, by name: the seed, the dates of the splits, and so on. A pair is written as ``a/b``.

    Returns
    -------
    xarray.Dataset
        `u`, `v` on (realization, time, latitude, longitude), `u_mean` and so on on (time, latitude, longitude),
        `member_weight` (equal unless given), encodings for `write`, and the global attribute `history` with the time
        of writing, the version, the seed, the archive's checksum and what `history` says.

    Raises
    ------
    TypeError, ValueError
        If the archive is none, or the analysis lacks a variable or a dimension, or is on another grid or land.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Climatology
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(20, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> analysis = Climatology().fit(archive).analyse(tracks, archive.time.values[1], members=5)
    >>> dataset = pcl.assimilation.to_cf(analysis, archive, history={"seed": 0})
    >>> dataset.attrs["Conventions"], dict(dataset.u.sizes)
    ('CF-1.8', {'realization': 5, 'time': 1, 'latitude': 32, 'longitude': 32})
    """
    archive = require_archive(archive)
    parts = [analysis] if isinstance(analysis, xr.Dataset) else analysis
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, xr.Dataset) for part in parts):
        raise TypeError(f"analysis must be an xarray.Dataset or a list of them, got {describe(analysis)}")
    joined = _joined(parts, archive)
    notes = {"seed": joined.attrs["seed"]} if "seed" in joined.attrs else {}
    notes |= dict(history or {})
    notes.setdefault("archive_checksum", archive_checksum(archive))
    result = _fields(joined, archive).assign(_others(joined)).assign_coords(_coordinates(joined, archive))
    origins = [name for name in _ORIGINS if name in result]
    return result.set_coords(origins).assign_attrs(global_attributes(archive.attrs, joined.attrs, notes))


def write(dataset: xr.Dataset, path: str | PathLike[str]) -> None:
    """Write a dataset under a temporary name, and rename it when it is whole.

    Parameters
    ----------
    dataset : xarray.Dataset
        As from `to_cf`.
    path : path
        ``*.nc`` for netCDF or ``*.zarr`` for a zarr folder, with checksums of the values. What is there is replaced
        when the new one is whole.

    Raises
    ------
    ImportError
        If zarr is asked for and not installed.
    OSError
        If it cannot be written; what is there stays.
    TypeError, ValueError
        If `dataset` is none, or `path` ends otherwise.

    Examples
    --------
    >>> import tempfile
    >>> import probcl as pcl
    >>> from probcl.datasets.ocean import Vortices
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pcl.assimilation.write(Vortices(1).archive(3, [0, 5]), f"{folder}/archive.nc")
    ...     dict(pcl.assimilation.read_archive(f"{folder}/archive.nc").u.sizes)
    {'member': 3, 'time': 2, 'latitude': 32, 'longitude': 32}
    """
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset must be an xarray.Dataset, got {describe(dataset)}")
    target = require_path("path", path)
    if target.suffix not in (".nc", ".zarr"):
        raise ValueError(f"path must end in .nc or .zarr, got {target.name!r}")
    with replacing(target) as temporary:
        if target.suffix == ".nc":
            _write_netcdf(dataset, temporary)
        else:
            _write_zarr(dataset, temporary)


def archive_checksum(archive: xr.Dataset) -> str:
    """Return a SHA-256 of an archive's values and coordinates, read a piece at a time.

    It depends on nothing else: neither on attributes and chunks, nor on the byte order or the kind of NaN.

    Raises
    ------
    TypeError, ValueError
        If it is no archive.
    """
    archive = require_archive(archive)
    digest = hashlib.sha256()
    for name in ("member", "time", *_MAP):
        if name in archive.coords:
            values = archive[name].values
            _begin(digest, name, values.shape, values.dtype)
            digest.update(_canonical(values))
    for name in COMPONENTS:
        _begin(digest, name, archive[name].shape, archive[name].dtype)
        for piece in _pieces(archive[[name]], name):
            digest.update(_canonical(load_values(piece, name)))
    return digest.hexdigest()


def _begin(digest: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    digest.update(f"{name} {dtype.kind}{dtype.itemsize} {shape} ".encode())


def _pieces(archive: xr.Dataset, name: str) -> Iterator[xr.Dataset]:
    """Yield an archive in pieces of some memory, in the order of its values."""
    if archive[name].nbytes <= _PIECE or archive[name].ndim == len(_MAP):
        yield archive
        return
    first = archive[name].dims[0]
    step = _PIECE // archive[name].isel({first: 0}).nbytes
    for start in range(0, archive.sizes[first], max(step, 1)):
        if step > 1:
            yield archive.isel({first: slice(start, start + step)})
        else:
            yield from _pieces(archive.isel({first: start}), name)


def _canonical(values: Shaped[np.ndarray, "*shape"]) -> bytes:
    """Return bytes that are the same for the same values: little-endian, one kind of NaN, times in nanoseconds."""
    if values.dtype.kind == "M":
        values = values.astype("datetime64[ns]").astype(np.int64)
    if values.dtype.kind not in "fiub":
        return "\0".join(map(str, values.ravel())).encode()
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _joined(parts: Sequence[xr.Dataset], archive: xr.Dataset) -> xr.Dataset:
    """Check analyses and put them in order of time."""
    dated = [_dated(part) for part in parts]
    for part in dated:
        _require_fields(part)
        _require_grid(part, archive)
        if (
            set(part.variables) != set(dated[0].variables)
            or part["u"].sizes["realization"] != dated[0].sizes["realization"]
        ):
            raise ValueError("analysis must be of equally many members and the same variables at all times")
    if len(dated) == 1:
        joined = dated[0]
    else:
        joined = xr.concat(
            dated,
            "time",
            data_vars="different",
            coords="different",
            compat="equals",
            join="exact",
            combine_attrs="override",
        )
    joined = joined.sortby("time").assign_attrs(_warnings(dated))
    if (np.diff(joined["time"].values) == np.timedelta64(0)).any():
        raise ValueError(f"analysis must have each time once, got {joined['time'].values}")
    return joined


def _warnings(dated: Sequence[xr.Dataset]) -> dict[str, str]:
    """Return the warnings of all analyses as one, with their times where there are several."""
    said = [(str(part["time"].values[0])[:19], part.attrs["warning"]) for part in dated if "warning" in part.attrs]
    if not said:
        return {}
    return {"warning": "; ".join(warning if len(dated) == 1 else f"{time}: {warning}" for time, warning in said)}


def _dated(analysis: xr.Dataset) -> xr.Dataset:
    """Give an analysis a dimension of time, and its number of observations as a variable."""
    missing = [name for name in (*COMPONENTS, *_STATISTICS, "time") if name not in analysis.variables]
    if missing:
        raise ValueError(f"analysis must have u, v, their mean and stddev, and time, got none of {missing}")
    if analysis["time"].dtype.kind != "M":
        raise TypeError(f"analysis.time must be datetime64, got {analysis['time'].dtype}")
    if "n_obs" in analysis.attrs and "n_obs" not in analysis.variables:
        if analysis["time"].size != 1:
            raise ValueError(
                f"analysis of {analysis['time'].size} times must have n_obs as a variable; or give a list of analyses"
            )
        analysis = analysis.assign(n_obs=analysis.attrs["n_obs"])
    return analysis if "time" in analysis.dims else analysis.expand_dims("time")


def _require_fields(analysis: xr.Dataset) -> None:
    for name in (*COMPONENTS, *_STATISTICS):
        dims = {"time", *_MAP, *(["realization"] if name in COMPONENTS else [])}
        if set(analysis[name].dims) != dims or analysis[name].size == 0:
            raise ValueError(
                f"analysis.{name} must be on {sorted(dims)} and not empty, got {dict(analysis[name].sizes)}"
            )
        if analysis[name].dtype.kind != "f":
            raise TypeError(f"analysis.{name} must be of a floating-point type, got {analysis[name].dtype}")


def _require_grid(analysis: xr.Dataset, archive: xr.Dataset) -> None:
    for axis in _MAP:
        theirs = analysis[axis].values.astype(float) if axis in analysis.coords else None
        if theirs is None or not np.array_equal(theirs, archive[axis].values.astype(float)):
            raise ValueError(f"analysis must be on the archive's {axis}, got another or none")
    land = _land(archive)
    for name in (*COMPONENTS, *_STATISTICS):
        maps = analysis[name].transpose(..., *_MAP).values
        if (np.isnan(maps) != land).any() or np.isinf(maps).any():
            raise ValueError(f"analysis.{name} must be NaN on the archive's land, and finite elsewhere")


def _land(archive: xr.Dataset) -> Bool[np.ndarray, "lat lon"]:
    """Return where the first map is not known; that of an archive does not move."""
    first = archive.isel({dim: 0 for dim in archive["u"].dims if dim not in _MAP})
    land: np.ndarray = np.isnan(load_values(first, "u")) | np.isnan(load_values(first, "v"))
    return land


def _fields(analysis: xr.Dataset, archive: xr.Dataset) -> xr.Dataset:
    fields = {}
    for name in (*COMPONENTS, *_STATISTICS):
        dims = (*(["realization"] if name in COMPONENTS else []), "time", *_MAP)
        values = analysis[name].transpose(*dims).values.astype(np.float32)
        fields[name] = xr.Variable(dims, values, field_attributes(name, archive), dict(FIELD_ENCODING))
    return xr.Dataset(fields)


def _others(analysis: xr.Dataset) -> dict[str, xr.Variable]:
    """Return weights, counts and where members come from, on realization, on time, or on both where they differ."""
    members = analysis.sizes["realization"]
    found = {name: analysis[name] for name in OTHERS if name in analysis.variables}
    found.setdefault("member_weight", xr.DataArray(np.full(members, 1 / members), dims="realization"))
    others = {}
    for name, values in found.items():
        dims = [dim for dim in ("realization", "time") if dim in values.dims]
        if set(values.dims) != set(dims):
            raise ValueError(f"analysis.{name} must be on realization or time, got {values.dims}")
        values = values.transpose(*dims).drop_vars(list(values.coords))
        if "realization" in dims and "time" in dims and analysis.sizes["time"] == 1:
            values = values.isel(time=0)
        others[name] = xr.Variable(values.dims, values.values, OTHERS[name].attributes, dict(OTHERS[name].encoding))
    weights = others["member_weight"]
    if not (weights.values >= 0).all() or not np.allclose(weights.sum("realization"), 1, atol=1e-6):
        raise ValueError(f"analysis.member_weight must not be negative and sum to 1, got {weights.values}")
    return others


def _coordinates(analysis: xr.Dataset, archive: xr.Dataset) -> dict[str, xr.Variable]:
    found = {"time": analysis["time"].values.astype("datetime64[ns]"), "realization": _labels(analysis)}
    found |= {axis: archive[axis].values for axis in _MAP}
    return {
        name: xr.Variable(name, values, AXES[name].attributes, dict(AXES[name].encoding))
        for name, values in found.items()
    }


def _labels(analysis: xr.Dataset) -> Int[np.ndarray, " realization"]:
    if "realization" in analysis.coords and analysis["realization"].dtype.kind in "iu":
        return analysis["realization"].values.astype(np.int32)
    return np.arange(analysis.sizes["realization"], dtype=np.int32)


def _write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    try:
        dataset.to_netcdf(path, engine="netcdf4", format="NETCDF4")
    except (RuntimeError, OSError) as error:
        _say_why_nothing_can_be_written(path, error)
        raise
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _say_why_nothing_can_be_written(path: Path, error: Exception) -> None:
    """Raise what the system says to a write of some bytes, for netCDF hides it; return if it says nothing."""
    try:
        with path.open("ab") as file:
            file.write(bytes(_BLOCK))
            file.flush()
            # HDF5 holds on to a file that it could not close, and this is the space it takes.
            file.truncate(0)
    except OSError as reason:
        if path.exists():
            os.truncate(path, 0)
        raise reason from error


def _write_zarr(dataset: xr.Dataset, path: Path) -> None:
    if find_spec("zarr") is None:
        raise ImportError('writing zarr needs the extra: pip install "probcl[zarr]"')
    from numcodecs import Zlib  # type: ignore[import-untyped]

    guarded = dataset.copy()
    for name in guarded.variables:
        # Zlib has a checksum, which the usual Blosc has not; those of HDF5 are not for zarr.
        guarded[name].encoding = {**guarded[name].encoding, "compressors": (Zlib(4),)}
    # Of format 2, whose consolidated metadata every reader knows.
    guarded.to_zarr(path, mode="w-", zarr_format=2, consolidated=True)
    seal(path)
