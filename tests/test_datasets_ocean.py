import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import kstest

from probcl.assimilation import GridFlow, advect, require_archive, simulate_tracks
from probcl.datasets.ocean import (
    EPOCH,
    Box,
    GaussianOcean,
    TorusFlow,
    Vortices,
    load_globcurrent,
    split_by_gap,
)
from probcl.errors import DataFileError
from probcl.sphere import METRES_PER_DEGREE, metres_per_degree_east

DAY = 86400.0


def divergence(velocity, latitude, longitude, distance=20.0):
    """Divergence on the sphere of u + iv, a function of latitude and longitude, by centred differences."""
    up, across = distance / METRES_PER_DEGREE, distance / metres_per_degree_east(latitude)
    north = velocity(latitude + up, longitude).imag * np.cos(np.radians(latitude + up))
    south = velocity(latitude - up, longitude).imag * np.cos(np.radians(latitude - up))
    east, west = (velocity(latitude, longitude + sign * across).real for sign in (1, -1))
    return (east - west) / (2 * distance) + (north - south) / (2 * distance) / np.cos(np.radians(latitude))


def shear(velocity, latitude, longitude, distance=20.0):
    """The size of a velocity gradient, to compare a divergence with."""
    up = distance / METRES_PER_DEGREE
    return abs(velocity(latitude + up, longitude) - velocity(latitude - up, longitude)).std() / (2 * distance)


def test_nodes_of_a_box_are_equally_far_apart_and_centred():
    box = Box(n=20, size=400e3, latitude=-50.0, longitude=10.0)
    x, y = box.plane(box.latitudes, box.longitudes)
    assert x == pytest.approx(box.nodes, abs=1e-6)
    assert y == pytest.approx(box.nodes, abs=1e-6)
    assert np.diff(box.nodes) == pytest.approx(20e3)
    assert (box.latitudes.mean(), box.longitudes.mean()) == pytest.approx((-50, 10))
    assert np.diff(box.longitudes)[0] * metres_per_degree_east(np.array([-50.0])) == pytest.approx(20e3)


@pytest.mark.parametrize("wrong", [{"n": 1}, {"size": 0.0}, {"latitude": 80.0}, {"size": 2e7}])
def test_a_box_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"n must|size must|latitude must"):
        Box(**wrong)


@pytest.fixture(scope="module")
def gaussian():
    return GaussianOcean(Box(n=8, size=200e3), n_waves=128)


def test_empirical_covariance_of_currents_is_the_exact_one(gaussian):
    """Every entry of the covariance of 6,000 members, within five standard errors."""
    days, n = (0.0, 8.0), 6000
    archive = gaussian.archive(n, days)
    chosen = np.array([3, 20, 47])
    velocity = np.stack([archive.u.values, archive.v.values], -1).reshape(n, 2, 64, 2)[:, :, chosen].reshape(n, -1)
    latitude, longitude = (g.ravel()[chosen] for g in np.meshgrid(archive.latitude, archive.longitude, indexing="ij"))
    points = archive.time.values.repeat(3), np.tile(latitude, 2), np.tile(longitude, 2)
    exact = gaussian.covariance(points, points).reshape(12, 12)
    empirical = velocity.T @ velocity / n
    variance = exact.diagonal()
    standard_error = np.sqrt((exact**2 + np.outer(variance, variance)) / n)
    assert (abs(empirical - exact) / standard_error).max() < 5
    assert abs(exact[0, 6:]).max() > 0.02  # the times do see each other


