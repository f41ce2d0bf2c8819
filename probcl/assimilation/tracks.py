"""Tracks of drifters as padded trajectories: what they are, and the refusal of what is not."""

from collections.abc import Callable, Mapping
from numbers import Real

import numpy as np
import xarray as xr
from jaxtyping import Bool, Shaped

from probcl.checks import describe

DIMENSIONS = ("trajectory", "obs")

FIX = {
    "time": {"standard_name": "time"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    "position_error": {"long_name": "standard deviation of a fix, east and north", "units": "m"},
}
"""The variables that say what a fix is, each on `DIMENSIONS`, with their attributes."""

Fixes = dict[str, Shaped[np.ndarray, "trajectory obs"]]
"""The values of `FIX`, by name."""


def require_tracks(tracks: xr.Dataset) -> Fixes:
    """Return the fixes of padded tracks: NaN positions where a trajectory has none.

    Raises
    ------
    TypeError
        If `tracks` is not an `xarray.Dataset`, or its times are not datetime64.
    ValueError
        If a variable or dimension is missing, a fix is incomplete, out of range or out of order, or no trajectory has
        two fixes.
    """
    if not isinstance(tracks, xr.Dataset):
        raise TypeError(f"tracks must be an xarray.Dataset, got {describe(tracks)}")
    for name in FIX:
        if name not in tracks:
            raise ValueError(f"tracks must have {', '.join(FIX)}, got {sorted(map(str, tracks.variables))}")
        if set(tracks[name].dims) != set(DIMENSIONS):
            raise ValueError(f"tracks' {name} must have dimensions {DIMENSIONS}, got {tracks[name].dims}")
    fixes = {name: tracks[name].transpose(*DIMENSIONS).values for name in FIX}
    if fixes["time"].dtype.kind != "M":
        raise TypeError(f"tracks' time must be datetime64, got {describe(fixes['time'])}")
    present = np.isfinite(fixes["latitude"])
    if (np.isfinite(fixes["longitude"]) != present).any() or (np.isnat(fixes["time"]) & present).any():
        raise ValueError("tracks must have time, latitude and longitude for each fix, got fixes with only some of them")
    for name, low, high in (("latitude", -90, 90), ("longitude", -360, 360), ("position_error", 0, np.inf)):
        values = fixes[name][present]
        bad = ~((values >= low) & (values <= high) & np.isfinite(values))
        if bad.any():
            raise ValueError(f"tracks' {name} must be finite and within [{low}, {high}], got {values[bad][0]}")
    for times, here in zip(fixes["time"], present, strict=True):
        if (np.diff(times[here]) <= np.timedelta64(0)).any():
            raise ValueError("tracks must have fixes in order of time, got fixes at the same time or out of order")
    if present.sum(1).max(initial=0) < 2:
        raise ValueError("tracks must have a trajectory of two fixes or more, got none")
    return fixes


def require_position_error(position_error: object) -> float:
    """Return the error of a fix in metres, if it is one.

    Raises
    ------
    TypeError, ValueError
        If it is no number, infinite or negative.
    """
    if isinstance(position_error, bool) or not isinstance(position_error, Real):
        raise TypeError(f"position_error must be a number of metres, got {describe(position_error)}")
    metres = float(position_error)
    if not 0 <= metres < np.inf:
        raise ValueError(f"position_error must be finite, in metres, and not negative, got {metres}")
    return metres


def padded_tracks(
    fixes: Mapping[str, Shaped[np.ndarray, "trajectory obs"]], ids: Shaped[np.ndarray, " n"]
) -> xr.Dataset:
    """Return trajectories of these ids as a CF dataset; what is not known of a fix is NaT or NaN."""
    return xr.Dataset(
        {name: (DIMENSIONS, fixes[name], attributes) for name, attributes in FIX.items()},
        coords={"trajectory": ("trajectory", ids, {"cf_role": "trajectory_id"})},
        attrs={"Conventions": "CF-1.8", "featureType": "trajectory"},
    )


def fix_times(tracks: xr.Dataset) -> Shaped[np.ndarray, " fixes"]:
    """Return the times of all fixes."""
    times, latitude = (tracks[name].transpose(*DIMENSIONS).values for name in ("time", "latitude"))
    known: np.ndarray = times[np.isfinite(latitude)]
    return known


def has_segment(tracks: xr.Dataset) -> bool:
    """Tell whether a trajectory has two fixes."""
    fixes = np.isfinite(tracks["latitude"].transpose(*DIMENSIONS).values)
    return bool((fixes.sum(1) >= 2).any())


def tracks_where(tracks: xr.Dataset, holds: Callable[..., Bool[np.ndarray, " n"]]) -> xr.Dataset:
    """Return the fixes at positions of which this is true, in order of latitude and longitude.

    A drifter that leaves and comes back is another one then, as nothing is known of the way between.
    """
    fixes = {name: tracks[name].transpose(*DIMENSIONS).values for name in FIX}
    shape = fixes["latitude"].shape
    kept = holds(fixes["latitude"].reshape(-1), fixes["longitude"].reshape(-1)).reshape(shape)
    starts = kept & ~np.pad(kept, ((0, 0), (1, 0)))[:, :-1]
    run = np.where(kept, np.cumsum(starts.reshape(-1)).reshape(shape), 0)
    row, _ = np.nonzero(starts)
    mine = run[row] == np.arange(1, len(row) + 1)[:, None]
    missing = {"time": np.datetime64("NaT")}
    parts = {name: np.where(mine, values[row], missing.get(name, np.nan)) for name, values in fixes.items()}
    return padded_tracks(parts, np.arange(len(row)))
