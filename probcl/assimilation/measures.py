"""What analyses are measured by beside `scorecard`: resolution, and whether their spread tells of errors."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from probcl.assimilation import scores
from probcl.assimilation.scores import Estimate
from probcl.assimilation.verification import Verification
from probcl.sphere import metres_per_degree_east


def spread_and_error(verification: Verification, bins: int = 10) -> Float[np.ndarray, "bins 2"]:
    """Return the root mean square of the standard deviation and of the mean's error, in bins of equally many values.

    Values are ordered by standard deviation; the two are equal in every bin if it tells where errors are large.
    """
    ocean = np.isfinite(verification.truth)
    spread, error = verification.stddev[ocean], (verification.mean - verification.truth)[ocean]
    parts = np.array_split(np.argsort(spread, kind="stable"), bins)
    return np.sqrt([[np.square(values[part]).mean() for values in (spread, error)] for part in parts])


def resolution(verification: Verification, *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the effective resolution of the mean along parallels, u and v alike, in km; NaN where land cuts all."""
    mean, truth = verification.mean, verification.truth
    count, columns = len(truth), truth.shape[-1]
    if columns < 4 or not np.isfinite(truth).all(-1).any():
        return Estimate(np.nan, np.nan, np.nan)
    rows = count, -1, columns
    spacing = _spacing(verification.truths[0])
    frequency, error, power = scores.error_spectra(mean.reshape(rows), truth.reshape(rows), spacing)
    # Of wavenumbers, since wavelengths may be infinite; both have the same ranks.
    waves = scores.bootstrap(
        lambda w: 1 / scores.resolved_wavelength(frequency, error[w].sum(0) / power[w].sum(0)),
        count,
        resamples=resamples,
        seed=seed,
    )
    value, high, low = (1 / wave if wave > 0 else np.inf for wave in waves)
    return Estimate(value, low, high)


def _spacing(dataset: xr.Dataset) -> float:
    """Return the distance between columns at the middle latitude, in km."""
    degrees = float(np.diff(dataset["longitude"].values).mean())
    return float(metres_per_degree_east(dataset["latitude"].values.mean(keepdims=True))[0]) * degrees / 1000
