"""Length, period and error of a covariance, by marginal likelihood on an archive."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.covariance import Covariance, Points, Shape
from probcl.sphere import Frame

# Views of the archive, and points in each, that the likelihood is made of.
_VIEWS = 24
_POINTS = 60
# How far apart in time the points of a view may be, in days.
_SPAN = 30.0
_PERIOD_OF_STILL_FIELDS = 1e4


class View(NamedTuple):
    """Standardised currents at a few points of one member."""

    points: Points
    values: Float[np.ndarray, " two_n"]


class Hyperparameters(NamedTuple):
    """What was fitted.

    Attributes
    ----------
    covariance
        With its length and period.
    variance
        Of the correlated part, relative to the archive's local variance.
    unresolved
        Variance of the part without correlation, relative to the archive's local variance.
    log_likelihood
        Per value.

    Examples
    --------
    >>> from probcl.assimilation.baselines import Hyperparameters, StreamFunctionCovariance
    >>> covariance = StreamFunctionCovariance(length=50e3, period=10.0, shape="matern52")
    >>> Hyperparameters(covariance, variance=0.9, unresolved=0.1, log_likelihood=float("nan")).covariance.length
    50000.0
    """

    covariance: Covariance
    variance: float
    unresolved: float
    log_likelihood: float


def fit_hyperparameters(
    kind: type[Covariance],
    shape: Shape,
    archive: Archive,
    mean: Float[np.ndarray, "2 points"],
    stddev: Float[np.ndarray, "2 points"],
    seed: int = 0,
) -> Hyperparameters:
    """Maximise the likelihood of the archive's standardised anomalies at random points of random members.

    24 views of 60 points within 30 days, taken as independent, by L-BFGS-B from the likeliest of five lengths. An
    archive of one time has nothing to say on the period, which is then fixed at 10,000 days.

    Examples
    --------
    >>> from probcl.assimilation.archive import Archive
    >>> from probcl.assimilation.baselines import StreamFunctionCovariance, fit_hyperparameters
    >>> from probcl.datasets.ocean import Box, GaussianOcean
    >>> world = GaussianOcean(Box(n=16, size=400e3), length=50e3)
    >>> archive = Archive.of(world.archive(20, [0, 10]))
    >>> mean, stddev = archive.maps.mean(0), archive.maps.std(0)
    >>> found = fit_hyperparameters(StreamFunctionCovariance, "gaussian", archive, mean, stddev)
    >>> bool(40e3 < found.covariance.length < 60e3)
    True
    """
    rng = np.random.default_rng(seed)
    views = [_view(archive, mean, stddev, rng) for _ in range(_VIEWS)]
    extent = archive.grid.diagonal
    still = len(archive.times) == 1

    def made(theta: np.ndarray) -> tuple[Covariance, float, float]:
        length, variance, unresolved = np.exp(theta[:3])
        period = _PERIOD_OF_STILL_FIELDS if still else np.exp(theta[3])
        return kind(length=float(length), period=float(period), shape=shape), float(variance), float(unresolved)

    def loss(theta: np.ndarray) -> float:
        return -sum(_log_likelihood(*made(theta), view) for view in views) / (2 * _VIEWS * len(views[0].points.days))

    limits = [(extent / 200, 2 * extent), (0.1, 10), (1e-6, 1), (0.05, 1e4)][: 3 if still else 4]
    bounds = [(float(np.log(low)), float(np.log(high))) for low, high in limits]
    starts = [np.log([extent / part, 1, 1e-2, 10])[: len(bounds)] for part in (40, 20, 10, 5, 2.5)]
    best = minimize(loss, min(starts, key=loss), method="L-BFGS-B", bounds=bounds)
    return Hyperparameters(*made(best.x), log_likelihood=-float(best.fun))


def _log_likelihood(covariance: Covariance, variance: float, unresolved: float, view: View) -> float:
    matrix = variance * covariance(view.points, view.points)
    matrix[np.diag_indices_from(matrix)] += unresolved + 1e-9
    factor = np.linalg.cholesky(matrix)
    fitted = view.values @ cho_solve((factor, True), view.values)
    return float(-0.5 * (fitted + len(matrix) * np.log(2 * np.pi)) - np.log(np.diagonal(factor)).sum())


def _view(
    archive: Archive,
    mean: Float[np.ndarray, "2 points"],
    stddev: Float[np.ndarray, "2 points"],
    rng: np.random.Generator,
) -> View:
    days = (archive.times - archive.times[0]) / np.timedelta64(1, "D")
    near = np.nonzero(np.abs(days - rng.choice(days)) <= _SPAN / 2)[0]
    member, moment = rng.integers(len(archive.values)), rng.choice(near, _POINTS)
    # Half of them about one place, so that short scales are seen too.
    frame = archive.grid.frame
    order = np.argsort(-(frame.position @ frame.position[rng.integers(mean.shape[1])]), kind="stable")
    point = np.concatenate([order[: _POINTS // 2], rng.choice(mean.shape[1], _POINTS - len(order[: _POINTS // 2]))])
    values = (archive.values[member, moment, :, point] - mean[:, point].T) / stddev[:, point].T
    return View(Points(Frame(*(part[point] for part in frame)), days[moment]), values.T.ravel())
