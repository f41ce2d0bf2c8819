"""The table of an evaluation: what each column is, that methods see the same tracks, and what is refused."""

import warnings

import numpy as np
import pytest
import xarray as xr
from ocean_cases import random_fourier

from probcl import ProbclWarning
from probcl.assimilation import Assimilator, Campaign, evaluate, fit_baselines, scores, suite
from probcl.assimilation.baselines import Climatology, OptimalInterpolation, hyperparameters, tune_setting
from probcl.assimilation.cases import simulate_cases
from probcl.assimilation.evaluation import COLUMNS
from probcl.assimilation.holdout import require_apart
from probcl.assimilation.measures import resolution, spread_and_error
from probcl.assimilation.verification import Verification
from probcl.datasets.ocean import Box, Vortices
from probcl.sphere import METRES_PER_DEGREE

WORLD = Vortices(1, box=Box(n=12, size=160e3))
CAMPAIGN = Campaign("2D", ["12h", "24h"], (2, 4), 100.0)
DAYS = [0, 1, 2]
SOON = {"pairs": 20, "held_out": 1 / 3, "epochs": 1, "rank": 6, "gap": "0D"}


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit and tune on little, which is enough to see how it is done."""
    monkeypatch.setattr(hyperparameters, "_VIEWS", 2)
    monkeypatch.setattr(hyperparameters, "_POINTS", 10)
    small = {"_WINDOWS": 4, "_SMOOTHER_WINDOWS": 2, "_ENSEMBLE": 5, "_MODEL_ERRORS": (3e3,), "_REACHES": (0.25, 1.0)}
    for name, value in {**small, "FLOORS": (0.05, 0.3)}.items():
        monkeypatch.setattr(suite, name, value)


@pytest.fixture(scope="module")
def train() -> xr.Dataset:
    return WORLD.archive(60, DAYS)


@pytest.fixture(scope="module")
def test() -> xr.Dataset:
    return WORLD.archive(8, DAYS, first_member=60)


@pytest.fixture(scope="module")
def learned(train: xr.Dataset) -> Assimilator:
    campaign = {"window": "2D", "fix_interval": "12h", "n_drifters": (2, 4), "position_error": 100.0}
    return Assimilator.fit(train, **campaign, method="information", **SOON)


class Recorder:
    """A method that keeps what it is given, and answers with another's analyses."""

    def __init__(self, method, spread: float = 1.0, warn: str = "") -> None:
        self.method, self.warn, self.given = method, warn, []

    def analyse(self, tracks, time, members, seed=0):
        self.given.append((tracks, time, members, seed))
        if self.warn:
            warnings.warn(self.warn, ProbclWarning, stacklevel=2)
        return self.method.analyse(tracks, time, members, seed)


class Oracle:
    """A method that knows the truth, and is as uncertain as told."""

    def __init__(self, test: xr.Dataset, error: float, spread: float) -> None:
        self.test, self.error, self.spread = test, error, spread

    def analyse(self, tracks, time, members, seed=0):
        rng = np.random.default_rng(seed)
        member = int(tracks["member"][0])
        truth = self.test.sel(member=member, time=time)[["u", "v"]].astype(float)
        wrong = truth + {name: self.error * rng.standard_normal(truth.u.shape) for name in ("u", "v")}
        noise = self.spread * rng.standard_normal((2, members, *truth.u.shape))
        axes = ("realization", *truth.u.dims)
        parts = {name: wrong[name] + xr.DataArray(z, dims=axes) for name, z in zip(("u", "v"), noise, strict=True)}
        parts |= {f"{name}_mean": wrong[name] for name in ("u", "v")}
        parts |= {f"{name}_stddev": xr.full_like(wrong[name], self.spread) for name in ("u", "v")}
        return xr.Dataset(parts).transpose("realization", "latitude", "longitude")


