"""Segments of tracks as observations of velocity: the classical reading of a drifter."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from probcl.assimilation.grid import Grid
from probcl.assimilation.tracks import require_tracks
from probcl.sphere import METRES_PER_DEGREE, longitude_difference, metres_per_degree_east

ERROR_FLOOR = 0.05
"""Default error of a pseudo-velocity that fix errors do not explain, in m/s.

For real drifters against altimetric maps it is some .15 m/s.
"""


@dataclass(frozen=True, eq=False)
class Segments:
    """Pseudo-velocities, one for each pair of successive fixes of a drifter.

    Attributes
    ----------
    latitude, longitude
        Mid positions, in degrees.
    time
        Mid times, datetime64.
    velocity
        u and v in m/s: displacement over interval, shape (n, 2).
    error
        Standard deviation of each component of `velocity`, in m/s.
    duration
        Interval between the fixes, in seconds.
    trajectory
        Which trajectory each is of.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import segments
    >>> from probcl.datasets.ocean import Vortices
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     Vortices(1).archive(1, [0, 5]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> observed = segments(tracks)
    >>> float(observed.take(observed.trajectory == 0).duration[0] / 3600)  # hours between fixes
    12.0
    """

    latitude: Float[np.ndarray, " n"]
    longitude: Float[np.ndarray, " n"]
    time: Any = field(repr=False)
    velocity: Float[np.ndarray, "n 2"]
    error: Float[np.ndarray, " n"]
    duration: Float[np.ndarray, " n"]
    trajectory: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.latitude)

    def along(self, seconds: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return latitudes and longitudes some seconds from the middle, at the segment's mean velocity."""
        u, v = self.velocity.T
        latitude = self.latitude + v * seconds / METRES_PER_DEGREE
        return latitude, self.longitude + u * seconds / metres_per_degree_east(self.latitude)

    def take(self, chosen: Bool[np.ndarray, " n"] | Int[np.ndarray, " m"]) -> "Segments":
        """Return some of the segments."""
        return Segments(**{part.name: getattr(self, part.name)[chosen] for part in fields(self)})


SIMPSON = (1 / 6, 4 / 6, 1 / 6)
"""Weights of start, middle and end in the mean along a segment."""


def segments(tracks: xr.Dataset, error_floor: float = ERROR_FLOOR) -> Segments:
    r"""Read tracks as pseudo-velocities, one for each pair of successive fixes; gaps are bridged.

    .. math:: u = R \cos\bar\phi\,\Delta\lambda / \Delta t, \quad v = R\,\Delta\phi / \Delta t, \quad
        \sigma^2 = (\epsilon_1^2 + \epsilon_2^2) / \Delta t^2 + \sigma_0^2

    Successive segments share a fix, so that their errors are correlated by −½; as is customary, this is neglected.

    Parameters
    ----------
    tracks
        Padded trajectories, dimensions (trajectory, obs): `time`, `latitude`, `longitude`, `position_error` (m).
    error_floor
        σ₀, in m/s: what a straight line between fixes does not see.

    Raises
    ------
    TypeError
        If `tracks` is not an `xarray.Dataset`, or its times are not datetime64.
    ValueError
        If a variable or dimension is missing, a fix is incomplete, out of range or out of order, no trajectory has two
        fixes, or `error_floor` is negative or not finite.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import segments
    >>> from probcl.datasets.ocean import Vortices
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     Vortices(1).archive(1, [0, 5]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> float(segments(tracks, error_floor=0.0).error.max().round(4))  # √2 · 100 m / 12 h
    0.0033
    """
    if not (np.isfinite(error_floor) and error_floor >= 0):
        raise ValueError(f"error_floor must be finite and not negative, in m/s, got {error_floor}")
    fixes = require_tracks(tracks)
    trajectory, start, end = _successive(np.isfinite(fixes["latitude"]))
    before, after = ({name: values[trajectory, column] for name, values in fixes.items()} for column in (start, end))
    duration = (after["time"] - before["time"]) / np.timedelta64(1, "s")
    latitude = 0.5 * (before["latitude"] + after["latitude"])
    turned = longitude_difference(after["longitude"], before["longitude"])
    east = metres_per_degree_east(latitude) * turned
    north = METRES_PER_DEGREE * (after["latitude"] - before["latitude"])
    fix_error = np.hypot(before["position_error"], after["position_error"])
    return Segments(
        latitude=latitude,
        longitude=before["longitude"] + 0.5 * turned,
        time=before["time"] + (after["time"] - before["time"]) // 2,
        velocity=np.stack([east, north], axis=1) / duration[:, None],
        error=np.hypot(fix_error / duration, error_floor),
        duration=duration,
        trajectory=trajectory,
    )


def within(observed: Segments, time: np.datetime64, window: np.timedelta64) -> Segments:
    """Return the segments whose middle is within a window about a time."""
    return observed.take(np.abs(observed.time - time) <= window / 2)


def near(observed: Segments, grid: Grid) -> Bool[np.ndarray, " n"]:
    """Tell which segments say something of a patch: those whose start, middle or end is within one of its sides of it.

    A patch that is four degrees high and five wide so counts what is up to four degrees to the north of its outermost
    cells, or five to the east.
    """
    found = np.zeros(len(observed), dtype=bool)
    for share in (-0.5, 0.0, 0.5):
        latitude, longitude = observed.along(share * observed.duration)
        found |= grid.holds(latitude, longitude, sides=1.0)
    return found


def require_afloat(observed: Segments, grid: Grid) -> None:
    """Raise `ValueError` if a segment's middle is off the grid, or in a cell without water."""
    ashore = ~grid.is_afloat(observed.latitude, observed.longitude)
    if ashore.any():
        k = int(ashore.argmax())
        raise ValueError(
            f"tracks must be in the water, got {int(ashore.sum())} segments on land, the first of trajectory "
            f"{observed.trajectory[k]} at latitude {observed.latitude[k]:.2f}, longitude {observed.longitude[k]:.2f}"
        )


def _successive(
    present: Bool[np.ndarray, "trajectory obs"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return trajectory, first and second fix of each segment."""
    trajectory, column = np.nonzero(present)
    same = trajectory[1:] == trajectory[:-1]
    return trajectory[1:][same], column[:-1][same], column[1:][same]
