"""An archive of currents as arrays: where its points are, what it holds, and how it is observed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from probcl.assimilation.baselines.geometry import Frame, frame, longitude_difference
from probcl.assimilation.baselines.segments import Segments
from probcl.checks import describe

COMPONENTS = ("u", "v")
_LAYOUTS = (("member", "time", "latitude", "longitude"), ("time", "latitude", "longitude"))


@dataclass(frozen=True, eq=False)
class Grid:
    """The points of an archive's grid that are ocean.

    Attributes
    ----------
    latitude, longitude
        The grid's axes, in degrees, ascending.
    ocean
        Which cells are ocean, shape (latitude, longitude).
    """

    latitude: Float[np.ndarray, " lat"]
    longitude: Float[np.ndarray, " lon"]
    ocean: Bool[np.ndarray, "lat lon"]

    @property
    def frame(self) -> Frame:
        """Ocean points on the unit sphere."""
        row, column = np.nonzero(self.ocean)
        return frame(self.latitude[row], self.longitude[column])

    def on_map(self, values: Float[np.ndarray, "*batch points"]) -> Float[np.ndarray, "*batch lat lon"]:
        """Return values at ocean points as maps, NaN on land."""
        maps = np.full((*values.shape[:-1], *self.ocean.shape), np.nan, dtype=values.dtype)
        maps[..., self.ocean] = values
        return maps

    def weights(
        self, latitude: Float[np.ndarray, " n"], longitude: Float[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, "n 4"], Float[np.ndarray, "n 4"]]:
        """Return ocean points and weights of bilinear interpolation; land does not count, and the rest sum to one.

        A position in a cell without ocean corners takes the nearest ocean point.

        Raises
        ------
        ValueError
            If a position is more than half a cell off the grid.
        """
        row, down = _place("latitude", self.latitude, latitude)
        centre = 0.5 * (self.longitude[0] + self.longitude[-1])
        column, right = _place("longitude", self.longitude, centre + longitude_difference(longitude, centre))
        index = np.full(self.ocean.shape, -1)
        index[self.ocean] = np.arange(self.ocean.sum())
        rows = np.stack([row, row, row + 1, row + 1], axis=1).clip(max=len(self.latitude) - 1)
        columns = np.stack([column, column + 1, column, column + 1], axis=1).clip(max=len(self.longitude) - 1)
        weight = np.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], axis=1)
        points = index[rows, columns]
        weight = np.where(points >= 0, weight, 0.0)
        ashore = weight.sum(1) < 1e-9
        if ashore.any():
            away = frame(latitude[ashore], longitude[ashore]).position @ self.frame.position.T
            points[ashore, 0], weight[ashore, 0] = away.argmax(1), 1.0
        return points.clip(min=0), weight / weight.sum(1, keepdims=True)


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
    """

    grid: Grid
    times: Any
    values: Float[np.ndarray, "member time 2 points"]

    @classmethod
    def of(cls, dataset: xr.Dataset) -> "Archive":
        """Check a dataset and take its arrays.

        Raises
        ------
        TypeError
            If it is not an `xarray.Dataset`, or its times are not datetime64.
        ValueError
            If a variable, dimension or coordinate is missing, an axis does not ascend, values are infinite, land
            moves, or there is no ocean.
        """
        layout = _layout(dataset)
        latitude, longitude = (_ascending(dataset, name).astype(float) for name in ("latitude", "longitude"))
        times = _ascending(dataset, "time")
        if times.dtype.kind != "M":
            raise TypeError(f"archive's time must be datetime64, got {describe(times)}")
        maps = np.stack([dataset[name].transpose(*layout).values for name in COMPONENTS], axis=-3)
        maps = maps[None] if len(layout) == 3 else maps
        if np.isinf(maps).any():
            raise ValueError(f"archive must be finite in the ocean, got {int(np.isinf(maps).sum())} infinite values")
        known = np.isfinite(maps)
        ocean = known.all((0, 1, 2))
        if (known.any((0, 1, 2)) != ocean).any():
            raise ValueError(
                f"archive must be NaN on land and nowhere else, got NaN that come and go at "
                f"{int((known.any((0, 1, 2)) & ~ocean).sum())} points"
            )
        if not ocean.any():
            raise ValueError("archive must have ocean, got NaN everywhere")
        return cls(Grid(latitude, longitude, ocean), times.astype("datetime64[ns]"), maps[..., ocean])

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
            return np.stack([np.arange(len(self.values)), np.zeros(len(self.values), dtype=int)], axis=1), np.zeros(
                1, self.times.dtype
            ).astype(int).astype("timedelta64[ns]")
        if (steps != steps[0]).any():
            raise ValueError(f"archive must have evenly spaced times, got steps from {steps.min()} to {steps.max()}")
        outer = int(np.floor(start / steps[0])), int(np.ceil(end / steps[0]))
        inner = int(np.ceil(start / steps[0])), int(np.floor(end / steps[0]))
        for before, after in ((min(low, 0), max(high, 0)) for low, high in (outer, inner)):
            centre = np.arange(-before, count - after)
            if len(centre):
                grid = np.meshgrid(np.arange(len(self.values)), centre, indexing="ij")
                return np.stack([axis.ravel() for axis in grid], axis=1), np.arange(before, after + 1) * steps[0]
        raise ValueError(
            f"archive must span the tracks' window, {_days(start):.2f} to {_days(end):.2f} days from the analysis, got "
            f"{count} maps over {_days(self.times[-1] - self.times[0]):.2f} days"
        )

    def _brackets(self, offsets: Any) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """Yield, for each centre, the map before each observation and the share of the one after it."""
        clock = (self.times - self.times[0]) / np.timedelta64(1, "s")
        for centre in self.centres(offsets):
            if len(clock) == 1:
                yield np.zeros(len(offsets), dtype=int), np.zeros(len(offsets))
                continue
            wanted = np.interp(clock[centre] + offsets / np.timedelta64(1, "s"), clock, np.arange(len(clock)))
            before = np.floor(wanted).astype(int).clip(max=len(clock) - 2)
            yield before, wanted - before