def test_all_methods_are_given_the_same_tracks(train, test):
    methods = {"one": Recorder(Climatology().fit(train)), "other": Recorder(OptimalInterpolation(shape="gaussian"))}
    methods["other"].method.fit(train)
    evaluate(methods, test, CAMPAIGN, members=5)
    assert len(methods["one"].given) == 8
    for one, other in zip(methods["one"].given, methods["other"].given, strict=True):
        xr.testing.assert_identical(one[0], other[0])
        assert one[1:] == other[1:]


def test_a_method_with_known_errors_earns_the_scores_that_follow_from_them(test):
    spread_of_truth = float(np.std([test.sel(time=test.time[1])[name] for name in ("u", "v")]))
    found = evaluate(
        {"honest": Oracle(test, 0.05, 0.05), "timid": Oracle(test, 0.05, 0.1)},
        test,
        CAMPAIGN,
        members=40,
        train_seconds={"honest": 12.5},
    )
    values = found.values
    assert values.loc["honest", "nrmse"] == pytest.approx(0.05 / spread_of_truth, rel=0.03)
    assert values.loc["honest", "crps"] == pytest.approx(0.05 / np.sqrt(np.pi), rel=0.03)
    assert values.loc["timid", "spread_skill"] == pytest.approx(2, rel=0.05)
    assert values.loc["honest", "coverage90"] == pytest.approx(0.9, abs=0.02)
    assert values.loc["honest", "train_seconds"] == 12.5
    assert np.isnan(values.loc["timid", "train_seconds"])
    np.testing.assert_allclose(found.ranks["honest"], 0.1, atol=0.02)
    assert found.ranks["timid"][[0, -1]].max() < 0.05
    np.testing.assert_allclose(found.spread_error["timid"], [[0.1, 0.05]] * 10, rtol=0.15)


def test_the_table_holds_every_column_with_its_interval_and_markdown_every_method(train, test):
    found = evaluate({"a|b": Climatology().fit(train)}, test, CAMPAIGN, members=5, windows=6)
    assert list(found.table.columns.get_level_values(0).unique()) == list(COLUMNS)
    for column in ("nrmse", "crps", "milliseconds"):
        low, value, high = found.table.loc["a|b", column][["low", "value", "high"]]
        assert low <= value <= high
    lines = found.to_markdown().splitlines()
    assert [line.count(" | ") for line in lines] == [len(COLUMNS)] * 3
    assert lines[2].startswith("| a\\|b | ")
    assert "windows=6" in repr(found)
    assert "nRMSE" in repr(found)


def test_the_drifters_and_intervals_asked_for_take_the_place_of_the_campaigns(test):
    default, other = (
        simulate_cases(test, CAMPAIGN, 8),
        simulate_cases(test, CAMPAIGN, 8, fix_interval="24h", n_drifters=2),
    )
    assert dict(default[0].tracks.sizes) == {"trajectory": 4, "obs": 5}
    assert dict(other[0].tracks.sizes) == {"trajectory": 2, "obs": 3}


def test_windows_are_one_for_each_member_with_its_own_truth_and_tracks(test):
    cases = simulate_cases(test, CAMPAIGN, 200)
    assert [int(case.tracks.member[0]) for case in cases] == list(range(60, 68))
    for case, member in zip(cases, range(60, 68), strict=True):
        assert case.time == test.time.values[1]
        xr.testing.assert_equal(case.truth, test.sel(time=case.time).sel(member=member, drop=True))


def test_windows_of_one_member_are_spread_over_its_times():
    archive = random_fourier(1, 21).isel(member=0, drop=True)
    times = [case.time for case in simulate_cases(archive, CAMPAIGN, 5)]
    assert len(times) == 5
    assert times[0] == archive.time.values[1]
    assert times[-1] == archive.time.values[-2]
    for case in simulate_cases(archive, CAMPAIGN, 3):
        np.testing.assert_array_equal(case.truth.u, archive.u.sel(time=case.time))


