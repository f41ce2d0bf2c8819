import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, START, padded, random_fourier, track_of

import probcl as pcl
from probcl import ProbclWarning
from probcl.assimilation import Assimilator, Campaign, GridFlow, advect, patches, read_archive, simulate_tracks, write
from probcl.assimilation.archive import Archive
from probcl.assimilation.encoders import TrackInformation
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.holdout import decorrelation_time, hold_out, require_apart
from probcl.assimilation.patches import patch_at
from probcl.assimilation.routes import InformationRoute
from probcl.assimilation.segments import segments

ARCHIVE = random_fourier(60, 3, seed=4)
LONG = random_fourier(1, 60, seed=5, period=3.0).isel(member=0)
SEEN: dict[str, Any] = {"window": "2D", "fix_interval": "12h", "n_drifters": 4, "position_error": 50.0}
QUICK: dict[str, Any] = {"pairs": 200, "epochs": 1, "progress": False, "rank": 15}
MIDDLE = START + DAY
_PARTS = ("trained_on", "held_out")


@pytest.fixture(scope="module")
def learned() -> Assimilator:
    return Assimilator.fit(ARCHIVE, **SEEN, method="information", **QUICK)


@pytest.fixture(scope="module")
def tracks() -> xr.Dataset:
    return simulate_tracks(ARCHIVE.isel(member=[55]), **SEEN, seed=9)


def test_an_analysis_has_the_archives_grid_and_land(learned: Assimilator, tracks: xr.Dataset) -> None:
    analysis = learned.assimilate(tracks, members=7)
    assert dict(analysis.u.sizes) == {"realization": 7, "time": 1, "latitude": 8, "longitude": 9}
    assert (analysis.latitude.values == ARCHIVE.latitude.values).all()
    assert (np.isnan(analysis.u_mean.values[0]) == np.isnan(ARCHIVE.u.values[0, 0])).all()
    assert analysis.time.values == MIDDLE
    assert int(analysis.n_obs.sum()) > 0


def test_observations_draw_the_mean_towards_the_truth(learned: Assimilator, tracks: xr.Dataset) -> None:
    analysis = learned.assimilate(tracks, members=10)
    truth = ARCHIVE.isel(member=55).sel(time=MIDDLE)
    error = float(((analysis.u_mean - truth.u) ** 2 + (analysis.v_mean - truth.v) ** 2).mean())
    assert error < float((truth.u**2 + truth.v**2).mean())


def test_the_same_seed_gives_the_same_members(learned: Assimilator, tracks: xr.Dataset) -> None:
    first, again = (learned.assimilate(tracks, members=5, seed=3) for _ in range(2))
    xr.testing.assert_equal(first, again)
    assert not learned.assimilate(tracks, members=5, seed=4).u.equals(first.u)


def test_what_was_saved_is_what_is_loaded(learned: Assimilator, tracks: xr.Dataset, tmp_path: Path) -> None:
    learned.save(tmp_path / "ocean")
    loaded = Assimilator.load(tmp_path / "ocean")
    xr.testing.assert_equal(loaded.assimilate(tracks, members=5), learned.assimilate(tracks, members=5))
    assert loaded.record == learned.record
    assert loaded.campaign.length == learned.campaign.length


def test_a_damaged_folder_is_refused(learned: Assimilator, tmp_path: Path) -> None:
    learned.save(tmp_path)
    file = tmp_path / "assimilator.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(pcl.CheckpointError, match="damaged"):
        Assimilator.load(tmp_path)
    with pytest.raises(pcl.CheckpointError, match="does not exist"):
        Assimilator.load(tmp_path / "nowhere")