def test_exact_covariance_is_near_the_squared_exponential_it_samples():
    world = GaussianOcean(Box(n=8, latitude=0.0), n_waves=4096, length=60e3, time_scale=15.0, speed=0.4)
    rng = np.random.default_rng(0)
    east, north = rng.uniform(-120e3, 120e3, (2, 50))
    day = rng.uniform(0, 20, 50)
    time = EPOCH + (day * DAY * 1e9).astype("timedelta64[ns]")
    points = time, north / METRES_PER_DEGREE, -40 + east / METRES_PER_DEGREE
    origin = EPOCH[None], np.zeros(1), np.full(1, -40.0)
    got = world.covariance(points, origin)[:, :, 0]
    x, y = east / 60e3, north / 60e3
    fall = 0.16 * np.exp(-(x**2 + y**2) / 2 - (day / 15) ** 2 / 2)
    expected = np.stack([np.stack([1 - y**2, x * y], -1), np.stack([x * y, 1 - x**2], -1)], -2) * fall[:, None, None]
    assert abs(got - expected).max() < 0.03 * 0.16


def test_covariance_is_a_function_of_separation_in_the_plane(gaussian):
    """Away from the factor that the sphere puts on v."""
    rng = np.random.default_rng(1)
    time = EPOCH + np.array([0, 5, 11], "timedelta64[D]")
    latitude, longitude = rng.uniform(34, 36, 3), rng.uniform(-41, -39, 3)
    moved = time + np.timedelta64(30, "D"), latitude + 1.5, longitude - 2.0

    def plain(time, latitude, longitude):
        C = gaussian.covariance((time, latitude, longitude), (time, latitude, longitude))
        scale = np.stack([np.ones(3), gaussian.box.stretch(latitude)], -1)
        return C / scale[:, :, None, None] / scale

    assert plain(*moved) == pytest.approx(plain(time, latitude, longitude), abs=1e-12)


def test_speed_is_the_standard_deviation_of_a_component():
    world = GaussianOcean(Box(n=8, latitude=0.0, size=100e3), speed=0.25, n_waves=512)
    one = EPOCH[None], np.zeros(1), np.full(1, -40.0)
    C = world.covariance(one, one)[0, :, 0]
    assert np.trace(C) / 2 == pytest.approx(0.25**2, rel=1e-9)


def test_gaussian_currents_have_no_divergence(gaussian):
    amplitudes = np.random.default_rng(0).standard_normal(256)

    def velocity(latitude, longitude):
        moment = np.broadcast_to(EPOCH, latitude.shape)
        return gaussian.features(moment, latitude, longitude) @ amplitudes @ np.array([1, 1j])

    rng = np.random.default_rng(1)
    places = rng.uniform(33, 37, 40), rng.uniform(-42, -38, 40)
    assert abs(divergence(velocity, *places)).max() < 1e-5 * shear(velocity, *places)


def test_posterior_of_the_features_is_calibrated(gaussian):
    """Mahalanobis distances of 500 truths from exact posteriors given noisy velocities are χ² distributed."""
    archive = gaussian.archive(500, (0.0,), first_member=10_000)
    rng = np.random.default_rng(3)
    seen, unseen = rng.permutation(64)[:20].reshape(2, 10)
    latitude, longitude = (g.ravel() for g in np.meshgrid(archive.latitude, archive.longitude, indexing="ij"))
    F = gaussian.features(np.repeat(archive.time.values, 64), latitude, longitude)
    data, target = (F[rows].reshape(20, -1) for rows in (seen, unseen))
    w = np.stack([archive.u.values, archive.v.values], -1).reshape(500, 64, 2).astype(float)
    y = w[:, seen].reshape(500, 20) + 0.05 * rng.standard_normal((500, 20))
    gain = np.linalg.solve(data @ data.T + 0.05**2 * np.eye(20), data @ target.T).T
    covariance = target @ target.T - gain @ data @ target.T
    error = w[:, unseen].reshape(500, 20) - y @ gain.T
    distance = (error @ np.linalg.inv(covariance) * error).sum(1)
    assert kstest(distance, "chi2", args=(20,)).pvalue > 0.01


def test_ten_thousand_windows_are_drawn_in_a_minute():
    """Counted in the process's own time."""
    began = time.process_time()
    archive = GaussianOcean().archive(10_000, (0.0, 5.0))
    assert archive.u.shape == (10_000, 2, 32, 32)
    assert time.process_time() - began < 60


