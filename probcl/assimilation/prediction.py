"""Tracks that drifters would leave in given fields, at the times of observed ones."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from probcl.assimilation.advection import GridFlow, advect
from probcl.assimilation.archive import COMPONENTS
from probcl.assimilation.tracks import DIMENSIONS, require_tracks
from probcl.sphere import longitude_near

_SECOND = np.timedelta64(1, "s")


def predict_tracks(fields: xr.Dataset, tracks: xr.Dataset, step: float = 3600.0) -> xr.Dataset:
    """Release drifters at the first fix of each trajectory, in each field, and return where they are at its fixes.

    This is the `advection` that `baselines.EnsembleSmoother` and `baselines.track_log_likelihood` ask for, by `advect`.
    Before the first time of the fields and after their last, currents stand still.

    Parameters
    ----------
    fields
        `u` and `v` in m/s, NaN on land, dimensions (realization, [time,] latitude, longitude), axes ascending.
    tracks
        Padded trajectories, dimensions (trajectory, obs), as for `baselines.segments`.
    step
        Longest time step, in seconds.

    Returns
    -------
    xarray.Dataset
        `latitude` and `longitude` with dimensions (realization, trajectory, obs); NaN where there is no fix, and from
        where a drifter runs aground or leaves the grid. Longitudes are in the convention of the fields.

    Raises
    ------
    TypeError, ValueError
        If the tracks are damaged, or the fields too fast.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(3, days=[0, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> fields = archive.rename(member="realization")
    >>> predicted = pcl.assimilation.predict_tracks(fields, tracks)
    >>> dict(predicted.latitude.sizes)
    {'realization': 3, 'trajectory': 4, 'obs': 11}
    """
    fixes = require_tracks(tracks)
    time, latitude, longitude = (fixes[name] for name in ("time", "latitude", "longitude"))
    flow, first = _flow(fields, time[np.isfinite(latitude)].min())
    longitude = longitude_near(longitude, 0.5 * (flow.longitude[0] + flow.longitude[-1]))
    # Drifters with the same times are carried together; no fix is at −∞.
    clock = np.where(np.isfinite(latitude), (time - first) / _SECOND, -np.inf)
    found = np.full((2, fields.sizes["realization"], *latitude.shape), np.nan)
    for seconds in np.unique(clock, axis=0):
        (rows,), (obs,) = np.nonzero((clock == seconds).all(1)), np.nonzero(np.isfinite(seconds))
        if len(obs) == 0:
            continue
        north, east = (np.tile(x[rows, obs[0]], (found.shape[1], 1)) for x in (latitude, longitude))
        found[:, :, rows[:, None], obs] = advect(flow, north, east, seconds[obs], step)[:2]
    axes = ("realization", *DIMENSIONS)
    return xr.Dataset({"latitude": (axes, found[0]), "longitude": (axes, found[1])})


def _flow(fields: xr.Dataset, otherwise: np.datetime64) -> tuple[GridFlow, np.datetime64]:
    """Return the currents, a window for each realization, and their first time: `otherwise`, if they have none."""
    if "time" not in fields.dims:
        fields = fields.drop_vars("time", errors="ignore").expand_dims(time=[otherwise])
    u, v = (fields[name].transpose("realization", "time", "latitude", "longitude").values for name in COMPONENTS)
    times = fields["time"].values
    axes: list[Float[np.ndarray, " nodes"]] = [fields[name].values for name in ("latitude", "longitude")]
    return GridFlow(u + 1j * v, (times - times[0]) / _SECOND, *axes), times[0]
