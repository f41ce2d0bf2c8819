"""Methods that rest on an ensemble: EnOI, ES-MDA, analogs, importance sampling and the ETKF."""

import sys

import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, START, dataset, padded, random_fourier, track_of

from probcl import ProbclWarning
from probcl.assimilation.baselines import (
    ETKF,
    Analogs,
    EnsembleOptimalInterpolation,
    EnsembleSmoother,
    ExactPosterior,
    Hyperparameters,
    OptimalInterpolation,
    StreamFunctionCovariance,
    displacements,
    es_mda,
    track_log_likelihood,
)
from probcl.assimilation.baselines.displacements import displacement_covariance
from probcl.sphere import METRES_PER_DEGREE

COVARIANCE = StreamFunctionCovariance(60e3, 8.0)
KNOWN = Hyperparameters(COVARIANCE, 1.0, 0.0, float("nan"))


def at_grid_points(days: tuple[float, ...] = (0, 1, 2), error: float = 2000.0) -> xr.Dataset:
    seen = ((-33.25, 20.75, 0.2, -0.1), (-32.75, 21.25, -0.3, 0.2), (-33.5, 21.5, 0.1, 0.3))
    return padded([track_of(a, b, day, u, v) for day, (a, b, u, v) in zip(days, seen, strict=True)], error)


def uniform_drift(fields: xr.Dataset, tracks: xr.Dataset) -> xr.Dataset:
    """Drifters that go straight with the current halfway between their fixes: linear in the fields."""
    middle = tracks[["latitude", "longitude"]].mean("obs")
    moment = tracks["time"].isel(obs=0) + (tracks["time"].isel(obs=1) - tracks["time"].isel(obs=0)) / 2
    time = {"time": moment} if "time" in fields.dims and fields.sizes["time"] > 1 else {}
    if "time" in fields.dims and not time:
        fields = fields.isel(time=0)
    current = fields.sel(latitude=middle["latitude"], longitude=middle["longitude"], method="nearest").sel(**time)
    current = current.reset_coords(drop=True)
    seconds = (tracks["time"] - tracks["time"].isel(obs=0)) / np.timedelta64(1, "s")
    # Metres at the parallel of each fix, as displacements are measured.
    cosine = np.cos(np.deg2rad(tracks["latitude"]))
    east = tracks["longitude"].isel(obs=0) + seconds * current["u"] / (METRES_PER_DEGREE * cosine)
    north = tracks["latitude"].isel(obs=0) + seconds * current["v"] / METRES_PER_DEGREE
    predicted = xr.Dataset({"latitude": north, "longitude": east})
    return predicted.transpose("realization", "trajectory", "obs")


@pytest.fixture(scope="module")
def large_archive() -> xr.Dataset:
    return random_fourier(4000, 3, waves=40)


def difference(one: xr.Dataset, other: xr.Dataset, name: str) -> float:
    return float(np.nanmax([np.abs(one[f"{c}_{name}"] - other[f"{c}_{name}"]) for c in "uv"]))


def test_enoi_without_taper_and_with_a_large_ensemble_is_optimal_interpolation(large_archive: xr.Dataset) -> None:
    exact = OptimalInterpolation(hyperparameters=KNOWN, local=False).fit(large_archive)
    expected = exact.analyse(at_grid_points(), START + DAY, 2)
    assert float(np.abs(expected["u_mean"]).max()) > 0.15
    errors = []
    for windows in (100, 4000):
        method = EnsembleOptimalInterpolation(windows, radius=None).fit(large_archive)
        found = method.analyse(at_grid_points(), START + DAY, 2, seed=1)
        errors.append((difference(found, expected, "mean"), difference(found, expected, "stddev")))
    # Anomalies are .3 m/s, so a covariance is off by some .3/√4000 = .005 of them, six observations at once.
    assert max(errors[1]) < 0.025
    assert errors[1][0] < errors[0][0] / 3


def test_members_of_enoi_have_its_mean_and_standard_deviation(large_archive: xr.Dataset) -> None:
    method = EnsembleOptimalInterpolation(4000, radius=150e3).fit(large_archive)
    found = method.analyse(at_grid_points(), START + DAY, 4000)
    spread = found["u_stddev"]
    assert float(np.abs((found["u"].mean("realization") - found["u_mean"]) / spread).max()) < 5 / np.sqrt(4000)
    assert float(np.abs(found["u"].std("realization") / spread - 1).max()) < 5 / np.sqrt(2 * 4000)


def test_enoi_leaves_what_is_beyond_the_taper_alone() -> None:
    data = random_fourier(60, 3)
    found = EnsembleOptimalInterpolation(60, radius=60e3).fit(data).analyse(at_grid_points(), START + DAY, 2)
    prior = data.isel(time=1).mean("member")
    moved = np.abs(found["u_mean"] - prior["u"])
    assert float(moved.sel(latitude=-32.25, longitude=20.0)) < 1e-12
    assert float(moved.sel(latitude=-33.25, longitude=20.75)) > 0.01