@pytest.mark.parametrize(
    "wrong", [{"n_waves": 100}, {"speed": 0.0}, {"length": -1.0}, {"time_scale": np.inf}, {"n_waves": 0}]
)
def test_a_gaussian_ocean_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        GaussianOcean(**wrong)


def test_a_vortex_has_its_swirl_at_its_radius():
    world = Vortices(1, Box(n=8, size=160e3, latitude=0.0))
    parameters = np.array([[[10e3, -5e3, 20e3, 0.5]]])
    angle = np.linspace(0, 2 * np.pi, 9)
    x, y = 10e3 + 20e3 * np.cos(angle), -5e3 + 20e3 * np.sin(angle)
    w = world.velocity(parameters, (y / METRES_PER_DEGREE)[None], (-40 + x / METRES_PER_DEGREE)[None])[0]
    assert w == pytest.approx(0.5j * np.exp(1j * angle), abs=1e-5)
    radii = np.linspace(1e3, 60e3, 200)[None]
    along = world.velocity(
        parameters, np.full((1, 200), -5e3 / METRES_PER_DEGREE), -40 + (10e3 + radii) / METRES_PER_DEGREE
    )
    assert abs(along).max() == pytest.approx(0.5, rel=1e-3)


def test_currents_of_several_vortices_are_the_sum_of_theirs():
    world, one = Vortices(3), Vortices(1)
    parameters = world.sample(5)
    rng = np.random.default_rng(0)
    places = rng.uniform(34.5, 35.5, (5, 7)), rng.uniform(-40.5, -39.5, (5, 7))
    total = sum(one.velocity(parameters[:, [i]], *places) for i in range(3))
    assert world.velocity(parameters, *places) == pytest.approx(total, abs=1e-12)


def test_vortices_have_no_divergence():
    world = Vortices(3)
    parameters = world.sample(1)

    def velocity(latitude, longitude):
        return world.velocity(parameters, latitude[None], longitude[None])[0]

    rng = np.random.default_rng(1)
    places = rng.uniform(34.4, 35.6, 40), rng.uniform(-40.6, -39.4, 40)
    assert abs(divergence(velocity, *places)).max() < 1e-5 * shear(velocity, *places)


def test_archive_of_parameters_holds_their_currents_at_the_nodes():
    world = Vortices(2)
    parameters = world.sample(4, seed=3)
    archive = world.archive_of(parameters)
    xr.testing.assert_identical(archive, world.archive(4, seed=3))
    where = np.broadcast_to(archive.latitude.values[5], (4, 1)), np.broadcast_to(archive.longitude.values[9], (4, 1))
    expected = world.velocity(parameters, *where)[:, 0]
    for step in (0, 1):
        got = archive.u.values[:, step, 5, 9] + 1j * archive.v.values[:, step, 5, 9]
        assert got == pytest.approx(expected, abs=1e-6)


