import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, START, axes, dataset, padded, random_fourier, track_of

from probcl.assimilation import scores
from probcl.assimilation.baselines import (
    Case,
    Hyperparameters,
    IsotropicCovariance,
    OptimalInterpolation,
    StreamFunctionCovariance,
    segments,
    tune,
)
from probcl.assimilation.baselines.covariance import Points
from probcl.sphere import frame

KNOWN = Hyperparameters(StreamFunctionCovariance(60e3, 8.0), 0.9, 0.05, float("nan"))


def tracks(seed: int = 0, drifters: int = 6) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    where = zip(rng.uniform(-33.7, -32.4, drifters), rng.uniform(20.3, 21.8, drifters), strict=True)
    return padded([track_of(a, b, rng.uniform(0, 4), *rng.normal(0, 0.2, 2)) for a, b in where])


def dense(method: OptimalInterpolation, seen: xr.Dataset, time: np.datetime64) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of (u, v) at all ocean points by the joint covariance of everything."""
    observed = segments(seen, method.error_floor)
    points, weights = method.grid.weights(observed.latitude, observed.longitude)
    ocean = np.argwhere(method.grid.ocean)
    n, covariance, variance, unresolved = len(ocean), *method.hyperparameters[:3]
    latitude = np.concatenate([method.grid.latitude[ocean[:, 0]], observed.latitude])
    longitude = np.concatenate([method.grid.longitude[ocean[:, 1]], observed.longitude])
    days = np.concatenate([np.zeros(n), (observed.time - time) / DAY])
    scale, mean = (
        np.stack([np.append(part[c], (part[c][points] * weights).sum(1)) for c in (0, 1)]).ravel()
        for part in (method.stddev, method.mean)
    )
    everywhere = Points(frame(latitude, longitude), days)
    prior = variance * covariance(everywhere, everywhere) * np.outer(scale, scale)
    prior += np.diag(unresolved * scale**2)  # the part without correlation, of the map and of what is observed
    total = len(latitude)
    target, data = (np.concatenate([part, part + total]) for part in (np.arange(n), np.arange(n, total)))
    within = prior[np.ix_(data, data)] + np.diag(np.tile(observed.error**2, 2))
    gain = prior[np.ix_(target, data)] @ np.linalg.inv(within)
    centre = mean[target] + gain @ (observed.velocity.T.ravel() - mean[data])
    return centre, prior[np.ix_(target, target)] - gain @ prior[np.ix_(data, target)]


def on_ocean(result: xr.Dataset, name: str = "{}") -> np.ndarray:
    values = np.stack([result[name.format(component)].values for component in ("u", "v")], axis=-3)
    flat = values[..., np.isfinite(values.reshape(-1, *values.shape[-2:])[0])]
    return flat.reshape(*flat.shape[:-2], -1)


@pytest.mark.parametrize("kind", ["stream function", "isotropic"])
@pytest.mark.parametrize("local", [True, False])
def test_the_posterior_is_that_of_the_dense_formula(kind: str, local: bool) -> None:
    covariance = {"stream function": StreamFunctionCovariance, "isotropic": IsotropicCovariance}[kind](60e3, 8.0)
    method = OptimalInterpolation(kind, local=local, hyperparameters=KNOWN._replace(covariance=covariance))
    time = START + 2 * DAY
    result = method.fit(random_fourier(20, 4)).analyse(tracks(), time, members=4000, seed=1)
    mean, posterior = dense(method, tracks(), time)
    np.testing.assert_allclose(on_ocean(result, "{}_mean"), mean, atol=1e-10)
    np.testing.assert_allclose(on_ocean(result, "{}_stddev") ** 2, np.diagonal(posterior), atol=1e-10)
    members = on_ocean(result)
    deviation = np.sqrt(np.diagonal(posterior))
    # Five standard errors of a mean, and of a correlation, of 4,000 draws.
    assert np.abs((members.mean(0) - mean) / deviation).max() < 5 / np.sqrt(4000)
    assert np.abs((np.cov(members.T) - posterior) / np.outer(deviation, deviation)).max() < 5 * np.sqrt(2 / 4000)


def test_far_from_all_observations_the_posterior_is_the_prior() -> None:
    latitude, longitude = axes(3, 60, 0.5)
    data = dataset(np.random.default_rng(0).standard_normal((40, 1, 2, 3, 60)), latitude, longitude)
    method = OptimalInterpolation(hyperparameters=KNOWN._replace(variance=1.0, unresolved=0.0)).fit(data)
    result = method.analyse(padded([track_of(-33.5, 20.5, 0, 0.3, 0.2)]), START, 3)
    np.testing.assert_allclose(result["u_mean"][:, -10:], data["u"].mean(("member", "time"))[:, -10:], atol=1e-12)
    np.testing.assert_allclose(result["u_stddev"][:, -10:], method.grid.on_map(method.stddev)[0, :, -10:], rtol=1e-9)


def test_the_exact_posterior_covers_its_own_prior() -> None:
    method = OptimalInterpolation(hyperparameters=KNOWN, error_floor=0.05).fit(random_fourier(20, 4))
    rng, time, covered, ensembles, truths = np.random.default_rng(0), START + 2 * DAY, [], [], []
    for window in range(120):
        seen = tracks(window, drifters=5)
        observed = segments(seen, 0.05)
        points, weights = method.grid.weights(observed.latitude, observed.longitude)
        scale, mean = (np.einsum("cnk,nk->cn", part[:, points], weights) for part in (method.stddev, method.mean))
        frames = [
            np.concatenate(pair)
            for pair in zip(method.grid.frame, frame(observed.latitude, observed.longitude), strict=True)
        ]
        days = np.concatenate([np.zeros(len(frames[0]) - len(observed)), (observed.time - time) / DAY])
        joint = Points(type(method.grid.frame)(*frames), days)
        matrix = KNOWN.variance * KNOWN.covariance(joint, joint) + KNOWN.unresolved * np.eye(2 * len(days))
        draw = (np.linalg.cholesky(matrix + 1e-9 * np.eye(len(matrix))) @ rng.standard_normal(len(matrix))).reshape(
            2, -1
        )
        n = method.mean.shape[1]
        truth = (method.mean + method.stddev * draw[:, :n]).ravel()
        velocity = mean + scale * draw[:, n:] + rng.standard_normal(scale.shape) * observed.error
        moved = padded(
            [
                track_of(a, b, float((t - START) / DAY), u, v)
                for a, b, t, u, v in zip(observed.latitude, observed.longitude, observed.time, *velocity, strict=True)
            ]
        )
        result = method.analyse(moved, time, members=39, seed=window)
        half = 1.6448536 * on_ocean(result, "{}_stddev")
        covered.append((np.abs(truth - on_ocean(result, "{}_mean")) < half).mean())
        ensembles.append(on_ocean(result))
        truths.append(truth)
    # The windows' own scatter gives the standard error.
    assert np.mean(covered) == pytest.approx(0.9, abs=3 * np.std(covered) / np.sqrt(120))
    assert np.std(covered) / np.sqrt(120) < 0.01
    inside = scores.coverage(np.stack(ensembles), np.stack(truths))
    assert inside.mean() == pytest.approx(0.9, abs=3 * inside.std() / np.sqrt(120))
    assert scores.spread_skill(np.stack(ensembles), np.stack(truths)) == pytest.approx(1, abs=0.05)


def test_hyperparameters_are_recovered_from_an_archive_by_marginal_likelihood() -> None:
    method = OptimalInterpolation(shape="gaussian").fit(random_fourier(40, 12))
    found = method.hyperparameters
    assert found.covariance.length == pytest.approx(60e3, rel=0.1)
    assert found.covariance.period == pytest.approx(8.0, rel=0.15)
    assert found.variance == pytest.approx(1, rel=0.2)
    assert found.unresolved < 0.01


@pytest.mark.slow
def test_the_stream_function_is_the_likelier_on_non_divergent_currents() -> None:
    data = random_fourier(30, 3)
    stream, isotropic = (
        OptimalInterpolation(kind, shape="gaussian", local=False).fit(data).hyperparameters
        for kind in ("stream function", "isotropic")
    )
    assert stream.log_likelihood > isotropic.log_likelihood + 0.1


def test_an_archive_of_one_time_says_nothing_of_the_period() -> None:
    assert OptimalInterpolation(shape="matern72").fit(random_fourier(30, 1)).hyperparameters.covariance.period == 1e4


@pytest.mark.slow
def test_the_likeliest_shape_is_that_of_the_archive() -> None:
    found = OptimalInterpolation(local=False).fit(random_fourier(30, 3)).hyperparameters
    assert found.covariance.shape == "gaussian"


def test_tuning_finds_the_error_that_the_tracks_were_given() -> None:
    data, noise = random_fourier(30, 1), np.random.default_rng(0)
    cases = []
    for window in range(25):
        truth = random_fourier(1, 1, seed=200 + window).isel(member=0, time=0)
        fixes = []
        for latitude, longitude in ((-33.25, 20.75), (-32.75, 21.25), (-33.5, 21.5), (-32.5, 20.5)):
            u, v = (float(truth[name].sel(latitude=latitude, longitude=longitude)) for name in ("u", "v"))
            fixes.append(track_of(latitude, longitude, 0.0, *(np.array([u, v]) + 0.2 * noise.standard_normal(2))))
        cases.append(Case(padded(fixes), START, truth))
    known = KNOWN._replace(variance=1.0, unresolved=0.0)
    methods = {
        str(floor): OptimalInterpolation(local=False, hyperparameters=known, error_floor=floor).fit(data)
        for floor in (0.02, 0.2, 2.0)
    }
    found = tune(methods, cases)
    assert found.best == "0.2"
    assert found.crps["0.2"] == min(found.crps.values())
    with pytest.raises(ValueError, match="tune needs methods and cases, got 3 and 0"):
        tune(methods, [])


@pytest.mark.slow
def test_the_stream_function_beats_independent_components_on_non_divergent_currents() -> None:
    data = random_fourier(30, 5, seed=1)
    methods = [
        OptimalInterpolation(kind, shape="gaussian", error_floor=0.01).fit(data)
        for kind in ("stream function", "isotropic")
    ]
    errors = np.zeros(2)
    for window in range(30):
        truth = random_fourier(1, 1, seed=100 + window).isel(member=0, time=0)
        seen = tracks(window)
        observed = segments(seen)
        at = truth.interp(latitude=("n", observed.latitude), longitude=("n", observed.longitude))
        moved = padded(
            [
                track_of(float(p["latitude"]), float(p["longitude"]), 0.0, float(p["u"]), float(p["v"]))
                for p in (at.isel(n=k) for k in range(at.sizes["n"]))
            ]
        )
        for k, method in enumerate(methods):
            result = method.analyse(moved, START, 2)
            errors[k] += float(((result["u_mean"] - truth["u"]) ** 2 + (result["v_mean"] - truth["v"]) ** 2).mean())
    assert errors[0] < 0.85 * errors[1]


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="kind must be 'stream function' or 'isotropic', got 'vortical'"):
        OptimalInterpolation("vortical")  # type: ignore[arg-type]
    latitude, longitude = axes(3, 3)
    with pytest.raises(ValueError, match="archive must vary at every ocean point"):
        OptimalInterpolation().fit(dataset(np.ones((4, 1, 2, 3, 3)), latitude, longitude))
