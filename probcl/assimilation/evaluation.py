"""The table of an evaluation: methods given the same tracks, scored against the same truths."""

import time as clock
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from jaxtyping import Float, Int

from probcl.assimilation import scores
from probcl.assimilation.archive import COMPONENTS
from probcl.assimilation.baselines.base import Moment
from probcl.assimilation.baselines.tuning import Case
from probcl.assimilation.cases import simulate_cases
from probcl.assimilation.measures import resolution, spread_and_error
from probcl.assimilation.pairs import Campaign
from probcl.assimilation.patches import patches
from probcl.assimilation.scorecard import scores_of
from probcl.assimilation.scores import Estimate
from probcl.assimilation.simulation import Duration
from probcl.assimilation.verification import Verification
from probcl.checks import require_count
from probcl.errors import ProbclWarning

_BINS = 10

COLUMNS = {
    "nrmse": "nRMSE",
    "correlation": "correlation",
    "crps": "CRPS (m/s)",
    "spread_skill": "spread/skill",
    "coverage90": "90% coverage",
    "resolution": "resolution (km)",
    "train_seconds": "train (s)",
    "milliseconds": "ms per case",
}
"""Columns of `Evaluation.table`, and their headings in Markdown."""


@runtime_checkable
class Analyst(Protocol):
    """What can be evaluated: an `Assimilator`, a baseline, or a method of your own."""

    def analyse(self, tracks: xr.Dataset, time: Moment, members: int, seed: int = 0) -> xr.Dataset:
        """Return an ensemble of maps at a time, given tracks, as `baselines.Baseline.analyse` does."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    table
        A row for each method. Columns have two levels: a score (`COLUMNS`), and ``value``, ``low`` and ``high``, the
        ends of a 95% bootstrap interval over windows. Effective resolution is in km, infinite where not even the
        longest wavelength is resolved.
    ranks
        How often the truth falls in each tenth of the ranks of each method's members: .1 if calibrated.
    spread_error
        For each method ten pairs of spread and RMSE, in m/s, over the tenths of all values that have the least spread,
        the next, and so on: equal if the spread tells where errors are large.
    settings
        What was asked for: the times between fixes, the number of drifters, windows and members, and the seed.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Climatology
    >>> from probcl.datasets.ocean import Vortices
    >>> world = Vortices(1)
    >>> climatology = Climatology().fit(world.archive(20, [0, 2.5, 5]))
    >>> campaign = pcl.assimilation.Campaign(window="5D", fix_interval="12h", n_drifters=4, position_error=100.0)
    >>> test = world.archive(4, [0, 2.5, 5], first_member=1000)
    >>> result = pcl.assimilation.evaluate({"climatology": climatology}, test, campaign, members=10)
    >>> result.values.index.tolist(), result.ranks["climatology"].shape
    (['climatology'], (10,))
    """

    table: pd.DataFrame
    ranks: Mapping[str, Float[np.ndarray, " bins"]]
    spread_error: Mapping[str, Float[np.ndarray, "bins 2"]]
    settings: Mapping[str, Any]

    @property
    def values(self) -> pd.DataFrame:
        """The scores without their intervals."""
        return self.table.xs("value", axis=1, level=1)

    def to_markdown(self) -> str:
        """Return the table as Markdown, each score with its interval."""
        lines = [["method", *COLUMNS.values()], ["---", *["--:"] * len(COLUMNS)]]
        for name, row in self.table.iterrows():
            lines.append([str(name).replace("|", "\\|"), *(_cell(*row[column]) for column in COLUMNS)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"Evaluation({said})\n{self.values.rename(columns=COLUMNS).to_string(float_format=_shown, na_rep='–')}"


def evaluate(
    methods: Mapping[str, Analyst],
    test: xr.Dataset,
    campaign: Campaign,
    *,
    windows: int = 200,
    members: int = 50,
    seed: int = 0,
    fix_interval: Duration | None = None,
    n_drifters: int | None = None,
    patch: int | tuple[int, int] | None = None,
    climatology: xr.Dataset | None = None,
    train_seconds: Mapping[str, float] | None = None,
) -> Evaluation:
    """Simulate tracks through windows of a test archive, let every method analyse them, and score what it finds.

    All methods see the same tracks. Windows in which no drifter has two fixes are left out.

    Of patches, drifters start in the patch and go on in the whole archive. What counts are the segments whose start,
    middle or end is within one of the patch's sides of it; windows without any are left out. Learned methods and
    optimal interpolation use all of these, methods that interpolate the archive's maps those whose middle is within
    half a cell of the patch, and the ensemble smoother the fixes that are.

    Parameters
    ----------
    methods
        By the names that their rows will have; fitted, and not to the test archive.
    test
        An archive that no method has seen.
    campaign
        Window and error of the fixes; the first of its times between fixes and its most drifters, unless given here.
    windows
        How many, evenly spread over the members and times of `test`: all it has, if fewer.
    members
        Of each ensemble.
    seed
        Of the drifters and of the analyses.
    fix_interval, n_drifters
        In place of the campaign's.
    patch
        Cells on a side, or rows and columns, of the patches of `test` to be analysed, if methods are of `patches`.
    climatology
        `u`, `v` (latitude, longitude), from which anomalies are taken for the pattern correlation; the mean of the
        test archive unless given.
    train_seconds
        How long methods took to fit, by name, to go into the table.

    Raises
    ------
    TypeError, ValueError
        If there are no methods, the test archive is refused, it covers fewer than two windows, or a method's maps are
        on another grid.

    Warns
    -----
    ProbclWarning
        Once for each method with analyses that warned, as a learned one does if its posterior has collapsed.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Climatology, OptimalInterpolation
    >>> from probcl.datasets.ocean import Vortices
    >>> world = Vortices(1)
    >>> archive, test = world.archive(20, [0, 2.5, 5]), world.archive(4, [0, 2.5, 5], first_member=1000)
    >>> methods = {"climatology": Climatology().fit(archive), "OI": OptimalInterpolation(shape="gaussian").fit(archive)}
    >>> campaign = pcl.assimilation.Campaign(window="5D", fix_interval="12h", n_drifters=8, position_error=100.0)
    >>> result = pcl.assimilation.evaluate(methods, test, campaign, members=10)
    >>> result.values.index.tolist(), result.settings["n_drifters"]
    (['climatology', 'OI'], 8)
    """
    if not methods:
        raise ValueError("methods must have one or more, got none")
    require_count("members", members, minimum=2)
    cases = simulate_cases(
        test, campaign, windows, fix_interval=fix_interval, n_drifters=n_drifters, patch=patch, seed=seed
    )
    if len(cases) < 2:
        raise ValueError(f"test must cover two windows with fixes or more, got {len(cases)}")
    reference = _mean_of(test if patch is None else patches(test, patch)) if climatology is None else climatology
    seconds = train_seconds or {}
    truths = [case.truth for case in cases]
    rows: dict[str, dict[str, Estimate]] = {}
    ranks, spread_error = {}, {}
    for name, method in methods.items():
        analyses, milliseconds = _analyse(name, method, cases, members, seed)
        found = Verification(analyses, truths)
        known = float(seconds.get(name, np.nan))
        rows[name] = {
            **scores_of(found, reference, seed=seed),
            "resolution": resolution(found, seed=seed),
            "train_seconds": Estimate(known, known, known),
            "milliseconds": scores.bootstrap(partial(_mean_at, milliseconds), len(cases), seed=seed),
        }
        truth = found.at_sea(found.truth)
        ranks[name] = scores.rank_histogram(found.members, truth, bins=_BINS, weights=found.weights, seed=seed)
        spread_error[name] = spread_and_error(found, _BINS)
    settings = {
        "fix_interval": str(fix_interval or campaign.intervals[0]),
        "n_drifters": campaign.fleet[1] if n_drifters is None else n_drifters,
        "windows": len(cases),
        "members": members,
        "seed": seed,
    }
    return Evaluation(_table(rows), ranks, spread_error, settings)


def _analyse(
    name: str, method: Analyst, cases: Sequence[Case], members: int, seed: int
) -> tuple[list[xr.Dataset], Float[np.ndarray, " windows"]]:
    """Return a method's analyses and how long each took, in ms; what they warn of, once."""
    analyses, milliseconds = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k, case in enumerate(cases):
            began = clock.perf_counter()
            analyses.append(method.analyse(case.tracks, case.time, members, seed + k))
            milliseconds.append(1000 * (clock.perf_counter() - began))
    ours = [warning for warning in caught if issubclass(warning.category, ProbclWarning)]
    for warning in caught:
        if warning not in ours:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if ours:
        warnings.warn(
            f"{name}: {len(ours)} of {len(cases)} analyses warned, the first that {ours[0].message}",
            ProbclWarning,
            stacklevel=3,
        )
    return analyses, np.array(milliseconds)


def _mean_at(values: Float[np.ndarray, " windows"], windows: Int[np.ndarray, " windows"]) -> float:
    return float(values[windows].mean())


def _mean_of(archive: xr.Dataset) -> xr.Dataset:
    return archive[list(COMPONENTS)].mean([dim for dim in ("member", "time") if dim in archive.dims])


def _table(rows: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    columns = pd.MultiIndex.from_product([COLUMNS, Estimate._fields], names=["score", "estimate"])
    values = [[end for column in COLUMNS for end in row[column]] for row in rows.values()]
    return pd.DataFrame(values, index=pd.Index(rows, name="method"), columns=columns)


def _cell(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "–"
    return _shown(value) if low == high else f"{_shown(value)} [{_shown(low)}, {_shown(high)}]"


def _shown(value: float) -> str:
    if np.isinf(value):
        return "∞"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
