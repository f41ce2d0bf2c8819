"""The classical methods, fitted to an archive and tuned on its own windows: the rows beside a learned one."""

import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive, require_archive
from probcl.assimilation.baselines import (
    ETKF,
    Analogs,
    Baseline,
    Climatology,
    EnsembleOptimalInterpolation,
    EnsembleSmoother,
    OptimalInterpolation,
)
from probcl.assimilation.baselines.tuning import tune_setting
from probcl.assimilation.cases import simulate_cases
from probcl.assimilation.pairs import Campaign
from probcl.assimilation.patches import patches
from probcl.assimilation.prediction import predict_tracks
from probcl.assimilation.simulation import Duration
from probcl.checks import require_count

# Members of the archive that all but climatology and analogs are fitted to: their covariances gain little from more.
_MEMBERS = 1000
_WINDOWS, _TUNING_MEMBERS = 24, 30
FLOORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
"""Error floors to choose among, in m/s."""
_UNTUNED_FLOOR = 0.1
# The smoother takes ten times as long as the others.
_SMOOTHER_WINDOWS, _ENSEMBLE = 8, 60
_MODEL_ERRORS = (300.0, 3000.0, 10_000.0)
# In m/s.
_FASTEST = 5.0
_NEIGHBOURS = (10, 30, 100)
# The taper reaches zero at these parts of the grid's diagonal.
_REACHES = (0.15, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Suite:
    """Fitted baselines.

    Attributes
    ----------
    methods
        By the names of their rows.
    train_seconds
        Of fitting and tuning, by name.
    chosen
        The settings that tuning chose, by name.
    """

    methods: dict[str, Baseline] = field(default_factory=dict)
    train_seconds: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)