def test_members_of_retrieval_are_days_of_the_archive_by_their_labels(tracks: xr.Dataset, tmp_path: Path) -> None:
    labelled = ARCHIVE.assign_coords(member=1000 + np.arange(60))
    settings = {**QUICK, "rank": 60, "prior": "eof", "batch_size": 100}
    learned = Assimilator.fit(labelled, **SEEN, method="retrieval", **settings)
    learned.route.model.temperature = pcl.temperature.Temperature(1e-4)
    with pytest.warns(pcl.ProbclWarning, match="rests on"):
        analysis = learned.assimilate(tracks, members=6)
    assert "rests on" in analysis.attrs["warning"]
    for member, time, u in zip(
        analysis.archive_member.values, analysis.archive_time.values, analysis.u.values[:, 0], strict=True
    ):
        day = labelled.sel(member=member, time=time)
        np.testing.assert_allclose(u, day.u.values, atol=0.15)
        assert np.corrcoef(u[1:].ravel(), day.u.values[1:].ravel())[0, 1] > 0.9
    learned.save(tmp_path)
    with pytest.warns(pcl.ProbclWarning, match="rests on"):
        again = Assimilator.load(tmp_path).assimilate(tracks, members=6)
    np.testing.assert_array_equal(again.archive_member.values, analysis.archive_member.values)


def test_the_choice_is_recorded(learned: Assimilator) -> None:
    choice = learned.record["choice"]
    assert choice["method"] == "information"
    assert choice["tried"]["information"]["crps"] > 0
    assert "CRPS" in choice["why"]
    assert learned.record["trained_on"]["members"] == list(range(54))
    assert learned.record["held_out"]["members"] == list(range(54, 60))


def test_one_long_member_is_held_out_by_time_with_a_gap_and_a_refit_learns_from_all_of_it() -> None:
    settings: dict[str, Any] = {**SEEN, "gap": "5D", "method": "information", "prior": "eof", **QUICK, "pairs": 60}
    first, again = (Assimilator.fit(LONG, refit=refit, **settings) for refit in (False, True))
    (_, last), (begin, _) = first.record["trained_on"]["times"], first.record["held_out"]["times"]
    assert np.datetime64(begin) - np.datetime64(last) >= 5 * DAY
    assert again.record["trained_on"]["maps"] == LONG.sizes["time"] > first.record["trained_on"]["maps"]
    assert again.record["held_out"] == first.record["held_out"]
    assert again.route.spread != first.route.spread
    np.testing.assert_allclose(again.prior.mean[0], Archive.of(LONG).maps.mean(0), atol=0.05)
    with pytest.raises(ValueError, match="must be of other members than were trained on"):
        again.evaluate(LONG, baselines=None)


def test_patches_are_cut_from_the_archive_and_moved_to_one_frame() -> None:
    cut = patches(LONG, (4, 5), stride=2)
    for k in range(cut.sizes["member"]):
        centre = float(cut.patch_latitude[k]), float(cut.patch_longitude[k])
        own = patch_at(Archive.of(LONG).grid, (4, 5), centre)
        region = LONG.sel(latitude=own.latitude, longitude=own.longitude)
        np.testing.assert_array_equal(cut.v.values[k], region.v.values)
        faster = np.cos(np.radians(cut.latitude.values)) / np.cos(np.radians(own.latitude))
        np.testing.assert_allclose(cut.u.values[k], region.u.values * faster[:, None], rtol=1e-6)
    assert not np.isnan(cut.u.values).any()
    assert float(cut.patch_latitude.min()) > float(LONG.latitude[1])


def test_drifters_in_a_patch_go_from_cell_to_cell_as_in_the_region() -> None:
    """To the north of the frame's latitude the same current is more degrees a day."""
    cut = patches(LONG, (5, 6), stride=1)
    k = int(cut.patch_latitude.values.argmax())
    own = patch_at(Archive.of(LONG).grid, (5, 6), (float(cut.patch_latitude[k]), float(cut.patch_longitude[k])))
    region = LONG.sel(latitude=own.latitude, longitude=own.longitude)
    here = np.array([[own.latitude.mean()]]), np.array([[own.longitude.mean()]])
    there = np.array([[own.frame_latitude.mean()]]), np.array([[own.frame_longitude.mean()]])
    days = 43_200.0 * np.arange(5)
    mine = advect(GridFlow.from_archive(region), *here, days)
    moved = advect(GridFlow.from_archive(cut.isel(member=k)), *there, days)
    np.testing.assert_allclose(moved.latitude - there[0], mine.latitude - here[0], atol=1e-6)
    np.testing.assert_allclose(moved.longitude - there[1], mine.longitude - here[1], atol=1e-6)


