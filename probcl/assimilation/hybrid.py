r"""A covariance between optimal interpolation's, which is smooth, and an archive's own, which is noisy.

With K the covariance fitted for optimal interpolation, S that of the archive's maps and T Gaspari and Cohn's taper,

.. math:: (1 - \alpha) K + \alpha\, T \circ S

(Hamill & Snyder 2000, with the localisation of Houtekamer & Mitchell 2001). α and the taper's radius are the likeliest
for maps of the archive that S was not computed from.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import eigh

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.covariance import Points
from probcl.assimilation.baselines.gaussian_process import OptimalInterpolation
from probcl.assimilation.baselines.localization import taper
from probcl.sphere import Frame

_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# In lengths of the fitted covariance.
_RADII = (2.5, 5.0, 7.5, 10.0, 15.0, 20.0)
# Parts of the archive that are left out in turn, and of each the maps, and sets of points, whose likelihood is taken.
_PARTS, _MAPS, _SETS, _POINTS = 4, 16, 8, 40
# What is so many periods of the covariance from a part, or nearer, is left out with it.
_APART = 2.0


class Hybrid(NamedTuple):
    """What was fitted.

    Attributes
    ----------
    share
        α, of the archive's own covariance.
    radius
        Of the taper, in metres.
    log_likelihood
        Per value.
    """

    share: float
    radius: float
    log_likelihood: float


class Covariances(NamedTuple):
    """Those that are mixed, of u at n points and then of v.

    Attributes
    ----------
    smooth
        Of optimal interpolation, without what it leaves uncorrelated.
    unresolved
        Variance of the latter.
    sample
        Of the archive's maps.
    frame
        Where the points are.
    """

    smooth: Float[np.ndarray, "two_n two_n"]
    unresolved: Float[np.ndarray, " two_n"]
    sample: Float[np.ndarray, "two_n two_n"]
    frame: Frame

    @classmethod
    def of(
        cls,
        process: OptimalInterpolation,
        maps: Float[np.ndarray, "maps 2 all_points"],
        points: Int[np.ndarray, " n"] | slice = slice(None),
    ) -> "Covariances":
        """Take both at some of the ocean points, the second of these maps."""
        sample = np.cov(maps[..., points].reshape(len(maps), -1), rowvar=False, dtype=float)
        return cls(*smooth_covariance(process, points), sample, Frame(*(part[points] for part in process.grid.frame)))

    def mixed(self, share: float, radius: float) -> Float[np.ndarray, "two_n two_n"]:
        """Return their mixture, for a taper of this radius in metres."""
        mixed: np.ndarray = (1 - share) * self.smooth + share * self.tapered(radius)
        return mixed

    def tapered(self, radius: float) -> Float[np.ndarray, "two_n two_n"]:
        """Return the archive's own, tapered."""
        tapered: np.ndarray = np.tile(taper(self.frame, self.frame, radius), (2, 2)) * self.sample
        return tapered

    def variance(self, share: float) -> Float[np.ndarray, " two_n"]:
        """Return the whole variance of the currents, with what is uncorrelated."""
        both: np.ndarray = (1 - share) * (np.diagonal(self.smooth) + self.unresolved) + share * np.diagonal(self.sample)
        return both


def smooth_covariance(
    process: OptimalInterpolation, points: Int[np.ndarray, " n"] | slice = slice(None)
) -> tuple[Float[np.ndarray, "two_n two_n"], Float[np.ndarray, " two_n"]]:
    """Return optimal interpolation's covariance of a map at some points, and the variance it leaves uncorrelated."""
    covariance, variance, unresolved, _ = process.hyperparameters
    frame = Frame(*(part[points] for part in process.grid.frame))
    there = Points(frame, np.zeros(len(frame.position)))
    sigma = process.stddev[:, points].ravel()
    smooth = variance * covariance(there, there)
    smooth *= np.multiply.outer(sigma, sigma)
    return smooth, unresolved * sigma**2


def fit_hybrid(archive: Archive, process: OptimalInterpolation, seed: int = 0) -> Hybrid:
    """Find the share and the radius under which maps that are left out are likeliest.

    A quarter of the archive is left out at a time, with what is near to it in time. Of it, 16 maps are looked at, at 8
    sets of 40 points. Where that leaves nothing to know or to look at, the share is 0.

    Parameters
    ----------
    archive
        Of which both covariances are.
    process
        Fitted to it.
    seed
        Of the points.
    """
    radii = np.multiply(_RADII, process.hyperparameters.covariance.length)
    rng = np.random.default_rng(seed)
    found = np.zeros((len(radii), len(_SHARES)))
    count = 0
    for known, left_out in _partitions(archive, _APART * process.hyperparameters.covariance.period):
        maps = archive.maps[known]
        for _ in range(_SETS):
            points = rng.permutation(maps.shape[-1])[:_POINTS]
            both = Covariances.of(process, maps, points)
            mean = maps[..., points].mean(0, dtype=float)
            anomalies = (archive.maps[left_out][..., points] - mean).reshape(len(left_out), -1)
            found += _log_likelihoods(both, anomalies, radii)
            count += anomalies.size
    if count == 0:
        return Hybrid(0.0, float(radii[0]), float("nan"))
    row, column = np.unravel_index(found.argmax(), found.shape)
    return Hybrid(_SHARES[column], float(radii[row]), float(found[row, column] / count))


def _partitions(archive: Archive, days: float) -> Iterator[tuple[Bool[np.ndarray, " maps"], Int[np.ndarray, " few"]]]:
    """Yield which maps are known, and some of a part of the others, members slowest."""
    members, times = archive.values.shape[:2]
    member, number = np.divmod(np.arange(members * times), times)
    day = ((archive.times - archive.times[0]) / np.timedelta64(1, "D"))[number]
    for part in np.array_split(np.arange(members * times), _PARTS):
        near = (day >= day[part].min() - days) & (day <= day[part].max() + days)
        # Patches of the same days overlap.
        known = ~near if archive.of_patches else ~(np.isin(member, member[part]) & near)
        if len(part) >= 2 and known.sum() >= 2:
            yield known, part[np.unique(np.linspace(0, len(part) - 1, _MAPS).astype(int))]


def _log_likelihoods(
    both: Covariances, anomalies: Float[np.ndarray, "maps two_n"], radii: Float[np.ndarray, " radii"]
) -> Float[np.ndarray, "radii shares"]:
    """Return the log-likelihood of maps for each radius and share, with one eigendecomposition a radius."""
    smooth = both.smooth + np.diag(both.unresolved)
    share = np.array(_SHARES)[:, None]
    found = np.empty((len(radii), len(_SHARES)))
    for row, radius in enumerate(radii):
        # VᵀKV = I and VᵀSV = Λ, so that of the mixture it is (1 − α) I + α Λ.
        values, vectors = eigh(both.tapered(radius), smooth)
        mixed = 1 - share + share * values
        fitted = (np.square(anomalies @ vectors).sum(0) / mixed).sum(1)
        volume = np.log(mixed).sum(1) - 2 * np.linalg.slogdet(vectors)[1] + len(values) * np.log(2 * np.pi)
        found[row] = -0.5 * (fitted + len(anomalies) * volume)
    return found