def _at(
    seen: Float[np.ndarray, "member time 2 n"], before: Int[np.ndarray, " n"], share: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "member 2 n"]:
    column = np.arange(len(before))
    after = np.minimum(before + 1, seen.shape[1] - 1)
    # Indexing by two arrays around a slice puts their axis first.
    earlier, later = (np.moveaxis(seen[:, index, :, column], 0, -1) for index in (before, after))
    return earlier * (1 - share) + later * share


def _layout(dataset: object) -> tuple[str, ...]:
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"archive must be an xarray.Dataset, got {describe(dataset)}")
    missing = [name for name in COMPONENTS if name not in dataset.data_vars]
    if missing:
        raise ValueError(f"archive must have variables u and v, got {sorted(map(str, dataset.data_vars))}")
    for layout in _LAYOUTS:
        if all(set(dataset[name].dims) == set(layout) for name in COMPONENTS):
            return layout
    raise ValueError(
        f"archive's u and v must have dimensions {_LAYOUTS[0]} or {_LAYOUTS[1]}, got {dataset['u'].dims} and "
        f"{dataset['v'].dims}"
    )


def _ascending(dataset: xr.Dataset, name: str) -> np.ndarray:
    if name not in dataset.coords:
        raise ValueError(f"archive must have the coordinate {name}, got {sorted(map(str, dataset.coords))}")
    axis = dataset[name].values
    if axis.ndim != 1 or axis.size == 0 or (axis[1:] <= axis[:-1]).any():
        raise ValueError(f"archive's {name} must be one axis of ascending values, got {describe(axis)}")
    return axis


def _place(
    name: str, axis: Float[np.ndarray, " m"], wanted: Float[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the cell of each position and where in it, from 0 to 1."""
    if len(axis) == 1:
        return np.zeros(len(wanted), dtype=int), np.zeros(len(wanted))
    low, high = axis[0] - 0.5 * (axis[1] - axis[0]), axis[-1] + 0.5 * (axis[-1] - axis[-2])
    off = (wanted < low) | (wanted > high)
    if off.any():
        raise ValueError(
            f"tracks must stay on the archive's grid, {name} from {axis[0]:g} to {axis[-1]:g}, got {int(off.sum())} "
            f"segments off it, the first at {wanted[off][0]:g}"
        )
    wanted = wanted.clip(axis[0], axis[-1])
    cell = np.searchsorted(axis, wanted, side="right").clip(1, len(axis) - 1) - 1
    return cell, (wanted - axis[cell]) / (axis[cell + 1] - axis[cell])


def _days(interval: np.timedelta64) -> float:
    return float(interval / np.timedelta64(1, "D"))
