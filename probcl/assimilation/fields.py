"""Gaussian priors on the currents of a window: what a learned analysis corrects.

A state is the currents at the ocean points of a grid, at one or more lags from the time of the analysis. It is written
as mean + Σ_j x_j mode_j + rest, with x ~ N(0, I); the rest is what the modes leave out, without correlation.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.covariance import profile
from probcl.assimilation.baselines.gaussian_process import OptimalInterpolation
from probcl.assimilation.baselines.hyperparameters import Hyperparameters
from probcl.assimilation.grid import Grid
from probcl.assimilation.hybrid import Covariances, fit_hybrid, smooth_covariance
from probcl.checks import require_count

# Windows that EOFs are computed from, at most: more change the leading ones little.
_SAMPLE = 8192
# Modes beyond those that hold this part of the variance are left to the unresolved rest.
_ENOUGH = 0.999
# Above this many components of the state only the wanted eigenvectors are computed.
_SMALL = 1500


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a prior's modes say of the currents on a grid, its own or a wider one.

    Attributes
    ----------
    latitude, longitude
        The grid's axes.
    mean, modes
        In m/s, zero on land.
    """

    latitude: Float[np.ndarray, " lat"]
    longitude: Float[np.ndarray, " lon"]
    mean: Float[np.ndarray, "lags 2 lat lon"]
    modes: Float[np.ndarray, "rank lags 2 lat lon"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Lags, rows and columns."""
        return self.mean.shape[0], self.mean.shape[2], self.mean.shape[3]


@dataclass(frozen=True, eq=False)
class FieldPrior:
    """A Gaussian law of low rank of the currents of a window.

    Attributes
    ----------
    grid
        Where the currents are.
    lags
        Times of the maps less that of the analysis, ascending, one of them zero.
    mean
        In m/s.
    modes
        EOFs times their standard deviations, in m/s, the largest first.
    unresolved
        Standard deviation of what the modes leave out, in m/s.
    kind
        ``"eof"``, ``"stream function"`` or ``"hybrid"``, with what was mixed.
    around
        Modes on a wider grid, for patches: what drifters outside of a patch see of it.
    """

    grid: Grid
    lags: Any
    mean: Float[np.ndarray, "lags 2 points"]
    modes: Float[np.ndarray, "rank lags 2 points"]
    unresolved: Float[np.ndarray, "2 points"]
    kind: str
    around: Outlook | None = None

    @classmethod
    def eofs(cls, archive: Archive, lags: Any, rank: int, seed: int = 0) -> "FieldPrior":
        """Take the empirical orthogonal functions of an archive's windows (Lorenz 1956).

        Parameters
        ----------
        archive, lags
            Windows are an archive's maps at these lags about each of its times that has them all.
        rank
            How many to keep, at most: no more than hold 99.9% of the variance.
        seed
            Of the windows they are computed from, where there are many.
        """
        require_count("rank", rank)
        index = window_index(archive, lags)
        if len(index) > _SAMPLE:
            index = index[np.sort(np.random.default_rng(seed).choice(len(index), _SAMPLE, replace=False))]
        windows = windows_at(archive, index, lags).reshape(len(index), -1)
        mean = windows.mean(0, dtype=float)
        deviation = (windows - mean).astype(np.float32)
        values, vectors = _leading(deviation, min(rank, len(index) - 1, deviation.shape[1]))
        held = np.cumsum(values) / (deviation.var(0, dtype=float, ddof=1).sum())
        enough = int(np.searchsorted(held, _ENOUGH)) + 1
        values, vectors = values[:enough], vectors[:, :enough]
        modes = np.ascontiguousarray((vectors * np.sqrt(values)).T).reshape(-1, len(lags), 2, archive.values.shape[-1])
        rest = np.square(deviation - (deviation @ vectors) @ vectors.T).mean(0).reshape(modes.shape[1:])
        return cls(
            archive.grid, lags, mean.reshape(modes.shape[1:]), modes, np.sqrt(rest.mean(0, dtype=float)), kind="eof"
        )

    @classmethod
    def stream_function(
        cls, archive: Archive, lags: Any, rank: int, hyperparameters: Hyperparameters | None = None, seed: int = 0
    ) -> "FieldPrior":
        """Take the leading Karhunen-Loève modes of optimal interpolation's covariance, fitted to the archive.

        It is that of non-divergent currents, with the archive's local standard deviation; where an archive is short it
        says more than the archive's own EOFs do. Modes are those of the map at the time of the analysis, and at other
        times what they are expected to be then: no mode is spent on what tells nothing of that map.
        """
        process = OptimalInterpolation(hyperparameters=hyperparameters, seed=seed).fit_to(archive)
        smooth, unresolved = smooth_covariance(process)
        whole = np.diagonal(smooth) + unresolved
        return cls._of_covariance(process, lags, rank, smooth, whole, "stream function")

    @classmethod
    def hybrid(
        cls, archive: Archive, lags: Any, rank: int, hyperparameters: Hyperparameters | None = None, seed: int = 0
    ) -> "FieldPrior":
        """Take the same of a mixture of that covariance with the archive's own, tapered, as `fit_hybrid` finds it.

        What a year of maps says of a current that stays where it is, no homogeneous covariance does.
        """
        process = OptimalInterpolation(hyperparameters=hyperparameters, seed=seed).fit_to(archive)
        share, radius, _ = fit_hybrid(archive, process, seed)
        both = Covariances.of(process, archive.maps)
        kind = f"hybrid, {share:.0%} the archive's own within {radius / 1e3:.0f} km"
        return cls._of_covariance(process, lags, rank, both.mixed(share, radius), both.variance(share), kind)

    @classmethod
    def _of_covariance(
        cls,
        process: OptimalInterpolation,
        lags: Any,
        rank: int,
        correlated: Float[np.ndarray, "two_points two_points"],
        whole: Float[np.ndarray, " two_points"],
        kind: str,
    ) -> "FieldPrior":
        """Take the leading modes of the covariance of one map; `whole` is its variance with what is uncorrelated."""
        rank = min(require_count("rank", rank), len(correlated) - 1)
        power, patterns = eigsh(correlated, k=rank, v0=np.ones(len(correlated)))
        now = (_with_signs(patterns) * np.sqrt(power.clip(min=0)))[:, ::-1].T
        left = (whole - np.square(now).sum(0)).clip(min=0)
        covariance, days = process.hyperparameters.covariance, lags / np.timedelta64(1, "D")
        expected = profile(covariance.shape, (days / covariance.period) ** 2).value
        modes = now[:, None, :] * expected[:, None]
        shape = process.mean.shape
        return cls(
            process.grid,
            lags,
            np.broadcast_to(process.mean, (len(lags), *shape)),
            modes.reshape(-1, len(lags), *shape).astype(np.float32),
            np.sqrt(left).reshape(shape),
            kind,
        )

    @property
    def rank(self) -> int:
        """Number of modes."""
        return len(self.modes)

    @cached_property
    def scale(self) -> float:
        """Standard deviation of the currents, in m/s, over the grid."""
        return float(np.sqrt(np.square(self.modes).sum(0).mean() + np.square(self.unresolved).mean()))

    @property
    def now(self) -> int:
        """Position among the lags of the time of the analysis."""
        return int(np.abs(self.lags / np.timedelta64(1, "ns")).argmin())

    def encode(self, windows: Float[np.ndarray, "n lags 2 points"]) -> Float[np.ndarray, "n rank"]:
        """Return x of windows, by least squares."""
        modes = self.modes.reshape(self.rank, -1).astype(float)
        deviation = (windows - self.mean).reshape(len(windows), -1)
        return np.linalg.solve(modes @ modes.T, modes @ deviation.T).T.astype(np.float32)

    def decode(self, x: Float[np.ndarray, "*batch rank"]) -> Float[np.ndarray, "*batch 2 points"]:
        """Return the map at the time of the analysis, without the unresolved part."""
        maps: np.ndarray = np.asarray(x @ self._modes_now).reshape(*x.shape[:-1], *self.unresolved.shape)
        maps += self.mean[self.now]
        return maps

    def variance(self, covariance: Float[np.ndarray, "*batch rank rank"]) -> Float[np.ndarray, "*batch 2 points"]:
        """Return the variance of the maps that x of these covariances have, without the unresolved part."""
        variance = ((covariance @ self._modes_now) * self._modes_now).sum(-2)
        return cast(np.ndarray, variance).reshape(*covariance.shape[:-2], *self.unresolved.shape)

    def variance_of_root(self, root: Float[np.ndarray, "*batch k rank"]) -> Float[np.ndarray, "*batch 2 points"]:
        """Return the same where covariances are rootᵀ root, at half the cost."""
        variance = np.square(root @ self._modes_now).sum(-2)
        return cast(np.ndarray, variance).reshape(*root.shape[:-2], *self.unresolved.shape)

    @cached_property
    def _modes_now(self) -> Float[np.ndarray, "rank two_points"]:
        modes: np.ndarray = np.ascontiguousarray(self.modes[:, self.now].reshape(self.rank, -1))
        return modes

    @cached_property
    def outlook(self) -> Outlook:
        """The modes as tracks see them: around the grid if that is known, else on it."""
        if self.around is not None:
            return self.around
        grid = self.grid
        mean, modes = (np.nan_to_num(grid.on_map(part)) for part in (self.mean, self.modes))
        return Outlook(grid.latitude, grid.longitude, mean, modes)


def window_index(archive: Archive, lags: Any) -> Int[np.ndarray, "windows 2"]:
    """Return (member, central map) of all windows: the maps whose surroundings at these lags the archive covers.

    Raises
    ------
    ValueError
        If there are none.
    """
    inside = (archive.times + lags[0] >= archive.times[0]) & (archive.times + lags[-1] <= archive.times[-1])
    (centres,) = np.nonzero(inside)
    if len(centres) == 0:
        raise ValueError(
            f"archive must cover a window, {lags[-1] - lags[0]} long, got {archive.times[0]} to {archive.times[-1]}"
        )
    return archive.windows_about(centres)


def windows_at(
    archive: Archive, index: Int[np.ndarray, "windows 2"], lags: Any
) -> Float[np.ndarray, "windows lags 2 points"]:
    """Return the maps of windows, linear in time between those of the archive."""
    member, centre = index.T
    clock = (archive.times - archive.times[0]) / np.timedelta64(1, "s")
    wanted = clock[centre][:, None] + lags / np.timedelta64(1, "s")
    position = np.interp(wanted, clock, np.arange(len(clock)))
    before = np.floor(position).astype(int)
    share = (position - before)[..., None, None]
    after = np.minimum(before + 1, len(clock) - 1)
    earlier: np.ndarray = archive.values[member[:, None], before]
    if not share.any():
        return earlier
    between: np.ndarray = earlier + share * (archive.values[member[:, None], after] - earlier)
    return between


def _leading(deviation: Float[np.ndarray, "n p"], rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest variances and their unit vectors, (rank,) and (p, rank), of centred rows."""
    n, p = deviation.shape
    gram = deviation @ deviation.T if n <= p else deviation.T @ deviation
    if len(gram) <= _SMALL or rank > len(gram) // 3:
        values, vectors = eigh(gram.astype(float), subset_by_index=(len(gram) - rank, len(gram) - 1))
    else:
        values, vectors = eigsh(gram.astype(float), k=rank, v0=np.ones(len(gram)))
    values, vectors = values[::-1].clip(min=1e-12), vectors[:, ::-1]
    if n <= p:
        vectors = deviation.T @ vectors / np.sqrt(values)
    return values / (n - 1), _with_signs(vectors)


def _with_signs(vectors: Float[np.ndarray, "p rank"]) -> Float[np.ndarray, "p rank"]:
    """Return eigenvectors with their largest component positive: their sign is else a matter of rounding."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], axis=0)
    signed: np.ndarray = vectors * np.where(largest < 0, -1, 1).astype(vectors.dtype)
    return signed
