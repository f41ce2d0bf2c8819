"""Ensemble smoother with multiple data assimilation, on the tracks themselves."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve

from probcl.assimilation.archive import COMPONENTS, Archive
from probcl.assimilation.baselines.base import Baseline, Posterior, draw, require_covariance
from probcl.assimilation.baselines.displacements import (
    Advection,
    displacement_covariance,
    displacements,
    later_fixes,
)
from probcl.assimilation.baselines.localization import taper
from probcl.assimilation.segments import Segments
from probcl.assimilation.tracks import DIMENSIONS, fix_times, has_segment
from probcl.checks import require_count, require_positive
from probcl.sphere import frame

Predict = Callable[[Float[np.ndarray, "ensemble state"]], Float[np.ndarray, "ensemble n"]]


def es_mda(
    ensemble: Float[np.ndarray, "ensemble state"],
    predict: Predict,
    observed: Float[np.ndarray, " n"],
    covariance: Float[np.ndarray, "n n"],
    inflations: Sequence[float],
    rng: np.random.Generator,
    localization: Float[np.ndarray, "state n"] | None = None,
) -> Float[np.ndarray, "ensemble state"]:
    r"""Assimilate the same observations several times, each time with inflated errors (Emerick & Reynolds 2013).

    .. math:: x_j \leftarrow x_j + C_{xd} (C_{dd} + \alpha_i R)^{-1} (y + \sqrt{\alpha_i}\, \epsilon_j - h(x_j))

    For linear h and a Gaussian prior it is the exact posterior for large ensembles.

    Parameters
    ----------
    ensemble
        Draws of the prior.
    predict
        h, on a whole ensemble.
    observed, covariance
        y and R.
    inflations
        α_i, with Σ 1/α_i = 1.
    rng
        Draws the perturbations.
    localization
        What to multiply the gain by.

    Raises
    ------
    ValueError
        If the inverse inflations do not sum to one, or a prediction is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation.baselines import es_mda
    >>> rng = np.random.default_rng(0)
    >>> prior = rng.standard_normal((2000, 1))
    >>> posterior = es_mda(prior, lambda x: x, np.array([2.0]), np.eye(1), [2.0, 2.0], rng)
    >>> float(posterior.mean().round(1)), float(posterior.var().round(1))  # N(1, ½)
    (1.0, 0.5)
    """
    if not inflations or min(inflations) <= 0 or abs(sum(1 / alpha for alpha in inflations) - 1) > 1e-6:
        raise ValueError(f"inflations must be positive with inverses that sum to 1, got {list(inflations)}")
    for alpha in inflations:
        predicted = predict(ensemble)
        if not np.isfinite(predicted).all():
            raise ValueError(f"predictions must be finite, got {int((~np.isfinite(predicted)).sum())} that are not")
        root = np.linalg.cholesky(alpha * covariance)
        misfit = observed + rng.standard_normal(predicted.shape) @ root.T - predicted
        views, anomalies = predicted - predicted.mean(0), ensemble - ensemble.mean(0)
        within = views.T @ views / (len(views) - 1) + alpha * covariance
        solved = cho_solve(cho_factor(within, lower=True), misfit.T).T / (len(views) - 1)
        if localization is None:
            # The order of the product matters: the gain may be far larger than the ensemble's own small matrix.
            ensemble = ensemble + np.linalg.multi_dot([solved, views.T, anomalies])
        else:
            ensemble = ensemble + solved @ (localization * (anomalies.T @ views)).T
    return ensemble


class EnsembleSmoother(Baseline):
    """ES-MDA of windows of the archive on the tracks' positions: no pseudo-velocities, the drifters themselves.

    The state is the fields over the time of the tracks; what is observed is where drifters released at each first fix
    are at the later ones. A drifter that a member loses (NaN) counts there as the others' mean. Ensembles collapse at
    sparse fixes (spread/skill near .5): compare coverage, not only error.

    Parameters
    ----------
    advection
        Tracks predicted from fields.
    ensemble
        How many windows of the archive to start from.
    steps
        How many times to assimilate, each with the errors' variance times as many.
    radius
        Where Gaspari-Cohn's taper of the gain about a fix reaches zero, in metres; no taper if None.
    model_error
        Error of the advection, in metres.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import EnsembleSmoother
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(20, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=2, window="5D", fix_interval="1D", position_error=100.0
    ... )
    >>> method = EnsembleSmoother(pcl.assimilation.predict_tracks, ensemble=10, steps=2, model_error=1000.0)
    >>> dict(method.fit(archive).analyse(tracks, archive.time.values[1], members=5).u.sizes)
    {'realization': 5, 'latitude': 32, 'longitude': 32}
    """

    def __init__(
        self,
        advection: Advection,
        *,
        ensemble: int = 100,
        steps: int = 4,
        radius: float | None = None,
        model_error: float = 0.0,
    ) -> None:
        super().__init__()
        self.advection, self.model_error, self.radius = advection, model_error, radius
        self.ensemble = require_count("ensemble", ensemble, minimum=2)
        self.steps = require_count("steps", steps)
        if radius is not None:
            require_positive("radius", radius)

    def _fit(self, archive: Archive) -> None:
        require_covariance(archive)

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        if not has_segment(tracks):
            return self._expected(members, rng)
        moments = fix_times(tracks)
        windows, lags = self.archive.windows(moments.min() - time, moments.max() - time)
        chosen = draw(len(windows), min(self.ensemble, len(windows)), rng)
        member, centre = windows[chosen].T
        now = int(np.searchsorted(lags, np.timedelta64(0)))
        states = self.archive.values[member[:, None], centre[:, None] + np.arange(len(lags)) - now].astype(float)
        shape = states.shape[1:]

        def predict(ensemble: Float[np.ndarray, "ensemble state"]) -> Float[np.ndarray, "ensemble n"]:
            fields = self._fields(ensemble.reshape(-1, *shape), time + lags)
            return _without_lost(displacements(self.advection(fields, tracks), tracks))

        updated = es_mda(
            states.reshape(len(chosen), -1),
            predict,
            np.zeros(2 * len(later_fixes(tracks)[0])),
            displacement_covariance(tracks, self.model_error),
            [float(self.steps)] * self.steps,
            rng,
            self._taper(tracks, len(lags)),
        ).reshape(-1, *shape)
        maps = updated[:, now]
        drawn = draw(len(maps), members, rng)
        return Posterior(maps[drawn], maps.mean(0), maps.std(0, ddof=1))

    def _fields(self, states: Float[np.ndarray, "ensemble time 2 points"], times: np.ndarray) -> xr.Dataset:
        maps = self.grid.on_map(states)
        axes = ("realization", "time", "latitude", "longitude")
        coordinates = {"time": times, "latitude": self.grid.latitude, "longitude": self.grid.longitude}
        return xr.Dataset({name: (axes, maps[:, :, k]) for k, name in enumerate(COMPONENTS)}, coords=coordinates)

    def _taper(self, tracks: xr.Dataset, times: int) -> Float[np.ndarray, "state n"] | None:
        if self.radius is None:
            return None
        trajectory, obs, _ = later_fixes(tracks)
        where = (tracks[name].transpose(*DIMENSIONS).values[trajectory, obs] for name in ("latitude", "longitude"))
        return np.tile(taper(self.grid.frame, frame(*where), self.radius), (2 * times, 2))


def _without_lost(misfit: Float[np.ndarray, "ensemble n"]) -> Float[np.ndarray, "ensemble n"]:
    """Put the mean of the members that have a fix, or zero, where a drifter is lost."""
    known = np.isfinite(misfit)
    mean = np.where(known, misfit, 0).sum(0) / known.sum(0).clip(min=1)
    return np.where(known, misfit, mean)
