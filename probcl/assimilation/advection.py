"""Drifters carried by currents on the sphere."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Complex, Float, Int, Shaped

from probcl.assimilation.archive import COMPONENTS, FASTEST, load_values, require_archive
from probcl.assimilation.grid import bracket
from probcl.sphere import METRES_PER_DEGREE, longitude_near, metres_per_degree_east

Velocity = Callable[[float, Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]], Shaped[np.ndarray, "*batch"]]
"""Currents as a function of seconds, latitude and longitude in degrees: u + iv in m/s."""

Box = tuple[float, float, float, float]
"""South, north, west and east, in degrees."""

_SECOND = np.timedelta64(1, "s")


class Fate(IntEnum):
    """What became of a drifter.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation import Fate, GridFlow, advect
    >>> from probcl.datasets.ocean import Vortices
    >>> flow = GridFlow.from_archive(Vortices(1).archive(1, days=[0, 5]))
    >>> far = advect(flow, np.array([[35.0]]), np.array([[0.0]]), np.array([0.0, 3600.0]))  # the grid is about 40 °W
    >>> Fate(int(far.fate[0, 0])).name
    'OFF_GRID'
    """

    AFLOAT = 0
    AGROUND = 1
    OFF_GRID = 2


class Positions(NamedTuple):
    """Where drifters were at each time, NaN once they have stopped, and why they stopped.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation import advect
    >>> def east(seconds, latitude, longitude):
    ...     return np.full(latitude.shape, 1.0 + 0.0j)  # 1 m/s
    >>> positions = advect(east, np.array([0.0]), np.array([0.0]), np.array([0.0, 86_400.0]))
    >>> positions.longitude.round(3), positions.fate
    (array([[0.   , 0.777]]), array([0]))
    """

    latitude: Float[np.ndarray, "*batch times"]
    longitude: Float[np.ndarray, "*batch times"]
    fate: Int[np.ndarray, "*batch"]


class GridFlow:
    """Currents on a grid, bilinear in space and linear in time, for several windows at once.

    Water does not move at a node on land, so that drifters slow down towards it; they are aground where the nearest
    node is land. A node that is NaN at any time counts as land. Beyond the grid the velocity is that of its edge, so
    that a time step can be finished; the drifter is then off the grid.

    Parameters
    ----------
    velocity
        u + iv, m/s, NaN on land.
    seconds, latitude, longitude
        Ascending coordinates, latitude and longitude in degrees.

    Raises
    ------
    ValueError
        If a velocity is infinite or faster than any current, as fill values and other units are.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation import GridFlow
    >>> from probcl.datasets.ocean import Vortices
    >>> flow = GridFlow.from_archive(Vortices(1).archive(3, days=[0, 5]))
    >>> flow(0.0, np.full((3, 2), 35.0), np.full((3, 2), -40.0)).shape  # u + iv of two places in each of three members
    (3, 2)
    """

    def __init__(
        self,
        velocity: Complex[np.ndarray, "windows time lat lon"],
        seconds: Float[np.ndarray, " time"],
        latitude: Float[np.ndarray, " lat"],
        longitude: Float[np.ndarray, " lon"],
    ) -> None:
        land = np.isnan(velocity).any(1)
        self._velocity = np.where(land[:, None], 0, velocity).reshape(-1)
        fastest = abs(self._velocity).max()
        if not fastest < FASTEST:
            raise ValueError(f"velocity must be below {FASTEST:g} m/s and NaN on land, got {fastest:g}")
        self.land = land
        self.seconds = seconds.astype(np.float64)
        self.latitude, self.longitude = latitude.astype(np.float64), longitude.astype(np.float64)
        self._shape = velocity.shape

    @classmethod
    def from_archive(cls, archive: xr.Dataset) -> "GridFlow":
        """Take the currents of an archive, a window for each member; seconds count from its first time."""
        archive = require_archive(archive)
        u, v = (load_values(archive, name) for name in COMPONENTS)
        velocity = (u + 1j * v).reshape(-1, *u.shape[-3:])
        time = archive["time"].values
        return cls(velocity, (time - time[0]) / _SECOND, archive["latitude"].values, archive["longitude"].values)

    def __call__(
        self, seconds: float, latitude: Float[np.ndarray, "windows n"], longitude: Float[np.ndarray, "windows n"]
    ) -> Complex[np.ndarray, "windows n"]:
        """Velocity u + iv at places, a row for each window."""
        windows, times, rows, columns = self._shape
        (before,), (after_weight,) = bracket(np.array([seconds]), self.seconds)
        row, north = bracket(latitude, self.latitude)
        column, east = bracket(longitude, self.longitude)
        window = np.arange(windows)[:, None]
        corner = ((window * times + before) * rows + row) * columns + column
        now = self._in_space(corner, north, east)
        if after_weight == 0:
            return now
        velocity: np.ndarray = now + after_weight * (self._in_space(corner + rows * columns, north, east) - now)
        return velocity

    def _in_space(
        self,
        corner: Int[np.ndarray, "windows n"],
        north: Float[np.ndarray, "windows n"],
        east: Float[np.ndarray, "windows n"],
    ) -> Complex[np.ndarray, "windows n"]:
        field, columns = self._velocity, self._shape[-1]
        south_edge = field[corner] + east * (field[corner + 1] - field[corner])
        corner = corner + columns
        north_edge = field[corner] + east * (field[corner + 1] - field[corner])
        value: np.ndarray = south_edge + north * (north_edge - south_edge)
        return value

    def fate(
        self, latitude: Float[np.ndarray, "windows n"], longitude: Float[np.ndarray, "windows n"]
    ) -> Int[np.ndarray, "windows n"]:
        """Tell which places are aground or off the grid."""
        row, north = bracket(latitude, self.latitude)
        column, east = bracket(longitude, self.longitude)
        window = np.arange(self._shape[0])[:, None]
        aground = self.land[window, row + (north > 0.5), column + (east > 0.5)]
        inside = _within(latitude, self.latitude) & _within(longitude, self.longitude)
        return np.where(inside, np.where(aground, Fate.AGROUND, Fate.AFLOAT), Fate.OFF_GRID)

    def ocean_starts(
        self, n: int, generators: Sequence[np.random.Generator], boxes: Sequence[Box | None] = (None,)
    ) -> tuple[Float[np.ndarray, "windows n"], Float[np.ndarray, "windows n"]]:
        """Draw places uniformly over the cells with water at all four corners, or over what of them is in each box.

        There is a generator for each window and box, windows slowest, and so are the places.
        """
        owners = product(range(self._shape[0]), boxes)
        places = [
            self._starts_of(window, n, generator, box)
            for (window, box), generator in zip(owners, generators, strict=True)
        ]
        latitude, longitude = (np.stack(part).reshape(self._shape[0], -1) for part in zip(*places, strict=True))
        return latitude, longitude

    def _starts_of(
        self, window: int, n: int, generator: np.random.Generator, box: Box | None
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        wet = ~self.land[window]
        cells = wet[:-1, :-1] & wet[1:, :-1] & wet[:-1, 1:] & wet[1:, 1:]
        north, east = self._nodes_within(box)
        sine = np.sin(np.radians(north))
        area = cells * np.outer(np.diff(sine), np.diff(east))
        if not area.any():
            raise ValueError(
                "archive must have a cell with water at its four corners for drifters to start in, got none"
                + ("" if box is None else " in latitude {:g} to {:g}, longitude {:g} to {:g}".format(*box))
            )
        edges = np.cumsum(area.ravel())
        chosen, across, along = generator.random((3, n))
        cell = np.searchsorted(edges, chosen * edges[-1], side="right")
        row, column = np.unravel_index(cell, cells.shape)
        latitude = np.degrees(np.arcsin(sine[row] + across * np.diff(sine)[row]))
        return latitude, east[column] + along * np.diff(east)[column]

    def _nodes_within(self, box: Box | None) -> tuple[Float[np.ndarray, " lat"], Float[np.ndarray, " lon"]]:
        """Return the grid's axes, what is outside of a box moved to its edge, so that cells there have no area."""
        if box is None:
            return self.latitude, self.longitude
        south, north, west, east = box
        middle = 0.5 * (self.longitude[0] + self.longitude[-1])
        start = float(longitude_near(np.array([west]), middle)[0])
        return self.latitude.clip(south, north), self.longitude.clip(start, start + east - west)


