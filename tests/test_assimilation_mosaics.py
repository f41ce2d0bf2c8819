"""Patches of a region whose drifters leave them and are still seen."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, START, dataset, padded, random_fourier, track_of

from probcl import CheckpointError, ProbclWarning
from probcl.assimilation import Assimilator, Campaign, evaluate, fit_baselines, patches, simulate_tracks
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import (
    Analogs,
    Climatology,
    EnsembleOptimalInterpolation,
    EnsembleSmoother,
    Hyperparameters,
    OptimalInterpolation,
    StreamFunctionCovariance,
)
from probcl.assimilation.cases import simulate_cases
from probcl.assimilation.fields import FieldPrior, window_index, windows_at
from probcl.assimilation.mosaics import Mosaic, Region
from probcl.assimilation.pairs import simulate_pairs
from probcl.assimilation.patches import patch_at, patches_of
from probcl.assimilation.prediction import predict_tracks
from probcl.assimilation.segments import near, segments
from probcl.assimilation.surroundings import with_surroundings
from probcl.assimilation.tokens import Tokenizer
from probcl.assimilation.tracks import tracks_where

LAGS = np.arange(-1, 2) * DAY
STILL = np.zeros(1, "timedelta64[ns]")
CAMPAIGN = Campaign("2D", "12h", 4, 50.0)
OBSERVED: dict[str, Any] = {"window": "2D", "fix_interval": "12h", "n_drifters": 4, "position_error": 50.0}


def box_of_water(values: np.ndarray) -> xr.Dataset:
    """An archive of (member, time, 2, row, column) on quarter degrees."""
    rows, columns = values.shape[-2:]
    return dataset(values, -34 + 0.25 * np.arange(rows), 20 + 0.25 * np.arange(columns))


def eastward(speed: float, rows: int = 12, columns: int = 24) -> xr.Dataset:
    values = np.zeros((1, 11, 2, rows, columns))
    values[:, :, 0] = speed
    return box_of_water(values)


def fast(members: int, seed: int) -> xr.Dataset:
    """Currents that carry drifters out of a patch of 4 × 4 cells in a day or two."""
    archive = random_fourier(members, 5, seed=seed, length=60e3, period=20.0)
    return archive.assign(u=2 * archive.u, v=2 * archive.v).assign_coords(member=np.arange(members))


def test_drifters_start_in_their_box_evenly_over_its_area() -> None:
    archive = eastward(0.1)
    boxes = [(-33.9, -33.1, 20.3, 21.35), (-32.0, -31.3, 25.0, 25.6)]
    tracks = simulate_tracks(archive, n_drifters=4000, window="12h", fix_interval="12h", boxes=boxes)
    first = tracks.isel(obs=0)
    assert first.box.values.tolist() == [0] * 4000 + [1] * 4000
    for number, (south, north, west, east) in enumerate(boxes):
        mine = first.isel(trajectory=first.box.values == number)
        along = (mine.longitude.values - west) / (east - west)
        up = np.sin(np.radians([south, *mine.latitude.values, north]))
        up = (up[1:-1] - up[0]) / (up[-1] - up[0])
        for part in (along, up):
            assert part.min() >= 0
            assert part.max() <= 1
            np.testing.assert_allclose(np.quantile(part, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
        assert abs(np.corrcoef(along, up)[0, 1]) < 0.06


def test_tracks_of_a_box_are_the_same_whatever_else_is_simulated() -> None:
    archive = fast(3, seed=1)
    boxes = [(-33.5, -32.7, 20.2, 21.0), (-33.2, -32.5, 21.0, 21.9)]
    both = simulate_tracks(archive, **OBSERVED, boxes=boxes, start=archive.time.values[:2])
    alone = simulate_tracks(archive.isel(member=[2]), **OBSERVED, boxes=boxes[1:], start=archive.time.values[1])
    mine = (both.member == 2) & (both.start == archive.time.values[1]) & (both.box == 1)
    np.testing.assert_allclose(both.latitude.values[mine.values], alone.latitude.values, rtol=1e-12)
    turned = [(south, north, west - 360, east - 360) for south, north, west, east in boxes[1:]]
    again = simulate_tracks(archive.isel(member=[2]), **OBSERVED, boxes=turned, start=archive.time.values[1])
    assert float(again.longitude.min()) > 0


def test_drifters_of_a_box_start_on_its_water_only() -> None:
    archive = fast(1, seed=1)
    coast = (-34.0, -33.5, 20.0, 20.5)
    exact = {**OBSERVED, "n_drifters": 500, "position_error": 0.0}
    first = simulate_tracks(archive, **exact, boxes=[coast]).isel(obs=0)
    assert not ((first.latitude < -33.75) & (first.longitude < 20.25)).any()
    with pytest.raises(ValueError, match=r"cell with water .* got none in latitude -34 to -33.8, longitude 20 to 20.2"):
        simulate_tracks(archive, **OBSERVED, boxes=[(-34.0, -33.8, 20.0, 20.2)])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "boxes must be of"),
        ([(np.nan, -33.0, 20.0, 21.0)], "boxes must be of"),
        ([(-33.0, -33.5, 20.0, 21.0)], "boxes must reach from south to north"),
    ],
)
def test_what_is_no_box_is_refused_by_name(boxes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_tracks(eastward(0.1), **OBSERVED, boxes=boxes)


def test_without_boxes_drifters_start_where_they_always_did() -> None:
    """What simulate_tracks gave before there were boxes."""
    tracks = simulate_tracks(fast(2, seed=1), **OBSERVED, seed=5)
    assert "box" not in tracks
    np.testing.assert_allclose(tracks.latitude.values[[0, 5], 0], [-33.5896186141755, -33.64877260380075], rtol=1e-13)
    np.testing.assert_allclose(tracks.longitude.values[[0, 5], 0], [21.68243832446534, 20.800758678838985], rtol=1e-13)
    np.testing.assert_allclose(tracks.longitude.values[[0, 5], 3], [21.84680294030988, 21.28743525535009], rtol=1e-12)


def test_a_drifter_that_leaves_its_patch_keeps_its_segments() -> None:
    """At 0.5 m/s a day is nearly two cells: of a patch of four, all are gone after two days and seen for ten."""
    archive = eastward(0.5)
    mosaic = Mosaic.of(archive, 4)
    count = len(mosaic.places)
    starts = np.repeat(archive.time.values[0], count)
    settings = {"window": "4D", "fix_interval": "12h", "position_error": 0.0}
    tracks, window, drifter = mosaic.release(np.arange(count), starts, n_drifters=3, **settings)
    assert np.bincount(window).tolist() == [3] * count
    assert drifter.tolist() == [0, 1, 2] * count
    cut = simulate_tracks(patches(archive, 4), **settings, n_drifters=3)
    west = np.array([place.longitude[0] for place in mosaic.places])[window] < 22
    seen = tracks.latitude.notnull().sum("obs").values
    assert (seen[west] == 9).all()
    assert cut.latitude.notnull().sum("obs").values.max() <= 5
    # Degrees in a day are those of the patch, and in the frame so many more metres.
    observed = segments(tracks, error_floor=0.0)
    own = observed.latitude - np.array([place.shift[0] for place in mosaic.places])[window[observed.trajectory]]
    faster = np.cos(np.radians(observed.latitude)) / np.cos(np.radians(own))
    np.testing.assert_allclose(observed.velocity[:, 0], 0.5 * faster, rtol=1e-6)
    np.testing.assert_allclose(observed.velocity[:, 1], 0, atol=1e-9)


def test_patches_come_corner_by_corner_and_then_by_member() -> None:
    archive = fast(3, seed=1)
    mosaic = Mosaic.of(archive, (4, 5), stride=2)
    xr.testing.assert_identical(mosaic.archive, patches(archive, (4, 5), stride=2))
    for number in range(mosaic.archive.sizes["member"]):
        place, member = divmod(number, 3)
        one = mosaic.archive.isel(member=number)
        assert int(one.archive_member) == member
        assert float(one.patch_latitude) == mosaic.places[place].latitude.mean()
        own = {"latitude": mosaic.places[place].latitude, "longitude": mosaic.places[place].longitude}
        np.testing.assert_array_equal(one.v.values, archive.isel(member=member).sel(own).v.values)


def test_windows_of_a_mosaic_are_the_same_simulated_alone_or_together() -> None:
    archive = fast(3, seed=1)
    mosaic = Mosaic.of(archive, 4)
    members = np.arange(mosaic.archive.sizes["member"])[::-2]
    starts = archive.time.values[members % 2]
    tracks, window, _ = mosaic.release(members, starts, **OBSERVED)
    for row in (0, 3, len(members) - 1):
        alone, own, _ = mosaic.release(members[[row]], starts[[row]], **OBSERVED)
        assert own.tolist() == [0, 0, 0, 0]
        np.testing.assert_allclose(tracks.longitude.values[window == row], alone.longitude.values, rtol=1e-12)


def test_a_region_releases_what_simulate_tracks_does() -> None:
    archive = fast(4, seed=1)
    starts = archive.time.values[[1, 0, 1]]
    tracks, window, drifter = Region(archive).release(np.array([3, 3, 0]), starts, **OBSERVED)
    assert window.tolist() == [2] * 4 + [1] * 4 + [0] * 4
    assert drifter.tolist() == [0, 1, 2, 3] * 3
    alone = simulate_tracks(archive.isel(member=[3]), **OBSERVED, start=starts[1])
    np.testing.assert_allclose(tracks.latitude.values[window == 1], alone.latitude.values, rtol=1e-12)


def test_segments_count_that_come_within_a_side_of_the_patch() -> None:
    """Of rows from −34 to −33 and columns from 20 to 21.25, so that cells end an eighth of a degree beyond."""
    grid = Archive.of(eastward(0.1, rows=5, columns=6)).grid
    last = -32.875 + 1.25
    tracks = [
        track_of(-33.5, 20.5, 1.0, 0.1, 0.1),
        track_of(last - 0.01, 20.5, 1.0, 0.0, 0.0),
        track_of(last + 0.01, 20.5, 1.0, 0.0, 0.0),
        track_of(last + 0.2, 20.5, 1.0, 0.0, 1.5),  # .58 degrees in twelve hours
        track_of(last + 0.4, 20.5, 1.0, 0.0, 1.5),
        track_of(-33.5, 20.5 + 360, 1.0, 0.1, 0.1),
        track_of(-33.5, 60.0, 1.0, 0.1, 0.1),
    ]
    found = near(segments(padded([[(d, a, o - 360 if o > 360 else o) for d, a, o in t] for t in tracks])), grid)
    assert found.tolist() == [True, True, False, True, False, True, False]


def test_segments_moved_to_the_frame_are_those_of_tracks_moved_by_degrees() -> None:
    archive = fast(1, seed=2)
    own = patch_at(Archive.of(archive).grid, (4, 5), (-32.6, 21.6))
    tracks = simulate_tracks(archive, **OBSERVED)
    north, east = own.shift
    assert north != 0
    there = segments(tracks.assign(latitude=tracks.latitude + north, longitude=tracks.longitude + east))
    for name, value in vars(own.moved(segments(tracks))).items():
        if name not in ("time", "trajectory"):
            np.testing.assert_allclose(value, getattr(there, name), rtol=1e-9, atol=1e-12, err_msg=name)


def test_tokens_of_a_translated_world_are_the_same() -> None:
    """Currents that repeat after ten columns, and tracks that do, in patches that are ten columns apart."""
    once = fast(1, seed=3).isel(longitude=slice(1, None)).fillna(0)
    values = np.stack([once[name].values for name in "uv"], axis=2)
    archive = box_of_water(np.concatenate([values] * 4, axis=-1))
    shift = 0.25 * values.shape[-1]
    mosaic = Mosaic.of(archive, 4)
    prior = with_surroundings(FieldPrior.eofs(Archive.of(mosaic.archive), LAGS, 8), mosaic)
    tracks = simulate_tracks(archive, **OBSERVED, boxes=[(-33.5, -32.75, 22.25, 23.25)])
    tokens = []
    for moved in (0.0, shift):
        own = patch_at(Archive.of(archive).grid, 4, (-33.125, 22.625 + moved))
        observed = own.moved(own.near(segments(tracks.assign(longitude=tracks.longitude + moved), error_floor=0.0)))
        when = np.array([START + DAY])
        tokens.append(Tokenizer(prior).of_segments(observed, np.zeros(len(observed), int), when))
    np.testing.assert_allclose(tokens[0], tokens[1], atol=2e-5)
    assert tokens[0][0, :, 2].min() > 0


def test_places_of_tokens_are_counted_from_a_side_before_the_patch() -> None:
    archive = fast(6, seed=2)
    mosaic = Mosaic.of(archive, (4, 5))
    prior = FieldPrior.eofs(Archive.of(mosaic.archive), LAGS, 8)
    wide = with_surroundings(prior, mosaic)
    assert wide.outlook.shape == (3, 12, 15)
    row, column = wide.grid.latitude[1], wide.grid.longitude[2]
    tracks = padded([track_of(row, column, 1.0, 0.01, 0.02), track_of(row - 0.5, column + 1.25, 1.0, 0.01, 0.02)])
    token = Tokenizer(wide)(tracks, np.zeros(2, int), np.array([START + DAY]))[0]
    np.testing.assert_allclose(token[:, 3:6], [[1, 5, 7], [1, 3, 12]], atol=1e-4)
    inside = Tokenizer(prior)(tracks.isel(trajectory=[0]), np.zeros(1, int), np.array([START + DAY]))[0]
    np.testing.assert_allclose(token[0, 9:], inside[0, 9:], rtol=1e-6)


def test_modes_reach_beyond_a_patch_as_far_as_the_archive_tells() -> None:
    """Of a current that is the same everywhere a mode outside is what it is inside; of noise it is next to nothing."""
    rng = np.random.default_rng(0)
    level = rng.standard_normal((1, 400, 2, 1, 1)) * np.ones((12, 12))
    noise = rng.standard_normal((1, 400, 2, 12, 12))
    for values, uniform in ((level, True), (noise, False)):
        mosaic = Mosaic.of(box_of_water(0.3 * values), 4)
        prior = FieldPrior.eofs(Archive.of(mosaic.archive), STILL, 40)
        modes = with_surroundings(prior, mosaic).outlook.modes
        inside = prior.outlook.modes
        np.testing.assert_allclose(modes[:, :, :, 4:8, 4:8], inside, rtol=1e-5, atol=1e-7)
        power = np.square(modes).sum(0).mean((0, 1))
        if uniform:
            faster = np.cos(np.radians(prior.grid.latitude.mean())) ** 2 / np.cos(np.radians(-34)) ** 2
            np.testing.assert_allclose(power, np.square(inside).sum(0).mean(), rtol=abs(faster - 1) + 0.05)
        else:
            outside = np.delete(power.reshape(-1), (12 * np.arange(4, 8)[:, None] + np.arange(4, 8)).ravel())
            assert outside.mean() < 0.03 * np.square(inside).sum(0).mean()


def test_modes_beyond_a_patch_are_the_regression_on_those_inside() -> None:
    archive = random_fourier(150, 3, seed=7)
    mosaic = Mosaic.of(archive, 4)
    prior = with_surroundings(FieldPrior.eofs(Archive.of(mosaic.archive), STILL, 12), mosaic)
    held = Archive.of(archive)
    maps = held.grid.on_map(held.values)
    place = next(k for k, each in enumerate(mosaic.places) if each.longitude[0] < 20.6)
    own = mosaic.places[place]
    cut = Archive.of(mosaic.archive.isel(member=slice(150 * place, 150 * (place + 1))))
    x = prior.encode(windows_at(cut, window_index(cut, STILL), STILL))
    column = int(held.grid.longitude.searchsorted(own.longitude[-1])) + 1
    row = int(held.grid.latitude.searchsorted(own.latitude[1]))
    beside = maps[:, :, :, row, column].reshape(-1, 2)
    beside[:, 0] *= np.cos(np.radians(prior.grid.latitude[1])) / np.cos(np.radians(own.latitude[1]))
    told = x @ prior.outlook.modes[:, 0, :, 5, 8] + prior.outlook.mean[0, :, 5, 8]
    left = np.square(beside - told).mean(0) / beside.var(0)
    best = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), beside, rcond=None)
    assert (left < 0.35).all()
    assert (left < best[1] / len(x) / beside.var(0) + 0.1).all()


@pytest.fixture(scope="module")
def world() -> tuple[xr.Dataset, xr.Dataset]:
    archive = fast(90, seed=11)
    return archive.isel(member=slice(70)), archive.isel(member=slice(70, None)).assign_coords(member=np.arange(70, 90))


@pytest.fixture(scope="module")
def learned(world: tuple[xr.Dataset, xr.Dataset]) -> Assimilator:
    settings: dict[str, Any] = {"pairs": 1500, "epochs": 2, "progress": False, "rank": 20, "prior": "eof"}
    return Assimilator.fit(world[0], **OBSERVED, patch=4, stride=1, method="information", **settings)


def error_of(analysis: xr.Dataset, truth: xr.Dataset) -> float:
    return float(((analysis.u_mean - truth.u) ** 2 + (analysis.v_mean - truth.v) ** 2).mean())


def test_segments_outside_bring_the_analysis_nearer_to_the_truth(
    learned: Assimilator, world: tuple[xr.Dataset, xr.Dataset]
) -> None:
    whole, cut, without = [], [], []
    for case in simulate_cases(world[1], CAMPAIGN, 60, patch=4):
        inside = tracks_where(case.tracks, learned.prior.grid.holds)
        if inside.sizes["obs"] < 2 or not (inside.latitude.notnull().sum("obs") >= 2).any():
            continue
        analyses = [learned.analyse(tracks, case.time, 2) for tracks in (case.tracks, inside)]
        if analyses[0].attrs["n_obs"] > analyses[1].attrs["n_obs"]:
            assert not analyses[0].u_mean.equals(analyses[1].u_mean)
        whole.append(error_of(analyses[0], case.truth))
        cut.append(error_of(analyses[1], case.truth))
        without.append(float((case.truth.u**2 + case.truth.v**2).mean()))
    assert len(whole) > 30
    assert np.mean(whole) < 0.9 * np.mean(cut) < 0.9 * np.mean(without)


def test_an_assimilator_of_patches_uses_tracks_about_the_patch(
    learned: Assimilator, world: tuple[xr.Dataset, xr.Dataset]
) -> None:
    tracks = simulate_tracks(world[1].isel(member=[0]), **{**OBSERVED, "n_drifters": 6}, seed=1)
    centre = -32.6, 21.4
    analysis = learned.assimilate(tracks, time=START + DAY, members=3, centre=centre)
    own = patch_at(learned.frame.grid, 4, centre)
    assert int(analysis.n_obs.sum()) == len(own.near(segments(tracks)))
    inside = tracks_where(tracks, own._grid.holds)
    assert int(analysis.n_obs.sum()) > len(segments(inside))
    shifted = tracks.assign(longitude=tracks.longitude - 360)
    again = learned.assimilate(shifted, time=START + DAY, members=3, centre=centre)
    np.testing.assert_allclose(again.u.values, analysis.u.values, atol=1e-5)


def test_tracks_about_a_patch_are_refused_on_land_and_off_the_grid(learned: Assimilator) -> None:
    beside = padded([track_of(-33.0, 21.3, 1.0, 0.1, 0.1)])
    assert np.isfinite(alike(learned, beside, (-33.1, 20.9)).u.values).all()
    with pytest.raises(ValueError, match="tracks must stay on the archive's grid"):
        alike(learned, padded([track_of(-34.6, 21.0, 1.0, 0.1, 0.1)]), (-33.4, 21.0))
    with pytest.raises(ValueError, match=r"two fixes of a drifter near the patch, latitude .* within one of its sides"):
        alike(learned, padded([track_of(-36.0, 21.0, 1.0, 0.1, 0.1)]), (-33.4, 21.0))
    with pytest.raises(ValueError, match="two fixes of a drifter within 2D about 2002-01-09"):
        alike(learned, beside, (-33.1, 20.9), day=8)


def test_tracks_on_land_beside_a_patch_are_refused() -> None:
    archive = ARCHIVE_WITH_AN_ISLAND
    learned = Assimilator.fit(archive, **OBSERVED, patch=3, method="information", pairs=60, epochs=1, progress=False)
    ashore = padded([track_of(-33.4, 20.1, 1.0, 0.05, 0.05)])
    with pytest.raises(ValueError, match="tracks must be in the water, got 4 segments on land"):
        alike(learned, ashore, (-33.0, 21.0))


def alike(learned: Assimilator, tracks: xr.Dataset, centre: tuple[float, float], day: int = 1) -> xr.Dataset:
    """Analyse without the caution that one drifter is fewer than were learned."""
    four = tracks.isel(trajectory=np.zeros(4, int)).assign_coords(trajectory=np.arange(4))
    four["position_error"] = 0.5 * four.position_error
    return learned.assimilate(four if day else tracks, time=START + day * DAY, members=2, centre=centre)


ARCHIVE_WITH_AN_ISLAND = random_fourier(30, 3, seed=4)
ARCHIVE_WITH_AN_ISLAND = ARCHIVE_WITH_AN_ISLAND.where(ARCHIVE_WITH_AN_ISLAND.longitude > 20.3)


def test_an_assimilator_of_patches_is_saved_with_its_surroundings(
    learned: Assimilator, world: tuple[xr.Dataset, xr.Dataset], tmp_path: Any
) -> None:
    assert learned.record["stride"] == 1
    assert learned.archive is not None
    assert learned.archive.sizes["latitude"] == 8
    learned.save(tmp_path)
    (case, *_) = simulate_cases(world[1], CAMPAIGN, 4, patch=4)
    found, again = (each.analyse(case.tracks, case.time, 3) for each in (learned, Assimilator.load(tmp_path)))
    xr.testing.assert_equal(found, again)


KNOWN = Hyperparameters(StreamFunctionCovariance(60e3, 20.0), 1.0, 1e-3, float("nan"))


def test_of_patches_optimal_interpolation_sees_beyond_the_edge_and_ensembles_do_not(
    world: tuple[xr.Dataset, xr.Dataset],
) -> None:
    cut = patches(world[0], 4)
    grid = Archive.of(cut).grid
    row, edge = float(grid.latitude.mean()), float(grid.longitude[-1])
    both = padded([track_of(row, edge - 0.3, 1.0, 0.2, 0.1), track_of(row, edge + 0.3, 1.0, 0.2, 0.1)])
    outside, far = both.isel(trajectory=[1]), padded([track_of(row + 5, edge, 1.0, 0.2, 0.1)])
    process = OptimalInterpolation(hyperparameters=KNOWN).fit(cut)
    ensembles = [EnsembleOptimalInterpolation(20), Analogs(20), EnsembleSmoother(predict_tracks, ensemble=5)]
    climatology = Climatology().fit(cut).analyse(both, START + DAY, 3)
    found = process.analyse(outside, START + DAY, 3)
    assert process.analyse(both, START + DAY, 3).attrs["n_obs"] == 2
    assert found.attrs["n_obs"] == 1
    assert float(abs(found.u_mean - climatology.u_mean).max()) > 0.05
    assert float(found.u_stddev[:, -1].mean()) < float(found.u_stddev[:, 0].mean())
    for method in ensembles:
        method.fit(cut)
        assert method.analyse(both, START + DAY, 3).attrs["n_obs"] == 1
        blind = method.analyse(outside, START + DAY, 3)
        assert blind.attrs["n_obs"] == 0
        xr.testing.assert_allclose(blind[["u_mean", "u_stddev"]], climatology[["u_mean", "u_stddev"]])
        with pytest.raises(ValueError, match="two fixes of a drifter within a side of the patch"):
            method.analyse(far, START + DAY, 3)
    with pytest.raises(ValueError, match="tracks must stay on the archive's grid"):
        OptimalInterpolation(hyperparameters=KNOWN).fit(fast(3, 1)).analyse(far, START + DAY, 3)


def test_a_drifter_that_leaves_and_returns_is_two_to_what_sees_the_inside_only() -> None:
    grid = patch_at(Archive.of(fast(1, 1)).grid, (4, 5), (-33.0, 21.0))._grid
    north, east = float(grid.latitude.mean()), float(grid.longitude.mean())
    out = [(day, north, east + (5.0 if day == 0.75 else 0.01 * day)) for day in 0.25 * np.arange(7)]
    kept = tracks_where(padded([out]), grid.holds)
    assert kept.sizes["trajectory"] == 2
    assert kept.latitude.notnull().sum("obs").values.tolist() == [3, 3]
    assert (kept.time.isnull() == kept.latitude.isnull()).all()


def test_patches_are_evaluated_with_the_tracks_of_the_whole_archive(
    learned: Assimilator, world: tuple[xr.Dataset, xr.Dataset]
) -> None:
    cases = simulate_cases(world[1], CAMPAIGN, 12, patch=4)
    cut = patches(world[1], 4)
    assert len(cases) == 12
    for case in cases:
        assert case.tracks.sizes["trajectory"] == 4
        matches = [
            np.array_equal(case.truth.u, map_.u)
            for map_ in (cut.isel(member=k).sel(time=case.time) for k in range(cut.sizes["member"]))
        ]
        assert sum(matches) == 1
    beyond = [
        ~learned.prior.grid.holds(*(c.tracks[n].values.ravel() for n in ("latitude", "longitude"))) for c in cases
    ]
    assert np.mean([np.mean(each) for each in beyond]) > 0.2
    evaluation = learned.evaluate(world[1], windows=12, members=5, baselines=None)
    again = evaluate({"mine": learned}, world[1], CAMPAIGN, windows=12, members=5, patch=4)
    assert evaluation.values.loc["probcl information", "nrmse"] == again.values.loc["mine", "nrmse"]


def test_windows_with_no_segment_near_the_patch_are_left_out() -> None:
    archive = eastward(3.0, columns=80)
    fleet = Campaign("4D", "4D", 2, 50.0)
    assert len(simulate_cases(archive, fleet, 20)) > 0
    assert simulate_cases(archive.isel(longitude=slice(40)), fleet, 20, patch=4) == []


@pytest.mark.slow
def test_baselines_of_patches_are_tuned_on_members_that_they_are_not_fitted_to(
    world: tuple[xr.Dataset, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_WINDOWS": 4, "FLOORS": (0.05, 0.3), "_REACHES": (0.25, 1.0), "_NEIGHBOURS": (10,)}.items():
        monkeypatch.setattr(f"probcl.assimilation.suite.{name}", value)
    for name, value in {"_VIEWS": 2, "_POINTS": 10}.items():
        monkeypatch.setattr(f"probcl.assimilation.baselines.hyperparameters.{name}", value)
    few = world[0].isel(member=slice(12))
    suite = fit_baselines(few, CAMPAIGN, smoother=False, patch=4)
    assert set(suite.chosen["EnOI, localised"]) == {"radius", "error_floor"}
    assert len(suite.methods["climatology"].archive.values) == 9 * len(Mosaic.of(few, 4).places)


def test_pairs_of_a_mosaic_have_the_patches_windows_and_segments_beyond_them() -> None:
    archive = fast(8, seed=2)
    mosaic = Mosaic.of(archive, 4)
    held = Archive.of(mosaic.archive)
    prior = with_surroundings(FieldPrior.eofs(held, LAGS, 10), mosaic)
    pairs = simulate_pairs(mosaic, prior, CAMPAIGN, 40, seed=3)
    np.testing.assert_allclose(pairs.x, prior.encode(windows_at(held, pairs.index, LAGS)), atol=1e-5)
    there = pairs.tokens[pairs.tokens[..., -1] == 1]
    rows, columns = there[:, 4].numpy(), there[:, 5].numpy()
    outside = (rows < 3.5) | (rows > 7.5) | (columns < 3.5) | (columns > 7.5)
    assert 0.2 < outside.mean() < 0.8
    cut = simulate_pairs(mosaic.archive, prior, CAMPAIGN, 40, seed=3)
    assert (cut.tokens[..., -1].sum(), pairs.tokens[..., -1].sum())[0] < pairs.tokens[..., -1].sum()


def test_patches_of_an_uneven_grid_are_refused() -> None:
    latitude = np.array([0.0, 1.0, 2.0, 3.5])
    grid = replace(Archive.of(random_fourier(1, 2)).grid, latitude=latitude, ocean=np.ones((4, 9), bool))
    with pytest.raises(ValueError, match=r"evenly spaced latitude for patches, got steps from 1 to 1.5"):
        patches_of(grid, 2)


def test_patches_saved_without_what_is_beyond_their_edge_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbclWarning)
        learned = Assimilator.fit(
            random_fourier(30, 3, seed=4),
            **OBSERVED,
            method="information",
            patch=4,
            pairs=60,
            epochs=1,
            progress=False,
            rank=5,
        )
    learned.prior = replace(learned.prior, around=None)
    learned.save(tmp_path / "old")
    with pytest.raises(CheckpointError, match="see nothing beyond their edge, of an earlier version"):
        Assimilator.load(tmp_path / "old")
