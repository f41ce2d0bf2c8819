"""Patches of an archive, as members of a smaller one: translation makes much data of little.

Every patch is moved to one frame, that of the archive's middle. Cells and displacements keep their degrees, so that
drifters go from cell to cell in the frame as they did in the patch; currents to the east are those of the frame's
latitudes, faster or slower by the ratio of the cosines, and are turned back in an analysis.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from probcl.assimilation.archive import COMPONENTS, Archive
from probcl.assimilation.grid import Grid
from probcl.assimilation.tracks import DIMENSIONS, padded_tracks
from probcl.checks import require_count
from probcl.sphere import longitude_difference, longitude_near


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

    def tracks(self, tracks: xr.Dataset) -> xr.Dataset:
        """Return tracks in the frame, in the same degrees: what of them is within half a cell of the patch.

        A drifter that leaves the patch and comes back is another one then, as nothing is known of the way between.

        Raises
        ------
        ValueError
            If nothing is.
        """
        latitude, longitude = (tracks[name].transpose(*DIMENSIONS).values for name in ("latitude", "longitude"))
        east = longitude_difference(longitude, self.longitude.mean())
        inside = _within(latitude, self.latitude) & _within(east, self.longitude - self.longitude.mean())
        if not inside.any():
            raise ValueError(
                f"tracks must have fixes within the patch, latitude {self.latitude[0]:g} to {self.latitude[-1]:g} and "
                f"longitude {self.longitude[0]:g} to {self.longitude[-1]:g}, got none"
            )
        moved = {
            "time": tracks["time"].transpose(*DIMENSIONS).values,
            "latitude": latitude - self.latitude.mean() + self.frame_latitude.mean(),
            "longitude": self.frame_longitude.mean() + east,
            "position_error": tracks["position_error"].transpose(*DIMENSIONS).values,
        }
        row, run = _runs(inside)
        here = run == np.arange(1, len(row) + 1)[:, None]
        missing = {"time": np.datetime64("NaT")}
        fixes = {name: np.where(here, values[row], missing.get(name, np.nan)) for name, values in moved.items()}
        return padded_tracks(fixes, np.arange(len(row)))

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

    Examples
    --------
    >>> from probcl.assimilation import patches
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(2, days=[0, 5])
    >>> dict(patches(archive, size=16, stride=8).u.sizes)  # 3 × 3 patches of each of two members
    {'member': 18, 'time': 2, 'latitude': 16, 'longitude': 16}
    """
    held = Archive.of(archive)
    rows, columns = _sides(size, held.grid.ocean.shape)
    step = max(1, min(rows, columns) // 2) if stride is None else require_count("stride", stride)
    corners = _corners(held.grid.ocean, rows, columns, step)
    maps = held.grid.on_map(held.values)
    count = len(maps)
    labels = archive["member"].values if "member" in archive.coords else np.arange(count)
    latitude, longitude = frame_axes(held.grid.latitude, held.grid.longitude, rows, columns)
    cut = np.concatenate([maps[..., r : r + rows, c : c + columns] for r, c in corners])
    faster = np.stack([eastward_factor(held.grid.latitude[r : r + rows], latitude) for r, _ in corners])
    cut[:, :, 0] *= np.repeat(faster, count, axis=0)[:, None, :, None].astype(cut.dtype)
    dims = ("member", "time", "latitude", "longitude")
    centre = [
        (held.grid.latitude[r : r + rows].mean(), held.grid.longitude[c : c + columns].mean()) for r, c in corners
    ]
    where = np.repeat(np.array(centre), count, axis=0)
    return xr.Dataset(
        {name: (dims, cut[:, :, k], archive[name].attrs) for k, name in enumerate(COMPONENTS)},
        coords={
            "member": np.arange(len(cut)),
            "time": held.times,
            "latitude": ("latitude", latitude, archive["latitude"].attrs),
            "longitude": ("longitude", longitude, archive["longitude"].attrs),
            "patch_latitude": ("member", where[:, 0]),
            "patch_longitude": ("member", where[:, 1]),
            "archive_member": ("member", np.tile(labels, len(corners))),
        },
    )


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
    latitude: Float[np.ndarray, " rows"], frame_latitude: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
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


def _runs(inside: np.ndarray) -> tuple[Int[np.ndarray, " runs"], Int[np.ndarray, "runs obs"]]:
    """Return the row of each run of true values, and which run each value of that row is in, 0 if in none."""
    starts = inside & ~np.pad(inside, ((0, 0), (1, 0)))[:, :-1]
    number = np.where(inside, np.cumsum(starts.ravel()).reshape(inside.shape), 0)
    row, _ = np.nonzero(starts)
    return row, number[row]
