"""Patches of an archive, as members of a smaller one: translation makes much data of little.

Every patch is moved to one frame, that of the archive's middle. Cells and displacements keep their degrees, so that
drifters go from cell to cell in the frame as they did in the patch; currents to the east are those of the frame's
latitudes, faster or slower by the ratio of the cosines, and are turned back in an analysis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from probcl.assimilation.advection import Box
from probcl.assimilation.archive import COMPONENTS, Archive
from probcl.assimilation.grid import Grid
from probcl.assimilation.segments import Segments, near
from probcl.checks import require_count
from probcl.sphere import longitude_near

# By how much steps of a grid may differ, over their mean: as of axes in float32.
_UNEVEN = 0.01


@dataclass(frozen=True, eq=False)
class Patch:
    """Where a patch is, and the frame it is moved to.

    Attributes
    ----------
    latitude, longitude
        Its own axes.
    frame_latitude, frame_longitude
        The axes it is moved to.
    """

    latitude: Float[np.ndarray, " rows"]
    longitude: Float[np.ndarray, " columns"]
    frame_latitude: Float[np.ndarray, " rows"]
    frame_longitude: Float[np.ndarray, " columns"]

    @property
    def box(self) -> Box:
        """South, north, west and east of its outermost points."""
        south, north = self.latitude[[0, -1]].tolist()
        west, east = self.longitude[[0, -1]].tolist()
        return south, north, west, east

    @property
    def shift(self) -> tuple[float, float]:
        """Degrees to the north and to the east from the patch to the frame."""
        north = self.frame_latitude.mean() - self.latitude.mean()
        return float(north), float(self.frame_longitude.mean() - self.longitude.mean())

    def near(self, observed: Segments) -> Segments:
        """Return what of segments counts here, as `segments.near` says.

        Raises
        ------
        ValueError
            If nothing does.
        """
        found = observed.take(near(observed, self._grid))
        if len(found) == 0:
            raise ValueError(
                f"tracks must have two fixes of a drifter near the patch, latitude {self.latitude[0]:g} to "
                f"{self.latitude[-1]:g} and longitude {self.longitude[0]:g} to {self.longitude[-1]:g}, got none within "
                "one of its sides"
            )
        return found

    def moved(self, observed: Segments) -> Segments:
        """Return segments in the frame: in the same degrees, so that those to the east are faster or slower."""
        north, east = self.shift
        latitude = observed.latitude + north
        faster = eastward_factor(observed.latitude, latitude)
        return replace(
            observed,
            latitude=latitude,
            longitude=self._grid.near(observed.longitude) + east,
            velocity=observed.velocity * np.stack([faster, np.ones_like(faster)], axis=1),
        )

    @property
    def _grid(self) -> Grid:
        return Grid(self.latitude, self.longitude, np.ones((len(self.latitude), len(self.longitude)), dtype=bool))

    def analysis(self, analysis: xr.Dataset) -> xr.Dataset:
        """Return an analysis made in the frame on the patch's own axes, with its own currents to the east."""
        own = 1 / eastward_factor(self.latitude, self.frame_latitude)
        turned = {
            name: analysis[name].copy(data=analysis[name].values * own[:, None].astype(analysis[name].dtype))
            for name in ("u", "u_mean", "u_stddev")
        }
        return analysis.assign(turned).assign_coords(latitude=self.latitude, longitude=self.longitude)


def patches(archive: xr.Dataset, size: int | tuple[int, int], stride: int | None = None) -> xr.Dataset:
    """Cut an archive into patches without land, each a member of the archive returned.

    Parameters
    ----------
    archive
        Of the form that `require_archive` asks for, with an evenly spaced grid.
    size
        Rows and columns of a patch.
    stride
        Cells from one patch to the next; half of the smaller side unless given.

    Returns
    -------
    xarray.Dataset
        `u`, `v` (member, time, latitude, longitude) in the frame, with `patch_latitude` and `patch_longitude`
        (centres) and `archive_member` on member.

    Raises
    ------
    ValueError
        If no patch is without land, or the archive is smaller than one.

    Notes
    -----
    Every map is held as often as patches overlap: with `stride` 1 about rows × columns times.

    Drifters simulated in what is returned are lost at a patch's edge. `Assimilator.fit` and `evaluate`, given `patch`,
    release them in the patches of the whole archive, where they go on and are still seen (`Mosaic`).

    Examples
    --------
    >>> from probcl.assimilation import patches
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(2, days=[0, 5])
    >>> dict(patches(archive, size=16, stride=8).u.sizes)  # 3 × 3 patches of each of two members
    {'member': 18, 'time': 2, 'latitude': 16, 'longitude': 16}
    """
    held = Archive.of(archive)
    return cut(archive, held, patches_of(held.grid, size, stride))


