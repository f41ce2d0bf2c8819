"""One dataset of gridded currents, in any convention, as an archive."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from probcl.assimilation.archive import COMPONENTS, STANDARD_NAMES
from probcl.assimilation.readers.conventions import (
    USUAL_NAMES,
    decoded_time,
    find,
    find_currents,
    given,
    speed_factor,
    standard_names,
    units_of,
)
from probcl.assimilation.readers.longitudes import ascending
from probcl.assimilation.readers.sources import Opened, has_dask

GRID = ("time", "latitude", "longitude")
_AXES: dict[str, dict[str, Any]] = {
    "time": {"standard_name": "time", "axis": "T"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "member": {"standard_name": "realization", "units": "1"},
}
_DEGREES = {
    "latitude": re.compile(r"degrees?(_north|_N|N)?|deg|"),
    "longitude": re.compile(r"degrees?(_east|_E|E)?|deg|"),
}
_KEPT = ("long_name", "comment", "references")
_PACKING = {"scale_factor", "add_offset", "_FillValue", "missing_value"}


def standardised(opened: Opened, names: Mapping[str, str], units: Mapping[str, str]) -> xr.Dataset:
    """Turn one dataset into an archive, with its times in the order in which they are.

    Raises
    ------
    TypeError, ValueError
        As `probcl.assimilation.read_archive` does.
    """
    label, dataset, of_file = opened
    raw = {name: dataset[variable] for name, variable in find_currents(dataset, names, label).items()}
    axes = {axis: _axis(dataset, raw["u"], axis, names, label) for axis in GRID}
    renamed = _dimensions(dataset, raw["u"], axes, names, label)
    maps = {name: _on_grid(_decoded(values, renamed, of_file, label), renamed, label) for name, values in raw.items()}
    if maps["u"].dims != maps["v"].dims or maps["u"].shape != maps["v"].shape:
        raise ValueError(
            f"{label}: u and v must be on one grid, got {dict(raw['u'].sizes)} and {dict(raw['v'].sizes)}; interpolate "
            f"a staggered grid to cell centres"
        )
    water = _water(dataset, names, label)
    if water is not None:
        water = _on_grid(water, renamed, label)
        maps = {name: _masked(values, water, label) for name, values in maps.items()}
    changes = []
    for name in COMPONENTS:
        maps[name], said = _in_metres_per_second(maps[name], raw[name], name, units, label)
        changes.append(said)
    archive = xr.Dataset(maps, attrs=dataset.attrs).assign_coords(_coordinates(dataset, axes, renamed, units, label))
    if "time" not in archive["u"].dims:
        archive = archive.expand_dims("time")
    archive, turned = ascending(archive, label)
    masked = [] if water is None else [f"land by {water.name}"]
    return archive.assign_attrs(archive_changes="; ".join([*changes, *masked, *turned]))


def _axis(dataset: xr.Dataset, u: xr.DataArray, axis: str, names: Mapping[str, str], label: str) -> str:
    """Return the coordinate variable of an axis, which has one dimension, or for time perhaps none."""
    name = find(dataset, axis, names, label, u.dims)
    if name is None:
        raise ValueError(
            f"{label} must have a coordinate {axis} on the dimensions of u, {u.dims}, got "
            f'{sorted(map(str, dataset.variables))}; say which with names={{"{axis}": ...}}'
        )
    if dataset[name].ndim == 2:
        raise ValueError(
            f"{label}: {axis} must have one dimension, got {name!r} on {dataset[name].dims}, a curvilinear grid; "
            f"interpolate the currents to a regular one"
        )
    if dataset[name].ndim > 1 or (dataset[name].ndim == 0 and axis != "time"):
        raise ValueError(f"{label}: {axis} must have one dimension, got {name!r} on {dataset[name].dims}")
    return name


def _dimensions(
    dataset: xr.Dataset, u: xr.DataArray, axes: Mapping[str, str], names: Mapping[str, str], label: str
) -> dict[str, str]:
    """Return what dimensions are to be called."""
    renamed = {str(dataset[name].dims[0]): axis for axis, name in axes.items() if dataset[name].ndim}
    if len(renamed) < sum(dataset[name].ndim for name in axes.values()):
        raise ValueError(f"{label}: time, latitude and longitude must have a dimension each, got {renamed}")
    free = [str(dim) for dim in u.dims if dim not in renamed]
    found = find(dataset, "member", names, label, free)
    members = [found] if found in free else [name for name in USUAL_NAMES["member"] if name in free]
    return {**renamed, **dict.fromkeys(members[:1], "member")}


def _decoded(values: xr.DataArray, renamed: Mapping[str, str], of_file: bool, label: str) -> xr.DataArray:
    """Return numbers, decoded, in chunks of whole maps where they come from a file and dask is there."""
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{label}: {values.name} must be numbers, got {values.dtype}")
    if _PACKING & set(values.attrs):
        values = xr.decode_cf(values.to_dataset(name="packed"), decode_times=False)["packed"].rename(values.name)
    if not of_file or not has_dask():
        return values
    whole = {dim: -1 for dim in values.dims if renamed.get(str(dim)) in GRID[1:]}
    return values.chunk({dim: whole.get(dim, "auto") for dim in values.dims})


def _on_grid(values: xr.DataArray, renamed: Mapping[str, str], label: str) -> xr.DataArray:
    """Name dimensions as an archive does, in its order, and drop those of size one that it does not have."""
    values = values.drop_vars(list(values.coords))
    for dim in values.dims:
        if dim not in renamed and values.sizes[dim] != 1:
            raise ValueError(
                f"{label}: {values.name} must have one level, got {values.sizes[dim]} along {dim!r}; "
                f"select one, as in read_archive(dataset.isel({dim}=0))"
            )
    values = values.squeeze([dim for dim in values.dims if dim not in renamed], drop=True)
    values = values.rename({dim: renamed[str(dim)] for dim in values.dims})
    return values.transpose(*(dim for dim in ("member", *GRID) if dim in values.dims))


def _water(dataset: xr.Dataset, names: Mapping[str, str], label: str) -> xr.DataArray | None:
    """Return where water is, by a mask that names or standard names say, or None if there is none."""
    found, kinds = standard_names(dataset), {"land": 0, "sea": 1}
    told = {given(dataset, names, f"{kind}_mask", label): water for kind, water in kinds.items()}
    masks = {name: water for name, water in told.items() if name is not None}
    masks = masks or {name: water for kind, water in kinds.items() for name in found.get(f"{kind}_binary_mask", [])}
    if not masks:
        return None
    if len(masks) > 1:
        raise ValueError(f"{label} must have one land mask, got {list(masks)}; say which with names=")
    ((name, water),) = masks.items()
    mask, values = dataset[name], dataset[name].values
    if mask.dtype.kind not in "fiub" or not np.isin(values[np.isfinite(values)], (0, 1)).all():
        raise ValueError(f"{label}: the mask {name} must be of 0 and 1, got {mask.dtype} {np.unique(values)[:4]}")
    return (mask == water).rename(name)


def _masked(values: xr.DataArray, water: xr.DataArray, label: str) -> xr.DataArray:
    if not set(water.dims) <= set(values.dims) or any(water.sizes[dim] != values.sizes[dim] for dim in water.dims):
        raise ValueError(f"{label}: the mask {water.name} must be on the grid of u, got {dict(water.sizes)}")
    return values.where(water)


def _in_metres_per_second(
    values: xr.DataArray, raw: xr.DataArray, name: str, units: Mapping[str, str], label: str
) -> tuple[xr.DataArray, str]:
    theirs = units_of(raw, name, units, label)
    factor = speed_factor(theirs)
    if factor is None:
        raise ValueError(f"{label}: {raw.name} must be in units of speed, such as 'm s-1' or 'cm/s', got {theirs!r}")
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    said = {key: raw.attrs[key] for key in _KEPT if key in raw.attrs}
    origin = {
        "original_name": str(raw.name),
        "original_units": theirs,
        "original_standard_name": raw.attrs.get("standard_name", STANDARD_NAMES[name]),
    }
    origin |= {key: raw.attrs[key] for key in origin if key in raw.attrs}
    values = values if factor == 1 else values * factor
    said |= {"standard_name": STANDARD_NAMES[name], "units": "m s-1", **origin}
    return values.assign_attrs(said).rename(name), f"{name} from {raw.name} in {theirs}"


def _coordinates(
    dataset: xr.Dataset,
    axes: Mapping[str, str],
    renamed: Mapping[str, str],
    units: Mapping[str, str],
    label: str,
) -> dict[str, xr.Variable]:
    times = decoded_time(dataset[axes["time"]], units, label)
    found = {"time": xr.Variable([renamed[str(dim)] for dim in dataset[axes["time"]].dims], times, _AXES["time"])}
    for axis in GRID[1:]:
        variable = dataset[axes[axis]]
        theirs = units.get(axis, variable.attrs.get("units", ""))
        if not isinstance(theirs, str) or not _DEGREES[axis].fullmatch(theirs.strip()):
            raise ValueError(f"{label}: {axis} {axes[axis]!r} must have units {_AXES[axis]['units']!r}, got {theirs!r}")
        if variable.dtype.kind not in "fiu":
            raise TypeError(f"{label}: {axis} {axes[axis]!r} must be numbers, got {variable.dtype}")
        values = variable.values if variable.dtype.kind == "f" else variable.values.astype(np.float64)
        found[axis] = xr.Variable(axis, values, _AXES[axis])
    for theirs, ours in renamed.items():
        if ours == "member" and theirs in dataset.coords:
            found["member"] = xr.Variable("member", dataset[theirs].values, _AXES["member"])
    return found