def test_es_mda_is_exact_for_a_linear_gaussian_case() -> None:
    rng = np.random.default_rng(0)
    root, operator = rng.standard_normal((4, 4)), rng.standard_normal((3, 4))
    observed, noise = np.array([1.0, -2.0, 0.5]), np.diag([0.5, 1.0, 0.3]) + 0.2
    prior = root @ root.T
    gain = prior @ operator.T @ np.linalg.inv(operator @ prior @ operator.T + noise)
    mean, posterior = gain @ observed, prior - gain @ operator @ prior
    deviation = np.sqrt(np.diagonal(posterior))
    ensemble = rng.standard_normal((40_000, 4)) @ root.T
    for inflations in ([1.0], [4.0] * 4, [2.0, 4.0, 4.0]):
        found = es_mda(ensemble, lambda x: x @ operator.T, observed, noise, inflations, rng)
        assert np.abs((found.mean(0) - mean) / deviation).max() < 0.03
        np.testing.assert_allclose(np.cov(found.T), posterior, atol=0.04 * np.outer(deviation, deviation).max())


def test_localised_es_mda_with_a_taper_of_ones_is_es_mda() -> None:
    rng = np.random.default_rng(0)
    ensemble, operator = rng.standard_normal((50, 5)), rng.standard_normal((2, 5))
    arguments = ensemble, lambda x: x @ operator.T, np.ones(2), np.eye(2), [2.0, 2.0]
    plain = es_mda(*arguments, np.random.default_rng(1))
    ones = es_mda(*arguments, np.random.default_rng(1), np.ones((5, 2)))
    none = es_mda(*arguments, np.random.default_rng(1), np.zeros((5, 2)))
    np.testing.assert_allclose(ones, plain, atol=1e-12)
    np.testing.assert_array_equal(none, ensemble)


def test_the_ensemble_smoother_on_straight_tracks_is_optimal_interpolation(large_archive: xr.Dataset) -> None:
    exact = OptimalInterpolation(hyperparameters=KNOWN, local=False, error_floor=0.0).fit(large_archive)
    expected = exact.analyse(at_grid_points(), START + DAY, 2)
    smoother = EnsembleSmoother(uniform_drift, ensemble=4000, steps=3).fit(large_archive)
    found = smoother.analyse(at_grid_points(), START + DAY, 2, seed=1)
    assert difference(found, expected, "mean") < 0.03
    assert difference(found, expected, "stddev") < 0.03


def test_inflations_that_count_the_data_twice_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="inflations must be positive with inverses that sum to 1"):
        es_mda(np.ones((3, 2)), lambda x: x, np.ones(2), np.eye(2), [2.0], np.random.default_rng(0))


def test_a_drifter_that_some_members_lose_counts_there_as_the_others_mean() -> None:
    data, seen = random_fourier(30, 3), at_grid_points()

    def loses(members: list[int]):
        return lambda fields, tracks: uniform_drift(fields, tracks).where(
            ~xr.DataArray(np.isin(np.arange(30), members), dims="realization")
        )

    found = {
        count: EnsembleSmoother(loses(list(range(count))), ensemble=30, steps=1)
        .fit(data)
        .analyse(seen, START + DAY, 30, seed=1)
        for count in (0, 5, 30)
    }
    assert 0 < difference(found[5], found[0], "mean") < 0.2
    prior = data.isel(time=1)
    np.testing.assert_allclose(found[30]["u_mean"], prior["u"].mean("member"), atol=1e-12)


def test_predictions_that_are_not_finite_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="predictions must be finite, got 6 that are not"):
        es_mda(np.ones((3, 2)), lambda x: x * np.nan, np.ones(2), np.eye(2), [1.0], np.random.default_rng(0))


