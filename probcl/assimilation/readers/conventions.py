"""What files call things: which variable is which, units of speed, and times."""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import cf_xarray  # noqa: F401 - registers Dataset.cf
import numpy as np
import xarray as xr
from jaxtyping import Shaped

from probcl.assimilation.archive import COMPONENTS, STANDARD_NAMES
from probcl.checks import describe

_EAST, _NORTH = (STANDARD_NAMES[name] for name in COMPONENTS)
CURRENTS = (
    (_EAST, _NORTH),
    *((f"{kind}_{_EAST}", f"{kind}_{_NORTH}") for kind in ("surface", "geostrophic", "surface_geostrophic")),
    (f"{_EAST}_assuming_no_tide", f"{_NORTH}_assuming_no_tide"),
)
"""Standard names under which currents are found, eastward and northward."""

USUAL_NAMES = {
    "time": ("time", "Time", "TIME", "t", "obs_time", "time_counter"),
    "latitude": ("latitude", "lat", "Latitude", "Lat", "LATITUDE", "LAT", "nav_lat", "y_lat"),
    "longitude": ("longitude", "lon", "long", "Longitude", "Lon", "LONGITUDE", "LON", "nav_lon", "x_lon"),
    "member": ("member", "realization", "ensemble", "ens", "number", "ensemble_member"),
    "position_error": ("position_error", "error", "pos_error", "position_std"),
}
"""What a coordinate may be called where it carries no standard name, axis or units."""

# A spread or a mean over members shares the standard name of what it is of.
_STATISTIC = re.compile(
    r"standard_deviation|variance|maximum|minimum|median|mode|range"
    r"|\b(realization|member|ensemble|number)\s*:|\bover (realization|member|ensemble)"
)
_LENGTHS = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 0.01),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 0.001),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), 1000.0),
}
_TIMES = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_KNOTS = ("knot", "knots", "kt", "kts", "kn")
_RATIO = re.compile(r"(?P<length>[a-z]+)\s*(?:/|per(?=\s))\s*(?P<time>[a-z]+)")
_PRODUCT = re.compile(r"(?P<length>[a-z]+)[\s.*]+(?P<time>[a-z]+)\s*(?:\^|\*\*)?\s*\(?-1\)?")
_SINCE = re.compile(r"\s*[a-z]+\s+since\s+\S+", re.IGNORECASE)
_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_EPOCHS = np.datetime64("1678-01-01"), np.datetime64("2262-01-01")


def require_names(name: str, value: object, keys: Iterable[str]) -> dict[str, str]:
    """Return a mapping from some of `keys` to strings, empty for None; raise `TypeError` or `ValueError` otherwise."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise TypeError(f"{name} must be a mapping from strings to strings, got {describe(value)}")
    unknown = sorted(set(value) - set(keys))
    if unknown:
        raise ValueError(f"{name} must have keys among {sorted(keys)}, got {unknown}")
    return dict(value)


def standard_names(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Return the variables of each standard name."""
    return {str(key): [str(name) for name in found] for key, found in dataset.cf.standard_names.items()}


