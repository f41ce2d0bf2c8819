"""How many windows of an archive are independent, and what fewer of them than modes and pairs mean."""

import warnings
from typing import Any

import numpy as np
import xarray as xr

from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.holdout import decorrelation_time
from probcl.errors import ProbclWarning

# Of one member: fewer show neither how much currents vary nor that held-out windows are others.
_FEWEST = 8.0


def independent_windows(archive: xr.Dataset) -> float:
    """Return about how many independent states an archive of one member goes through.

    One, and one more each time that its currents have decorrelated.
    """
    times = archive["time"].values
    if len(times) == 1:
        return 1.0
    return 1.0 + float((times[-1] - times[0]) / decorrelation_time(archive))


def scarcity(archive: xr.Dataset, prior: FieldPrior, modes: int, pairs: int) -> dict[str, Any]:
    """Return what an archive can teach, as JSON values, and warn if that is little.

    Parameters
    ----------
    archive
        What is learned from. Several members count as enough.
    prior, modes
        Of its currents, and the modes that were asked of it.
    pairs
        Pairs of windows and tracks that are made of it.

    Warns
    -----
    ProbclWarning
        If one member has fewer than eight independent windows.
    """
    told: dict[str, Any] = {"modes_asked": modes, "modes": prior.rank}
    if archive.sizes.get("member", 1) > 1:
        return told
    windows = independent_windows(archive)
    if windows < _FEWEST:
        reduced = f"; {modes} modes were asked for and {prior.rank} are kept" if prior.rank < modes else ""
        times = archive["time"].values
        days = (times[-1] - times[0]) / np.timedelta64(1, "D")
        warnings.warn(
            f"the archive has about {windows:.1f} independent windows, {days:g} days of one member: too few for "
            f"{prior.rank} modes and {pairs} pairs{reduced}. A longer archive, or several members, would say more, and "
            "the spread found on the held-out part is uncertain",
            ProbclWarning,
            stacklevel=3,
        )
    return told | {"independent_windows": windows}
