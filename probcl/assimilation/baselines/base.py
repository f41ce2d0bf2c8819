"""What the baselines have in common: fit to an archive, analyse tracks, return an ensemble on the archive's grid."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from probcl.assimilation.archive import COMPONENTS, STANDARD_NAMES, Archive
from probcl.assimilation.grid import Grid
from probcl.assimilation.segments import ERROR_FLOOR, Segments, near, segments
from probcl.assimilation.tracks import tracks_where
from probcl.checks import describe, require_count

Moment = np.datetime64 | datetime | str
Method = TypeVar("Method", bound="Baseline")

_UNITS = {"units": "m s-1"}


@dataclass(frozen=True, eq=False)
class Posterior:
    """What an analysis found, over ocean points.

    Attributes
    ----------
    members
        Equally weighted draws, shape (realization, 2, points).
    mean, stddev
        In closed form where there is one, shape (2, points).
    archive_index
        The map that each member is, member of the archive and time, where members are archive maps.
    effective_sample_size
        Of the weights behind the members, where there are any.
    warning
        Why not to rely on it; empty if there is no reason.
    """

    members: Float[np.ndarray, "realization 2 points"]
    mean: Float[np.ndarray, "2 points"]
    stddev: Float[np.ndarray, "2 points"]
    archive_index: Int[np.ndarray, "realization 2"] | None = None
    effective_sample_size: float | None = None
    warning: str = ""


class Baseline(ABC):
    """A method that turns an archive and tracks into an ensemble of maps.

    A subclass is a set of options with `_fit`, which sees the archive as an array, and `_analyse`, which sees the
    tracks, as they are and as pseudo-velocities.

    Parameters
    ----------
    error_floor
        Error of a pseudo-velocity beyond that of its fixes, in m/s.

    Examples
    --------
    >>> import numpy as np
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Baseline
    >>> from probcl.assimilation.baselines.base import Posterior
    >>> from probcl.datasets.ocean import Vortices
    >>> class StillWater(Baseline):
    ...     def _fit(self, archive):
    ...         pass
    ...
    ...     def _analyse(self, tracks, observed, time, members, rng):
    ...         still = np.zeros((members, *self.archive.maps.shape[1:]))
    ...         return Posterior(still, still[0], still[0])
    >>> archive = Vortices(1).archive(2, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> dict(StillWater().fit(archive).analyse(tracks, archive.time.values[1], members=3).u.sizes)
    {'realization': 3, 'latitude': 32, 'longitude': 32}
    """

    beyond: ClassVar[bool] = False
    """Whether, of patches, it can use segments outside of them."""

    _archive: Archive | None = None

    def __init__(self, error_floor: float = ERROR_FLOOR) -> None:
        self.error_floor = error_floor

    def fit(self: Method, archive: xr.Dataset) -> Method:
        """Learn what the method needs of an archive, and its grid.

        Parameters
        ----------
        archive
            `u` and `v` in m/s, dimensions ([member,] time, latitude, longitude), axes ascending, NaN on land.

        Raises
        ------
        TypeError, ValueError
            As `Archive.of` does.
        """
        return self.fit_to(Archive.of(archive))

    def fit_to(self: Method, archive: Archive) -> Method:
        """Learn what the method needs of an archive that was read already."""
        self._archive = archive
        self._fit(archive)
        return self

    def analyse(self, tracks: xr.Dataset, time: Moment, members: int, seed: int = 0) -> xr.Dataset:
        """Return an ensemble of maps at a time, given tracks.

        A method that was fitted to patches takes tracks in their common frame. One whose covariance is defined there
        (`beyond`) uses all segments that are `near` the patch; the others, which interpolate the archive's maps, those
        whose middle is within half a cell of it, or the fixes that are. With no segment left they return climatology.

        Parameters
        ----------
        tracks
            Padded trajectories, dimensions (trajectory, obs), as for `segments`.
        time
            Of the analysis; a string is in ISO 8601.
        members
            How many maps to draw.
        seed
            Of the draws.

        Returns
        -------
        xarray.Dataset
            `u`, `v` (realization, latitude, longitude); `u_mean`, `v_mean`, `u_stddev`, `v_stddev`, in closed form
            where there is one; NaN on land. Attributes: `method`, `seed`, `n_obs`.

        Raises
        ------
        RuntimeError
            Before `fit`.
        TypeError, ValueError
            If the tracks are damaged or off the grid, `time` is no time, or `members` no positive count.
        """
        archive, moment = self.archive, as_time(time)
        require_count("members", members)
        observed = segments(tracks, self.error_floor)
        if archive.of_patches:
            tracks, observed = self._about_patch(tracks, observed)
        else:
            # Off the grid is an error even for methods that never interpolate.
            archive.grid.cells(observed.latitude, observed.longitude)
        rng = np.random.default_rng(require_count("seed", seed, minimum=0))
        blind = archive.of_patches and len(observed) == 0
        posterior = self._expected(members, rng) if blind else self._analyse(tracks, observed, moment, members, rng)
        result = to_dataset(posterior, archive.grid, archive.times, moment)
        return result.assign_attrs(method=type(self).__name__, seed=seed, n_obs=len(observed))

    def _about_patch(self, tracks: xr.Dataset, observed: Segments) -> tuple[xr.Dataset, Segments]:
        """Return what counts of tracks in a patch's frame."""
        observed = observed.take(near(observed, self.grid))
        if len(observed) == 0:
            raise ValueError("tracks must have two fixes of a drifter within a side of the patch, got none")
        if self.beyond:
            return tracks, observed
        inside = observed.take(self.grid.holds(observed.latitude, observed.longitude))
        return tracks_where(tracks, self.grid.holds), inside

    def _expected(self, members: int, rng: np.random.Generator) -> Posterior:
        """Return what the archive says without tracks."""
        maps = self.archive.maps
        return Posterior(maps[draw(len(maps), members, rng)], maps.mean(0, dtype=float), maps.std(0, dtype=float))

    @property
    def archive(self) -> Archive:
        """What the method was fitted to."""
        if self._archive is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted to an archive first")
        return self._archive

    @property
    def grid(self) -> Grid:
        """Where the analysis will be."""
        return self.archive.grid

    @abstractmethod
    def _fit(self, archive: Archive) -> None:
        """Learn from an archive."""

    @abstractmethod
    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        """Return the posterior at a time."""


def require_covariance(archive: Archive) -> None:
    """Raise `ValueError` if an archive has too few maps for a covariance."""
    if len(archive.maps) < 2:
        raise ValueError(f"archive must have two maps or more for a covariance, got {len(archive.maps)}")


def draw(count: int, wanted: int, rng: np.random.Generator) -> Int[np.ndarray, " wanted"]:
    """Draw some of 0 ... count − 1, each at most once if there are enough."""
    return rng.choice(count, wanted, replace=wanted > count)


def as_time(time: object) -> np.datetime64:
    """Return a time as datetime64[ns].

    Raises
    ------
    TypeError, ValueError
        If it is no time, or NaT.
    """
    if not isinstance(time, np.datetime64 | datetime | str):
        raise TypeError(f"time must be a datetime64, a datetime or a string of ISO 8601, got {describe(time)}")
    moment = time.astype("datetime64[ns]") if isinstance(time, np.datetime64) else np.datetime64(time, "ns")
    if np.isnat(moment):
        raise ValueError("time must be a time, got NaT")
    return moment


def to_dataset(posterior: Posterior, grid: Grid, times: Any, time: np.datetime64) -> xr.Dataset:
    """Return a posterior over ocean points as maps; `times` are those of the archive's maps."""
    horizontal = ("latitude", "longitude")
    variables: dict[str, Any] = {}
    for k, name in enumerate(COMPONENTS):
        said = {"standard_name": STANDARD_NAMES[name], **_UNITS}
        variables[name] = (("realization", *horizontal), grid.on_map(posterior.members[:, k]), said)
        variables[f"{name}_mean"] = (horizontal, grid.on_map(posterior.mean[k]), said)
        variables[f"{name}_stddev"] = (horizontal, grid.on_map(posterior.stddev[k]), _UNITS)
    result = xr.Dataset(variables, {"latitude": grid.latitude, "longitude": grid.longitude, "time": time})
    if posterior.archive_index is not None:
        member, moment = posterior.archive_index.T
        result = result.assign_coords(
            archive_member=("realization", member), archive_time=("realization", times[moment])
        )
    if posterior.effective_sample_size is not None:
        result["effective_sample_size"] = posterior.effective_sample_size
    if posterior.warning:
        result.attrs["warning"] = posterior.warning
    return result
