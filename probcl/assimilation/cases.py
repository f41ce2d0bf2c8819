"""Windows of an archive with the tracks that drifters would leave in them: what methods are judged by."""

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive, require_archive
from probcl.assimilation.baselines.tuning import Case
from probcl.assimilation.mosaics import source_of
from probcl.assimilation.pairs import Campaign, require_windows
from probcl.assimilation.segments import near, segments
from probcl.assimilation.simulation import Duration
from probcl.assimilation.tracks import has_segment
from probcl.checks import require_count


def simulate_cases(
    archive: xr.Dataset,
    campaign: Campaign,
    windows: int,
    *,
    fix_interval: Duration | None = None,
    n_drifters: int | None = None,
    patch: int | tuple[int, int] | None = None,
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
    patch
        Cells of the patches that the cases are of, as for `patches`, and in whose frame they are: drifters start in
        the patch, and go on in the whole archive.
    seed
        Of the drifters.

    Returns
    -------
    list of Case
        Without the windows in which no drifter has two fixes, or none near the patch (`segments.near`), which no
        method can use.

    Raises
    ------
    TypeError, ValueError
        If the archive is refused or covers no window.
    """
    require_count("windows", windows)
    archive = require_archive(archive)
    source = source_of(archive, patch)
    held = Archive.of(source.archive)
    members = source.archive if "member" in source.archive.dims else source.archive.expand_dims("member")
    starts = campaign.starts(held)
    require_windows(len(starts), campaign, held)
    total = len(held.values) * len(starts)
    chosen = np.unique(np.linspace(0, total - 1, min(windows, total)).round().astype(int))
    found: dict[int, Case] = {}
    for start in np.unique(chosen % len(starts)):
        here = chosen[chosen % len(starts) == start]
        tracks, window, _ = source.release(
            here // len(starts),
            np.repeat(starts[start], len(here)),
            n_drifters=campaign.fleet[1] if n_drifters is None else require_count("n_drifters", n_drifters),
            window=campaign.window,
            fix_interval=campaign.intervals[0] if fix_interval is None else fix_interval,
            position_error=campaign.position_error,
            seed=seed,
        )
        time = starts[start] + campaign.length // 2
        truths = members.isel(member=here // len(starts)).sel(time=time)
        for row, number in enumerate(here.tolist()):
            found[number] = Case(tracks.isel(trajectory=window == row), time, truths.isel(member=row, drop=True))
    return [found[number] for number in chosen.tolist() if _is_observed(found[number].tracks, held)]


def _is_observed(tracks: xr.Dataset, archive: Archive) -> bool:
    return has_segment(tracks) and (
        not archive.of_patches or bool(near(segments(tracks, error_floor=0.0), archive.grid).any())
    )
