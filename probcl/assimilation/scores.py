"""Scores of an analysis against the truth, window by window, with bootstrap intervals over windows.

Arrays have windows first, then members where there are any, then values: all the ocean points of u and v together.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from scipy.signal import detrend, periodogram

from probcl import diagnostics
from probcl.checks import describe, require_count, require_positive

Ensemble = Float[np.ndarray, "windows members values"]
Weights = Float[np.ndarray, "windows members"]
Fields = Float[np.ndarray, "windows values"]
PerWindow = Float[np.ndarray, " windows"]
Spectra = Float[np.ndarray, "windows frequencies"]

# The ratio of error to truth in power below which a wavelength counts as resolved (Ballarotta et al. 2019).
_RESOLVED = 0.5


class Estimate(NamedTuple):
    """A score over all windows, and its bootstrap interval."""

    value: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def squared_error(mean: Fields, truth: Fields) -> PerWindow:
    """Return the mean squared error of each window."""
    _require_alike(mean, truth)
    errors: PerWindow = ((mean - truth) ** 2).mean(1)
    return errors


def rmse(mean: Fields, truth: Fields) -> float:
    """Return the root of the mean squared error over all windows."""
    return float(np.sqrt(squared_error(mean, truth).mean()))


def nrmse(mean: Fields, truth: Fields) -> float:
    """Return the RMSE over the standard deviation of the truth, both over all windows and values.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or the truth is constant.
    """
    deviation = float(truth.std())
    if deviation == 0:
        raise ValueError("truth must vary, got a constant")
    return rmse(mean, truth) / deviation


def pattern_correlation(mean: Fields, truth: Fields, climatology: Float[np.ndarray, " values"]) -> PerWindow:
    """Return the centred correlation of anomalies from climatology over the values of each window.

    Zero where the analysis, or the truth, does not vary: climatology has no pattern.
    """
    _require_alike(mean, truth)
    if climatology.shape != truth.shape[1:]:
        raise ValueError(f"climatology must have shape {truth.shape[1:]}, got {describe(climatology)}")
    analysed, true = (part - climatology - (part - climatology).mean(1, keepdims=True) for part in (mean, truth))
    power = np.sqrt((analysed**2).sum(1) * (true**2).sum(1))
    correlation: PerWindow = np.divide((analysed * true).sum(1), power, out=np.zeros(len(power)), where=power > 0)
    return correlation


def fair_crps(ensemble: Ensemble, truth: Fields, weights: Weights | None = None) -> PerWindow:
    r"""Return the fair CRPS, the mean over the values of each window.

    .. math:: \sum_s w_s |x_s - y| - \frac{\sum_{s,t} w_s w_t |x_s - x_t|}{2 (1 - \sum_s w_s^2)}

    for weights that sum to one; with equal ones it is that of `probcl.diagnostics.crps`, and its expectation does not
    depend on the number of members (Ferro 2014).

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or there is one member, or one with all the weight.
    """
    weights = _weights(ensemble, truth, weights)
    if weights is None:
        draws = np.ascontiguousarray(ensemble.swapaxes(0, 1))
        crps: PerWindow = diagnostics.crps(draws, truth, fair=True).values.numpy().mean(1)
        return crps
    lone = 1 - (weights**2).sum(1)
    if (lone < 1e-12).any():
        raise ValueError("weights must be shared by two members or more, got all of it on one")
    scores = [
        _weighted_crps(members - true, weight, rest)
        for members, true, weight, rest in zip(ensemble, truth, weights, lone, strict=True)
    ]
    return np.array(scores)


def _weighted_crps(
    deviations: Float[np.ndarray, "members values"], weights: Float[np.ndarray, " members"], rest: float
) -> float:
    order = deviations.argsort(0)
    ordered, weight = np.take_along_axis(deviations, order, 0), weights[order]
    # Σ_st w_s w_t |x_s − x_t| = 2 Σ_s w_s x_s (weight below s − weight above s), for sorted x.
    below = weight.cumsum(0) - weight
    spread = (weight * ordered * (below - (1 - below - weight))).sum(0)
    return float((weights @ np.abs(deviations) - spread / rest).mean())


def variance(ensemble: Ensemble, weights: Weights | None = None) -> PerWindow:
    """Return the unbiased variance of members, the mean over the values of each window."""
    if weights is None:
        plain: PerWindow = ensemble.var(1, ddof=1).mean(1)
        return plain
    mean = np.einsum("wm,wmv->wv", weights, ensemble)
    biased = np.einsum("wm,wmv->wv", weights, (ensemble - mean[:, None]) ** 2)
    weighted: PerWindow = (biased / (1 - (weights**2).sum(1))[:, None]).mean(1)
    return weighted


def spread_skill(ensemble: Ensemble, truth: Fields, weights: Weights | None = None) -> float:
    """Return spread over skill: 1 for a truth that is exchangeable with the members.

    Spread is the root of the mean unbiased variance times 1 + 1/S, for S members (or the effective sample size of the
    weights), so that the error of a finite ensemble's mean is counted (Fortin et al. 2014). Skill is the RMSE of the
    ensemble mean.
    """
    spread, error = spread_terms(ensemble, truth, weights)
    return float(np.sqrt(spread.mean() / error.mean()))


def spread_terms(ensemble: Ensemble, truth: Fields, weights: Weights | None = None) -> tuple[PerWindow, PerWindow]:
    """Return the squares of spread and skill of each window, as `spread_skill` has them."""
    weights = _weights(ensemble, truth, weights)
    spread = variance(ensemble, weights) * (1 + 1 / _sizes(ensemble, weights))
    return spread, squared_error(_mean(ensemble, weights), truth)


def coverage(ensemble: Ensemble, truth: Fields, level: float = 0.9, weights: Weights | None = None) -> PerWindow:
    """Return how often the truth is in the central interval of this probability, in each window.

    Ends of the interval are quantiles at ranks k/(S + 1) (Weibull's), so that an exchangeable truth is inside with the
    right probability for few members too, as long as (1 − level)(S + 1)/2 ≥ 1. Of weighted members they are quantiles
    of the weighted law.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or `level` is not between 0 and 1.
    """
    weights = _weights(ensemble, truth, weights)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    ends = np.array([0.5 - level / 2, 0.5 + level / 2])
    if weights is None:
        low, high = np.quantile(ensemble, ends, axis=1, method="weibull")
    else:
        both = [
            np.quantile(
                members, ends, axis=0, weights=np.broadcast_to(weight[:, None], members.shape), method="inverted_cdf"
            )
            for members, weight in zip(ensemble, weights, strict=True)
        ]
        low, high = np.stack(both, axis=1)
    covered: PerWindow = ((low <= truth) & (truth <= high)).mean(1)
    return covered


def rank_histogram(
    ensemble: Ensemble, truth: Fields, *, bins: int = 10, weights: Weights | None = None, seed: int = 0
) -> Float[np.ndarray, " bins"]:
    """Return how often the truth falls in each bin of its rank among the members, as fractions: flat if calibrated.

    The rank, b + U (t + 1) over S + 1, with b members below the truth, t tied with it and U uniform, is itself uniform
    for an exchangeable truth, ties included. With weights b and t are weights times the effective sample size S.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or `bins` is no positive count.
    """
    require_count("bins", bins)
    weights = _weights(ensemble, truth, weights)
    size = _sizes(ensemble, weights)[:, None]
    weights = np.full(ensemble.shape[:2], 1 / ensemble.shape[1]) if weights is None else weights
    below = np.einsum("wm,wmv->wv", weights, (ensemble < truth[:, None]).astype(float))
    tied = np.einsum("wm,wmv->wv", weights, (ensemble == truth[:, None]).astype(float))
    uniform = np.random.default_rng(seed).random(truth.shape)
    rank = (below * size + uniform * (tied * size + 1)) / (size + 1)
    shares: np.ndarray = np.histogram(rank, bins=bins, range=(0, 1))[0] / rank.size
    return shares


def effective_resolution(
    mean: Float[np.ndarray, "windows rows columns"], truth: Float[np.ndarray, "windows rows columns"], spacing: float
) -> float:
    """Return the shortest wavelength such that it and all longer ones are resolved: error below half the truth's power.

    Periodograms along rows, detrended and tapered by Hann's window, averaged over rows without NaN and over windows
    (Ballarotta et al. 2019); linear in wavenumber between them. Infinite if not even the longest is resolved; if all
    are, the shortest that rows have: twice the spacing, of an even number of columns.

    Parameters
    ----------
    mean, truth
        One component on the grid, NaN on land.
    spacing
        Between columns, in any unit of length: that of the result.

    Raises
    ------
    ValueError
        If shapes differ, no row is without NaN or longer than three points, or `spacing` is not positive.
    """
    frequency, error, power = error_spectra(mean, truth, spacing)
    return resolved_wavelength(frequency, error.sum(0) / power.sum(0))


def error_spectra(
    mean: Float[np.ndarray, "windows rows columns"], truth: Float[np.ndarray, "windows rows columns"], spacing: float
) -> tuple[Float[np.ndarray, " frequencies"], Spectra, Spectra]:
    """Return wavenumbers, and the power of error and truth in each window, as `effective_resolution` takes them."""
    require_positive("spacing", spacing)
    if mean.shape != truth.shape:
        raise ValueError(f"mean and truth must have the same shape, got {mean.shape} and {truth.shape}")
    whole = np.isfinite(mean).all(-1) & np.isfinite(truth).all(-1)
    if not whole.any() or mean.shape[-1] < 4:
        raise ValueError("mean and truth must have rows of four points or more without NaN, got none")
    window = np.nonzero(whole)[0]
    frequency, error = _power(mean[whole] - truth[whole], spacing)
    power = _power(truth[whole], spacing)[1]
    sums = np.zeros((2, len(mean), len(frequency)))
    for total, rows in zip(sums, (error, power), strict=True):
        np.add.at(total, window, rows)
    return frequency, sums[0], sums[1]


def resolved_wavelength(
    frequency: Float[np.ndarray, " frequencies"], ratio: Float[np.ndarray, " frequencies"]
) -> float:
    """Return the shortest wavelength such that it and all longer ones have less than half the truth's power as error.

    Infinite if not even the longest has, that of the last frequency if all have.
    """
    lost = np.nonzero(ratio > _RESOLVED)[0]
    if len(lost) == 0:
        return float(1 / frequency[-1])
    k = int(lost[0])
    if k == 0:
        return float("inf")
    share = (_RESOLVED - ratio[k - 1]) / (ratio[k] - ratio[k - 1])
    return float(1 / (frequency[k - 1] + share * (frequency[k] - frequency[k - 1])))


def bootstrap(
    statistic: Callable[[Int[np.ndarray, " windows"]], float],
    windows: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Return a statistic over windows with its percentile interval under resampling of windows.

    Parameters
    ----------
    statistic
        A function of which windows to use, so that several arrays are resampled alike.
    windows
        How many there are, at least two.
    resamples, level, seed
        Of the bootstrap.
    """
    everything = np.arange(require_count("windows", windows, minimum=2))
    found = scipy.stats.bootstrap(
        (everything,),
        statistic,
        n_resamples=require_count("resamples", resamples),
        confidence_level=level,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(float(statistic(everything)), float(found.low), float(found.high))


def _power(rows: Float[np.ndarray, "rows columns"], spacing: float) -> tuple[np.ndarray, np.ndarray]:
    frequency, power = periodogram(rows, fs=1 / spacing, window="hann", detrend=detrend, axis=-1)
    # Detrending leaves nothing at wavenumber zero.
    return frequency[1:], power[:, 1:]


def _mean(ensemble: Ensemble, weights: Weights | None) -> Fields:
    mean: Fields = ensemble.mean(1) if weights is None else np.einsum("wm,wmv->wv", weights, ensemble)
    return mean


def _sizes(ensemble: Ensemble, weights: Weights | None) -> PerWindow:
    return np.full(len(ensemble), float(ensemble.shape[1])) if weights is None else 1 / (weights**2).sum(1)


def _require_alike(mean: Fields, truth: Fields) -> None:
    if mean.shape != truth.shape or truth.size == 0:
        raise ValueError(f"mean and truth must have the same shape and not be empty, got {mean.shape}, {truth.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(truth).all()):
        raise ValueError("mean and truth must be finite, got NaN or infinite values: drop land first")


def _weights(ensemble: Ensemble, truth: Fields, weights: Weights | None) -> Weights | None:
    """Check an ensemble, and return its weights such that each window's sum to one."""
    if ensemble.ndim != 3 or ensemble.shape[::2] != truth.shape or ensemble.size == 0:
        raise ValueError(f"ensemble must be (windows, members, values) for truth {truth.shape}, got {ensemble.shape}")
    if not (np.isfinite(ensemble).all() and np.isfinite(truth).all()):
        raise ValueError("ensemble and truth must be finite, got NaN or infinite values: drop land first")
    if weights is None:
        return None
    if weights.shape != ensemble.shape[:2]:
        raise ValueError(f"weights must have shape {ensemble.shape[:2]}, got {weights.shape}")
    if not ((weights >= 0) & np.isfinite(weights)).all() or (weights.sum(1) <= 0).any():
        raise ValueError("weights must be finite and not negative, with a positive sum for each window")
    normalized: Weights = weights / weights.sum(1, keepdims=True)
    return normalized
