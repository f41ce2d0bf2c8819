"""A reader of drifters' tracks: ragged, padded or in a table."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from jaxtyping import Shaped

from probcl.assimilation.readers.conventions import require_names
from probcl.assimilation.readers.sources import close, named, open_source
from probcl.assimilation.readers.tables import from_table, read_table
from probcl.assimilation.readers.trajectories import NAMES, from_dataset
from probcl.assimilation.tracks import FIX, padded_tracks, require_position_error, require_tracks

_FARTHEST = 2e7  # metres: half-way around the Earth
_TABLES = (".csv", ".parquet", ".pq", ".csv.gz")


def read_tracks(
    source: str | PathLike[str] | xr.Dataset | pd.DataFrame,
    *,
    names: Mapping[str, str] | None = None,
    position_error: float | None = None,
) -> xr.Dataset:
    """Read the tracks of drifters as padded trajectories.

    Parameters
    ----------
    source : path, xarray.Dataset or pandas.DataFrame
        One of: CF contiguous ragged (a count of fixes for each trajectory, as ``rowsize`` of the Global Drifter
        Program); CF indexed ragged; padded (trajectory, obs), as Parcels and OpenDrift write; a long table with
        columns id, time, longitude and latitude. Files are netCDF, zarr, CSV, or Parquet (which needs pyarrow).
    names : mapping, optional
        Which variable or column is ``"id"``, ``"time"``, ``"latitude"``, ``"longitude"``, ``"position_error"`` or, of
        contiguous ragged tracks, ``"rowsize"``, where the standard or usual names do not say.
    position_error : float, optional
        Standard deviation of a fix to east and to north, in metres, in place of the source's.

    Returns
    -------
    xarray.Dataset
        `time`, `latitude`, `longitude` and `position_error` (m) on (trajectory, obs), in order of time, NaT and NaN
        after the last fix; `trajectory` holds the ids. Fixes without a position are left out, and trajectories without
        a fix.

    Raises
    ------
    DataFileError
        If a file is absent, damaged, or of none of these kinds.
    ImportError
        If reading zarr or Parquet asks for what is not installed.
    TypeError, ValueError
        If a variable is missing or ambiguous, times are numbers without units, a fix lacks a coordinate or is out of
        range, a trajectory has two fixes at one time, there is no position error, or no trajectory has two fixes.

    Examples
    --------
    >>> import pandas as pd
    >>> from probcl.assimilation import read_tracks
    >>> table = pd.DataFrame({"id": ["a", "b", "a"], "lon": [20.0, 21.0, 20.1], "lat": [-35.0, -36.0, -35.1]})
    >>> table["time"] = ["2002-01-01T12:00", "2002-01-01", "2002-01-01"]
    >>> read_tracks(table, position_error=100)["latitude"].values
    array([[-35.1, -35. ],
           [-36. ,   nan]])
    """
    asked = require_names("names", names, NAMES)
    error = None if position_error is None else require_position_error(position_error)
    if isinstance(source, pd.DataFrame):
        return _tracks(from_table(source, asked, "source"), error, "source")
    if isinstance(source, str | PathLike) and str(source).endswith(_TABLES):
        path = Path(source)
        return _tracks(from_table(read_table(path), asked, path.name), error, path.name)
    opened = open_source(source)
    try:
        if len(opened) != 1:
            raise ValueError(f"source must be one file of tracks, got {len(opened)}, from {opened[0].label} on")
        label, dataset, _ = opened[0]
        with named(label):
            return _tracks(from_dataset(dataset, asked, label, with_error=error is None), error, label)
    finally:
        close(opened)


def _tracks(fixes: pd.DataFrame, error: float | None, label: str) -> xr.Dataset:
    """Pad a table of fixes, with columns id and those of `FIX`."""
    if error is not None:
        fixes = fixes.assign(position_error=error)
    if "position_error" not in fixes:
        raise ValueError(f"position_error must be given, in metres: {label} has none")
    fixes = _present(fixes, label)
    rows, ids = pd.factorize(fixes["id"])
    fixes = fixes.assign(row=rows).sort_values(["row", "time"], kind="stable")
    twice = fixes.duplicated(["row", "time"])
    if twice.any():
        first = fixes[twice].iloc[0]
        raise ValueError(f"{label}: trajectory {first['id']!r} must have one fix at a time, got two at {first['time']}")
    tracks = _padded(fixes, np.asarray(ids))
    try:
        require_tracks(tracks)
    except (TypeError, ValueError) as trouble:
        raise type(trouble)(f"{label}: {trouble}") from trouble
    return tracks


def _present(fixes: pd.DataFrame, label: str) -> pd.DataFrame:
    """Leave out fixes without position, and refuse those with half of one, an infinite one or without a time."""
    known = {name: fixes[name].notna().to_numpy() for name in ("time", "latitude", "longitude")}
    here = known["latitude"] | known["longitude"]
    for name, seen in known.items():
        if (here & ~seen).any():
            first = fixes[here & ~seen].iloc[0]
            raise ValueError(f"{label}: each fix must have a {name}, got one of trajectory {first['id']!r} without")
    for name in ("latitude", "longitude"):
        if np.isinf(fixes[name]).any():
            raise ValueError(f"{label}: {name} must be finite, got {int(np.isinf(fixes[name]).sum())} infinite values")
    if (fixes["position_error"][here] > _FARTHEST).any():
        raise ValueError(f"{label}: position_error must be in metres, got {fixes['position_error'][here].max():g}")
    if not here.any():
        raise ValueError(f"{label} must have fixes, got none with a position")
    return fixes[here]


def _padded(fixes: pd.DataFrame, ids: Shaped[np.ndarray, " trajectory"]) -> xr.Dataset:
    """Pad a table of fixes, in order of their rows."""
    row = fixes["row"].to_numpy()
    column = np.arange(len(row)) - np.searchsorted(row, row, side="left")
    shape = len(ids), int(column.max()) + 1
    padded = {}
    for name in FIX:
        nothing, kind = (np.datetime64("NaT"), "datetime64[ns]") if name == "time" else (np.nan, "float64")
        padded[name] = np.full(shape, nothing, kind)
        padded[name][row, column] = fixes[name].to_numpy()
    return padded_tracks(padded, ids.astype(str) if ids.dtype.kind == "O" else ids)