def test_parameters_follow_their_prior():
    world = Vortices(2)
    x, y, radius, swirl = np.moveaxis(world.sample(4000), -1, 0).reshape(4, -1)
    for values, low, high in ((x, -80e3, 80e3), (y, -80e3, 80e3), (radius, *world.radius), (abs(swirl), *world.swirl)):
        assert kstest((values - low) / (high - low), "uniform").pvalue > 0.01
    assert (swirl > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_prior_density_integrates_to_one_and_is_zero_outside():
    world = Vortices(1)
    inside = world.sample(10)
    volume = 160e3**2 * 25e3 * 2 * 0.4
    assert world.log_prior(inside) == pytest.approx(-np.log(volume))
    assert Vortices(2).log_prior(Vortices(2).sample(3)) == pytest.approx(-2 * np.log(volume))
    for k, value in enumerate((81e3, -81e3, 24e3, 0.1)):
        outside = inside.copy()
        outside[0, 0, k] = value
        assert world.log_prior(outside)[0] == -np.inf


def test_tracks_on_the_grid_follow_those_of_the_formula():
    """Bilinear interpolation at 5 km: positions agree to a small part of the way."""
    world = Vortices(1)
    parameters = world.sample(50, seed=2)
    archive = world.archive_of(parameters)
    rng = np.random.default_rng(0)
    start = rng.uniform(34.7, 35.3, (50, 4)), rng.uniform(-40.3, -39.7, (50, 4))
    seconds = np.array([0.0, DAY, 2 * DAY])
    on_grid = advect(GridFlow.from_archive(archive), *start, seconds)

    def flow(time, latitude, longitude):
        return world.velocity(parameters, latitude, longitude)

    exact = advect(flow, *start, seconds)
    way = np.nanmean(abs(exact.latitude[..., -1] - start[0]))
    assert np.nanmean(abs(on_grid.latitude[..., -1] - exact.latitude[..., -1])) < 0.03 * way


@pytest.mark.slow
def test_brute_force_posteriors_given_tracks_are_calibrated():
    """Importance sampling from the prior: where 100 truths lie in their posteriors is uniform."""
    world, cases, error = Vortices(1), 100, 5e3
    options = {"n_drifters": 4, "window": "1D", "fix_interval": "12h"}
    truth = world.sample(cases)[:, 0]
    exact, seen = (simulate_tracks(world.archive(cases), position_error=e, **options) for e in (0.0, error))
    prior = world.sample(3000, first_member=cases)
    flow = GridFlow.from_archive(world.archive_of(prior))
    values = prior[:, 0]
    positions = []
    for case in range(cases):
        rows = slice(4 * case, 4 * case + 4)
        start = (np.broadcast_to(exact[name].values[rows, 0], (3000, 4)) for name in ("latitude", "longitude"))
        path = advect(flow, *start, DAY * np.array([0, 0.5, 1.0]))
        north = (seen.latitude.values[rows] - path.latitude)[..., 1:] * METRES_PER_DEGREE
        east = (seen.longitude.values[rows] - path.longitude)[..., 1:] * metres_per_degree_east(path.latitude)[..., 1:]
        same = np.isfinite(path.latitude) == np.isfinite(exact.latitude.values[rows])
        log_weight = -np.nansum(north**2 + east**2, (1, 2)) / (2 * error**2) + np.where(same.all((1, 2)), 0, -np.inf)
        weight = np.exp(log_weight - log_weight.max())
        positions.append(weight @ (values < truth[case]) / weight.sum())
    for parameter in np.array(positions).T:
        assert kstest(parameter, "uniform").pvalue > 0.01


@pytest.mark.parametrize("wrong", [{"n_vortices": 0}, {"radius": (2e4, 1e4)}, {"swirl": (0.0, 1.0)}])
def test_vortices_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        Vortices(**wrong)


WORLDS = [GaussianOcean(n_waves=32), Vortices(2)]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)
def test_archives_have_the_form_that_assimilation_asks_for(world, tmp_path):
    archive = world.archive(2, (0.0, 1.0, 2.5))
    assert archive.u.dims == ("member", "time", "latitude", "longitude")
    assert archive.u.dtype == archive.v.dtype == np.float32
    assert archive.attrs["Conventions"] == "CF-1.8"
    require_archive(archive)
    archive.to_netcdf(tmp_path / "archive.nc")
    with xr.open_dataset(tmp_path / "archive.nc") as again:
        require_archive(again)
        xr.testing.assert_identical(again.u.drop_attrs(), archive.u.drop_attrs())
        simulate_tracks(again, n_drifters=1, window="2D", fix_interval="1D")


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)
def test_members_are_a_function_of_seed_and_label(world):
    """To the last digits of float32: a product of other sizes may round otherwise."""
    whole = world.archive(5)
    part = world.archive(2, first_member=3)
    assert part.member.values.tolist() == [3, 4]
    np.testing.assert_allclose(part.u.values, whole.u.values[3:], rtol=0, atol=1e-5)
    other = world.archive(5, seed=1)
    flat = np.concatenate([whole.u.values.reshape(5, -1), other.u.values.reshape(5, -1)])
    assert len(np.unique(flat.round(4), axis=0)) == 10


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_members": 0}, "n_members must be at least 1"),
        ({"n_members": 1, "first_member": -1}, "first_member must be at least 0"),
        ({"n_members": 1, "seed": -1}, "seed must be at least 0"),
        ({"n_members": 1, "days": (1.0, 0.0)}, "days must be finite, ascending"),
        ({"n_members": 1, "days": ()}, "days must be finite, ascending"),
    ],
)
def test_wrong_arguments_of_an_archive_are_refused(world, arguments, message):
    with pytest.raises(ValueError, match=message):
        world.archive(**arguments)


