"""Tracks in a dataset, contiguous ragged, indexed ragged or padded, as a table of fixes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from jaxtyping import Int, Shaped

from probcl.assimilation.readers.conventions import decoded_time, find, given, length_factor
from probcl.assimilation.tracks import FIX

NAMES = ("id", "rowsize", *FIX)

_ROW_SIZES = ("rowsize", "row_size", "rowSize", "count")
_IDS = ("trajectory", "traj", "id", "ID", "ids", "drifter_id", "trajectory_id")


def from_dataset(dataset: xr.Dataset, names: Mapping[str, str], label: str, *, with_error: bool) -> pd.DataFrame:
    """Return a table with columns id, time, latitude, longitude and, if wanted and there, position_error (m).

    Raises
    ------
    TypeError, ValueError
        If a variable is missing, ambiguous or not of the dimensions of its convention.
    """
    found = {name: _required(dataset, name, names, label) for name in ("time", "latitude", "longitude")}
    error = find(dataset, "position_error", names, label) if with_error else None
    dims = dataset[found["longitude"]].dims
    if dataset[found["latitude"]].dims != dims or len(dims) not in (1, 2):
        raise ValueError(
            f"{label}: latitude and longitude must both be on (obs) or (trajectory, obs), got "
            f"{dataset[found['latitude']].dims} and {dims}"
        )
    columns = {name: _degrees(dataset[found[name]], name, label) for name in ("latitude", "longitude")}
    columns["time"] = dataset[found["time"]].copy(data=decoded_time(dataset[found["time"]], {}, label))
    if error is not None:
        columns["position_error"] = _metres(dataset[error], label)
    if len(dims) == 2:
        return _from_padded(dataset, columns, names, label)
    for name, values in columns.items():
        if values.dims != dims:
            raise ValueError(f"{label}: {name} must be on {dims}, as longitude is, got {values.dims}")
    ids = _ragged_ids(dataset, str(dims[0]), names, label)
    return pd.DataFrame({"id": ids, **{name: values.values for name, values in columns.items()}})


def _required(dataset: xr.Dataset, kind: str, names: Mapping[str, str], label: str) -> str:
    name = find(dataset, kind, names, label)
    if name is None:
        raise ValueError(
            f"{label} must have a {kind}, got {sorted(map(str, dataset.variables))}; say which with "
            f'names={{"{kind}": ...}}'
        )
    return name


def _degrees(values: xr.DataArray, axis: str, label: str) -> xr.DataArray:
    """Return positions; files without units for them are common, and mean degrees."""
    units = str(values.attrs.get("units", "degrees"))
    if not units.lower().startswith("deg"):
        raise ValueError(f"{label}: {axis} {values.name!r} must be in degrees, got the units {units!r}")
    return _numbers(values, label)


def _numbers(values: xr.DataArray, label: str) -> xr.DataArray:
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{label}: {values.name} must be numbers, got {values.dtype}")
    return values.astype(np.float64)


def _metres(values: xr.DataArray, label: str) -> xr.DataArray:
    # The package's own name is in metres by definition.
    units = values.attrs.get("units", "m" if values.name == "position_error" else None)
    factor = length_factor(units)
    if factor is None:
        raise ValueError(
            f"{label}: {values.name} must have units of length, such as 'm', got {units!r}; or give position_error="
        )
    return _numbers(values, label) * factor


def _from_padded(
    dataset: xr.Dataset, columns: Mapping[str, xr.DataArray], names: Mapping[str, str], label: str
) -> pd.DataFrame:
    """Lay out trajectories one after the other; a time that they share is repeated."""
    dims = columns["longitude"].dims
    for name, values in columns.items():
        if not set(values.dims) <= set(dims):
            raise ValueError(f"{label}: {name} must be on {dims}, as longitude is, got {values.dims}")
    each = _trajectory_dimension(dataset, columns, names)
    bare = [values.drop_vars(list(values.coords)) for values in columns.values()]
    laid = [values.transpose(each, ...).values for values in xr.broadcast(*bare)]
    ids = np.repeat(_labels(dataset, str(each), names, label), laid[0].shape[1])
    return pd.DataFrame({"id": ids, **{name: values.ravel() for name, values in zip(columns, laid, strict=True)}})


def _trajectory_dimension(dataset: xr.Dataset, columns: Mapping[str, xr.DataArray], names: Mapping[str, str]) -> Any:
    """Return which of two dimensions counts trajectories: by id, by a shared time, by name, or the first."""
    dims = columns["longitude"].dims
    for name in [names.get("id"), *_roles(dataset), *_IDS]:
        if name in dataset.variables and dataset[name].dims[:1] and dataset[name].dims[0] in dims:
            return dataset[name].dims[0]
    if columns["time"].ndim == 1:
        return next(dim for dim in dims if dim != columns["time"].dims[0])
    return next((dim for dim in dims if dim in _IDS), dims[0])


def _ragged_ids(dataset: xr.Dataset, obs: str, names: Mapping[str, str], label: str) -> Shaped[np.ndarray, " obs"]:
    """Return the id of each fix."""
    counts = _row_sizes(dataset, obs, names, label)
    if counts is not None:
        sizes = _counts(counts, dataset.sizes[obs], label)
        return np.repeat(_labels(dataset, str(counts.dims[0]), names, label), sizes)
    for index in (dataset[name] for name in dataset.variables if dataset[name].dims == (obs,)):
        instance = index.attrs.get("instance_dimension")
        if isinstance(instance, str):
            return _indexed(index, _labels(dataset, instance, names, label), label)
    for name in [names.get("id"), *_roles(dataset), *_IDS]:
        if name in dataset.variables and dataset[name].dims[:1] == (obs,):
            return _text(dataset[name].values)
    raise ValueError(
        f"{label} must say which trajectory each fix is of: by counts of fixes such as 'rowsize', by an index with the "
        f"attribute instance_dimension, or by an id on {obs!r}; got {sorted(map(str, dataset.variables))}"
    )


def _row_sizes(dataset: xr.Dataset, obs: str, names: Mapping[str, str], label: str) -> xr.DataArray | None:
    told = given(dataset, names, "rowsize", label)
    said = [name for name in dataset.variables if dataset[name].attrs.get("sample_dimension") == obs]
    usual = [name for name in _ROW_SIZES if name in dataset.variables and obs not in dataset[name].dims]
    found = [told] if told is not None else (said or usual)
    return dataset[found[0]] if found else None


def _counts(rowsize: xr.DataArray, n_fixes: int, label: str) -> Int[np.ndarray, " trajectory"]:
    values = rowsize.values
    if rowsize.ndim != 1 or rowsize.dtype.kind not in "fiu" or (values != np.floor(values)).any() or (values < 0).any():
        raise ValueError(f"{label}: {rowsize.name} must be counts of fixes, got {values.ravel()[:5]}")
    if values.sum() != n_fixes:
        raise ValueError(f"{label}: {rowsize.name} must sum to the number of fixes, {n_fixes}, got {values.sum()}")
    return values.astype(np.int64)


def _indexed(index: xr.DataArray, ids: Shaped[np.ndarray, " trajectory"], label: str) -> Shaped[np.ndarray, " obs"]:
    values = index.values
    if values.dtype.kind not in "iu" or (values < 0).any() or (values >= len(ids)).any():
        raise ValueError(
            f"{label}: {index.name} must be indices from 0 to {len(ids) - 1}, got {values.dtype} {values[:5]}"
        )
    found: np.ndarray = ids[values]
    return found


def _roles(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name in dataset.variables if dataset[name].attrs.get("cf_role") == "trajectory_id"]


def _labels(dataset: xr.Dataset, each: str, names: Mapping[str, str], label: str) -> Shaped[np.ndarray, " trajectory"]:
    """Return the ids along a dimension, which are unique, or numbers from 0 where there are none."""
    if each not in dataset.sizes:
        raise ValueError(f"{label} must have the dimension {each!r} of trajectories, got {dict(dataset.sizes)}")
    for name in [given(dataset, names, "id", label), *_roles(dataset), *_IDS]:
        if name in dataset.variables and dataset[name].dims == (each,):
            ids = _text(dataset[name].values)
            if len(np.unique(ids)) != len(ids):
                raise ValueError(f"{label}: {name} must be one id for each trajectory, got some twice")
            return ids
    return np.arange(dataset.sizes[each])


def _text(ids: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Return ids as numbers or text."""
    if ids.dtype.kind in "SO":
        return np.array([name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in ids])
    return ids
