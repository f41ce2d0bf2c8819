"""What a posterior's file says of itself: attributes and encodings of the CF conventions 1.8."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from probcl import __version__

FIELD_ENCODING = {
    "dtype": "float32",
    "zlib": True,
    "complevel": 4,
    "shuffle": True,
    "fletcher32": True,
    "_FillValue": np.float32(9.969209968386869e36),
}
"""The fill value is netCDF's own; the checksums make damage an error on reading."""

_COPIED = ("institution", "source", "references", "license", "acknowledgement", "acknowledgment", "comment", "project")


class Described(NamedTuple):
    """Attributes and encoding of a variable."""

    attributes: dict[str, Any]
    encoding: dict[str, Any]


def _plain(dtype: str | None = None, **extra: Any) -> dict[str, Any]:
    return {"_FillValue": None, "fletcher32": True, **({} if dtype is None else {"dtype": dtype}), **extra}


# CF-1.8 has no integers of 64 bits; doubles hold seconds to a microsecond.
_SECONDS = {"units": "seconds since 1970-01-01", "calendar": "standard"}

AXES = {
    "realization": Described(
        {"standard_name": "realization", "long_name": "number of the posterior's member", "units": "1"},
        _plain("int32"),
    ),
    "time": Described(
        {"standard_name": "time", "long_name": "time of the analysis", "axis": "T"}, _plain("float64", **_SECONDS)
    ),
    "latitude": Described(
        {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"}, _plain()
    ),
    "longitude": Described(
        {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"}, _plain()
    ),
}

OTHERS = {
    "member_weight": Described(
        {"long_name": "probability of the member, of sum one over members", "units": "1"}, _plain("float64")
    ),
    "archive_time": Described(
        {"standard_name": "time", "long_name": "time of the archive's map that the member is"},
        _plain("float64", **_SECONDS),
    ),
    "archive_member": Described(
        {"long_name": "member of the archive whose map the member is", "units": "1"}, _plain("int32")
    ),
    **{
        f"archive_{axis}": Described(
            {
                "standard_name": axis,
                "long_name": f"{axis} of the patch that the member is",
                "units": units,
            },
            _plain("float64"),
        )
        for axis, units in (("latitude", "degrees_north"), ("longitude", "degrees_east"))
    },
    "n_obs": Described(
        {
            "standard_name": "number_of_observations",
            "long_name": "number of segments of tracks behind the analysis",
            "units": "1",
        },
        _plain("int32"),
    ),
    "effective_sample_size": Described(
        {"long_name": "effective sample size of the weights behind the members", "units": "1"}, _plain("float64")
    ),
}


def field_attributes(name: str, archive: xr.Dataset) -> dict[str, Any]:
    """Return the attributes of a component, or of its mean or standard deviation, after those of the archive."""
    component, _, statistic = name.partition("_")
    theirs = archive[component].attrs
    standard_name = theirs.get("original_standard_name", theirs.get("standard_name"))
    what = theirs.get("long_name", {"u": "eastward current", "v": "northward current"}[component])
    said = {key: theirs[key] for key in ("comment", "references") if key in theirs}
    said |= {"standard_name": standard_name} if standard_name else {}
    said |= {"units": "m s-1"}
    if not statistic:
        return {**said, "long_name": f"{what}, a member of the posterior", "cell_methods": "time: point"}
    if statistic == "mean":
        said |= {"ancillary_variables": f"{component}_stddev"}
    else:
        said |= {"standard_name": f"{standard_name} standard_error"} if standard_name else {}
    told = {"mean": "mean", "stddev": "standard deviation"}[statistic]
    # CF allows "realization: mean" where the standard name alone is left of a dimension; checkers do not.
    methods = f"time: point ({told} over realization)"
    return {**said, "long_name": f"{what}, {told} of the posterior", "cell_methods": methods}


def global_attributes(
    archive: Mapping[Any, Any], analysis: Mapping[Any, Any], notes: Mapping[str, object]
) -> dict[str, Any]:
    """Return the attributes of the file: those of the archive, of the analysis, and how the file came to be."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {key: _text(value) for key, value in notes.items()}
    line = f"{stamp} probcl {__version__}: " + "; ".join(f"{key} {value}" for key, value in told.items())
    earlier = [archive["history"]] if isinstance(archive.get("history"), str) else []
    title = archive.get("title")
    return {
        "Conventions": "CF-1.8",
        "title": "Posterior of currents given drifters" + (f"; archive: {title}" if title else ""),
        **{key: archive[key] for key in _COPIED if key in archive},
        **{key: archive[key] for key in ("archive_source", "archive_changes") if key in archive},
        **{
            str(key): value
            for key, value in analysis.items()
            if key != "n_obs" and isinstance(value, str | int | float)
        },
        **told,
        "history": "\n".join([line, *earlier]),
    }


def _text(value: object) -> str:
    """Return a value as text: times in ISO 8601 to the second, pairs as a/b."""
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[s]"))
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, tuple | list):
        return "/".join(map(_text, value))
    return str(value)
