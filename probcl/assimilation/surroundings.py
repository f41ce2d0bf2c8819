"""What the modes of a patch say of the currents about it: how segments outside of a patch see what is inside."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from probcl.assimilation.archive import Archive
from probcl.assimilation.fields import FieldPrior, Outlook, window_index, windows_at
from probcl.assimilation.grid import Grid
from probcl.assimilation.mosaics import Mosaic
from probcl.assimilation.patches import Patch, eastward_factor

# Windows that the modes beyond a patch are computed from, at most.
_SAMPLE = 8192
_LEAST = 1e-12


def with_surroundings(prior: FieldPrior, mosaic: Mosaic, seed: int = 0) -> FieldPrior:
    r"""Return a prior of patches that looks one side beyond them, on all sides.

    Outside, a mode is the regression of the current there on the mode's coordinate, over windows of the archive, as if
    coordinates had unit variance and no correlation there, which EOFs have by construction and other modes nearly,

    .. math:: E_j(y) = r_j(y) \, \mathrm{Cov}(x_j, v(y)),

    times its reliability r: by how much the regressions on the two halves of the archive agree, over all points as far
    from the patch as y, corrected for length (Spearman 1910, Brown 1910). So a mode reaches no farther than the
    archive can tell. Inside, modes are as they are.

    Parameters
    ----------
    prior
        Of the patches.
    mosaic
        The patches and what is about them.
    seed
        Of the windows, where there are more than 8192.
    """
    rows, columns = prior.grid.ocean.shape
    index = window_index(Archive.of(mosaic.archive), prior.lags)
    if len(index) > _SAMPLE:
        index = index[np.sort(np.random.default_rng(seed).choice(len(index), _SAMPLE, replace=False))]
    shape = len(prior.lags), 2, 3 * rows, 3 * columns
    # Of the first half of the archive's windows in members and time, and of the second.
    halves = [_Regression.empty(prior.rank, shape) for _ in range(2)]
    for wide, when in _wide_windows(mosaic, index, prior.lags):
        x = prior.encode(wide[..., rows : 2 * rows, columns : 2 * columns].reshape(len(wide), *prior.mean.shape))
        for half, regression in enumerate(halves):
            regression.add(x[when == half], wide[when == half])
    first, second = (regression.modes for regression in halves)
    both = halves[0] + halves[1]
    modes = 0.5 * (first + second) * _reliability(first, second, rows, columns)
    mean = both.mean
    inside = np.s_[..., rows : 2 * rows, columns : 2 * columns]
    modes[inside], mean[inside] = prior.outlook.modes, prior.outlook.mean
    latitude, longitude = _extended(prior.grid.latitude), _extended(prior.grid.longitude)
    return replace(prior, around=Outlook(latitude, longitude, mean, modes.astype(np.float32)))


@dataclass
class _Regression:
    """Sums of currents v on a wide grid and of x, over the windows in which there is water at a point."""

    count: Float[np.ndarray, "lat lon"]
    v: Float[np.ndarray, "lags 2 lat lon"]
    x: Float[np.ndarray, "rank lat lon"]
    xv: Float[np.ndarray, "rank lags 2 lat lon"]

    @classmethod
    def empty(cls, rank: int, shape: tuple[int, ...]) -> "_Regression":
        return cls(np.zeros(shape[2:]), np.zeros(shape), np.zeros((rank, *shape[2:])), np.zeros((rank, *shape)))

    def add(self, x: Float[np.ndarray, "n rank"], v: Float[np.ndarray, "n lags 2 lat lon"]) -> None:
        """Add windows of one patch, which have water at the same points."""
        if len(x) == 0:
            return
        water, v = np.isfinite(v[0]).all((0, 1)), np.nan_to_num(v)
        self.count += len(x) * water
        self.v += v.sum(0)
        self.x += x.sum(0)[:, None, None] * water
        self.xv += (x.T @ v.reshape(len(v), -1)).reshape(self.xv.shape)

    def __add__(self, other: "_Regression") -> "_Regression":
        return _Regression(self.count + other.count, self.v + other.v, self.x + other.x, self.xv + other.xv)

    @property
    def mean(self) -> Float[np.ndarray, "lags 2 lat lon"]:
        """Zero where there is never water."""
        mean: np.ndarray = self.v / self.count.clip(min=1)
        return mean

    @property
    def modes(self) -> Float[np.ndarray, "rank lags 2 lat lon"]:
        """Cov(x, v): the regression of v on x where x has unit variance and no correlation, as in EOFs."""
        modes: np.ndarray = (self.xv - self.x[:, None, None] * self.mean) / self.count.clip(min=1)
        return modes


def _wide_windows(
    mosaic: Mosaic, index: Int[np.ndarray, "n 2"], lags: Any
) -> Iterator[tuple[Float[np.ndarray, "m lags 2 lat lon"], Int[np.ndarray, " m"]]]:
    """Yield, for each patch, its windows with a side about them, NaN where there is no water, and the half of each."""
    whole = Archive.of(mosaic.whole)
    maps = whole.grid.on_map(whole.values)
    place, member = np.divmod(index[:, 0], len(maps))
    clock = member * len(whole.times) + index[:, 1]
    half = (clock >= np.median(clock)).astype(int)
    for number in np.unique(place):
        here = place == number
        wide = _wide(maps, whole.grid, mosaic.places[number])
        about = Archive(whole.grid, whole.times, wide.reshape(*wide.shape[:3], -1))
        windows = windows_at(about, np.stack([member[here], index[here, 1]], axis=1), lags)
        yield windows.reshape(*windows.shape[:3], *wide.shape[3:]), half[here]


def _wide(
    maps: Float[np.ndarray, "member time 2 lat lon"], grid: Grid, patch: Patch
) -> Float[np.ndarray, "member time 2 rows columns"]:
    """Cut a patch and a side about it out of maps, with currents to the east as they are in the frame."""
    sides, (south, _, west, _) = (len(patch.latitude), len(patch.longitude)), patch.box
    first = int(grid.latitude.searchsorted(south)), int(grid.longitude.searchsorted(west))
    wide = np.full((*maps.shape[:3], 3 * sides[0], 3 * sides[1]), np.nan, maps.dtype)
    theirs, mine = zip(*(_overlap(*each) for each in zip(first, sides, maps.shape[3:], strict=True)), strict=True)
    wide[..., mine[0], mine[1]] = maps[..., theirs[0], theirs[1]]
    wide[:, :, 0] *= eastward_factor(_extended(patch.latitude), _extended(patch.frame_latitude))[:, None]
    return wide


def _overlap(first: int, side: int, size: int) -> tuple[slice, slice]:
    """Return what of an axis is within a side of a patch, and where that is in three sides."""
    low, high = max(first - side, 0), min(first + 2 * side, size)
    return slice(low, high), slice(low - first + side, high - first + side)


def _extended(axis: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Return an even axis with as much again at each end."""
    side = np.arange(1, len(axis) + 1) * (axis[1] - axis[0])
    return np.concatenate([axis[0] - side[::-1], axis, axis[-1] + side])


def _reliability(
    first: Float[np.ndarray, "rank lags 2 lat lon"],
    second: Float[np.ndarray, "rank lags 2 lat lon"],
    rows: int,
    columns: int,
) -> Float[np.ndarray, "rank 1 1 lat lon"]:
    """Return how far the mean of two estimates of modes can be relied on, for each mode and each distance in cells."""
    distance = np.maximum(*np.meshgrid(_away(rows), _away(columns), indexing="ij"))
    found = np.ones((len(first), *distance.shape))
    for ring in np.unique(distance):
        a, b = (part[..., distance == ring].reshape(len(first), -1) for part in (first, second))
        half = (2 * (a * b).sum(1) / ((a**2 + b**2).sum(1) + _LEAST)).clip(0, 1)
        found[:, distance == ring] = (2 * half / (1 + half))[:, None]
    return found[:, None, None]


def _away(side: int) -> Int[np.ndarray, " m"]:
    """Return how many cells each of three sides' is from the middle one."""
    cell = np.arange(3 * side)
    away: np.ndarray = np.maximum(side - cell, cell - 2 * side + 1).clip(min=0)
    return away
