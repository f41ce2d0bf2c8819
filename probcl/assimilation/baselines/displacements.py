"""Tracks compared with predicted ones: displacements in metres, and what errors of fixes make of them."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve

from probcl.assimilation.tracks import DIMENSIONS, require_tracks
from probcl.checks import describe
from probcl.sphere import METRES_PER_DEGREE, longitude_difference, metres_per_degree_east

Advection = Callable[[xr.Dataset, xr.Dataset], xr.Dataset]
"""Tracks predicted from fields: ``advection(fields, tracks)``.

`fields` has `u` and `v` with dimensions (realization, time, latitude, longitude). What is returned has `latitude` and
`longitude` with dimensions (realization, trajectory, obs): where drifters released at each trajectory's first fix are
at the times of its fixes; `probcl.assimilation.predict_tracks` tells it.
"""

_AXES = ("realization", *DIMENSIONS)


def later_fixes(
    tracks: xr.Dataset,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return trajectory and position in it of each fix after the first of its trajectory, and which is that first."""
    present = np.isfinite(tracks["latitude"].transpose(*DIMENSIONS).values)
    trajectory, obs = np.nonzero(present)
    first = present.argmax(1)[trajectory]
    later = obs != first
    return trajectory[later], obs[later], first[later]


def displacements(predicted: xr.Dataset, tracks: xr.Dataset) -> Float[np.ndarray, "realization two_n"]:
    """Return predicted minus observed positions, in metres: east at the n fixes after the first, then north.

    Raises
    ------
    TypeError
        If `predicted` is not an `xarray.Dataset`.
    ValueError
        If it is not of the tracks' shape.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import displacements
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(3, [0, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> predicted = pcl.assimilation.predict_tracks(archive.rename(member="realization"), tracks)
    >>> displacements(predicted, tracks).shape[0]  # metres to the east and north, of each of three fields
    3
    """
    fixes = require_tracks(tracks)
    if not isinstance(predicted, xr.Dataset):
        raise TypeError(f"the advection must return an xarray.Dataset, got {describe(predicted)}")
    shape = fixes["time"].shape
    sizes = {str(name): dict(values.sizes) for name, values in predicted.variables.items()}
    for name in ("latitude", "longitude"):
        if name not in predicted or set(predicted[name].dims) != set(_AXES):
            raise ValueError(f"the advection must return {name} with dimensions {_AXES}, got {sizes}")
        if predicted[name].transpose(*_AXES).shape[1:] != shape:
            raise ValueError(f"the advection must return tracks of shape {shape}, got {sizes[name]}")
    trajectory, obs, _ = later_fixes(tracks)
    seen = {name: fixes[name][trajectory, obs] for name in ("latitude", "longitude")}
    there = {name: predicted[name].transpose(*_AXES).values[:, trajectory, obs] for name in seen}
    east = longitude_difference(there["longitude"], seen["longitude"]) * metres_per_degree_east(seen["latitude"])
    north = (there["latitude"] - seen["latitude"]) * METRES_PER_DEGREE
    return np.concatenate([east, north], axis=1)


def displacement_covariance(tracks: xr.Dataset, model_error: float = 0.0) -> Float[np.ndarray, "two_n two_n"]:
    """Return the covariance of `displacements` under the true fields, in m².

    The error of the first fix is carried along its track unchanged, so that the later ones share it: exact for a
    uniform current.

    Parameters
    ----------
    tracks
        With `position_error` in metres.
    model_error
        Error of the advection, in metres.
    """
    trajectory, obs, first = later_fixes(tracks)
    error = tracks["position_error"].transpose(*DIMENSIONS).values
    shared = (trajectory[:, None] == trajectory) * error[trajectory, first] ** 2
    component = shared + np.diag(error[trajectory, obs] ** 2 + model_error**2)
    return np.kron(np.eye(2), component)


def track_log_likelihood(
    advection: Advection, model_error: float = 0.0
) -> Callable[[xr.Dataset, xr.Dataset], Float[np.ndarray, " realization"]]:
    """Return the log-likelihood of tracks as a function of fields and tracks, Gaussian in the displacements.

    A realization whose drifters are lost (NaN) has likelihood zero.

    Parameters
    ----------
    advection
        Tracks predicted from fields.
    model_error
        Error of the advection, in metres; with exact fixes it must be positive.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import track_log_likelihood
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(3, [0, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[1]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> log_likelihood = track_log_likelihood(pcl.assimilation.predict_tracks, model_error=1000.0)
    >>> int(log_likelihood(archive.rename(member="realization"), tracks).argmax())  # the field that they drifted in
    1
    """

    def log_likelihood(fields: xr.Dataset, tracks: xr.Dataset) -> Float[np.ndarray, " realization"]:
        misfit = displacements(advection(fields, tracks), tracks)
        factor = cho_factor(displacement_covariance(tracks, model_error), lower=True)
        lost = ~np.isfinite(misfit).all(1)
        solved = cho_solve(factor, np.where(lost[:, None], 0.0, misfit).T)
        log_determinant = 2 * np.log(np.diagonal(factor[0])).sum()
        normalizer = 0.5 * (misfit.shape[1] * np.log(2 * np.pi) + log_determinant)
        quadratic = np.einsum("rn,nr->r", np.where(lost[:, None], 0.0, misfit), solved)
        return np.where(lost, -np.inf, -0.5 * quadratic - normalizer)

    return log_likelihood
