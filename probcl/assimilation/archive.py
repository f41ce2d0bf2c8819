"""What an archive of currents is, and the refusal of what is not one."""

import numpy as np
import xarray as xr

_SPEED_UNITS = ("m s-1", "m/s", "m s^-1", "m.s-1", "meter second-1", "metre second-1")
_UNITS = {
    "u": _SPEED_UNITS,
    "v": _SPEED_UNITS,
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE"),
}
_STANDARD_NAMES = {"u": "eastward_sea_water_velocity", "v": "northward_sea_water_velocity"}
_GRID = ("time", "latitude", "longitude")
# Eastward velocity moves longitude by 1 / cos latitude, which no fixed time step follows at a pole.
_MOST_POLAR = 89.0


def require_archive(archive: xr.Dataset, name: str = "archive") -> xr.Dataset:
    """Return a dataset if it is an archive of currents, with its variables' dimensions in order.

    An archive has `u` and `v` (eastward, northward, m/s, NaN on land) on (time, latitude, longitude) or (member,
    time, latitude, longitude); ascending latitude and longitude in degrees, at least two of each, and ascending time.
    Longitudes may be of either convention, −180..180 or 0..360, but ascend across the grid.

    Parameters
    ----------
    archive : xarray.Dataset
    name : str
        What to call it in messages.

    Returns
    -------
    xarray.Dataset
        The same data.

    Raises
    ------
    TypeError
        If `archive` is not a dataset.
    ValueError
        If a variable, a coordinate or its units are missing, are other than above, or do not ascend.
    """
    if not isinstance(archive, xr.Dataset):
        raise TypeError(f"{name} must be an xarray.Dataset, got {type(archive).__name__}")
    for variable in ("u", "v"):
        _require_variable(archive, name, variable)
    _require_axis(archive, name, "latitude", -_MOST_POLAR, _MOST_POLAR)
    _require_axis(archive, name, "longitude", -360.0, 540.0)
    _require_time(archive, name)
    order = [*(["member"] if "member" in archive["u"].dims else []), *_GRID]
    return archive.transpose(*order, ...)


def _require_variable(archive: xr.Dataset, name: str, variable: str) -> None:
    if variable not in archive.data_vars:
        raise ValueError(f"{name} must have a variable {variable!r}, got {sorted(map(str, archive.data_vars))}")
    values = archive[variable]
    if set(values.dims) not in ({*_GRID}, {"member", *_GRID}) or set(values.dims) != set(archive["u"].dims):
        raise ValueError(
            f"{name}.{variable} must have the dimensions ([member], time, latitude, longitude), as u, got {values.dims}"
        )
    if not np.issubdtype(values.dtype, np.floating):
        raise TypeError(f"{name}.{variable} must be of a floating-point type, got {values.dtype}")
    if values.size == 0:
        raise ValueError(f"{name}.{variable} must not be empty, got the sizes {dict(values.sizes)}")
    _require_units(values, f"{name}.{variable}", variable)
    standard_name = values.attrs.get("standard_name", _STANDARD_NAMES[variable])
    if standard_name != _STANDARD_NAMES[variable]:
        raise ValueError(
            f"{name}.{variable} must have the standard_name {_STANDARD_NAMES[variable]!r}, got {standard_name!r}"
        )


def _require_axis(archive: xr.Dataset, name: str, axis: str, low: float, high: float) -> None:
    if axis not in archive.coords:
        raise ValueError(f"{name} must have a coordinate {axis!r}, got {sorted(map(str, archive.coords))}")
    _require_units(archive[axis], f"{name}.{axis}", axis)
    values = archive[axis].values
    if values.ndim != 1 or len(values) < 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"{name}.{axis} must be two or more floating-point numbers, got {values.dtype} of {values.shape}"
        )
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise ValueError(
            f"{name}.{axis} must be finite and ascend, got {values[0]} to {values[-1]}; use {name}.sortby({axis!r})"
        )
    if values[0] < low or values[-1] > high or values[-1] - values[0] > 360:
        raise ValueError(f"{name}.{axis} must be within {low}..{high} degrees, got {values[0]}..{values[-1]}")


def _require_time(archive: xr.Dataset, name: str) -> None:
    if "time" not in archive.coords:
        raise ValueError(f"{name} must have a coordinate 'time', got {sorted(map(str, archive.coords))}")
    time = archive["time"].values
    if not np.issubdtype(time.dtype, np.datetime64):
        raise TypeError(f"{name}.time must be decoded to datetime64, got {time.dtype}")
    if np.isnat(time).any() or (np.diff(time) <= np.timedelta64(0)).any():
        raise ValueError(f"{name}.time must have no NaT and ascend, got {time[0]} to {time[-1]}")


def _require_units(values: xr.DataArray, label: str, kind: str) -> None:
    units = values.attrs.get("units")
    if units not in _UNITS[kind]:
        raise ValueError(
            f"{label} must have the units {_UNITS[kind][0]!r}, got {'none' if units is None else repr(units)}"
        )
