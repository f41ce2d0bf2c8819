"""The grid of an archive: which of its points are ocean, and where between them a position is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from probcl.sphere import METRES_PER_DEGREE, Frame, frame, longitude_near


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

    @property
    def diagonal(self) -> float:
        """From corner to corner, in metres."""
        width = np.ptp(self.longitude) * np.cos(np.deg2rad(self.latitude.mean()))
        return float(np.hypot(width, np.ptp(self.latitude)) * METRES_PER_DEGREE)

    def on_map(self, values: Float[np.ndarray, "*batch points"]) -> Float[np.ndarray, "*batch lat lon"]:
        """Return values at ocean points as maps, NaN on land."""
        maps = np.full((*values.shape[:-1], *self.ocean.shape), np.nan, dtype=values.dtype)
        maps[..., self.ocean] = values
        return maps

    def near(self, longitude: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return longitudes less or more whole turns, such that they are within half a turn of the grid's middle."""
        return longitude_near(longitude, 0.5 * (self.longitude[0] + self.longitude[-1]))

    def holds(
        self, latitude: Float[np.ndarray, " n"], longitude: Float[np.ndarray, " n"], sides: float = 0.0
    ) -> Bool[np.ndarray, " n"]:
        """Tell which positions are within half a cell of the grid, and so many of its sides, each of whole cells."""
        inside = np.ones(len(latitude), dtype=bool)
        for axis, place in ((self.latitude, latitude), (self.longitude, self.near(longitude))):
            low, high = _ends(axis)
            beyond = sides * (high - low)
            inside &= (low - beyond <= place) & (place <= high + beyond)
        return inside

    def nearest(
        self, latitude: Float[np.ndarray, " n"], longitude: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return positions, those more than half a cell off the grid moved to there."""
        return latitude.clip(*_ends(self.latitude)), self.near(longitude).clip(*_ends(self.longitude))

    def is_afloat(
        self, latitude: Float[np.ndarray, " n"], longitude: Float[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Tell which positions are in a cell with an ocean corner.

        Raises
        ------
        ValueError
            If a position is more than half a cell off the grid.
        """
        row, column, _, _ = self.cells(latitude, longitude)
        afloat: np.ndarray = (
            self.ocean[row, column]
            | self.ocean[row + 1, column]
            | self.ocean[row, column + 1]
            | self.ocean[row + 1, column + 1]
        )
        return afloat

    def cells(
        self, latitude: Float[np.ndarray, " n"], longitude: Float[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return row and column of the cell of each position, and how far north and east in it, from 0 to 1.

        Raises
        ------
        ValueError
            If a position is more than half a cell off the grid.
        """
        row, north = _cell("latitude", self.latitude, latitude)
        column, east = _cell("longitude", self.longitude, self.near(longitude))
        return row, column, north, east

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
        row, column, north, east = self.cells(latitude, longitude)
        index = np.full(self.ocean.shape, -1)
        index[self.ocean] = np.arange(self.ocean.sum())
        rows = np.stack([row, row, row + 1, row + 1], axis=1)
        columns = np.stack([column, column + 1, column, column + 1], axis=1)
        weight = np.stack([(1 - north) * (1 - east), (1 - north) * east, north * (1 - east), north * east], axis=1)
        points = index[rows, columns]
        weight = np.where(points >= 0, weight, 0.0)
        ashore = weight.sum(1) < 1e-9
        if ashore.any():
            away = frame(latitude[ashore], longitude[ashore]).position @ self.frame.position.T
            points[ashore, 0], weight[ashore, 0] = away.argmax(1), 1.0
        return points.clip(min=0), weight / weight.sum(1, keepdims=True)


def bracket(
    x: Float[np.ndarray, "*batch"], nodes: Float[np.ndarray, " nodes"]
) -> tuple[Int[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Return the node before x and how far x is from it to the next, in [0, 1], also for x beyond the nodes."""
    position = np.interp(x, nodes, np.arange(len(nodes)))
    node = np.minimum(position.astype(np.int64), max(len(nodes) - 2, 0))
    return node, position - node


def _cell(
    name: str, axis: Float[np.ndarray, " m"], wanted: Float[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the cell of each position along an axis and where in it, from 0 to 1."""
    low, high = _ends(axis)
    off = (wanted < low) | (wanted > high)
    if off.any():
        first = float(wanted[off][0])
        if name == "longitude":
            # In the turn that the grid's own labels are of, not beyond them.
            west = 0 if axis[-1] > 180 else -180
            first = west + (first - west) % 360
        raise ValueError(
            f"tracks must stay on the archive's grid, {name} from {axis[0]:g} to {axis[-1]:g}, got {int(off.sum())} "
            f"segments off it, the first at {first:g}"
        )
    return bracket(wanted, axis)


def _ends(axis: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Return where the outermost cells of an axis end."""
    return float(axis[0] - 0.5 * (axis[1] - axis[0])), float(axis[-1] + 0.5 * (axis[-1] - axis[-2]))
