"""What all baselines have in common, how tracks are read, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, START, axes, dataset, padded, random_fourier, track_of

from probcl.assimilation import predict_tracks
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import (
    Analogs,
    Baseline,
    Climatology,
    EnsembleOptimalInterpolation,
    EnsembleSmoother,
    ExactPosterior,
    Hyperparameters,
    LinearGaussian,
    OptimalInterpolation,
    StreamFunctionCovariance,
    segments,
)
from probcl.sphere import METRES_PER_DEGREE

KNOWN = Hyperparameters(StreamFunctionCovariance(60e3, 8.0), 1.0, 0.0, float("nan"))


def archive() -> xr.Dataset:
    return random_fourier(12, 5, waves=30)


def tracks() -> xr.Dataset:
    return padded(
        [track_of(-33.2, 21.1, 2.0, 0.2, -0.1), track_of(-33.0, 20.7, 1.7, -0.3, 0.1), track_of(-32.6, 21.6, 2.4, 0, 0)]
    )


def waves(time: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    days = (time - START) / DAY
    phase = np.stack([2 * latitude + 0.1 * days, 3 * longitude - 0.2 * days, latitude + longitude], axis=-1)
    return 0.2 * np.stack([np.cos(phase), np.sin(phase)], axis=1)


def draw(count: int, rng: np.random.Generator) -> xr.Dataset:
    fields = random_fourier(count, 1, seed=int(rng.integers(1000)), waves=20).isel(time=0)
    return fields.rename(member="realization")


METHODS = {
    "climatology": Climatology(),
    "OI, stream function": OptimalInterpolation(hyperparameters=KNOWN),
    "OI, isotropic": OptimalInterpolation("isotropic", hyperparameters=KNOWN, local=False),
    "EnOI": EnsembleOptimalInterpolation(windows=20),
    "analogs": Analogs(neighbours=8),
    "ES-MDA": EnsembleSmoother(predict_tracks, ensemble=20, steps=2),
    "ES-MDA, localised": EnsembleSmoother(predict_tracks, ensemble=20, steps=2, radius=200e3),
    "linear": LinearGaussian(waves),
    "linear, along": LinearGaussian(waves, along=True),
    "exact": ExactPosterior(draw, lambda fields, tracks: np.zeros(fields.sizes["realization"]), 60, batch=25),
}
# Whose mean and standard deviation do not rest on perturbed observations.
DETERMINED = {name: method for name, method in METHODS.items() if not isinstance(method, EnsembleSmoother)}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
def test_an_analysis_is_an_ensemble_on_the_archives_grid_with_its_land(method: Baseline) -> None:
    data = archive()
    result = method.fit(data).analyse(tracks(), START + 2 * DAY, members=7, seed=3)
    land = np.isnan(data["u"].values[0, 0])
    for name in ("u", "v"):
        assert result[name].dims == ("realization", "latitude", "longitude")
        assert result[name].shape == (7, *land.shape)
        assert (np.isnan(result[name].values) == land).all()
        for moment in ("mean", "stddev"):
            assert (np.isnan(result[f"{name}_{moment}"].values) == land).all()
        assert np.nanmin(result[f"{name}_stddev"]) >= 0
    xr.testing.assert_equal(result["latitude"].variable, data["latitude"].variable)
    assert result["time"].values == START + 2 * DAY
    assert result.attrs["n_obs"] == 3


@every_method
def test_members_are_a_function_of_the_seed(method: Baseline) -> None:
    method.fit(archive())
    first, again, other = (method.analyse(tracks(), START + 2 * DAY, 5, seed) for seed in (1, 1, 2))
    xr.testing.assert_equal(first["u"], again["u"])
    assert not np.array_equal(first["u"].values, other["u"].values, equal_nan=True)


@pytest.mark.parametrize("method", DETERMINED.values(), ids=DETERMINED.keys())
def test_the_order_of_drifters_and_the_count_of_longitude_do_not_matter(method: Baseline) -> None:
    method.fit(archive())
    turned = tracks().isel(trajectory=[2, 0, 1])
    turned["longitude"] = turned["longitude"] - 360
    one, other = (method.analyse(seen, START + 2 * DAY, 5) for seen in (tracks(), turned))
    np.testing.assert_allclose(one["u_mean"], other["u_mean"], atol=1e-9)
    np.testing.assert_allclose(one["v_stddev"], other["v_stddev"], atol=1e-9)


@every_method
def test_bad_requests_are_refused_by_name(method: Baseline) -> None:
    method.fit(archive())
    far = tracks()
    far["longitude"] = far["longitude"] + 30
    for seen, time, members, message in (
        (far, START, 5, "tracks must stay on the archive's grid, longitude from 20 to 22"),
        (tracks(), np.datetime64("NaT"), 5, "time must be a time, got NaT"),
        (tracks(), START, 0, "members must be at least 1, got 0"),
        (tracks().drop_vars("position_error"), START, 5, "tracks must have time, latitude, longitude, position_error"),
        (tracks().isel(obs=[0]), START, 5, "tracks must have a trajectory of two fixes or more"),
    ):
        with pytest.raises(ValueError, match=message):
            method.analyse(seen, time, members)


@pytest.mark.usefixtures("unchecked")
def test_a_time_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="time must be a datetime64, a datetime or a string of ISO 8601, got 3"):
        Climatology().fit(archive()).analyse(tracks(), 3, 5)  # type: ignore[arg-type]


def test_a_method_must_be_fitted_first() -> None:
    with pytest.raises(RuntimeError, match="Climatology must be fitted to an archive first"):
        Climatology().analyse(tracks(), START, 3)


def test_climatology_is_the_archives_mean_and_standard_deviation() -> None:
    data = archive()
    result = Climatology().fit(data).analyse(tracks(), START, members=9)
    np.testing.assert_allclose(result["u_mean"], data["u"].mean(("member", "time")), atol=1e-12)
    np.testing.assert_allclose(result["v_stddev"], data["v"].std(("member", "time")), atol=1e-12)
    picked = data["u"].isel(member=("realization", result["archive_member"].values)).sel(time=result["archive_time"])
    np.testing.assert_array_equal(picked.transpose("realization", ...), result["u"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.drop_vars("v"), "archive must have a variable 'v'"),
        (lambda a: a.rename(latitude="lat"), "archive.u must have the dimensions"),
        (lambda a: a.drop_vars("time"), "archive must have a coordinate 'time'"),
        (lambda a: a.isel(latitude=slice(None, None, -1)), "archive.latitude must be finite and ascend"),
        (lambda a: a.where(a["time"] > START), "archive must be NaN on land and nowhere else"),
        (lambda a: a * np.inf, "archive must be at most 20 m/s and NaN on land, got inf"),
        (
            lambda a: a.where((a["time"] == START) | a.isnull(), -9999.0),
            "archive must be at most 20 m/s .* got 9999: a",
        ),
        (lambda a: a * np.nan, "archive must have ocean, got NaN everywhere"),
    ],
)
def test_a_damaged_archive_is_refused_by_name(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Climatology().fit(change(archive()))


@pytest.mark.usefixtures("unchecked")
def test_an_archive_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"archive must be an xarray\.Dataset"):
        Climatology().fit(archive()["u"].values)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"archive\.time must be decoded to datetime64"):
        Climatology().fit(archive().assign_coords(time=np.arange(5)))


def test_an_archive_without_members_is_one_member() -> None:
    data = archive().isel(member=0)
    np.testing.assert_array_equal(Archive.of(data).values, Archive.of(data.expand_dims("member")).values)


def test_a_segment_has_the_velocity_the_middle_and_the_error_of_its_fixes() -> None:
    seen = segments(padded([track_of(-33.2, 21.1, 2.0, 0.2, -0.1, hours=24)], error=300.0), error_floor=0.03)
    np.testing.assert_allclose(seen.velocity, [[0.2, -0.1]], rtol=1e-6)
    np.testing.assert_allclose([seen.latitude[0], seen.longitude[0]], [-33.2, 21.1], rtol=1e-12)
    assert seen.time[0] == START + 2 * DAY
    assert seen.duration[0] == 86_400
    assert seen.error[0] == pytest.approx(np.sqrt(2 * (300 / 86_400) ** 2 + 0.03**2))


def test_segments_bridge_gaps_and_cross_the_date_line() -> None:
    gap = padded([[(0, 10.0, 179.9), (1, 10.0, 180.0), (2, 10.0, -179.9)], [(0, 0.0, 0.0), (2, 0.0, 0.2)]])
    gap["latitude"][0, 1] = gap["longitude"][0, 1] = np.nan
    gap["time"][0, 1] = np.datetime64("NaT", "ns")
    seen = segments(gap)
    np.testing.assert_array_equal(seen.trajectory, [0, 1])
    np.testing.assert_allclose(seen.longitude, [180, 0.1])
    expected = 0.2 * METRES_PER_DEGREE / 172_800
    np.testing.assert_allclose(seen.velocity[:, 0], [expected * np.cos(np.deg2rad(10)), expected], rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(latitude=t["latitude"] + 130), r"tracks' latitude must be finite and within \[-90, 90\]"),
        (lambda t: t.assign(longitude=t["longitude"] + 400), r"tracks' longitude must be finite and within"),
        (lambda t: t.assign(position_error=-t["position_error"]), r"tracks' position_error must be finite and within"),
        (lambda t: t.isel(obs=[1, 0]), "tracks must have fixes in order of time"),
        (lambda t: t.assign(longitude=t["longitude"].where(t["obs"] > 0)), "got fixes with only some of them"),
        (lambda t: t.isel(trajectory=0), "tracks' time must have dimensions"),
    ],
)
def test_damaged_tracks_are_refused_by_name(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segments(change(tracks()))


def test_an_impossible_error_floor_is_refused_by_name() -> None:
    for floor in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="error_floor must be finite and not negative"):
            segments(tracks(), floor)


def test_windows_of_the_archive_see_what_interpolation_in_space_and_time_sees() -> None:
    latitude, longitude = axes()
    rng = np.random.default_rng(0)
    data = dataset(rng.standard_normal((3, 6, 2, 8, 9)), latitude, longitude)
    seen = segments(padded([track_of(-33.11, 20.87, 1.3, 0.2, 0.1), track_of(-32.6, 21.4, 3.6, 0.1, 0)]))
    time = START + 2 * DAY
    found = Archive.of(data)
    centres = found.centres(seen.time - time)
    np.testing.assert_array_equal(centres, [1, 2, 3])
    views = found.observe(seen, time).reshape(3, 3, 2, 2)
    for k, centre in enumerate(centres):
        for n in range(2):
            moment = START + centre * DAY + (seen.time[n] - time)
            there = data.interp(time=moment, latitude=seen.latitude[n], longitude=seen.longitude[n])
            np.testing.assert_allclose(views[:, k, n, 0], there["u"], atol=1e-9)
            np.testing.assert_allclose(views[:, k, n, 1], there["v"], atol=1e-9)


def test_land_does_not_enter_interpolation_and_a_drifter_ashore_takes_the_nearest_sea() -> None:
    latitude, longitude = axes()
    values = np.zeros((1, 1, 2, 8, 9))
    values[..., :4, :4] = np.nan
    grid = Archive.of(dataset(values, latitude, longitude)).grid
    points, weights = grid.weights(np.array([-33.1, -34.0]), np.array([20.9, 20.05]))
    column = np.broadcast_to(longitude, (8, 9))[grid.ocean]
    np.testing.assert_allclose(weights.sum(1), 1)
    assert (column[points[0]] * weights[0]).sum() == pytest.approx(21.0, abs=0.11)
    assert (column[points[1]] * weights[1]).sum() in (20.0, 21.0)


@pytest.mark.parametrize(("west", "said"), [(280.0, "the first at 32.7"), (-80.0, "the first at 32.7")])
def test_a_place_off_the_grid_is_told_within_one_turn(west: float, said: str) -> None:
    latitude, _ = axes()
    grid = Archive.of(dataset(np.zeros((1, 1, 2, 8, 9)), latitude, west + 5.0 * np.arange(9))).grid
    with pytest.raises(ValueError, match=f"longitude from {west:g} to {west + 40:g}, got 1 segments off it, {said}$"):
        grid.weights(np.array([-33.1]), np.array([32.7]))


def test_an_archive_shorter_than_the_tracks_is_refused_by_name() -> None:
    long = padded([[(0.0, -33.2, 21.1), (20.0, -33.2, 21.2), (40.0, -33.2, 21.3)]])
    for method in (EnsembleOptimalInterpolation(), EnsembleSmoother(predict_tracks)):
        with pytest.raises(ValueError, match="archive must span the tracks' window"):
            method.fit(archive()).analyse(long, START + 20 * DAY, 3)