def advect(
    velocity: Velocity,
    latitude: Float[np.ndarray, "*batch"],
    longitude: Float[np.ndarray, "*batch"],
    seconds: Float[np.ndarray, " times"],
    step: float = 3600.0,
) -> Positions:
    """Carry drifters with currents on the sphere, by the classical fourth-order Runge-Kutta method.

    Parameters
    ----------
    velocity
        A `GridFlow`, or a function of seconds and positions. A grid stops drifters that run aground or leave it.
    latitude, longitude
        Degrees, at the first time.
    seconds
        Times at which positions are wanted, ascending; the first is the start.
    step
        Longest time step, in seconds. Every interval is divided evenly.

    Returns
    -------
    Positions
        Degrees; NaN from the first time at which a drifter has stopped.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation import GridFlow, advect
    >>> from probcl.datasets.ocean import Vortices
    >>> flow = GridFlow.from_archive(Vortices(1).archive(1, days=[0, 5]))
    >>> seconds = np.array([0.0, 43_200.0, 86_400.0])
    >>> positions = advect(flow, np.array([[35.0, 35.2]]), np.array([[-40.0, -40.2]]), seconds)
    >>> positions.latitude.shape  # one window, two drifters, three times
    (1, 2, 3)
    """
    fate_of = getattr(velocity, "fate", None)
    stopped = np.full(latitude.shape, int(Fate.AFLOAT)) if fate_of is None else fate_of(latitude, longitude)
    place = np.stack([latitude, longitude]).astype(np.float64)
    record = [np.where(stopped == Fate.AFLOAT, place, np.nan)]
    for start, end in pairwise(seconds):
        steps = max(1, int(np.ceil((end - start) / step - 1e-9)))
        dt = (end - start) / steps
        for k in range(steps):
            place = np.where(stopped == Fate.AFLOAT, _runge_kutta(velocity, start + k * dt, place, dt), place)
            if fate_of is not None:
                stopped = np.where(stopped == Fate.AFLOAT, fate_of(*place), stopped)
        record.append(np.where(stopped == Fate.AFLOAT, place, np.nan))
    path = np.stack(record, -1)
    return Positions(path[0], path[1], stopped)


def _runge_kutta(
    velocity: Velocity, seconds: float, place: Float[np.ndarray, "2 *batch"], dt: float
) -> Float[np.ndarray, "2 *batch"]:
    def rate(time: float, place: Float[np.ndarray, "2 *batch"]) -> Float[np.ndarray, "2 *batch"]:
        w = velocity(time, place[0], place[1])
        return np.stack([w.imag / METRES_PER_DEGREE, w.real / metres_per_degree_east(place[0])])

    first = rate(seconds, place)
    second = rate(seconds + dt / 2, place + dt / 2 * first)
    third = rate(seconds + dt / 2, place + dt / 2 * second)
    fourth = rate(seconds + dt, place + dt * third)
    moved: np.ndarray = place + dt / 6 * (first + 2 * second + 2 * third + fourth)
    return moved


def _within(x: Float[np.ndarray, "*batch"], nodes: Float[np.ndarray, " nodes"]) -> Bool[np.ndarray, "*batch"]:
    within: np.ndarray = (nodes[0] <= x) & (x <= nodes[-1])
    return within