def test_an_analysis_of_a_patch_has_the_patchs_own_currents() -> None:
    own = patch_at(Archive.of(LONG).grid, (4, 5), (-33.6, 21.0))
    cut = patches(LONG, (4, 5), stride=1)
    same = np.isclose(cut.patch_latitude, own.latitude.mean()) & np.isclose(cut.patch_longitude, own.longitude.mean())
    (k,) = np.flatnonzero(same)
    frame = cut.isel(member=[k], time=0).rename(member="realization")
    means = {f"{name}_{what}": frame[name].isel(realization=0) for name in "uv" for what in ("mean", "stddev")}
    found = own.analysis(frame.assign(means))
    region = LONG.sel(latitude=own.latitude, longitude=own.longitude).isel(time=0)
    for name in ("u", "v"):
        np.testing.assert_allclose(found[name].isel(realization=0), region[name], rtol=1e-6)
        np.testing.assert_allclose(found[f"{name}_mean"], region[name], rtol=1e-6)
    assert found.u.dims == frame.u.dims


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.isel(obs=[0, -1]), r"fixes every 48 hours \(learned: 12\)"),
        (lambda t: t.isel(trajectory=[1]), r"1 drifter \(learned: 4\)"),
        (lambda t: t.isel(trajectory=[0, 1, 2, 3] * 2), r"8 drifters \(learned: 4\)"),
        (lambda t: t.assign(position_error=20 * t.position_error), r"fixes with errors of 1000 m \(learned: 50\)"),
        (lambda t: t.assign(position_error=0 * t.position_error), r"fixes with errors of 0 m \(learned: 50\)"),
    ],
)
def test_tracks_unlike_those_learned_make_a_warning(
    learned: Assimilator, tracks: xr.Dataset, change: Callable[[xr.Dataset], xr.Dataset], said: str
) -> None:
    with pytest.warns(ProbclWarning, match=f"the tracks have {said}; the spread"):
        analysis = learned.assimilate(change(tracks), members=3)
    assert "learned" in analysis.attrs["warning"]


def test_tracks_within_what_was_learned_are_alike(tracks: xr.Dataset) -> None:
    observed = segments(tracks, error_floor=0.0)
    assert Campaign("2D", ["6h", "24h"], (3, 9), 50.0).unlike(observed) == ""
    exact = replace(observed, error=0 * observed.error)
    assert Campaign("2D", "12h", 4, 0.0).unlike(exact) == ""
    far = Campaign("2D", ["1D", "2D"], (8, 16), 0.0).unlike(observed)
    assert far.split(", ") == [
        "4 drifters (learned: 8 to 16)",
        "fixes every 12 hours (learned: 24 to 48)",
        "fixes with errors of 50 m (learned: 0)",
    ]


def test_a_context_starts_the_encoder_of_tracks_and_is_saved(tracks: xr.Dataset, tmp_path: Path) -> None:
    learned = Assimilator.fit(ARCHIVE, **SEEN, method="retrieval", context=True, **QUICK)
    assert isinstance(learned.route.model.encoder_v.context, TrackInformation)
    learned.save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbclWarning)
        found, again = (one.analyse(tracks, MIDDLE, 4) for one in (learned, Assimilator.load(tmp_path)))
    xr.testing.assert_equal(found, again)


