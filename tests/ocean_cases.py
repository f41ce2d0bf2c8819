"""Small random-Fourier currents, and tracks through them or of segments one asks for."""

import numpy as np
import xarray as xr

from probcl.sphere import METRES_PER_DEGREE

START = np.datetime64("2002-01-01", "ns")
DAY = np.timedelta64(1, "D")


def axes(rows: int = 8, columns: int = 9, step: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    return -34 + step * np.arange(rows), 20 + step * np.arange(columns)


def dataset(values: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, step: np.timedelta64 = DAY) -> xr.Dataset:
    """An archive of (member, time, 2, latitude, longitude), daily from 2002 on."""
    dims = ("member", "time", "latitude", "longitude")
    times = START + step * np.arange(values.shape[1])
    coords = {"time": times, "latitude": latitude, "longitude": longitude}
    archive = xr.Dataset({"u": (dims, values[:, :, 0]), "v": (dims, values[:, :, 1])}, coords=coords)
    for name, units in (("u", "m s-1"), ("v", "m s-1"), ("latitude", "degrees_north"), ("longitude", "degrees_east")):
        archive[name].attrs["units"] = units
    return archive


def random_fourier(
    members: int, times: int, *, seed: int = 0, length: float = 60e3, period: float = 8.0, waves: int = 200
) -> xr.Dataset:
    """Non-divergent currents of unit variance, 0.3 m/s, with a Gaussian covariance of ψ in space and time, and land."""
    rng = np.random.default_rng(seed)
    latitude, longitude = axes()
    x = METRES_PER_DEGREE * np.cos(np.deg2rad(latitude.mean())) * (longitude - longitude[0])
    y = METRES_PER_DEGREE * (latitude - latitude[0])
    maps = np.empty((members, times, 2, len(y), len(x)))
    for member in range(members):
        k, ell = rng.standard_normal((2, waves)) / length
        omega, phase = rng.standard_normal(waves) / period, rng.uniform(0, 2 * np.pi, waves)
        angle = omega * np.arange(times)[:, None, None, None] + ell * y[:, None, None] + k * x[:, None] + phase
        slope = -np.sin(angle) * length * np.sqrt(2 / waves)
        maps[member, :, 0], maps[member, :, 1] = -(slope * ell).sum(-1), (slope * k).sum(-1)
    maps *= 0.3
    maps[..., 0, 0] = np.nan
    return dataset(maps, latitude, longitude)


def padded(fixes: list[list[tuple[float, float, float]]], error: float = 100.0) -> xr.Dataset:
    """Tracks of (days after START, latitude, longitude), padded."""
    shape = len(fixes), max(len(track) for track in fixes)
    times, where = np.full(shape, np.datetime64("NaT"), "datetime64[ns]"), np.full((2, *shape), np.nan)
    for row, track in enumerate(fixes):
        for column, (days, latitude, longitude) in enumerate(track):
            times[row, column] = START + np.timedelta64(round(days * 86_400e9), "ns")
            where[:, row, column] = latitude, longitude
    dims = ("trajectory", "obs")
    errors = np.where(np.isfinite(where[0]), error, np.nan)
    return xr.Dataset(
        {
            "time": (dims, times),
            "latitude": (dims, where[0]),
            "longitude": (dims, where[1]),
            "position_error": (dims, errors),
        }
    )


def track_of(latitude: float, longitude: float, day: float, u: float, v: float, hours: float = 12) -> list:
    """Two fixes whose segment has this middle and this velocity."""
    east = u * hours * 1800 / (METRES_PER_DEGREE * np.cos(np.deg2rad(latitude)))
    north = v * hours * 1800 / METRES_PER_DEGREE
    half = hours / 48
    return [(day - half, latitude - north, longitude - east), (day + half, latitude + north, longitude + east)]
