"""From a world to scores: archives, tracks, analyses."""

import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, START, dataset, padded

from probcl.assimilation import predict_tracks, scorecard, simulate_tracks
from probcl.assimilation.baselines import (
    Analogs,
    Baseline,
    Climatology,
    EnsembleSmoother,
    OptimalInterpolation,
)
from probcl.assimilation.scores import Estimate
from probcl.datasets.ocean import Box, GaussianOcean, Vortices
from probcl.sphere import METRES_PER_DEGREE

WORLD = Vortices(1, box=Box(n=16, size=160e3))


def card(method: Baseline, train: xr.Dataset, test: xr.Dataset, tracks: xr.Dataset) -> dict[str, Estimate]:
    time = test["time"].values[0]
    method.fit(train)
    labels = test["member"].values
    analyses = [method.analyse(tracks.sel(trajectory=tracks["member"] == label), time, members=30) for label in labels]
    truths = [test.sel(member=label, time=time) for label in labels]
    return scorecard(analyses, truths, train.mean(("member", "time")), resamples=50)


def test_in_vortices_with_twelve_hour_fixes_analyses_score_better_than_climatology() -> None:
    days = [0, 1]
    train, test = WORLD.archive(200, days), WORLD.archive(10, days, first_member=200)
    tracks = simulate_tracks(test, n_drifters=16, window="1D", fix_interval="12h", position_error=100, seed=1)
    methods = {
        "climatology": Climatology(),
        "optimal interpolation": OptimalInterpolation(shape="gaussian"),
        "analogs": Analogs(neighbours=10),
        "smoother": EnsembleSmoother(predict_tracks, ensemble=100, model_error=500.0),
    }
    cards = {name: card(method, train, test, tracks) for name, method in methods.items()}
    assert np.isfinite([[score.value for score in found.values()] for found in cards.values()]).all()
    nothing = cards.pop("climatology")
    assert nothing["nrmse"].value == pytest.approx(1, abs=0.1)
    for found in cards.values():
        assert found["nrmse"].high < nothing["nrmse"].low
        assert found["crps"].value < 0.8 * nothing["crps"].value


def test_predicted_tracks_in_the_true_fields_are_the_true_ones() -> None:
    ocean = GaussianOcean(box=Box(n=16, size=300e3)).archive(3, days=range(7))
    starts = ocean["time"].values[[0, 2]] + np.timedelta64(6, "h")
    tracks = simulate_tracks(ocean, n_drifters=5, window="3D", fix_interval="8h", start=starts, seed=2)
    tracks = tracks.isel(trajectory=np.random.default_rng(0).permutation(tracks.sizes["trajectory"]))
    tracks["longitude"] = tracks["longitude"] + 360
    gap = (tracks["trajectory"] % 2 == 0) & (tracks["obs"] == 1)
    seen = tracks.assign({name: tracks[name].where(~gap) for name in ("time", "latitude", "longitude")})
    found = predict_tracks(ocean.rename(member="realization"), seen).sel(realization=tracks["member"])
    assert (tracks["fate"] == 0).sum() > 10
    for name, turned in (("latitude", 0), ("longitude", 360)):
        np.testing.assert_allclose(found[name].transpose("trajectory", "obs") + turned, seen[name], atol=1e-9)


def test_fields_of_one_time_stand_still_for_predicted_tracks() -> None:
    maps = np.random.default_rng(0).normal(0, 0.3, (4, 1, 2, 8, 9))
    latitude, longitude = -34 + 0.25 * np.arange(8), 20 + 0.25 * np.arange(9)
    twice = dataset(maps.repeat(2, 1), latitude, longitude, 3 * DAY).rename(member="realization")
    tracks = simulate_tracks(
        twice.isel(realization=0, drop=True), n_drifters=4, window="2D", fix_interval="12h", start=START + DAY
    )
    expected = predict_tracks(twice, tracks)
    xr.testing.assert_identical(predict_tracks(twice.isel(time=[0]), tracks), expected)
    xr.testing.assert_identical(predict_tracks(twice.isel(time=0), tracks), expected)


def test_predicted_drifters_are_lost_where_they_run_aground_or_leave_the_grid() -> None:
    maps = np.zeros((2, 1, 2, 8, 9))
    maps[0, :, 0], maps[1, :, 0] = 0.5, -0.5
    maps[..., 7] = np.nan
    fields = dataset(maps, -34 + 0.25 * np.arange(8), 20 + 0.25 * np.arange(9)).rename(member="realization")
    tracks = padded([[(day, -33.1, 20.9) for day in range(7)]])
    found = predict_tracks(fields.isel(time=0), tracks)["longitude"].values[:, 0]
    # 0.464 degrees a day: east to 21.625, whence the nearest node is land, and west to the grid's edge at 20.
    degrees = 0.5 * 86_400 / (METRES_PER_DEGREE * np.cos(np.radians(-33.1)))
    np.testing.assert_allclose(found[:, :2], [[20.9, 20.9 + degrees], [20.9, 20.9 - degrees]])
    assert np.isnan(found[:, 2:]).all()
