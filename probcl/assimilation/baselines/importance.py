"""The exact posterior by brute force: draws of the prior, weighted by the likelihood of the tracks."""

import warnings
from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from probcl.assimilation.archive import COMPONENTS, Archive
from probcl.assimilation.baselines.base import Baseline, Posterior
from probcl.assimilation.segments import Segments
from probcl.checks import describe, require_count
from probcl.errors import ProbclWarning

Sampler = Callable[[int, np.random.Generator], xr.Dataset]
"""Draws of the prior: ``sampler(count, rng)`` has `u`, `v` (realization, [time,] latitude, longitude)."""

LogLikelihood = Callable[[xr.Dataset, xr.Dataset], Float[np.ndarray, " realization"]]
"""log p(tracks | fields) up to a constant: ``log_likelihood(fields, tracks)``, as `track_log_likelihood` makes it."""

_SMALLEST_SAMPLE = 30


class ExactPosterior(Baseline):
    """Importance sampling from the prior: exact as draws grow in number, where the world can be sampled at will.

    Draws are weighted by their likelihood; mean and standard deviation are weighted, members resampled in proportion.
    The effective sample size (Σw)²/Σw² says how far to trust it: below 30 there is a warning.

    Parameters
    ----------
    sampler
        Draws fields of the prior on the archive's grid.
    log_likelihood
        Of tracks given fields.
    draws
        How many draws to take of the prior.
    batch
        How many of them at a time.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import ExactPosterior, track_log_likelihood
    >>> from probcl.datasets.ocean import Vortices
    >>> world = Vortices(1)
    >>> archive = world.archive(5, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=1, window="5D", fix_interval="2D", position_error=100.0
    ... )
    >>> def sampler(count, rng):
    ...     drawn = world.archive(count, [0, 2.5, 5], seed=int(rng.integers(2**31)))
    ...     return drawn.rename(member="realization")
    >>> likelihood = track_log_likelihood(pcl.assimilation.predict_tracks, model_error=30_000.0)
    >>> method = ExactPosterior(sampler, likelihood, draws=200).fit(archive)
    >>> dict(method.analyse(tracks, archive.time.values[1], members=5).u.sizes)
    {'realization': 5, 'latitude': 32, 'longitude': 32}
    """

    def __init__(
        self, sampler: Sampler, log_likelihood: LogLikelihood, draws: int = 30_000, *, batch: int = 1000
    ) -> None:
        super().__init__()
        self.sampler, self.log_likelihood = sampler, log_likelihood
        self.draws, self.batch = require_count("draws", draws, minimum=2), require_count("batch", batch)

    def _fit(self, archive: Archive) -> None:
        """Take the grid only: the prior is the sampler's."""

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        parts = [
            self._weigh(min(self.batch, self.draws - k), tracks, time, rng) for k in range(0, self.draws, self.batch)
        ]
        maps, log_weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        top = log_weights.max()
        if not np.isfinite(top):
            raise ValueError(f"log_likelihood must be finite for some draw of the prior, got {top} at most")
        weights = np.exp(log_weights - top)
        weights /= weights.sum()
        size = float(1 / (weights**2).sum())
        if size < _SMALLEST_SAMPLE:
            warnings.warn(
                f"the exact posterior rests on an effective sample of {size:.1f} of {self.draws} draws; take more",
                ProbclWarning,
                stacklevel=3,
            )
        mean = np.tensordot(weights, maps, 1)
        variance = np.tensordot(weights, (maps - mean) ** 2, 1) / (1 - 1 / max(size, 1 + 1e-9))
        return Posterior(
            members=maps[rng.choice(len(maps), members, p=weights)],
            mean=mean,
            stddev=np.sqrt(variance),
            effective_sample_size=size,
        )

    def _weigh(
        self, count: int, tracks: xr.Dataset, time: np.datetime64, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "draws 2 points"], Float[np.ndarray, " draws"]]:
        fields = self.sampler(count, rng)
        log_weights = np.asarray(self.log_likelihood(fields, tracks), dtype=float)
        if log_weights.shape != (count,) or np.isnan(log_weights).any():
            raise ValueError(
                f"log_likelihood must return {count} numbers that are not NaN, got {describe(log_weights)}"
            )
        return self._maps(fields, count, time), log_weights

    def _maps(self, fields: xr.Dataset, count: int, time: np.datetime64) -> Float[np.ndarray, "draws 2 points"]:
        if "time" in fields.dims:
            fields = fields.isel(time=0) if fields.sizes["time"] == 1 else fields.interp(time=time)
        axes = ("realization", "latitude", "longitude")
        maps = np.stack([fields[name].transpose(*axes).values for name in COMPONENTS], axis=1)
        if maps.shape != (count, 2, *self.grid.ocean.shape):
            raise ValueError(
                f"sampler must return {count} fields on the archive's grid, {self.grid.ocean.shape}, got {maps.shape}"
            )
        return maps[..., self.grid.ocean]