def test_an_assimilator_of_patches_analyses_the_one_asked_for(tracks: xr.Dataset) -> None:
    learned = Assimilator.fit(ARCHIVE, **{**SEEN, "n_drifters": (2, 16)}, patch=(4, 5), method="information", **QUICK)
    seen = simulate_tracks(ARCHIVE.isel(member=[55]), **{**SEEN, "n_drifters": 30}, seed=9)
    analysis = learned.assimilate(seen, members=5, centre=(-33.0, 21.0))
    assert dict(analysis.u.sizes) == {"realization": 5, "time": 1, "latitude": 4, "longitude": 5}
    assert set(analysis.latitude.values) <= set(ARCHIVE.latitude.values)
    truth = ARCHIVE.isel(member=55).sel(time=MIDDLE, latitude=analysis.latitude, longitude=analysis.longitude)
    error = float(((analysis.u_mean - truth.u) ** 2 + (analysis.v_mean - truth.v) ** 2).mean())
    assert error < 0.5 * float((truth.u**2 + truth.v**2).mean())
    with pytest.raises(ValueError, match="centre must be the place of the patch"):
        learned.assimilate(seen, members=5)
    with pytest.raises(ValueError, match="centre must be on the archive's grid"):
        learned.assimilate(seen, members=5, centre=(10.0, 10.0))


def test_a_place_of_a_patch_is_refused_where_there_are_none(learned: Assimilator, tracks: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="centre must be None"):
        learned.assimilate(tracks, members=2, centre=(-33.0, 21.0))


def test_tracks_on_land_are_refused_by_name() -> None:
    archive = ARCHIVE.where((ARCHIVE.latitude < -33) | (ARCHIVE.longitude < 21))
    learned = Assimilator.fit(archive, **SEEN, method="information", **QUICK)
    ashore = padded([track_of(-32.6, 21.6, 1.0, 0.1, 0.1)])
    with pytest.raises(ValueError, match="tracks must be in the water, got 1 segments on land"):
        learned.assimilate(ashore, time=MIDDLE, members=2)


def test_tracks_of_another_time_or_place_are_refused_by_name(learned: Assimilator, tracks: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="two fixes of a drifter within 2D"):
        learned.assimilate(tracks, time="2005-01-01", members=2)
    with pytest.raises(ValueError, match="tracks must stay on the archive's grid"):
        learned.assimilate(padded([track_of(40.0, 21.0, 1.0, 0.1, 0.1)]), members=2)
    with pytest.raises(ValueError, match="members must be"):
        learned.assimilate(tracks, members=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"held_out": 1.0}, r"held_out must be within \(0, 1\)"),
        ({"method": "guess"}, "method must be 'auto' or one of"),
        ({"prior": "flat"}, "prior must be"),
        ({"n_drifters": (5, 2)}, "n_drifters must be a number or an ascending range"),
        ({"window": "30D"}, "archive must cover a window"),
        ({"patch": 50}, "patch must be of 2 to"),
        ({"stride": 1}, "stride must be None where there are no patches"),
        ({"patch": 4, "stride": 0}, "stride must be"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Assimilator.fit(ARCHIVE, **{**SEEN, "method": "information", **QUICK, **wrong})


def test_a_posterior_is_a_file_that_our_reader_reads_back(
    learned: Assimilator, tracks: xr.Dataset, tmp_path: Path
) -> None:
    times = [MIDDLE - np.timedelta64(6, "h"), MIDDLE]
    analysis = learned.assimilate(tracks, time=times, members=4)
    write(analysis, tmp_path / "posterior.nc")
    back = read_archive(tmp_path / "posterior.nc")
    assert back.sizes["member"] == 4
    np.testing.assert_array_equal(back.time.values, times)
    np.testing.assert_allclose(back.u.values, analysis.u.values, rtol=1e-6, atol=1e-7)
    with xr.open_dataset(tmp_path / "posterior.nc") as file:
        assert file.attrs["Conventions"] == "CF-1.8"
        assert learned.frame.checksum in file.attrs["history"]
        assert "trained_on 2002-01-01T00:00:00/2002-01-03T00:00:00" in file.attrs["history"]


def test_an_assimilator_of_patches_is_evaluated_on_patches() -> None:
    learned = Assimilator.fit(ARCHIVE, **SEEN, patch=(4, 5), method="information", **QUICK)
    test = random_fourier(3, 3, seed=8).assign_coords(member=[100, 101, 102])
    evaluation = learned.evaluate(test, windows=4, members=5, baselines=None)
    assert 0 < evaluation.values.loc["probcl information", "nrmse"] < 1.2
    with pytest.raises(ValueError, match="test must be of other members"):
        learned.evaluate(ARCHIVE, windows=4, members=5, baselines=None)


@pytest.mark.parametrize("window", ["12D", "30D", np.timedelta64(100, "m")])
def test_windows_of_any_length_survive_saving(learned: Assimilator, window: Any, tmp_path: Path) -> None:
    learned = copy.copy(learned)
    learned.campaign = replace(learned.campaign, window=window)
    learned.save(tmp_path)
    assert Assimilator.load(tmp_path).campaign.length == learned.campaign.length


def test_a_gap_shorter_than_the_currents_remember_is_refused() -> None:
    """Of these waves the autocorrelation is exp(−τ²/2T²) with T = 3 days: 1/e at 4.2 days."""
    assert decorrelation_time(LONG) in (4 * DAY, 5 * DAY)
    with pytest.raises(ValueError, match="gap must be no less than the currents' decorrelation time"):
        hold_out(LONG, 0.2, "2D", np.timedelta64(2, "D"))


def test_a_gap_without_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="gap must be a duration with a unit"):
        Assimilator.fit(LONG, **SEEN, gap="32", method="information", **QUICK)