def test_torus_velocity_is_the_turned_gradient_of_the_stream_function():
    world = TorusFlow()
    u = torch.randn(6, 98, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.rand(6, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    slope = torch.autograd.grad(world.stream_function(u, x, 0.3).sum(), x)[0]
    expected = torch.stack([-slope[..., 1], slope[..., 0]], -1)
    torch.testing.assert_close(world.velocity(u, x.detach(), 0.3), expected)


def test_torus_stream_function_is_the_sum_of_the_source():
    world = TorusFlow()
    u = torch.randn(1, 98, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, t, total = torch.tensor([[[0.2, 0.6]]], dtype=torch.float64), 0.05, 0.0
    for i, k1 in enumerate(range(-3, 4)):
        for j, k2 in enumerate(range(-3, 4)):
            c = world.deviations[i, j] * torch.complex(u[0, 7 * i + j], u[0, 49 + 7 * i + j])
            phase = 2 * np.pi * (k1 * 0.2 + k2 * 0.6) + world.frequencies[i, j] * t
            total = total + (c * torch.exp(1j * phase)).real
    assert world.stream_function(u, x, t).item() == pytest.approx(float(total), rel=1e-12)


def test_torus_flow_is_periodic():
    world = TorusFlow()
    u = torch.randn(3, 98, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(world.velocity(u, x + torch.tensor([1.0, -2.0]), 0.2), world.velocity(u, x, 0.2))


def test_torus_speed_is_the_standard_deviation_of_a_component():
    world = TorusFlow(speed=1.5)
    u, _ = TorusFlow(speed=1.5, n_times=1).sample(20_000)
    w = world.velocity(u.double(), torch.full((20_000, 1, 2), 0.75, dtype=torch.float64), 0.05)
    assert w.std(0)[0].tolist() == pytest.approx([1.5, 1.5], rel=0.03)


def test_torus_trajectories_converge_at_fourth_order():
    u = torch.randn(20, 98, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ends = [TorusFlow(n_times=n, duration=0.4).trajectories(u)[:, 0, -1] for n in (20, 40, 80, 1280)]
    errors = torch.stack([(end - ends[-1]).norm(dim=1) for end in ends[:-1]])
    order = torch.log2(errors[:-1] / errors[1:]).median(1).values
    assert order.tolist() == pytest.approx([4, 4], abs=0.2)


def test_torus_pairs_have_a_standard_normal_u_and_trajectories_that_start_where_they_should():
    starts = ((0.75, 0.75), (0.1, 0.2))
    u, v = TorusFlow(n_times=100, starts=starts).sample(500, seed=4)
    assert u.shape == (500, 98)
    assert v.shape == (500, 2, 100, 2)
    assert (u.dtype, v.dtype) == (torch.float32, torch.float32)
    assert kstest(u.numpy().ravel(), "norm").pvalue > 0.01
    torch.testing.assert_close(v[:, :, 0].mean(0), torch.tensor(starts), rtol=0, atol=2e-3)


def test_torus_noise_is_added_to_the_same_trajectories():
    exact, noisy = (TorusFlow(n_times=50, noise=noise).sample(200, seed=4) for noise in (0.0, 0.01))
    assert torch.equal(exact.u, noisy.u)
    assert (noisy.v - exact.v).std().item() == pytest.approx(0.01, rel=0.03)


def test_torus_k_zero_moves_nothing():
    world = TorusFlow(n_times=20)
    u = torch.randn(4, 98, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    other = u.clone()
    other[:, [24, 73]] += 5.0
    torch.testing.assert_close(world.trajectories(u), world.trajectories(other))


@pytest.mark.parametrize("wrong", [{"speed": 0.0}, {"noise": -1.0}, {"n_times": 0}, {"starts": ()}, {"seed": -1}])
def test_a_torus_flow_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        TorusFlow(**wrong)


@pytest.fixture
def globcurrent_like(tmp_path):
    """Currents with a file's own names and descending latitudes."""
    archive = GaussianOcean(Box(n=6, size=200e3), n_waves=16).archive(1, range(0, 400, 4)).isel(member=0, drop=True)
    archive = archive.where(archive.longitude < -39.5).isel(latitude=slice(None, None, -1))
    path = tmp_path / "currents.nc"
    archive.rename(u="uo", v="vo", latitude="lat", longitude="lon").to_netcdf(path)
    return path, archive.sortby("latitude")


def test_a_file_of_currents_is_read_by_standard_names_as_an_archive(globcurrent_like):
    path, expected = globcurrent_like
    archive = load_globcurrent(path)
    require_archive(archive)
    assert (np.diff(archive.latitude) > 0).all()
    np.testing.assert_array_equal(archive.u.values, expected.u.values)
    assert np.isnan(archive.u.values[0, :, -1]).all()


def test_split_leaves_the_gap_between_the_parts(globcurrent_like):
    train, test = split_by_gap(load_globcurrent(globcurrent_like[0]))
    first = train.time.values[0]
    assert (train.time.values[-1] - first) / np.timedelta64(1, "D") == 252
    assert (test.time.values[0] - first) / np.timedelta64(1, "D") == 288
    with pytest.raises(ValueError, match=r"train_days \+ gap must be before the last"):
        split_by_gap(train)


def test_files_that_are_no_currents_are_refused_by_name(tmp_path, globcurrent_like):
    with pytest.raises(DataFileError, match=r"absent.nc.*does not exist"):
        load_globcurrent(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(DataFileError, match=r"text.nc must be a CF netCDF file of currents"):
        load_globcurrent(tmp_path / "text.nc")
    (tmp_path / "short.nc").write_bytes(globcurrent_like[0].read_bytes()[:2000])
    with pytest.raises(DataFileError, match=r"short.nc must be a CF netCDF file of currents"):
        load_globcurrent(tmp_path / "short.nc")
    with xr.open_dataset(globcurrent_like[0]) as dataset:
        dataset.drop_vars("vo").to_netcdf(tmp_path / "half.nc")
        in_cm = dataset.assign(uo=dataset.uo.assign_attrs(units="cm"))
        in_cm.to_netcdf(tmp_path / "cm.nc")
    with pytest.raises(DataFileError, match=r"one 'northward_sea_water_velocity'.*got \['uo'\] and \[\]"):
        load_globcurrent(tmp_path / "half.nc")
    with pytest.raises(DataFileError, match=r"uo must be in units of speed, such as 'm s-1' or 'cm/s', got 'cm'"):
        load_globcurrent(tmp_path / "cm.nc")


def test_real_currents_split_on_days_256_and_288(ocean_file):
    train, test = split_by_gap(load_globcurrent(ocean_file))
    assert (len(train.time), len(test.time)) == (256, 366 - 288)
    assert np.isnan(train.u.values[0]).mean() == pytest.approx(0.23, abs=0.01)
    tracks = simulate_tracks(train, n_drifters=16, window="10D", fix_interval="12h", start=train.time.values[[0, 100]])
    assert 0 < np.isfinite(tracks.latitude.values[:, -1]).mean() < 1


@pytest.fixture
def ocean_file():
    path = Path(os.environ.get("PROBCL_DATA", "absent")) / "ocean" / "globcurrent_agulhas_daily_2002.nc"
    if not path.is_file():
        pytest.skip("the GlobCurrent file is not in $PROBCL_DATA/ocean")
    return path
