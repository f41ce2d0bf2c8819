"""The row of a table that one method earns: all scores of its analyses, with intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Int

from probcl.assimilation import scores
from probcl.assimilation.scores import Estimate
from probcl.assimilation.verification import Verification, maps_of

Windows = Int[np.ndarray, " windows"]


def scorecard(
    analyses: Sequence[xr.Dataset],
    truths: Sequence[xr.Dataset],
    climatology: xr.Dataset,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Score analyses of several windows against the truth, with bootstrap intervals over windows.

    Parameters
    ----------
    analyses
        With `u`, `v` (realization, latitude, longitude) and `u_mean`, `v_mean`; `member_weight` (realization) if they
        are weighted. All with as many members.
    truths
        `u`, `v` (latitude, longitude) on the same grid, one for each analysis.
    climatology
        `u`, `v` (latitude, longitude), from which anomalies are taken for the pattern correlation.
    level, resamples, seed
        Of the bootstrap.

    Returns
    -------
    dict
        ``rmse`` and ``crps`` in m/s, ``nrmse``, ``correlation``, ``spread_skill`` and ``coverage90``.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two windows, or an analysis and its truth differ in grid or land.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Climatology
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(20, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> analysis = Climatology().fit(archive).analyse(tracks, archive.time.values[1], members=5)
    >>> truths = [archive.isel(member=member, time=1)[["u", "v"]] for member in (0, 1)]
    >>> mean = archive[["u", "v"]].mean(["member", "time"])
    >>> sorted(pcl.assimilation.scorecard([analysis, analysis], truths, mean))
    ['correlation', 'coverage90', 'crps', 'nrmse', 'rmse', 'spread_skill']
    """
    return scores_of(Verification(analyses, truths), climatology, level=level, resamples=resamples, seed=seed)


def scores_of(
    verification: Verification,
    climatology: xr.Dataset,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Score what was stacked; see `scorecard`."""
    ensemble, weights = verification.members, verification.weights
    truth, mean = (verification.at_sea(maps) for maps in (verification.truth, verification.mean))
    error, level_of, power = scores.squared_error(mean, truth), truth.mean(1), (truth**2).mean(1)
    spread, skill = scores.spread_terms(ensemble, truth, weights)
    crps = scores.fair_crps(ensemble, truth, weights)
    correlation = scores.pattern_correlation(mean, truth, maps_of(climatology)[verification.ocean])
    inside = scores.coverage(ensemble, truth, 0.9, weights)
    statistics: dict[str, Callable[[Windows], float]] = {
        "rmse": lambda w: float(np.sqrt(error[w].mean())),
        "nrmse": lambda w: float(np.sqrt(error[w].mean() / (power[w].mean() - level_of[w].mean() ** 2))),
        "correlation": lambda w: float(correlation[w].mean()),
        "crps": lambda w: float(crps[w].mean()),
        "spread_skill": lambda w: float(np.sqrt(spread[w].mean() / skill[w].mean())),
        "coverage90": lambda w: float(inside[w].mean()),
    }
    return {
        name: scores.bootstrap(statistic, len(truth), resamples=resamples, level=level, seed=seed)
        for name, statistic in statistics.items()
    }