def test_windows_without_two_fixes_are_left_out(test):
    # Drifters in currents of 10 m/s have left the box before their second fix.
    fast = test.copy()
    fast["u"] = fast["u"].where(fast.member != 62, 10.0)
    members = [int(case.tracks.member[0]) for case in simulate_cases(fast, CAMPAIGN, 8, fix_interval="24h")]
    assert members == [60, 61, 63, 64, 65, 66, 67]


def test_warnings_of_analyses_become_one(train, test):
    method = Recorder(Climatology().fit(train), warn="too few alike")
    with pytest.warns(ProbclWarning, match="mine: 8 of 8 analyses warned, the first that too few alike") as caught:
        evaluate({"mine": method}, test, CAMPAIGN, members=5)
    assert len(caught) == 1


def test_resolution_is_that_of_the_score_and_infinite_without_any(test):
    truths = [test.isel(member=k, time=1) for k in range(8)]
    smooth = [
        xr.Dataset({f"{n}_mean": t[n].rolling(longitude=3, center=True, min_periods=1).mean() for n in "uv"})
        for t in truths
    ]
    nothing = [xr.Dataset({f"{n}_mean": 0 * t[n] for n in "uv"}) for t in truths]
    found = resolution(Verification(smooth, truths), resamples=20)
    both = [
        np.concatenate([[part[name.format(c)].values for part in parts] for c in "uv"], 1)
        for parts, name in ((smooth, "{}_mean"), (truths, "{}"))
    ]
    spacing = METRES_PER_DEGREE * np.cos(np.radians(test.latitude.values.mean())) * np.diff(test.longitude)[0] / 1000
    assert found.value == pytest.approx(scores.effective_resolution(*both, spacing), rel=1e-4)
    assert found.low <= found.value <= found.high
    assert resolution(Verification(nothing, truths), resamples=20) == (np.inf, np.inf, np.inf)


def test_spread_that_tells_where_errors_are_large_equals_them_in_each_bin():
    rng = np.random.default_rng(0)
    grid = {"latitude": np.arange(40.0), "longitude": np.arange(50.0)}
    spread = rng.uniform(0.1, 1, (2, 40, 50))

    def made(values, names):
        return xr.Dataset({n: (tuple(grid), v) for n, v in zip(names, values, strict=True)}, grid)

    truth = made(np.zeros((2, 40, 50)), ("u", "v"))
    analysis = made(spread * rng.standard_normal(spread.shape), ("u_mean", "v_mean")).merge(
        made(spread, ("u_stddev", "v_stddev"))
    )
    found = spread_and_error(Verification([analysis] * 2, [truth] * 2))
    assert (np.diff(found[:, 0]) > 0).all()
    np.testing.assert_allclose(found[:, 1], found[:, 0], rtol=0.15)


def test_a_tuned_setting_is_the_best_of_its_values_and_leaves_the_method_as_it_was(train):
    method = OptimalInterpolation(shape="gaussian").fit(train.isel(member=slice(40)))
    cases = simulate_cases(train.isel(member=slice(40, None)), CAMPAIGN, 8)
    tuned = tune_setting(method, "error_floor", [0.05, 5.0], cases, members=10)
    assert (tuned.error_floor, method.error_floor) == (0.05, 0.05)
    assert tuned is not method
    with pytest.raises(ValueError, match="setting must be an attribute of OptimalInterpolation, got 'floor'"):
        tune_setting(method, "floor", [1.0], cases)


def test_baselines_are_fitted_to_other_members_than_they_are_tuned_on(train):
    fitted = fit_baselines(train, CAMPAIGN, smoother=False)
    assert list(fitted.methods) == ["climatology", "OI, stream function", "OI, isotropic", "EnOI, localised", "analogs"]
    assert list(fitted.train_seconds) == list(fitted.methods)
    assert {len(method.archive.values) for method in fitted.methods.values()} == {56}
    for name, settings in fitted.chosen.items():
        for setting, value in settings.items():
            assert getattr(fitted.methods[name], setting) == value


