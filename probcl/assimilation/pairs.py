"""Pairs to learn from: windows of an archive, and the tracks that drifters would leave in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from probcl.assimilation.archive import Archive
from probcl.assimilation.fields import FieldPrior, window_index, windows_at
from probcl.assimilation.mosaics import Mosaic, Region
from probcl.assimilation.segments import Segments
from probcl.assimilation.simulation import SIMULATING, Duration, seconds_of, timedelta_of
from probcl.assimilation.tokens import WIDTH, Tokenizer
from probcl.assimilation.tracking import Track, untracked
from probcl.checks import require_count
from probcl.training.pairs import Batch

# What is so many times more than the most that was learned, or less than the least, is unlike it.
_UNLIKE = 2.0
# Windows that are written in the prior's modes together.
_AT_ONCE = 16_384
# Rounds of a simulation, short ones then, that are progress enough.
_MANY_ROUNDS = 10


@dataclass(frozen=True)
class Campaign:
    """How currents are observed.

    Parameters
    ----------
    window
        Length of a window of observations; the analysis is of its middle.
    fix_interval
        Time between fixes, or several, of which each window has one.
    n_drifters
        In a window; a pair is a range, within which each window has some number.
    position_error
        Standard deviation of a fix to east and to north, in metres.

    Examples
    --------
    >>> import probcl as pcl
    >>> campaign = pcl.assimilation.Campaign("5D", ["6h", "1D"], n_drifters=(2, 8), position_error=100.0)
    >>> campaign.intervals, campaign.fleet
    (['6h', '1D'], (2, 8))
    """

    window: Duration
    fix_interval: Duration | Sequence[Duration]
    n_drifters: int | tuple[int, int]
    position_error: float

    @property
    def intervals(self) -> list[Duration]:
        """Times between fixes."""
        several = isinstance(self.fix_interval, list | tuple)
        return list(self.fix_interval) if several else [self.fix_interval]  # type: ignore[arg-type, list-item]

    @property
    def fleet(self) -> tuple[int, int]:
        """Fewest and most drifters."""
        low, high = self.n_drifters if isinstance(self.n_drifters, tuple) else (self.n_drifters, self.n_drifters)
        if require_count("n_drifters", low) > require_count("n_drifters", high):
            raise ValueError(f"n_drifters must be a number or an ascending range, got {self.n_drifters}")
        return low, high

    @property
    def length(self) -> np.timedelta64:
        """Length of the window."""
        return timedelta_of("window", self.window)

    @property
    def hours(self) -> list[float]:
        """Times between fixes, in hours."""
        return [seconds_of("fix_interval", interval) / 3600 for interval in self.intervals]

    def __str__(self) -> str:
        (low, high), every = self.fleet, ", ".join(f"{hours:g}" for hours in self.hours)
        drifters = f"{high} drifters" if low == high else f"{low}–{high} drifters"
        return f"{drifters}, {self.length / np.timedelta64(1, 'D'):g} days of fixes every {every} h"

    def unlike(self, observed: Segments) -> str:
        """Return in what the tracks of a window differ from those learned, in words; nothing if they are alike.

        They differ if the number of drifters, the median time between fixes or the median error of a fix is twice the
        most that was learned or more, or half of the least or less.

        Parameters
        ----------
        observed
            Segments of the window, read with ``error_floor=0``.
        """
        count = len(np.unique(observed.trajectory))
        fix_error = observed.error * observed.duration / np.sqrt(2)
        differences = [
            _difference("{} drifter" if count == 1 else "{} drifters", count, self.fleet),
            _difference("fixes every {} hours", float(np.median(observed.duration)) / 3600, self.hours),
            _difference("fixes with errors of {} m", float(np.median(fix_error)), [self.position_error]),
        ]
        return ", ".join(filter(None, differences))

    def starts(self, archive: Archive) -> Any:
        """Return the first times of all windows that an archive covers, centred at its maps."""
        half = self.length // 2
        times = archive.times
        return times[(times - half >= times[0]) & (times - half + self.length <= times[-1])] - half


def _difference(what: str, found: float, learned: Sequence[float]) -> str:
    """Return what was found and what was learned, if they are far apart."""
    low, high = min(learned), max(learned)
    if low / _UNLIKE < found < high * _UNLIKE or low <= found <= high:
        return ""
    told, least, most = (
        np.format_float_positional(float(value), 3, fractional=False, trim="-") for value in (found, low, high)
    )
    return f"{what.format(told)} (learned: {least if low == high else f'{least} to {most}'})"


@dataclass(frozen=True, eq=False)
class WindowPairs:
    """Pairs of windows and tracks, and which map of the archive each is about.

    Attributes
    ----------
    x
        Windows in the prior's modes.
    tokens
        Segments of tracks.
    index
        (member, central map).
    """

    x: Float[Tensor, "n rank"]
    tokens: Float[Tensor, "n tokens width"]
    index: Int[np.ndarray, "n 2"]

    @property
    def pairs(self) -> Batch:
        """As `probcl.fit` takes them."""
        return Batch(self.x, self.tokens)

    @property
    def first_of_each(self) -> Int[np.ndarray, " windows"]:
        """Position of the first pair of each window."""
        return np.unique(self.index, axis=0, return_index=True)[1]


def simulate_pairs(
    archive: xr.Dataset | Region | Mosaic,
    prior: FieldPrior,
    campaign: Campaign,
    count: int,
    seed: int = 0,
    held: Archive | None = None,
    track: Track = untracked,
) -> WindowPairs:
    """Simulate tracks through an archive's windows, in rounds with other drifters, until there are so many pairs.

    Every window comes once in a round; rounds take the times between fixes in turn. Windows whose drifters are all lost
    at once stay: no observation is one too. An archive's drifters are lost at its edge, those of a `Mosaic` are seen
    beyond their patch too. `held` is the archive, or the patches, as arrays, where it has been read already. `track`
    tells how far the simulation has come, by rounds if they are many.

    Raises
    ------
    ValueError
        If the archive covers no window.
    """
    source = Region(archive) if isinstance(archive, xr.Dataset) else archive
    held = Archive.of(source.archive) if held is None else held
    index = window_index(held, prior.lags)
    starts = campaign.starts(held)
    centres = np.searchsorted(held.times, starts + campaign.length // 2)
    index = index[np.isin(index[:, 1], centres)]
    require_windows(len(index), campaign, held)
    rounds = max(-(-require_count("count", count) // len(index)), len(campaign.intervals))
    kept = np.random.default_rng([seed, rounds]).permutation(rounds * len(index))[:count]
    x = torch.zeros(len(index), prior.rank)
    # Overlapping patches are many, of which few may be kept.
    for some in np.array_split(np.unique(kept % len(index)), -(-len(kept) // _AT_ONCE)):
        x[some] = torch.from_numpy(prior.encode(windows_at(held, index[some], prior.lags)))
    parts = []
    by_rounds, within = (track, untracked) if rounds >= _MANY_ROUNDS else (untracked, track)
    for number in by_rounds(range(rounds), SIMULATING):
        mine = np.sort(kept[kept // len(index) == number] % len(index))
        if len(mine) == 0:
            continue
        parts.append((mine, _tokens(source, prior, campaign, number, index[mine], held.times, seed, within)))
    order = np.concatenate([mine for mine, _ in parts])
    return WindowPairs(x[order], _stacked([part for _, part in parts]), index[order])


def require_windows(count: int, campaign: Campaign, archive: Archive) -> None:
    """Raise `ValueError` if an archive covers no window of a campaign."""
    if count == 0:
        raise ValueError(
            f"archive must cover a window of {campaign.window} about one of its maps, got {archive.times[0]} to "
            f"{archive.times[-1]}"
        )


def _tokens(
    source: Region | Mosaic,
    prior: FieldPrior,
    campaign: Campaign,
    number: int,
    wanted: Int[np.ndarray, "n 2"],
    times: Any,
    seed: int,
    track: Track,
) -> Float[Tensor, "n tokens width"]:
    """Return the tokens of one round's windows, (member, central map)."""
    low, high = campaign.fleet
    moments = times[wanted[:, 1]]
    tracks, window, drifter = source.release(
        wanted[:, 0],
        moments - campaign.length // 2,
        n_drifters=high,
        window=campaign.window,
        fix_interval=campaign.intervals[number % len(campaign.intervals)],
        position_error=campaign.position_error,
        seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
        track=track,
    )
    fleet = np.random.default_rng([seed, number]).integers(low, high + 1, size=len(wanted))
    taken = drifter < fleet[window]
    return torch.from_numpy(Tokenizer(prior)(tracks.isel(trajectory=taken), window[taken], moments))


def _stacked(parts: Sequence[Float[Tensor, "_ _ width"]]) -> Float[Tensor, "n tokens width"]:
    """Put batches of tokens one under the other, padded to the longest."""
    stacked = torch.zeros(sum(map(len, parts)), max(part.shape[1] for part in parts), WIDTH)
    row = 0
    for part in parts:
        stacked[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return stacked


def truths(archive: Archive, pairs: WindowPairs) -> Float[np.ndarray, "n 2 points"]:
    """Return the maps that pairs are about."""
    maps: np.ndarray = archive.values[pairs.index[:, 0], pairs.index[:, 1]]
    return maps
