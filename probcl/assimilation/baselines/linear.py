"""The exact posterior of currents that are a known linear map of Gaussian amplitudes, given pseudo-velocities."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.linalg import cho_solve, cholesky, solve_triangular

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import Baseline, Posterior
from probcl.assimilation.segments import ERROR_FLOOR, SIMPSON, Segments

Features = Callable[[Any, Float[np.ndarray, " n"], Float[np.ndarray, " n"]], Float[np.ndarray, "n 2 modes"]]
"""From times (datetime64), latitudes and longitudes to the linear map from amplitudes to (u, v) there."""


class LinearGaussian(Baseline):
    r"""Optimal interpolation with the world's own covariance, as a Bayesian linear regression.

    The current at x, t is F(x, t) a, with a ~ N(0, I). Given y = F a + ε at the segments, ε ~ N(0, R),

    .. math:: a \mid y \sim N(P F^\top R^{-1} y, P), \quad P = (I + F^\top R^{-1} F)^{-1}.

    Parameters
    ----------
    features
        F, as `probcl.datasets.ocean.GaussianOcean.features`: (n times, n latitudes, n longitudes) → (n, 2, modes).
    along
        Whether a segment's velocity is taken for the mean along it, by Simpson's rule, rather than for that in its
        middle.
    error_floor
        As for `segments`.

    Examples
    --------
    >>> from probcl.assimilation import simulate_tracks
    >>> from probcl.datasets.ocean import GaussianOcean
    >>> world = GaussianOcean()
    >>> archive = world.archive(1)
    >>> tracks = simulate_tracks(archive, n_drifters=16, window="10D", fix_interval="12h", position_error=100)
    >>> exact = LinearGaussian(world.features, along=True, error_floor=0.02).fit(archive)
    >>> analysis = exact.analyse(tracks, archive.time.values[5], members=10)
    >>> truth = archive.isel(member=0, time=5)
    >>> bool(((analysis.u_mean - truth.u) ** 2).mean() < 0.25 * (truth.u**2).mean())
    True
    """

    beyond = True

    def __init__(self, features: Features, *, along: bool = False, error_floor: float = ERROR_FLOOR) -> None:
        super().__init__(error_floor)
        self.features, self.along = features, along

    def _fit(self, archive: Archive) -> None:
        """Take the grid only: the covariance is the features'."""

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        noise = np.repeat(observed.error, 2)[:, None]
        seen = self._observed(observed)
        seen = seen.reshape(-1, seen.shape[-1]) / noise
        factor = cholesky(np.eye(seen.shape[1]) + seen.T @ seen, lower=True)
        centre = cho_solve((factor, True), seen.T @ (observed.velocity.reshape(-1, 1) / noise))[:, 0]
        rows, columns = np.nonzero(self.grid.ocean)
        times = np.full(len(rows), time)
        modes = self.features(times, self.grid.latitude[rows], self.grid.longitude[columns])
        # P = L⁻ᵀ L⁻¹: the columns of root, times standard normals, are draws about the mean.
        root = solve_triangular(factor, modes.reshape(-1, modes.shape[-1]).T, lower=True).T
        mean = (modes @ centre).T
        drawn = (rng.standard_normal((members, len(factor))) @ root.T).reshape(members, -1, 2)
        stddev = np.sqrt(np.square(root).sum(1)).reshape(-1, 2).T
        return Posterior(members=mean + np.moveaxis(drawn, 2, 1), mean=mean, stddev=stddev)

    def _observed(self, observed: Segments) -> Float[np.ndarray, "n 2 modes"]:
        """Return what segments see of the amplitudes."""
        nodes = zip((-0.5, 0.0, 0.5), SIMPSON, strict=True) if self.along else [(0.0, 1.0)]
        parts = [weight * self._at(observed, part * observed.duration) for part, weight in nodes]
        mean: np.ndarray = np.sum(parts, axis=0)
        return mean

    def _at(self, observed: Segments, seconds: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2 modes"]:
        moment = observed.time + (1e9 * seconds).round().astype("timedelta64[ns]")
        latitude, longitude = observed.along(seconds)
        return self.features(moment, latitude, self.grid.near(longitude))
