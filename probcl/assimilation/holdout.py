"""The part of an archive that calibration is done on, and the refusal of tests on what was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive, require_archive
from probcl.assimilation.simulation import Duration, timedelta_of


@dataclass(frozen=True, eq=False)
class Holdout:
    """An archive in two parts."""

    train: xr.Dataset
    held_out: xr.Dataset
    whole: xr.Dataset
    """Both, and the gap between them."""


def hold_out(
    archive: xr.Dataset, fraction: float, gap: Duration, window: np.timedelta64, first: bool = False
) -> Holdout:
    """Set the last members of an archive aside or, of one member, its last times and a gap before them.

    With `first` they are the first members, or the first times and a gap after them.

    Raises
    ------
    ValueError
        If `fraction` is not within (0, 1), either part would have no window, or the gap is shorter than the currents
        are correlated.
    """
    archive = require_archive(archive)
    if not 0 < fraction < 1:
        raise ValueError(f"held_out must be within (0, 1), got {fraction}")
    count = archive.sizes.get("member", 1)
    if "member" in archive.dims and "member" not in archive.coords:
        # The parts must know which members they are.
        archive = archive.assign_coords(member=np.arange(count))
    if count > 1:
        kept = count - max(1, round(fraction * count))
        aside = np.arange(count) < count - kept if first else np.arange(count) >= kept
        return Holdout(archive.isel(member=~aside), archive.isel(member=aside), archive)
    times = archive["time"].values
    if len(times) == 1:
        raise ValueError("archive must have several members or times to hold some out, got one of each")
    # A step more than a window, so that there is a map in the middle of one.
    length = max(window + np.diff(times).max(), (times[-1] - times[0]) * fraction)
    apart = timedelta_of("gap", gap, zero=True)
    away = times - times[0] if first else times[-1] - times
    train, held_out = archive.isel(time=away >= length + apart), archive.isel(time=away <= length)
    if train.sizes["time"] == 0 or np.ptp(train["time"].values) < window:
        raise ValueError(
            f"archive must be longer than its held-out part, the gap of {gap} and a window of {_days(window)}, got "
            f"{_days(times[-1] - times[0])}; use a smaller gap if the currents decorrelate faster"
        )
    memory = decorrelation_time(train)
    if apart < memory:
        raise ValueError(f"gap must be no less than the currents' decorrelation time, {_days(memory)}, got {gap}")
    return Holdout(train, held_out, archive)


def decorrelation_time(archive: xr.Dataset) -> np.timedelta64:
    """Return the first lag at which the autocorrelation of an archive's currents is below 1/e.

    Of maps in succession, about their mean in time; the archive's whole length if there is no such lag.
    """
    held = Archive.of(archive)
    anomalies = held.values - held.values.mean(1, keepdims=True)
    power = np.square(anomalies).mean()
    for step in range(1, len(held.times)):
        lagged = (anomalies[:, step:] * anomalies[:, :-step]).mean()
        if lagged < power / np.e:
            return np.timedelta64(held.times[step] - held.times[0])
    return np.timedelta64(held.times[-1] - held.times[0])


def record_of(archive: xr.Dataset) -> dict[str, Any]:
    """Return which part of a world an archive is, as JSON values: first and last time, maps, members if it has any."""
    times = archive["time"].values
    record: dict[str, Any] = {"times": [str(times[0]), str(times[-1])], "maps": len(times)}
    return record | ({"members": archive["member"].values.tolist()} if "member" in archive.dims else {})


def require_apart(test: xr.Dataset, record: Mapping[str, Any], gap: Duration) -> None:
    """Raise `ValueError` if a test archive has what an assimilator was fitted on: a member at times within `gap`.

    Parameters
    ----------
    test
        The archive to be tested on.
    record
        As `Assimilator.record`: `record_of` what was trained on, and of what calibration and choice were made on.
    gap
        How far apart in time the currents of one member must be.
    """
    test = require_archive(test, "test")
    times, apart = test["time"].values, timedelta_of("gap", gap, zero=True)
    for part, what in (("trained_on", "trained on"), ("held_out", "calibrated on")):
        first, last = (np.datetime64(time, "ns") for time in record[part]["times"])
        near = (times > first - apart) & (times < last + apart)
        shared = _shared(test, record[part].get("members"))
        if near.any() and shared != []:
            whose = "" if shared is None else f"member {shared[0]} and {len(shared) - 1} others that were, with "
            raise ValueError(
                f"test must be of other members than were {what}, or at least gap={gap} from {first} to {last}, got "
                f"{whose}{int(near.sum())} times that are not, the first {times[near][0]}; the evaluation takes a `gap`"
            )


def _shared(test: xr.Dataset, known: Sequence[Any] | None) -> list[Any] | None:
    """Return which members of the test are known, None if that cannot be told."""
    if "member" not in test.dims or known is None:
        return None
    labels = test["member"].values if "member" in test.coords else np.arange(test.sizes["member"])
    found: list[Any] = labels[np.isin(labels, known)].tolist()
    return found


def _days(duration: np.timedelta64) -> str:
    return f"{duration / np.timedelta64(1, 'D'):g} days"