def fit_baselines(
    archive: xr.Dataset,
    campaign: Campaign,
    *,
    fix_interval: Duration | None = None,
    n_drifters: int | None = None,
    smoother: bool = True,
    etkf: bool = False,
    tuning_windows: int = _WINDOWS,
    patch: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> Suite:
    """Fit the classical methods to a training archive, and tune them to the tracks at hand on its windows.

    Climatology; optimal interpolation with the covariance of a stream function and with an isotropic one; ensemble
    optimal interpolation, localised; the ensemble smoother on the tracks, of 60 members; analogs. Hyper-parameters of
    the covariances are the likeliest. Error floor, taper, number of analogs and model error are those of least CRPS on
    `tuning_windows` windows (8 for the smoother), with tracks as in the evaluation. Those windows are of members that
    nothing is fitted to; of an archive of one member, or of patches of one, they are of the days that are fitted to,
    and EnOI and analogs, which would find themselves there, are not tuned.

    Covariances and ensembles are of 1000 members, evenly chosen, if there are more; climatology and analogs are of all.

    Parameters
    ----------
    archive
        As `Assimilator.fit` takes it, and no part of the test.
    campaign, fix_interval, n_drifters
        The tracks to be analysed, as in `evaluate`.
    smoother
        Whether to fit the ensemble smoother, which takes longest by far.
    etkf
        Whether to fit DAPPER's ETKF as well, which the extra ``probcl[dapper]`` installs. It is not localised.
    tuning_windows
        How many to tune on, at least one. Optimal interpolation takes seconds for each where segments are thousands.
    patch
        Cells of the patches to fit to and to tune on, if methods are to be of `patches` of the archive.
    seed
        Of the drifters that tuning is done on, and of fits.

    Raises
    ------
    ImportError
        If the ETKF is asked for and DAPPER is not installed.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.datasets.ocean import Box, Vortices
    >>> archive = Vortices(1, Box(n=8, size=160e3)).archive(30, [0, 2.5, 5])
    >>> campaign = pcl.assimilation.Campaign(window="5D", fix_interval="1D", n_drifters=3, position_error=100.0)
    >>> suite = pcl.assimilation.fit_baselines(archive, campaign, smoother=False)
    >>> list(suite.methods)
    ['climatology', 'OI, stream function', 'OI, isotropic', 'EnOI, localised', 'analogs']
    """
    archive = require_archive(archive)
    rest, aside = _set_aside(archive)
    count = require_count("tuning_windows", tuning_windows)
    cases = simulate_cases(
        aside, campaign, count, fix_interval=fix_interval, n_drifters=n_drifters, patch=patch, seed=seed + 1
    )
    rest = rest if patch is None else patches(rest, patch)
    suite = Suite()
    # Patches are members of the same days, and overlap.
    shared = archive.sizes.get("member", 1) == 1 or "patch_latitude" in archive.coords
    fits = _fits(Archive.of(rest), Archive.of(_fewer(rest)), smoother, etkf, seed, shared)
    began = clock.perf_counter()
    for name, method, settings in fits:
        suite.chosen[name] = {}
        mine = cases[:_SMOOTHER_WINDOWS] if isinstance(method, EnsembleSmoother) else cases
        for setting, values in settings.items():
            method = tune_setting(method, setting, values, mine, _TUNING_MEMBERS, seed)
            suite.chosen[name][setting] = getattr(method, setting)
        suite.methods[name] = method
        suite.train_seconds[name] = clock.perf_counter() - began
        began = clock.perf_counter()
    return suite


def _fits(
    whole: Archive, part: Archive, smoother: bool, etkf: bool, seed: int, shared: bool
) -> Iterator[tuple[str, Baseline, dict[str, Sequence[float]]]]:
    """Yield names, fitted methods, and the settings to tune one after the other; none needs another fit."""
    radii = [reach * whole.grid.diagonal for reach in _REACHES]
    # Missing software is told before anything is tuned.
    transform = [ETKF(error_floor=_UNTUNED_FLOOR)] if etkf else []
    yield "climatology", Climatology().fit_to(whole), {}
    for kind in ("stream function", "isotropic"):
        yield f"OI, {kind}", OptimalInterpolation(kind, seed=seed).fit_to(part), {"error_floor": FLOORS}
    # On windows of its own days a method would find these, and tuning would trust it.
    localised = EnsembleOptimalInterpolation(radius=radii[0] if shared else radii[-1], error_floor=_UNTUNED_FLOOR)
    yield "EnOI, localised", localised.fit_to(part), {} if shared else {"radius": radii, "error_floor": FLOORS}
    for method in transform:
        # The windows that it is tuned on may be among its own, as for EnOI.
        yield "ETKF", method.fit_to(part), {} if shared else {"error_floor": FLOORS}
    if smoother:
        smoothing = EnsembleSmoother(_advection, ensemble=_ENSEMBLE, radius=radii[-1]).fit_to(part)
        # Few windows make a covariance that only a short taper keeps from diverging.
        taper = {"radius": radii} if shared else {}
        yield "ensemble smoother", smoothing, {**taper, "model_error": _MODEL_ERRORS}
    neighbours = [count for count in _NEIGHBOURS if count <= len(whole.maps)]
    if neighbours:
        tuned = {} if shared else {"error_floor": FLOORS, "neighbours": neighbours}
        yield "analogs", Analogs(neighbours[len(neighbours) // 2]).fit_to(whole), tuned


def _advection(fields: xr.Dataset, tracks: xr.Dataset) -> xr.Dataset:
    """Predict tracks in members whose speeds an update may have driven beyond those of any ocean."""
    return predict_tracks(fields.clip(-_FASTEST, _FASTEST), tracks)


def _set_aside(archive: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return what to fit to, and what to tune on: other members, where there are several."""
    count = archive.sizes.get("member", 1)
    if count == 1:
        return archive, archive
    kept = count - min(_WINDOWS, max(1, count // 4))
    return archive.isel(member=slice(kept)), archive.isel(member=slice(kept, None))


def _fewer(archive: xr.Dataset) -> xr.Dataset:
    if archive.sizes.get("member", 1) <= _MEMBERS:
        return archive
    return archive.isel(member=np.linspace(0, archive.sizes["member"] - 1, _MEMBERS).round().astype(int))