def test_the_advections_shape_is_checked_by_name() -> None:
    seen = at_grid_points()
    good = uniform_drift(random_fourier(4, 1).rename(member="realization"), seen)
    assert displacements(good, seen).shape == (4, 6)
    for bad, message in (
        (good.isel(obs=[0]), "the advection must return tracks of shape"),
        (good.drop_vars("latitude"), "the advection must return latitude with dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            displacements(bad, seen)


def test_the_first_fixes_error_is_shared_along_its_track() -> None:
    seen = padded([[(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(0, 1, 1), (1, 1, 1)]], error=10.0)
    one = np.array([[200, 100, 0], [100, 200, 0], [0, 0, 200]], dtype=float)
    np.testing.assert_array_equal(displacement_covariance(seen), np.kron(np.eye(2), one))
    np.testing.assert_array_equal(displacement_covariance(seen, 5.0), np.kron(np.eye(2), one + 25 * np.eye(3)))


def test_the_nearest_analog_is_the_window_that_the_tracks_were_made_in() -> None:
    data = random_fourier(30, 5)
    truth = data.isel(member=17)
    where = [(-33.25, 20.75), (-32.75, 21.25), (-33.5, 21.5)]
    fixes = []
    for (latitude, longitude), day in zip(where, (1, 2, 3), strict=True):
        current = truth.sel(latitude=latitude, longitude=longitude).isel(time=day)
        fixes.append(track_of(latitude, longitude, day, float(current["u"]), float(current["v"])))
    found = Analogs(neighbours=2).fit(data).analyse(padded(fixes), START + 2 * DAY, members=2)
    assert 17 in found["archive_member"]
    picked = found.isel(realization=int(np.argmax(found["archive_member"].values == 17)))
    assert picked["archive_time"] == START + 2 * DAY
    np.testing.assert_array_equal(picked["u"], truth["u"].isel(time=2))


def gaussian_sampler(method: OptimalInterpolation):
    root = np.linalg.cholesky(0.09 * (COVARIANCE(method._grid_points, method._grid_points) + 1e-9 * np.eye(142)))

    def draw(count: int, rng: np.random.Generator) -> xr.Dataset:
        drawn = (rng.standard_normal((count, 142)) @ root.T).reshape(count, 1, 2, 71)
        fields = dataset(method.grid.on_map(drawn), method.grid.latitude, method.grid.longitude)
        return fields.rename(member="realization")

    return draw


def test_importance_sampling_finds_the_exact_posterior_of_a_gaussian_world() -> None:
    seen = at_grid_points((0, 0, 0), error=6000.0)
    exact = OptimalInterpolation(hyperparameters=KNOWN, local=False, error_floor=0.0).fit(random_fourier(9, 1))
    exact.mean, exact.stddev = np.zeros_like(exact.mean), np.full_like(exact.stddev, 0.3)
    expected = exact.analyse(seen, START, 2)
    brute = ExactPosterior(gaussian_sampler(exact), track_log_likelihood(uniform_drift), 20_000).fit(
        random_fourier(9, 1)
    )
    found = brute.analyse(seen, START, 3000)
    size = float(found["effective_sample_size"])
    assert 300 < size < 15_000
    error = 5 * expected["u_stddev"] / np.sqrt(size)
    assert (np.abs(found["u_mean"] - expected["u_mean"]) < error).sum() == 71
    assert (np.abs(found["u_stddev"] - expected["u_stddev"]) < error).sum() == 71
    shifted = np.abs(found["u"].mean("realization") - found["u_mean"]) / found["u_stddev"]
    assert float(shifted.max()) < 5 / np.sqrt(3000)


def test_the_likelihood_of_tracks_is_gaussian_in_their_displacements() -> None:
    seen = at_grid_points((0, 0, 0), error=3000.0)
    fields = random_fourier(5, 1).rename(member="realization")
    found = track_log_likelihood(uniform_drift, model_error=500.0)(fields, seen)
    misfit, covariance = displacements(uniform_drift(fields, seen), seen), displacement_covariance(seen, 500.0)
    expected = [
        -0.5 * m @ np.linalg.inv(covariance) @ m - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1] for m in misfit
    ]
    np.testing.assert_allclose(found, expected)


def test_lost_drifters_have_no_likelihood() -> None:
    fields = random_fourier(3, 1).rename(member="realization")
    lost = np.array([False, True, False])

    def advection(fields: xr.Dataset, tracks: xr.Dataset) -> xr.Dataset:
        return uniform_drift(fields, tracks).where(xr.DataArray(~lost, dims="realization"))

    found = track_log_likelihood(advection)(fields, at_grid_points((0, 0, 0)))
    np.testing.assert_array_equal(np.isneginf(found), lost)


def test_a_collapsed_importance_sample_warns_and_records_its_size() -> None:
    exact = OptimalInterpolation(hyperparameters=KNOWN, local=False).fit(random_fourier(9, 1))
    sharp = track_log_likelihood(uniform_drift)
    brute = ExactPosterior(gaussian_sampler(exact), sharp, 100).fit(random_fourier(9, 1))
    with pytest.warns(ProbclWarning, match="the exact posterior rests on an effective sample of"):
        found = brute.analyse(at_grid_points((0, 0, 0), error=50.0), START, 3)
    assert float(found["effective_sample_size"]) < 30


def test_a_likelihood_that_is_none_is_refused_by_name() -> None:
    data = random_fourier(9, 1)
    exact = OptimalInterpolation(hyperparameters=KNOWN, local=False).fit(data)
    for likelihood, message in (
        (lambda fields, tracks: np.full(50, np.nan), "log_likelihood must return 50 numbers that are not NaN"),
        (lambda fields, tracks: np.full(50, -np.inf), "log_likelihood must be finite for some draw of the prior"),
    ):
        with pytest.raises(ValueError, match=message):
            ExactPosterior(gaussian_sampler(exact), likelihood, 50).fit(data).analyse(at_grid_points(), START, 2)


def test_without_dapper_the_etkf_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dapper", None)
    monkeypatch.setitem(sys.modules, "dapper.da_methods.ensemble", None)
    with pytest.raises(ImportError, match=r'pip install "probcl\[dapper\]"'):
        ETKF()


def test_dappers_etkf_is_enoi_without_taper() -> None:
    pytest.importorskip("dapper")
    data = random_fourier(40, 3)
    expected = EnsembleOptimalInterpolation(40, radius=None).fit(data).analyse(at_grid_points(), START + DAY, 2)
    found = ETKF(40).fit(data).analyse(at_grid_points(), START + DAY, 2)
    assert difference(found, expected, "mean") < 1e-9
    assert difference(found, expected, "stddev") < 1e-9
