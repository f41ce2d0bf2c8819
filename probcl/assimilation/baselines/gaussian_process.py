"""Optimal interpolation: the exact posterior of a Gaussian process, given pseudo-velocities."""

from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.linalg import cho_solve, cholesky, solve_triangular

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import Baseline, Posterior
from probcl.assimilation.baselines.covariance import (
    SHAPES,
    Covariance,
    IsotropicCovariance,
    Points,
    Shape,
    StreamFunctionCovariance,
)
from probcl.assimilation.baselines.hyperparameters import Hyperparameters, fit_hyperparameters
from probcl.assimilation.segments import ERROR_FLOOR, Segments
from probcl.sphere import frame

# Relative to the variance: what keeps the covariance of a fine grid positive definite in float64.
_JITTER = 1e-8

_KINDS: dict[str, type[Covariance]] = {"stream function": StreamFunctionCovariance, "isotropic": IsotropicCovariance}


class OptimalInterpolation(Baseline):
    r"""Optimal interpolation with a covariance fitted to the archive (Bretherton, Davis & Fandry 1976).

    The current at x, t is m(x) + σ(x) (s w(x, t) + q e), with m and σ the archive's local mean and standard deviation,
    w of unit variance and a `Covariance` in space and time, and e without correlation. The posterior given y = H w + ε
    is exact:

    .. math:: \hat w = K_{go} (K_{oo} + R)^{-1} y, \quad P = K_{gg} - K_{go} (K_{oo} + R)^{-1} K_{og}

    and its draws are draws of the prior, corrected (Matheron's rule; Journel & Huijbregts 1978). With a stream function
    and Gaussian currents observed at points this is the best there is.

    Parameters
    ----------
    kind
        ``"stream function"``: non-divergent w, worth about 30% more drifters; ``"isotropic"``: u and v independent.
        The local standard deviation is that of speed over √2 for the former, so that currents stay non-divergent where
        it is level, and that of each component for the latter.
    shape
        Of the covariance: the likeliest of the three on the archive, if None.
    local
        Whether σ is local, or the archive's overall one.
    hyperparameters
        To take instead of fitting them.
    error_floor
        As for `segments`.
    seed
        Of the points of the archive that the covariance is fitted to.

    Attributes
    ----------
    hyperparameters
        As given, or as fitted.
    mean
        m at ocean points, shape (2, points).
    stddev
        σ at ocean points, shape (2, points).

    Raises
    ------
    ValueError
        If `kind` is none of these.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Hyperparameters, OptimalInterpolation, StreamFunctionCovariance
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(20, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> known = Hyperparameters(StreamFunctionCovariance(length=50e3, period=30.0), 1.0, 0.0, float("nan"))
    >>> method = OptimalInterpolation(hyperparameters=known).fit(archive)
    >>> dict(method.analyse(tracks, archive.time.values[1], members=5).u.sizes)
    {'realization': 5, 'latitude': 32, 'longitude': 32}
    """

    beyond = True

    def __init__(
        self,
        kind: Literal["stream function", "isotropic"] = "stream function",
        *,
        shape: Shape | None = None,
        local: bool = True,
        hyperparameters: Hyperparameters | None = None,
        error_floor: float = ERROR_FLOOR,
        seed: int = 0,
    ) -> None:
        super().__init__(error_floor)
        if kind not in _KINDS:
            raise ValueError(f"kind must be 'stream function' or 'isotropic', got {kind!r}")
        self.kind, self.shape, self.local, self.seed = kind, shape, local, seed
        self._given = hyperparameters

    def _fit(self, archive: Archive) -> None:
        self.mean, self.stddev = archive.maps.mean(0, dtype=float), self._scale(archive)
        self.hyperparameters = self._given or self._likeliest(archive)
        self._grid_points = Points(archive.grid.frame, np.zeros(self.mean.shape[1]))
        self._root: Float[np.ndarray, "two_points two_points"] | None = None

    def _likeliest(self, archive: Archive) -> Hyperparameters:
        shapes = SHAPES if self.shape is None else (self.shape,)
        fits = (
            fit_hyperparameters(_KINDS[self.kind], shape, archive, self.mean, self.stddev, self.seed)
            for shape in shapes
        )
        return max(fits, key=lambda fit: fit.log_likelihood)

    def _scale(self, archive: Archive) -> Float[np.ndarray, "2 points"]:
        variance = archive.maps.var(0, dtype=float)
        if self.kind == "stream function":
            variance = np.broadcast_to(variance.mean(0), variance.shape)
        if not self.local:
            variance = np.broadcast_to(variance.mean(1, keepdims=True), variance.shape)
        if not (variance > 0).all():
            raise ValueError("archive must vary at every ocean point, got points where it does not")
        scale: np.ndarray = np.sqrt(variance)
        return scale

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        # Beyond a patch the local mean and standard deviation are those of its edge.
        points, weights = self.grid.weights(*self.grid.nearest(observed.latitude, observed.longitude))
        mean, scale = (np.einsum("cnk,nk->cn", part[:, points], weights) for part in (self.mean, self.stddev))
        days = (observed.time - time) / np.timedelta64(1, "D")
        there = Points(frame(observed.latitude, observed.longitude), days)
        innovation = (observed.velocity.T - mean).ravel()
        noise = np.tile(observed.error**2, 2) + self.hyperparameters.unresolved * scale.ravel() ** 2
        return self._posterior(there, scale.ravel(), innovation, noise, members, rng)

    def _posterior(
        self,
        there: Points,
        scale: Float[np.ndarray, " two_n"],
        innovation: Float[np.ndarray, " two_n"],
        noise: Float[np.ndarray, " two_n"],
        members: int,
        rng: np.random.Generator,
    ) -> Posterior:
        covariance, variance, unresolved, _ = self.hyperparameters
        seen = variance * covariance(there, there) * np.multiply.outer(scale, scale)
        cross = variance * covariance(self._grid_points, there) * scale
        factor = cholesky(seen + np.diag(noise), lower=True)
        explained = solve_triangular(factor, cross.T, lower=True)
        left = (variance - (explained**2).sum(0)).clip(min=0) + unresolved
        prior, there_too = self._prior_draws(seen, cross, members, rng)
        misfit = innovation - there_too - rng.standard_normal(there_too.shape) * np.sqrt(noise)
        drawn = prior + cho_solve((factor, True), misfit.T).T @ cross.T
        drawn += np.sqrt(unresolved) * rng.standard_normal(drawn.shape)
        centre = cross @ cho_solve((factor, True), innovation)
        sigma, shape = self.stddev, self.mean.shape
        return Posterior(
            members=self.mean + sigma * drawn.reshape(members, *shape),
            mean=self.mean + sigma * centre.reshape(shape),
            stddev=sigma * np.sqrt(left).reshape(shape),
        )

    def _prior_draws(
        self,
        seen: Float[np.ndarray, "two_n two_n"],
        cross: Float[np.ndarray, "two_points two_n"],
        members: int,
        rng: np.random.Generator,
    ) -> tuple[Float[np.ndarray, "members two_points"], Float[np.ndarray, "members two_n"]]:
        """Draw currents on the grid and at the segments together, by the factor of their joint covariance."""
        root = self._grid_root()
        jitter = _JITTER * np.diagonal(seen)
        whitened = solve_triangular(root, cross, lower=True)
        rest = _positive_root(seen - whitened.T @ whitened + np.diag(jitter))
        z, e = rng.standard_normal((members, len(root))), rng.standard_normal((members, len(seen)))
        return z @ root.T, z @ whitened + e @ rest.T

    def _grid_root(self) -> Float[np.ndarray, "two_points two_points"]:
        """Return the Cholesky factor of the prior on the grid, which no case changes."""
        if self._root is None:
            prior = self.hyperparameters.variance * self.hyperparameters.covariance(
                self._grid_points, self._grid_points
            )
            prior[np.diag_indices_from(prior)] += _JITTER * self.hyperparameters.variance
            self._root = cholesky(prior, lower=True, overwrite_a=True)
        return self._root


def _positive_root(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Return a root of a covariance that rounding may have left slightly indefinite."""
    try:
        # Of many segments this takes a twentieth of the time.
        root: np.ndarray = cholesky(matrix, lower=True)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
        root = vectors * np.sqrt(values.clip(min=0))
    return root