def test_a_shuffled_split_is_known_member_by_member() -> None:
    members = np.random.default_rng(0).permutation(60)
    record = {part: {"times": ["2002-01-01", "2002-01-03"], "members": members[:40].tolist()} for part in _PARTS}
    labelled = ARCHIVE.assign_coords(member=np.arange(60))
    require_apart(labelled.isel(member=members[40:]), record, "1D")
    with pytest.raises(ValueError, match="test must be of other members"):
        require_apart(labelled.isel(member=members[39:]), record, "1D")


@pytest.mark.slow
def test_a_refit_has_the_mean_calibration_of_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([0.5, 2.0])
    monkeypatch.setattr(InformationRoute, "calibrate", lambda self, *_: setattr(self, "spread", next(found)))
    learned = Assimilator.fit(LONG, **SEEN, gap="5D", refit=True, method="information", prior="eof", **QUICK)
    assert learned.route.spread == pytest.approx(1.0)
    assert next(found, None) is None


@pytest.mark.parametrize("archive", [LONG, ARCHIVE], ids=["one member", "several"])
def test_the_first_part_is_held_out_as_the_last_is(archive: xr.Dataset) -> None:
    last, first = (hold_out(archive, 0.2, "5D", 3 * DAY, first=first) for first in (False, True))
    name = "member" if archive.sizes.get("member", 1) > 1 else "time"
    whole = last.whole[name].values
    count, aside = len(last.train[name]), len(last.held_out[name])
    np.testing.assert_array_equal(last.train[name], whole[:count])
    np.testing.assert_array_equal(last.held_out[name], whole[-aside:])
    np.testing.assert_array_equal(first.train[name], whole[-count:])
    np.testing.assert_array_equal(first.held_out[name], whole[:aside])


def test_what_is_held_out_of_one_member_covers_a_window() -> None:
    parts = hold_out(LONG.isel(time=slice(24)), 0.1, "5D", np.timedelta64(5, "D"))
    assert parts.held_out.sizes["time"] >= 7


def test_a_place_beside_land_has_the_nearest_patch_without() -> None:
    grid = Archive.of(LONG).grid
    beside = patch_at(grid, (4, 5), (-33.75, 20.25))
    assert beside.latitude[0] > grid.latitude[0] or beside.longitude[0] > grid.longitude[0]
    with pytest.raises(ValueError, match="centre must be in a patch without land"):
        patch_at(grid, (4, 5), (-34.0, 20.0))


def test_a_prior_of_another_grid_is_refused() -> None:
    elsewhere = Archive.of(ARCHIVE.assign_coords(latitude=ARCHIVE.latitude + 10))
    prior = FieldPrior.eofs(elsewhere, np.zeros(1, "timedelta64[ns]"), rank=5)
    with pytest.raises(ValueError, match="prior must be on the archive's grid"):
        Assimilator.fit(ARCHIVE, **SEEN, method="information", **{**QUICK, "prior": prior})
