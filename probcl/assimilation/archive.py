"""An archive of currents: what it is, the refusal of what is not one, and what it holds as arrays."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from probcl.assimilation.grid import Grid, bracket
from probcl.assimilation.segments import Segments
from probcl.errors import DataFileError

COMPONENTS = ("u", "v")
STANDARD_NAMES = {"u": "eastward_sea_water_velocity", "v": "northward_sea_water_velocity"}

_SPEED_UNITS = ("m s-1", "m/s", "m s^-1", "m.s-1", "meter second-1", "metre second-1")
_UNITS = {
    "u": _SPEED_UNITS,
    "v": _SPEED_UNITS,
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE"),
}
_GRID = ("time", "latitude", "longitude")
FASTEST = 20.0
"""Currents above this, in m/s, are a fill value or in another unit: the fastest tidal streams reach about 10."""

MOST_POLAR = 89.0
"""Eastward velocity moves longitude by 1 / cos latitude, which no fixed time step follows at a pole."""


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

    Examples
    --------
    >>> from probcl.assimilation import require_archive
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(3, days=[0, 5])
    >>> require_archive(archive).u.dims
    ('member', 'time', 'latitude', 'longitude')
    >>> require_archive(archive.drop_vars("v"))
    Traceback (most recent call last):
        ...
    ValueError: archive must have a variable 'v', got ['u']
    """
    if not isinstance(archive, xr.Dataset):
        raise TypeError(f"{name} must be an xarray.Dataset, got {type(archive).__name__}")
    for variable in COMPONENTS:
        _require_variable(archive, name, variable)
    _require_axis(archive, name, "latitude", -MOST_POLAR, MOST_POLAR)
    _require_axis(archive, name, "longitude", -360.0, 540.0)
    _require_time(archive, name)
    order = [*(["member"] if "member" in archive["u"].dims else []), *_GRID]
    return archive.transpose(*order, ...)


def load_values(archive: xr.Dataset, variable: str) -> Shaped[np.ndarray, "*shape"]:
    """Return the values of a variable, which may be in its file still.

    Raises
    ------
    DataFileError
        If the file is gone or damaged.
    """
    try:
        return archive[variable].values
    except (OSError, RuntimeError, EOFError, zlib.error) as error:
        origin = archive.attrs.get("archive_source", archive[variable].encoding.get("source", "its file"))
        raise DataFileError(f"archive.{variable} must be readable from {origin}: {error}") from error


