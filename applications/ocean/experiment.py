"""Learn, judge beside the classical methods, and analyse one window to look at."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from applications.ocean.config import Config
from applications.ocean.worlds import Archives
from applications.tables import Row
from probcl.assimilation import Assimilator, Evaluation, evaluate, fit_baselines
from probcl.assimilation.baselines import Case, OptimalInterpolation, tune_setting
from probcl.assimilation.cases import simulate_cases
from probcl.assimilation.evaluation import Analyst
from probcl.assimilation.suite import FLOORS, Suite

INTERPOLATION = "OI, stream function"
_ENDS = ("value", "low", "high")
_TUNING_WINDOWS = 12


@dataclass(frozen=True, eq=False)
class Learned:
    """An assimilator, and how long it took to fit."""

    assimilator: Assimilator
    seconds: float

    @property
    def name(self) -> str:
        """As in the table."""
        return f"probcl {self.assimilator.route.name}"


@dataclass(frozen=True, eq=False)
class Example:
    """One window: its tracks and truth, and what is made of them."""

    case: Case
    learned: xr.Dataset
    interpolated: xr.Dataset


def learn(archives: Archives, config: Config) -> Learned:
    """Fit an assimilator."""
    began = time.perf_counter()
    training: dict[str, Any] = {} if config.epochs is None else {"epochs": config.epochs}
    assimilator = Assimilator.fit(
        archives.train,
        window=config.window,
        fix_interval=list(config.trained_intervals),
        n_drifters=config.trained_drifters,
        position_error=config.position_error,
        method=config.method,
        rank=config.rank,
        pairs=config.pairs,
        gap=config.gap,
        seed=config.seed,
        **training,
    )
    return Learned(assimilator, time.perf_counter() - began)


def fit_classical(learned: Learned, config: Config) -> Suite:
    """Fit the classical methods to what the assimilator was trained on, and tune them to the tracks of the table."""
    archive = learned.assimilator.archive
    if archive is None:
        raise ValueError("learned must have its archive, got an assimilator that was loaded")
    return fit_baselines(
        archive,
        config.campaign,
        fix_interval=config.fix_interval,
        n_drifters=config.n_drifters,
        smoother=config.smoother,
        tuning_windows=config.tuning_windows,
        seed=config.seed,
    )


def judge(learned: Learned, suite: Suite, test: xr.Dataset, config: Config) -> Evaluation:
    """Make the table."""
    return learned.assimilator.evaluate(
        test,
        baselines=suite.methods,
        gap=config.gap,
        seed=config.seed,
        windows=config.windows,
        members=config.members,
        fix_interval=config.fix_interval,
        n_drifters=config.n_drifters,
        train_seconds=suite.train_seconds | {learned.name: learned.seconds},
    )


def sweep(learned: Learned, suite: Suite, test: xr.Dataset, config: Config) -> list[Row]:
    """Score the assimilator and optimal interpolation over times between fixes, and over numbers of drifters."""
    settings = [("interval", interval, config.n_drifters) for interval in config.swept_intervals]
    settings += [("drifters", config.fix_interval, count) for count in config.swept_drifters]
    rows: list[Row] = []
    for what, interval, count in settings:
        methods: Mapping[str, Analyst] = {
            INTERPOLATION: _interpolation(learned, suite, config, interval, count),
            learned.name: learned.assimilator,
        }
        found = evaluate(
            methods,
            test,
            config.campaign,
            windows=config.swept_windows,
            members=config.members,
            seed=config.seed,
            fix_interval=interval,
            n_drifters=count,
        )
        for name in methods:
            row: dict[str, str | float] = {"swept": what, "fix interval": interval, "drifters": count, "method": name}
            for score in ("nrmse", "crps"):
                row |= {f"{score} {end}".removesuffix(" value"): found.table.loc[name, (score, end)] for end in _ENDS}
            rows.append(row)
    return rows


def _interpolation(
    learned: Learned, suite: Suite, config: Config, interval: str, drifters: int
) -> OptimalInterpolation:
    """Tune optimal interpolation's error floor to these tracks, on windows that it was not fitted to if there are."""
    archive = learned.assimilator.archive
    method = suite.methods[INTERPOLATION]
    if archive is None or not isinstance(method, OptimalInterpolation):
        raise ValueError("learned must have its archive, and suite an optimal interpolation")
    aside = archive.isel(member=slice(-_TUNING_WINDOWS, None)) if "member" in archive.dims else archive
    cases = simulate_cases(
        aside, config.campaign, _TUNING_WINDOWS, fix_interval=interval, n_drifters=drifters, seed=config.seed + 1
    )
    return tune_setting(method, "error_floor", FLOORS, cases, seed=config.seed)


def example(learned: Learned, suite: Suite, test: xr.Dataset, config: Config) -> Example:
    """Analyse the first window in which no drifter is lost, or the first of all."""
    cases = simulate_cases(
        test,
        config.campaign,
        config.windows,
        fix_interval=config.fix_interval,
        n_drifters=config.n_drifters,
        seed=config.seed,
    )
    case = next((case for case in cases if _whole(case.tracks)), cases[0])
    return Example(
        case,
        learned.assimilator.analyse(case.tracks, case.time, config.members, config.seed),
        suite.methods[INTERPOLATION].analyse(case.tracks, case.time, config.members, config.seed),
    )


def _whole(tracks: xr.Dataset) -> bool:
    return bool(np.isfinite(tracks["latitude"].values).all())