def test_the_etkf_is_fitted_and_tuned_where_it_is_asked_for(train):
    pytest.importorskip("dapper", reason="the ETKF needs the extra probcl[dapper]")
    few = train.isel(member=slice(20))
    fitted = fit_baselines(few, CAMPAIGN, smoother=False, etkf=True, tuning_windows=3)
    assert list(fitted.methods)[-2:] == ["ETKF", "analogs"]
    assert fitted.chosen["ETKF"]["error_floor"] in suite.FLOORS


def test_an_assimilator_is_evaluated_with_the_classical_methods(learned, test):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = learned.evaluate(test, members=10, fix_interval="24h")
    assert list(found.table.index)[-1] == "probcl information"
    assert len(found.table) == 7
    assert found.settings["fix_interval"] == "24h"
    assert found.values.drop(columns=["train_seconds", "resolution"]).notna().all(axis=None)
    assert found.values["train_seconds"].drop("probcl information").notna().all()


def test_a_loaded_assimilator_asks_for_the_archive_of_the_baselines(learned, test, tmp_path):
    learned.save(tmp_path / "learned")
    loaded = Assimilator.load(tmp_path / "learned")
    with pytest.raises(ValueError, match="archive must be given to fit baselines to"):
        loaded.evaluate(test)
    before, after = (each.evaluate(test, baselines=None, members=10) for each in (learned, loaded))
    columns = ["nrmse", "crps", "spread_skill", "correlation"]
    np.testing.assert_allclose(after.values[columns], before.values[columns], rtol=1e-5)


@pytest.mark.parametrize(("first", "what"), [(0, "trained"), (38, "trained"), (41, "calibrated")])
def test_a_test_of_members_that_were_fitted_to_is_refused_by_name(learned, first, what):
    known = WORLD.archive(4, DAYS, first_member=first)
    with pytest.raises(
        ValueError, match=f"test must be of other members than were {what} on, .* got member {first} and"
    ):
        learned.evaluate(known)


def test_a_test_of_one_member_within_the_gap_is_refused_by_name():
    record = {
        "trained_on": {"times": ["2002-01-01", "2002-03-01"]},
        "held_out": {"times": ["2002-04-01", "2002-04-10"]},
    }
    days = random_fourier(1, 200).isel(member=0, drop=True)
    with pytest.raises(ValueError, match=r"than were trained on, or at least gap=32D from 2002-01-01T"):
        require_apart(days, record, "32D")
    with pytest.raises(ValueError, match=r"than were calibrated on, .*2002-04-10T.*, got 18 times"):
        require_apart(days.sel(time=slice("2002-04-02", None)), record, "10D")
    require_apart(days.sel(time=slice("2002-04-20", None)), record, "10D")
    with pytest.raises(ValueError, match="the first 2002-04-20"):
        require_apart(days.sel(time=slice("2002-04-20", None)), record, "11D")


def test_members_that_were_trained_on_may_be_tested_on_at_times_beyond_the_gap(learned):
    later = WORLD.archive(4, [40, 41, 42])
    assert len(learned.evaluate(later, baselines=None, members=5).table) == 1
    with pytest.raises(ValueError, match="got member 0 and 3 others that were, with 3 times that are not"):
        learned.evaluate(later, baselines=None, members=5, gap="50D")


def test_what_cannot_be_evaluated_is_refused_by_name(train, test):
    method = {"climatology": Climatology().fit(train)}
    with pytest.raises(ValueError, match="methods must have one or more"):
        evaluate({}, test, CAMPAIGN)
    with pytest.raises(ValueError, match="test must cover two windows with fixes or more, got 1"):
        evaluate(method, test.isel(member=[0]), CAMPAIGN)
    with pytest.raises(ValueError, match="archive must cover a window of 9D"):
        evaluate(method, test, Campaign("9D", "12h", 4, 100.0))
    with pytest.raises(ValueError, match="members must be"):
        evaluate(method, test, CAMPAIGN, members=1)


def test_baselines_of_no_known_kind_are_refused(learned, test):
    with pytest.raises(ValueError, match="baselines must be 'default'"):
        learned.evaluate(test, baselines="best")