def find_currents(dataset: xr.Dataset, names: Mapping[str, str], label: str) -> dict[str, str]:
    """Return the variables that are the eastward and the northward current.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    said = {name: given(dataset, names, name, label) for name in COMPONENTS}
    told = {name: variable for name, variable in said.items() if variable is not None}
    if len(told) == 1:
        raise ValueError(f"{label}: names must say both u and v or neither, got {told} alone")
    if told:
        return told
    found = standard_names(dataset)
    pairs = [[_not_statistics(dataset, found.get(name, [])) for name in pair] for pair in CURRENTS]
    east, north = ([name for pair in pairs for name in pair[k]] for k in (0, 1))
    if len(east) == len(north) == 1 and [east, north] in pairs:
        return {"u": east[0], "v": north[0]}
    if not east and not north and all(_is_bare(dataset, name) for name in ("u", "v")):
        return {"u": "u", "v": "v"}
    wanted = f"one {_EAST!r} and one {_NORTH!r}, or a surface or geostrophic one, by standard_name"
    came = f"{east} and {north}" if east or north else f"none among {sorted(map(str, dataset.data_vars))}"
    raise ValueError(f'{label} must have {wanted}, got {came}; say which with names={{"u": ..., "v": ...}}')


def find(
    dataset: xr.Dataset, kind: str, names: Mapping[str, str], label: str, dims: Iterable[Any] | None = None
) -> str | None:
    """Return the variable that is a coordinate: by `names`, standard name, axis and units, or a usual name.

    Parameters
    ----------
    dataset
        Of an undecided convention.
    kind
        One of `USUAL_NAMES`.
    names
        What the user says.
    label
        What to call the dataset in messages.
    dims
        If given, a variable with other dimensions is not considered.

    Raises
    ------
    ValueError
        If what the user says is not there, or there are several and none has a usual name.
    """
    told = given(dataset, names, kind, label)
    if told is not None:
        return told
    standard = "realization" if kind == "member" else kind
    by_axis = dataset.cf.coordinates.get(standard, []) if kind in ("time", "latitude", "longitude") else []
    usual = USUAL_NAMES[kind]
    for group in (standard_names(dataset).get(standard, []), by_axis, [name for name in usual if name in dataset]):
        candidates = [str(name) for name in group if dims is None or set(dataset[name].dims) <= set(dims)]
        well_named = [name for name in usual if name in candidates]
        if len(candidates) == 1 or well_named:
            return (well_named or candidates)[0]
        if candidates:
            raise ValueError(f'{label} must have one {kind}, got {candidates}; say which with names={{"{kind}": ...}}')
    return None


def given(dataset: xr.Dataset, names: Mapping[str, str], kind: str, label: str) -> str | None:
    """Return what the user calls this variable, which must be there, or None."""
    name = names.get(kind)
    if name is not None and name not in dataset.variables:
        raise ValueError(
            f"{label} must have the variable names[{kind!r}] = {name!r}, got {sorted(map(str, dataset.variables))}"
        )
    return name


def speed_factor(units: object) -> float | None:
    """Return what to multiply by for metres a second, or None for what is no unit of speed.

    Examples
    --------
    >>> speed_factor("cm/s"), speed_factor("km h-1"), speed_factor("degC")
    (0.01, 0.2777777777777778, None)
    """
    if not isinstance(units, str):
        return None
    text = units.strip()
    if text in _KNOTS:
        return 1852 / 3600
    match = _RATIO.fullmatch(text) or _PRODUCT.fullmatch(text)
    if match is None or match["length"] not in _LENGTHS or match["time"] not in _TIMES:
        return None
    return _LENGTHS[match["length"]] / _TIMES[match["time"]]


def length_factor(units: object) -> float | None:
    """Return what to multiply by for metres, or None for what is no unit of length."""
    return _LENGTHS.get(units.strip()) if isinstance(units, str) else None


def units_of(variable: xr.DataArray, kind: str, units: Mapping[str, str], label: str) -> str:
    """Return a variable's units: what the user says, else its own.

    Raises
    ------
    ValueError
        If there are none.
    """
    found = units.get(kind, variable.attrs.get("units"))
    if isinstance(found, str) and found.strip():
        return found
    near = {str(key): value for key, value in variable.attrs.items() if str(key).lower() in ("unit", "uom")}
    hint = f", though {near}" if near else ""
    raise ValueError(
        f"{label}: {variable.name} must have units, got none{hint}; say which with units={{{kind!r}: ...}}"
    )


def decoded_time(variable: xr.DataArray, units: Mapping[str, str], label: str) -> Shaped[np.ndarray, "*shape"]:
    """Return times as datetime64[ns].

    Raises
    ------
    TypeError
        If they are neither datetime64 nor numbers.
    ValueError
        If they are numbers without units, or of a calendar other than the Gregorian, or outside 1678 to 2262.
    """
    where = f"{label}: time {variable.name!r}"
    calendar = variable.attrs.get("calendar", variable.encoding.get("calendar", "standard"))
    if variable.dtype.kind == "O" and variable.size:
        calendar = getattr(variable.values.flat[0], "calendar", calendar)
    if str(calendar).lower() not in _CALENDARS:
        raise ValueError(
            f"{where} must be of the Gregorian calendar, got {calendar!r}; use Dataset.convert_calendar('standard')"
        )
    if variable.dtype.kind in "iuf":
        variable = _counted(variable, units.get("time", variable.attrs.get("units")), where)
    if variable.dtype.kind != "M":
        raise TypeError(f"{where} must be datetime64 or numbers with units, got {variable.dtype}")
    times = variable.values
    known = times[~np.isnat(times)]
    if len(known) and not (_EPOCHS[0] <= known.min() and known.max() < _EPOCHS[1]):
        raise ValueError(f"{where} must be within 1678 to 2262, got {known.min()} to {known.max()}")
    return np.asarray(times.astype("datetime64[ns]"))


def _counted(variable: xr.DataArray, units: object, where: str) -> xr.DataArray:
    if not isinstance(units, str) or not _SINCE.match(units):
        came = "none" if units is None else repr(units)
        raise ValueError(f"{where} must have units such as 'days since 2000-01-01', got {came}")
    numbers = np.where(np.isfinite(variable.values), variable.values, np.nan)
    attributes = {"units": units, "calendar": str(variable.attrs.get("calendar", "standard")).lower()}
    counted = xr.Dataset({"counted": (variable.dims, numbers, attributes)})
    try:
        with warnings.catch_warnings():  # of dates that datetime64[ns] cannot hold, refused by their type below
            warnings.simplefilter("ignore", xr.SerializationWarning)
            return xr.decode_cf(counted)["counted"].load()
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"{where} must be decodable, got {units!r} and {numbers.flat[:3]}: {error}") from error


def _not_statistics(dataset: xr.Dataset, names: list[str]) -> list[str]:
    return [name for name in names if not _STATISTIC.search(str(dataset[name].attrs.get("cell_methods", "")))]


def _is_bare(dataset: xr.Dataset, name: str) -> bool:
    return name in dataset.data_vars and "standard_name" not in dataset[name].attrs