@dataclass(frozen=True, eq=False)
class Archive:
    """A gridded archive as one array over its ocean points.

    Attributes
    ----------
    grid
        Where the points are.
    times
        Of the maps, ascending.
    values
        u and v in m/s, shape (member, time, 2, points).
    of_patches
        Whether its members are patches, as `patches` makes them, which drifters leave and are still seen.
    """

    grid: Grid
    times: Any
    values: Float[np.ndarray, "member time 2 points"]
    of_patches: bool = False

    @classmethod
    def of(cls, dataset: xr.Dataset) -> "Archive":
        """Check a dataset and take its arrays.

        Raises
        ------
        TypeError, ValueError
            As `require_archive` does; and if currents are faster than any are, land moves, or there is no ocean.
        DataFileError
            If the dataset is still in a file, and that is gone or damaged.
        """
        dataset = require_archive(dataset)
        maps = np.stack([load_values(dataset, name) for name in COMPONENTS], axis=-3)
        maps = maps if "member" in dataset.dims else maps[None]
        fastest = max(np.fmax.reduce(maps, axis=None), -np.fmin.reduce(maps, axis=None))
        if fastest > FASTEST:
            raise ValueError(
                f"archive must be at most {FASTEST:g} m/s and NaN on land, got {fastest:g}: a fill value that is not "
                f"declared, or another unit?"
            )
        known = np.isfinite(maps)
        ocean = known.all((0, 1, 2))
        if (known.any((0, 1, 2)) != ocean).any():
            raise ValueError(
                f"archive must be NaN on land and nowhere else, got NaN that come and go at "
                f"{int((known.any((0, 1, 2)) & ~ocean).sum())} points"
            )
        if not ocean.any():
            raise ValueError("archive must have ocean, got NaN everywhere")
        latitude, longitude = (dataset[name].values.astype(float) for name in ("latitude", "longitude"))
        times = dataset["time"].values.astype("datetime64[ns]")
        return cls(Grid(latitude, longitude, ocean), times, maps[..., ocean], "patch_latitude" in dataset.coords)

    @property
    def maps(self) -> Float[np.ndarray, "maps 2 points"]:
        """All maps of all members, members slowest."""
        return self.values.reshape(-1, *self.values.shape[2:])

    def observe(self, segments: Segments, time: np.datetime64) -> Float[np.ndarray, "windows n 2"]:
        """Return what the segments would have seen at their offsets from each map's time, linear between maps.

        Windows are (member, centre) pairs, members slowest, the centres those of `centres`. An archive of one time has
        fields that stand still.
        """
        points, weights = self.grid.weights(segments.latitude, segments.longitude)
        seen = sum(self.values[..., points[:, k]] * weights[:, k] for k in range(4))
        offsets = segments.time - time
        views = [_at(seen, before, share) for before, share in self._brackets(offsets)]
        return np.stack(views, axis=1).reshape(-1, 2, len(segments)).swapaxes(1, 2)

    def centres(self, offsets: Any) -> Int[np.ndarray, " centres"]:
        """Return the maps around which all offsets lie within the archive, to within one step of its ends.

        Raises
        ------
        ValueError
            If there are none.
        """
        if len(self.times) == 1 or len(offsets) == 0:
            return np.arange(len(self.times))
        step = np.diff(self.times).max()
        first, last = self.times + offsets.min(), self.times + offsets.max()
        inside = np.nonzero((first >= self.times[0] - step) & (last <= self.times[-1] + step))[0]
        if len(inside) == 0:
            raise ValueError(
                f"archive must span the tracks' window, {_days(offsets.min()):.2f} to {_days(offsets.max()):.2f} days "
                f"from the analysis, got {len(self.times)} maps over {_days(self.times[-1] - self.times[0]):.2f} days"
            )
        # Where a window fits well, do not use one that has to be extrapolated.
        best = np.nonzero((first >= self.times[0]) & (last <= self.times[-1]))[0]
        return best if len(best) else inside

    def window_maps(self, segments: Segments, time: np.datetime64) -> Float[np.ndarray, "windows 2 points"]:
        """Return the central map of each window of `observe`."""
        return self.values[:, self.centres(segments.time - time)].reshape(-1, *self.values.shape[2:])

    def windows(self, start: np.timedelta64, end: np.timedelta64) -> tuple[Int[np.ndarray, "windows 2"], Any]:
        """Return (member, central map) of the runs of maps from `start` to `end` about it, and the maps' lags.

        A run reaches as far as whole steps go without missing the archive: beyond both ends where there is room, else
        within them.

        Raises
        ------
        ValueError
            If the maps are not evenly spaced, or too few.
        """
        count, steps = len(self.times), np.diff(self.times)
        if count == 1:
            return self.windows_about(np.arange(1)), np.zeros(1, "timedelta64[ns]")
        if (steps != steps[0]).any():
            raise ValueError(f"archive must have evenly spaced times, got steps from {steps.min()} to {steps.max()}")
        outer = int(np.floor(start / steps[0])), int(np.ceil(end / steps[0]))
        inner = int(np.ceil(start / steps[0])), int(np.floor(end / steps[0]))
        for before, after in ((min(low, 0), max(high, 0)) for low, high in (outer, inner)):
            centre = np.arange(-before, count - after)
            if len(centre):
                return self.windows_about(centre), np.arange(before, after + 1) * steps[0]
        raise ValueError(
            f"archive must span the tracks' window, {_days(start):.2f} to {_days(end):.2f} days from the analysis, got "
            f"{count} maps over {_days(self.times[-1] - self.times[0]):.2f} days"
        )

    def windows_about(self, centres: Int[np.ndarray, " centres"]) -> Int[np.ndarray, "windows 2"]:
        """Return (member, central map) of these maps of all members, members slowest."""
        return np.stack(np.meshgrid(np.arange(len(self.values)), centres, indexing="ij"), axis=-1).reshape(-1, 2)

    def _brackets(self, offsets: Any) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """Yield, for each centre, the map before each observation and the share of the one after it."""
        clock = (self.times - self.times[0]) / np.timedelta64(1, "s")
        for centre in self.centres(offsets):
            yield bracket(clock[centre] + offsets / np.timedelta64(1, "s"), clock)


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
    standard_name = values.attrs.get("standard_name", STANDARD_NAMES[variable])
    if standard_name != STANDARD_NAMES[variable]:
        raise ValueError(
            f"{name}.{variable} must have the standard_name {STANDARD_NAMES[variable]!r}, got {standard_name!r}"
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


def _at(
    seen: Float[np.ndarray, "member time 2 n"], before: Int[np.ndarray, " n"], share: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "member 2 n"]:
    column = np.arange(len(before))
    after = np.minimum(before + 1, seen.shape[1] - 1)
    # Indexing by two arrays around a slice puts their axis first.
    earlier, later = (np.moveaxis(seen[:, index, :, column], 0, -1) for index in (before, after))
    values: np.ndarray = earlier * (1 - share) + later * share
    return values


def _days(interval: np.timedelta64) -> float:
    return float(interval / np.timedelta64(1, "D"))
