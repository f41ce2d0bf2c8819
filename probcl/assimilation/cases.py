"""Windows of an archive with the tracks that drifters would leave in them: what methods are judged by."""

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive, require_archive
from probcl.assimilation.baselines.tuning import Case
from probcl.assimilation.pairs import Campaign, require_windows
from probcl.assimilation.simulation import Duration, simulate_tracks
from probcl.assimilation.tracks import has_segment
from probcl.checks import require_count


def simulate_cases(
    archive: xr.Dataset,
    campaign: Campaign,
    windows: int,
    *,
    fix_interval: Duration | None = None,
    n_drifters: int | None = None,
    seed: int = 0,
) -> list[Case]:
    """Simulate tracks through windows of an archive, evenly spread over its members and times.

    Parameters
    ----------
    archive
        Of the form that `require_archive` asks for.
    campaign
        Window and error of the fixes; the first of its times between fixes, and its most drifters, unless given here.
    windows
        How many: all there are, if fewer. In as many windows as members, each member has about one.
    fix_interval, n_drifters
        In place of the campaign's.
    seed
        Of the drifters.

    Returns
    -------
    list of Case
        Without the windows in which no drifter has two fixes, which no method can use.

    Raises
    ------
    TypeError, ValueError
        If the archive is refused or covers no window.
    """
    require_count("windows", windows)
    archive = require_archive(archive)
    held = Archive.of(archive)
    members = archive if "member" in archive.dims else archive.expand_dims("member")
    starts = campaign.starts(held)
    require_windows(len(starts), campaign, held)
    total = len(held.values) * len(starts)
    chosen = np.unique(np.linspace(0, total - 1, min(windows, total)).round().astype(int))
    drifters = campaign.fleet[1] if n_drifters is None else require_count("n_drifters", n_drifters)
    found: dict[int, Case] = {}
    for start in np.unique(chosen % len(starts)):
        here = chosen[chosen % len(starts) == start]
        part = members.isel(member=here // len(starts))
        tracks = simulate_tracks(
            part,
            n_drifters=drifters,
            window=campaign.window,
            fix_interval=campaign.intervals[0] if fix_interval is None else fix_interval,
            position_error=campaign.position_error,
            start=starts[start],
            seed=seed,
        )
        time = starts[start] + campaign.length // 2
        truths = part.sel(time=time)
        for row, number in enumerate(here.tolist()):
            mine = tracks.isel(trajectory=slice(row * drifters, (row + 1) * drifters))
            found[number] = Case(mine, time, truths.isel(member=row, drop=True))
    return [found[number] for number in chosen.tolist() if has_segment(found[number].tracks)]