def cut(archive: xr.Dataset, held: Archive, places: Sequence[Patch]) -> xr.Dataset:
    """Cut an archive, and as arrays, into these patches, as `patches` does."""
    maps, first, grid = held.grid.on_map(held.values), places[0], held.grid
    rows, columns = len(first.latitude), len(first.longitude)
    count = len(maps)
    labels = archive["member"].values if "member" in archive.coords else np.arange(count)
    corners = [
        (grid.latitude.searchsorted(one.latitude[0]), grid.longitude.searchsorted(one.longitude[0])) for one in places
    ]
    parts = np.concatenate([maps[..., r : r + rows, c : c + columns] for r, c in corners])
    faster = np.stack([eastward_factor(one.latitude, one.frame_latitude) for one in places])
    parts[:, :, 0] *= np.repeat(faster, count, axis=0)[:, None, :, None].astype(parts.dtype)
    dims = ("member", "time", "latitude", "longitude")
    where = np.repeat(np.array([(one.latitude.mean(), one.longitude.mean()) for one in places]), count, axis=0)
    return xr.Dataset(
        {name: (dims, parts[:, :, k], archive[name].attrs) for k, name in enumerate(COMPONENTS)},
        coords={
            "member": np.arange(len(parts)),
            "time": held.times,
            "latitude": ("latitude", first.frame_latitude, archive["latitude"].attrs),
            "longitude": ("longitude", first.frame_longitude, archive["longitude"].attrs),
            "patch_latitude": ("member", where[:, 0]),
            "patch_longitude": ("member", where[:, 1]),
            "archive_member": ("member", np.tile(labels, len(corners))),
        },
    )


def patches_of(grid: Grid, size: int | tuple[int, int], stride: int | None = None) -> list[Patch]:
    """Return the patches of a grid in the order in which `patches` cuts them, each for all members.

    Raises
    ------
    ValueError
        As `patches` does.
    """
    rows, columns = _sides(size, grid.ocean.shape)
    for name in ("latitude", "longitude"):
        steps = np.diff(getattr(grid, name))
        if np.ptp(steps) > _UNEVEN * steps.mean():
            found = f"{steps.min():g} to {steps.max():g}"
            raise ValueError(f"archive must have an evenly spaced {name} for patches, got steps from {found}")
    step = max(1, min(rows, columns) // 2) if stride is None else require_count("stride", stride)
    frame = frame_axes(grid.latitude, grid.longitude, rows, columns)
    return [
        Patch(grid.latitude[r : r + rows], grid.longitude[c : c + columns], *frame)
        for r, c in _corners(grid.ocean, rows, columns, step)
    ]


def patch_at(grid: Grid, size: int | tuple[int, int], centre: tuple[float, float]) -> Patch:
    """Return the patch of a grid, without land, whose centre is nearest to a place, (latitude, longitude).

    Raises
    ------
    ValueError
        If the place is not on the grid, or the nearest patch without land does not hold it.
    """
    latitude, longitude = grid.latitude, grid.longitude
    rows, columns = _sides(size, grid.ocean.shape)
    north = centre[0]
    east = float(longitude_near(np.array([centre[1]]), longitude.mean())[0])
    if not (_within(np.array([north]), latitude) & _within(np.array([east]), longitude)).all():
        raise ValueError(
            f"centre must be on the archive's grid, latitude {latitude[0]:g} to {latitude[-1]:g} and longitude "
            f"{longitude[0]:g} to {longitude[-1]:g}, got {centre}"
        )
    corners = _corners(grid.ocean, rows, columns, 1)
    middles = _middles(latitude, rows)[corners[:, 0]], _middles(longitude, columns)[corners[:, 1]]
    row, column = corners[np.hypot(middles[0] - north, middles[1] - east).argmin()]
    own = latitude[row : row + rows], longitude[column : column + columns]
    if not (_within(np.array([north]), own[0]) & _within(np.array([east]), own[1])).all():
        raise ValueError(f"centre must be in a patch without land of {rows} × {columns} cells, got {centre}")
    return Patch(*own, *frame_axes(latitude, longitude, rows, columns))


def eastward_factor(
    latitude: Float[np.ndarray, " n"], frame_latitude: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Return by how much a current to the east is faster in the frame, at the same degrees in a day."""
    return np.asarray(np.cos(np.radians(frame_latitude)) / np.cos(np.radians(latitude)))


def frame_axes(
    latitude: Float[np.ndarray, " lat"], longitude: Float[np.ndarray, " lon"], rows: int, columns: int
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    """Return the axes of the frame: those of the patch in a grid's middle."""
    row, column = (len(latitude) - rows) // 2, (len(longitude) - columns) // 2
    return latitude[row : row + rows], longitude[column : column + columns]


def _corners(ocean: np.ndarray, rows: int, columns: int, step: int) -> Int[np.ndarray, "patches 2"]:
    windows = np.lib.stride_tricks.sliding_window_view(ocean, (rows, columns)).all((2, 3))
    every = np.zeros_like(windows)
    every[::step, ::step] = True
    corners = np.argwhere(windows & every)
    if len(corners) == 0:
        raise ValueError(f"archive must have a patch of {rows} × {columns} cells without land, got none")
    return corners


def _sides(size: int | tuple[int, int], grid: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = size if isinstance(size, tuple) else (size, size)
    for side, cells in zip((rows, columns), grid, strict=True):
        if not 2 <= require_count("patch", side) <= cells:
            raise ValueError(f"patch must be of 2 to {grid} cells, got {size}")
    return rows, columns


def _middles(axis: Float[np.ndarray, " n"], cells: int) -> Float[np.ndarray, " m"]:
    middles: np.ndarray = np.lib.stride_tricks.sliding_window_view(axis, cells).mean(1)
    return middles


def _within(place: Float[np.ndarray, "*shape"], axis: Float[np.ndarray, " n"]) -> np.ndarray:
    half = 0.5 * (axis[1] - axis[0])
    return np.asarray((place >= axis[0] - half) & (place <= axis[-1] + half))
