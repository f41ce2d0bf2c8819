"""Choosing among settings by what counts: the score on windows of the training archive."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
import xarray as xr

from probcl.assimilation import scores
from probcl.assimilation.archive import COMPONENTS
from probcl.assimilation.baselines.base import Baseline, Method, Moment


class Case(NamedTuple):
    """Tracks, the time of the analysis, and the true `u`, `v` (latitude, longitude) then.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Case
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(2, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> case = Case(tracks, archive.time.values[1], archive.isel(member=0, time=1))
    >>> sorted(case.truth.data_vars)
    ['u', 'v']
    """

    tracks: xr.Dataset
    time: Moment
    truth: xr.Dataset


class Tuned(NamedTuple):
    """The name of the best setting, and the mean fair CRPS of each, in m/s.

    Examples
    --------
    >>> from probcl.assimilation.baselines import Tuned
    >>> Tuned(best="30 analogs", crps={"10 analogs": 0.12, "30 analogs": 0.11}).best
    '30 analogs'
    """

    best: str
    crps: dict[str, float]


def tune(methods: Mapping[str, Baseline], cases: Sequence[Case], members: int = 30, seed: int = 0) -> Tuned:
    """Find the fitted method with the least mean fair CRPS on cases that are not the test's.

    What a pseudo-velocity is worth depends on the interval between fixes, so that `error_floor` above all wants tuning
    to the tracks at hand; the taper's radius and the number of analogs do as well.

    Parameters
    ----------
    methods
        Fitted methods, by name: one for each setting.
    cases
        Tracks simulated through the training archive, with the maps they were to find.
    members, seed
        Of the analyses.

    Raises
    ------
    ValueError
        If there are no methods or no cases.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Analogs, Case, tune
    >>> from probcl.datasets.ocean import Vortices
    >>> world = Vortices(1)
    >>> archive, other = world.archive(20, [0, 2.5, 5]), world.archive(1, [0, 2.5, 5], first_member=1000)
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     other, n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> cases = [Case(tracks, other.time.values[1], other.isel(member=0, time=1)[["u", "v"]])]
    >>> methods = {f"{k} analogs": Analogs(k).fit(archive) for k in (5, 10)}
    >>> tune(methods, cases, members=5).best in methods
    True
    """
    if not methods or not cases:
        raise ValueError(f"tune needs methods and cases, got {len(methods)} and {len(cases)}")
    crps = {name: _mean_crps(method, cases, members, seed) for name, method in methods.items()}
    return Tuned(min(crps, key=crps.__getitem__), crps)


def tune_setting(
    method: Method, setting: str, values: Sequence[float], cases: Sequence[Case], members: int = 30, seed: int = 0
) -> Method:
    """Return a copy of a fitted method with the value of one attribute, such as `error_floor`, that `tune` finds best.

    For attributes that only `analyse` reads: nothing is fitted again.

    Raises
    ------
    ValueError
        If the method has no such attribute, or as `tune` does.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Analogs, Case, tune_setting
    >>> from probcl.datasets.ocean import Vortices
    >>> world = Vortices(1)
    >>> archive, other = world.archive(20, [0, 2.5, 5]), world.archive(1, [0, 2.5, 5], first_member=1000)
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     other, n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> cases = [Case(tracks, other.time.values[1], other.isel(member=0, time=1)[["u", "v"]])]
    >>> tune_setting(Analogs().fit(archive), "neighbours", [5, 10], cases, members=5).neighbours in (5, 10)
    True
    """
    if not hasattr(method, setting):
        raise ValueError(f"setting must be an attribute of {type(method).__name__}, got {setting!r}")
    variants = {}
    for value in values:
        variants[f"{value:g}"] = copy(method)
        setattr(variants[f"{value:g}"], setting, value)
    return variants[tune(variants, cases, members, seed).best]


def _mean_crps(method: Baseline, cases: Sequence[Case], members: int, seed: int) -> float:
    found = []
    for k, case in enumerate(cases):
        analysis = method.analyse(case.tracks, case.time, members, seed + k)
        ensemble, truth = (
            np.stack([part[name].values[..., method.grid.ocean] for name in COMPONENTS], axis=-2)
            for part in (analysis, case.truth)
        )
        found.append(scores.fair_crps(ensemble.reshape(1, members, -1), truth.reshape(1, -1))[0])
    return float(np.mean(found))
