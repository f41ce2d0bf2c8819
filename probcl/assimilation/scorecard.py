"""The row of a table that one method earns: all scores of its analyses, with intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Int

from probcl.assimilation import scores
from probcl.assimilation.archive import COMPONENTS
from probcl.assimilation.scores import Estimate
from probcl.checks import describe

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
    if len(analyses) != len(truths) or len(truths) < 2:
        raise ValueError(f"analyses and truths must be as many, two or more, got {len(analyses)} and {len(truths)}")
    for analysis, true in zip(analyses, truths, strict=True):
        _require_same_grid(analysis, true)
    ocean = np.isfinite(_values(truths[0]))
    truth = np.stack([_values(each)[ocean] for each in truths])
    mean = np.stack([_values(each, "{}_mean")[ocean] for each in analyses])
    ensemble = np.stack([_values(each)[:, ocean] for each in analyses])
    weights = None
    if "member_weight" in analyses[0]:
        weights = np.stack([each["member_weight"].values for each in analyses])
    error, level_of, power = scores.squared_error(mean, truth), truth.mean(1), (truth**2).mean(1)
    spread, skill = scores.spread_terms(ensemble, truth, weights)
    crps = scores.fair_crps(ensemble, truth, weights)
    correlation = scores.pattern_correlation(mean, truth, _values(climatology)[ocean])
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
        name: scores.bootstrap(statistic, len(truths), resamples=resamples, level=level, seed=seed)
        for name, statistic in statistics.items()
    }


def _values(dataset: xr.Dataset, name: str = "{}") -> np.ndarray:
    """Return u and v, shape ([realization,] 2, latitude, longitude)."""
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"analyses, truths and climatology must be xarray.Datasets, got {describe(dataset)}")
    parts = [dataset[name.format(component)] for component in COMPONENTS]
    leading = ("realization",) if "realization" in parts[0].dims else ()
    return np.stack([part.transpose(*leading, "latitude", "longitude").values for part in parts], axis=-3)


def _require_same_grid(analysis: xr.Dataset, truth: xr.Dataset) -> None:
    for axis in ("latitude", "longitude"):
        if not np.array_equal(analysis[axis].values, truth[axis].values):
            raise ValueError(f"an analysis and its truth must have the same {axis}, and do not")
    if not np.array_equal(np.isfinite(_values(analysis)).all(0), np.isfinite(_values(truth))):
        raise ValueError("an analysis and its truth must have the same land, and do not")
