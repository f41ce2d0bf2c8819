"""Tracks that drifters would leave in the currents of an archive."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import product

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from jaxtyping import Float, Int, Shaped

from probcl.assimilation.advection import Box, Fate, GridFlow, advect
from probcl.assimilation.archive import COMPONENTS, load_values, require_archive
from probcl.assimilation.tracking import Track, untracked
from probcl.assimilation.tracks import padded_tracks, require_position_error
from probcl.checks import require_count
from probcl.sphere import METRES_PER_DEGREE, metres_per_degree_east

Duration = str | np.timedelta64 | timedelta
"""A length of time with its unit, as "12h" or ``np.timedelta64(5, "D")``."""

Times = str | np.datetime64 | Sequence[np.datetime64] | Shaped[np.ndarray, " starts"]

# Windows whose fields are interpolated together: few enough for the fields to stay in the cache.
_WINDOWS_AT_ONCE = 128
_STARTS, _ERRORS = 0, 1
SIMULATING = "simulating drifters"


def simulate_tracks(
    archive: xr.Dataset,
    *,
    n_drifters: int,
    window: Duration,
    fix_interval: Duration,
    position_error: float = 0.0,
    start: Times | None = None,
    boxes: Sequence[Box] | None = None,
    step: Duration = "1h",
    seed: int = 0,
    track: Track = untracked,
) -> xr.Dataset:
    """Release drifters in the currents of an archive and record their fixes.

    In every window (a member and a start time) drifters start at random over the water, are carried by the evolving
    currents (`advect`), and are seen at the start and then every `fix_interval` with independent Gaussian errors to
    east and north. One that runs aground or leaves the grid stops, and has no fixes from then on.

    Parameters
    ----------
    archive : xarray.Dataset
        Of the form that `require_archive` asks for.
    n_drifters : int
        In each window.
    window, fix_interval, step : str or timedelta
        Length of the windows, time between fixes and longest time step, with units: ``"12h"``.
    position_error : float
        Standard deviation of a fix to east and to north, in metres.
    start : datetime64 or several, optional
        First times of the windows; the first time of the archive unless given.
    boxes : sequence of (south, north, west, east), optional
        Where drifters start, in degrees: `n_drifters` in each box, over its water; they go on when they leave it.
    seed : int
        Starts, and errors, are a function of the seed, the member's label, the start time and the box alone. The same
        seed without errors gives the true positions.
    track : callable
        Is given the batches of windows, and tells how far it has come, as `rich.progress.track` does.

    Returns
    -------
    xarray.Dataset
        `time`, `latitude`, `longitude` and `position_error` on (trajectory, obs), NaT and NaN after the last fix; on
        trajectory `fate` (a `Fate`), `member` (where the archive has members), `start` and `box` (its number, where
        there are boxes). Members vary slowest, then starts, then boxes, then drifters, so that every window has
        `n_drifters` rows in a block, or as many for each box.

    Raises
    ------
    TypeError, ValueError
        If the archive is refused, a duration has no unit or is not positive, the window is shorter than the interval
        or is not covered by the archive, or there is no water, in a box where there are any.

    Examples
    --------
    >>> from probcl.assimilation import simulate_tracks
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(n_members=3, days=[0, 5])
    >>> tracks = simulate_tracks(archive, n_drifters=4, window="5D", fix_interval="12h", position_error=100)
    >>> dict(tracks.sizes)
    {'trajectory': 12, 'obs': 11}
    """
    archive = require_archive(archive)
    require_count("n_drifters", n_drifters)
    require_count("seed", seed, minimum=0)
    error = require_position_error(position_error)
    elapsed = _elapsed(window, fix_interval)
    longest_step = seconds_of("step", step)
    starts = _starts(archive["time"].values, start, elapsed[-1])
    areas = [None] if boxes is None else _boxes(boxes)
    members = archive if "member" in archive.dims else archive.expand_dims("member")
    labels = _labels(members)
    paths = np.empty((len(labels), len(starts), len(areas), n_drifters, 2, len(elapsed)))
    fate = np.empty(paths.shape[:4], np.int8)
    batches = list(_batches(archive["time"].values, starts, elapsed[-1], len(labels)))
    for block, chosen, maps in track(batches, SIMULATING):
        flow = _flow_from(members.isel(member=block), maps, starts[chosen[0]])
        windows = [(member, begin) for begin in starts[chosen] for member in labels[block].tolist()]
        place = flow.ocean_starts(n_drifters, _generators(seed, _STARTS, windows, areas), areas)
        positions = advect(flow, *place, elapsed, longest_step)
        there = np.stack(positions[:2], -2).reshape(-1, *paths.shape[3:])
        fixes = _with_errors(there, error, _generators(seed, _ERRORS, windows, areas))
        paths[block, chosen] = fixes.reshape(len(chosen), -1, *paths.shape[2:]).swapaxes(0, 1)
        fate[block, chosen] = positions.fate.reshape(len(chosen), -1, *fate.shape[2:]).swapaxes(0, 1)
    tracks = _tracks(paths.reshape(*paths.shape[:2], -1, *paths.shape[4:]), fate, starts, elapsed, error)
    if "member" in archive.dims:
        rows = len(starts) * len(areas) * n_drifters
        tracks["member"] = ("trajectory", labels.repeat(rows), {"long_name": "archive member"})
    if boxes is not None:
        number = np.tile(np.arange(len(areas)).repeat(n_drifters), len(labels) * len(starts))
        tracks["box"] = ("trajectory", number, {"long_name": "box of the start"})
    return tracks


def _boxes(boxes: Sequence[Box]) -> list[Box]:
    """Return boxes as numbers, if they are boxes."""
    try:
        sides = np.asarray(boxes, dtype=float)
    except (TypeError, ValueError):
        sides = np.empty(0)
    if not (sides.ndim == 2 and sides.shape[1] == 4 and len(sides) and np.isfinite(sides).all()):
        raise ValueError(f"boxes must be of (south, north, west, east) in degrees, one or more, got {boxes!r}")
    wrong = (sides[:, 0] >= sides[:, 1]) | (sides[:, 2] >= sides[:, 3])
    if wrong.any():
        raise ValueError(f"boxes must reach from south to north and from west to east, got {sides[wrong][0].tolist()}")
    return [(south, north, west, east) for south, north, west, east in sides.tolist()]


def _elapsed(window: Duration, fix_interval: Duration) -> Float[np.ndarray, " obs"]:
    """Return the times of fixes, in seconds from the start."""
    length, interval = seconds_of("window", window), seconds_of("fix_interval", fix_interval)
    if interval > length:
        raise ValueError(f"window must be no shorter than fix_interval, got {window} and {fix_interval}")
    return np.arange(int(length / interval + 1e-9) + 1) * interval


def seconds_of(name: str, duration: Duration, *, zero: bool = False) -> float:
    """Return a duration in seconds: one with a unit, positive, or not negative where it may be `zero`.

    Raises
    ------
    TypeError, ValueError
        If it is not.
    """
    expected = f"{name} must be a duration with a unit, such as '12h', got {duration!r}"
    if not isinstance(duration, Duration):
        raise TypeError(expected)
    # pandas would take bare numbers for nanoseconds.
    if isinstance(duration, np.timedelta64):
        bare = np.datetime_data(duration.dtype)[0] == "generic"
    else:
        bare = isinstance(duration, str) and not any(map(str.isalpha, duration))
    if bare:
        raise ValueError(expected)
    try:
        seconds: float = pd.Timedelta(duration).total_seconds()
    except ValueError as error:
        raise ValueError(expected) from error
    if not (seconds > 0 or (zero and seconds == 0)):
        raise ValueError(f"{name} must be positive, got {duration!r}")
    return seconds


def timedelta_of(name: str, duration: Duration, *, zero: bool = False) -> np.timedelta64:
    """Return a duration to the nanosecond; it raises as `seconds_of` does."""
    return np.timedelta64(round(seconds_of(name, duration, zero=zero) * 1e9), "ns")


def _starts(times: Shaped[np.ndarray, " time"], start: Times | None, length: float) -> Shaped[np.ndarray, " starts"]:
    try:
        starts = np.atleast_1d(times[0] if start is None else np.asarray(start)).astype("datetime64[ns]")
    except (TypeError, ValueError) as error:
        raise ValueError(f"start must be one or more times, got {start!r}") from error
    last = times[-1] - np.timedelta64(round(length * 1e9), "ns")
    wrong = np.isnat(starts) | (starts < times[0]) | (starts > last)
    if starts.ndim != 1 or len(starts) == 0 or wrong.any():
        raise ValueError(
            f"start must leave a window of {length / 86400:g} days within the archive, {times[0]} to {times[-1]}, "
            f"got {starts[wrong][:3] if wrong.any() else starts}"
        )
    return starts


def _labels(archive: xr.Dataset) -> Int[np.ndarray, " members"]:
    """Return the members' labels where they are integers, and their numbers otherwise."""
    labels = archive["member"].values
    return labels.astype(np.int64) if np.issubdtype(labels.dtype, np.integer) else np.arange(len(labels))


