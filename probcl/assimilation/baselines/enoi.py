"""Ensemble optimal interpolation: the archive's own covariance, localised."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import Baseline, Posterior, draw, require_covariance
from probcl.assimilation.baselines.localization import taper
from probcl.assimilation.segments import ERROR_FLOOR, Segments
from probcl.checks import require_count, require_positive
from probcl.sphere import frame


class EnsembleOptimalInterpolation(Baseline):
    r"""EnOI: the Kalman gain of an ensemble of archive windows (Evensen 2003; Oke et al. 2008).

    .. math:: K = (\rho_{go} \circ A Y^\top) (\rho_{oo} \circ Y Y^\top + R)^{-1}

    A the anomalies of the maps and Y those of what the segments would have seen in the same windows of the archive, so
    that lags in time need no model; ρ Gaspari-Cohn's taper. Mean and standard deviation are those of K applied to the
    whole ensemble; members are windows drawn from it, updated with perturbed observations about that mean.

    Parameters
    ----------
    windows
        How many windows of the archive to use, drawn once per analysis; all of them if there are fewer.
    radius
        Where the taper reaches zero, in metres; no taper if None.
    error_floor
        As for `segments`.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import EnsembleOptimalInterpolation
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(20, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> method = EnsembleOptimalInterpolation(windows=20, radius=100e3).fit(archive)
    >>> dict(method.analyse(tracks, archive.time.values[1], members=5).u.sizes)
    {'realization': 5, 'latitude': 32, 'longitude': 32}
    """

    def __init__(self, windows: int = 256, radius: float | None = 300e3, *, error_floor: float = ERROR_FLOOR) -> None:
        super().__init__(error_floor)
        self.windows = require_count("windows", windows, minimum=2)
        if radius is not None:
            require_positive("radius", radius)
        self.radius = radius

    def _fit(self, archive: Archive) -> None:
        require_covariance(archive)

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        maps, seen = self.archive.window_maps(observed, time), self.archive.observe(observed, time)
        chosen = draw(len(maps), min(self.windows, len(maps)), rng)
        maps = maps[chosen].astype(float).reshape(len(chosen), -1)
        seen = seen[chosen].swapaxes(1, 2).reshape(len(chosen), -1)
        mean, seen_mean, noise = maps.mean(0), seen.mean(0), np.tile(observed.error**2, 2)
        anomalies, views = maps - mean, seen - seen_mean
        gain = self._gain(anomalies, views, noise, observed)
        mean = mean + gain @ (observed.velocity.T.ravel() - seen_mean)
        spread = (anomalies - views @ gain.T).var(0, ddof=1) + (gain**2 * noise).sum(1)
        drawn = draw(len(chosen), members, rng)
        perturbed = rng.standard_normal((members, len(noise))) * np.sqrt(noise) - views[drawn]
        shape = (2, -1)
        return Posterior(
            members=(mean + anomalies[drawn] + perturbed @ gain.T).reshape(members, *shape),
            mean=mean.reshape(shape),
            stddev=np.sqrt(spread).reshape(shape),
        )

    def _gain(
        self,
        anomalies: Float[np.ndarray, "windows two_points"],
        views: Float[np.ndarray, "windows two_n"],
        noise: Float[np.ndarray, " two_n"],
        observed: Segments,
    ) -> Float[np.ndarray, "two_points two_n"]:
        cross = anomalies.T @ views / (len(views) - 1)
        within = views.T @ views / (len(views) - 1)
        if self.radius is not None:
            there = frame(observed.latitude, observed.longitude)
            cross *= np.tile(taper(self.grid.frame, there, self.radius), (2, 2))
            within *= np.tile(taper(there, there, self.radius), (2, 2))
        within[np.diag_indices_from(within)] += noise
        return cho_solve(cho_factor(within, lower=True), cross.T).T