def _batches(
    times: Shaped[np.ndarray, " time"], starts: Shaped[np.ndarray, " starts"], length: float, n_members: int
) -> Iterator[tuple[slice, list[int], list[slice]]]:
    """Divide the windows into batches: members, starts whose maps are equally far from them, and those maps."""
    alike = defaultdict(list)
    for number, start in enumerate(starts):
        since_start = (times - start) / np.timedelta64(1, "s")
        before = int(np.searchsorted(since_start, 0, side="right")) - 1
        maps = slice(before, int(np.searchsorted(since_start, length)) + 1)
        alike[since_start[maps].tobytes()].append((number, maps))
    at_once = max(1, _WINDOWS_AT_ONCE // n_members)
    for group in alike.values():
        for first, member in product(range(0, len(group), at_once), range(0, n_members, _WINDOWS_AT_ONCE)):
            numbers, maps = zip(*group[first : first + at_once], strict=True)
            yield slice(member, member + _WINDOWS_AT_ONCE), list(numbers), list(maps)


def _flow_from(archive: xr.Dataset, maps: Sequence[slice], start: np.datetime64) -> GridFlow:
    """Take the maps of windows, starts slowest; seconds count from a window's start, `start` for the first."""
    u, v = (np.concatenate([load_values(archive.isel(time=part), name) for part in maps]) for name in COMPONENTS)
    seconds = (archive["time"].values[maps[0]] - start) / np.timedelta64(1, "s")
    return GridFlow(u + 1j * v, seconds, archive["latitude"].values, archive["longitude"].values)


def _generators(
    seed: int, stream: int, windows: Sequence[tuple[int, np.datetime64]], boxes: Sequence[Box | None]
) -> list[np.random.Generator]:
    nanoseconds = [int(start.astype("datetime64[ns]").astype(np.int64)) for _, start in windows]
    keys = [(member % 2**64, time % 2**64) for (member, _), time in zip(windows, nanoseconds, strict=True)]
    corners: list[list[int]] = [[] if box is None else np.array(box).view(np.uint64).tolist() for box in boxes]
    return [np.random.default_rng([seed, stream, *key, *corner]) for key in keys for corner in corners]


def _with_errors(
    path: Float[np.ndarray, "windows n 2 obs"], position_error: float, generators: Sequence[np.random.Generator]
) -> Float[np.ndarray, "windows n 2 obs"]:
    metres = position_error * np.stack([generator.standard_normal(path.shape[1:]) for generator in generators])
    north, east = metres[:, :, 0] / METRES_PER_DEGREE, metres[:, :, 1] / metres_per_degree_east(path[:, :, 0])
    fixes: np.ndarray = path + np.stack([north, east], 2)
    return fixes


def _tracks(
    paths: Float[np.ndarray, "members starts n 2 obs"],
    fate: Int[np.ndarray, "members starts boxes drifters"],
    starts: Shaped[np.ndarray, " starts"],
    elapsed: Float[np.ndarray, " obs"],
    position_error: float,
) -> xr.Dataset:
    latitude, longitude = (paths[:, :, :, k].reshape(-1, len(elapsed)) for k in (0, 1))
    begin = np.broadcast_to(starts[:, None, None], fate.shape).reshape(-1)
    seen = np.isfinite(latitude)
    time = begin[:, None] + np.round(elapsed * 1e9).astype("timedelta64[ns]")
    fixes = {
        "time": np.where(seen, time, np.datetime64("NaT")),
        "latitude": latitude,
        "longitude": longitude,
        "position_error": np.where(seen, position_error, np.nan),
    }
    return padded_tracks(fixes, np.arange(len(latitude))).assign(
        fate=("trajectory", fate.reshape(-1), _FATE_ATTRIBUTES),
        start=("trajectory", begin, {"long_name": "first time of the window"}),
    )


_FATE_ATTRIBUTES = {
    "long_name": "what became of the drifter",
    "flag_values": np.array([fate.value for fate in Fate], np.int8),
    "flag_meanings": " ".join(fate.name.lower() for fate in Fate),
}
