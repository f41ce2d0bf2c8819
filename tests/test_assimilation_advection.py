import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from probcl.assimilation import Fate, GridFlow, advect, require_archive, simulate_tracks
from probcl.datasets.ocean import Box, GaussianOcean, Vortices
from probcl.sphere import EARTH_RADIUS, METRES_PER_DEGREE, metres_per_degree_east

DAY = 86400.0


def archive_of(velocity, days=(0.0, 10.0), box=None, members=1):
    """An archive whose members all have the velocity u + iv, a function of seconds, latitude and longitude."""
    box = Box(n=24, size=600e3) if box is None else box
    latitude, longitude = np.meshgrid(box.latitudes, box.longitudes, indexing="ij")
    w = np.stack([np.broadcast_to(velocity(day * DAY, latitude, longitude), latitude.shape) for day in days])
    w = np.broadcast_to(w, (members, *w.shape))
    return box.archive(w.real.copy(), w.imag.copy(), days, np.arange(members), "a test")


def uniform(w):
    return lambda seconds, latitude, longitude: np.full(latitude.shape, w)


def unit_vector(latitude, longitude):
    latitude, longitude = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1)


def solid_body(axis, rate):
    """u + iv of a rotation about an axis."""

    def velocity(seconds, latitude, longitude):
        speed = EARTH_RADIUS * rate * np.cross(axis, unit_vector(latitude, longitude))
        phi, lam = np.radians(latitude), np.radians(longitude)
        east = np.stack([-np.sin(lam), np.cos(lam), 0 * lam], -1)
        north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], -1)
        return (speed * east).sum(-1) + 1j * (speed * north).sum(-1)

    return velocity


def rotated(axis, angle, x):
    """Rodrigues' formula."""
    return x * np.cos(angle) + np.cross(axis, x) * np.sin(angle) + axis * (x @ axis)[..., None] * (1 - np.cos(angle))


def distance(positions, time, x):
    """Distance in metres from the positions at a time to unit vectors."""
    found = unit_vector(positions.latitude[..., time], positions.longitude[..., time])
    return EARTH_RADIUS * np.linalg.norm(found - x, axis=-1)


def test_solid_body_rotation_converges_at_fourth_order_to_the_rotated_points():
    axis = np.array([0.6, 0.0, 0.8])
    latitude, longitude = np.array([-20.0, 10.0, 35.0]), np.array([100.0, 80.0, 130.0])
    rate = 2 * np.pi / (40 * DAY)
    errors = []
    for step in (2 * DAY, DAY, DAY / 2):
        track = advect(solid_body(axis, rate), latitude, longitude, np.array([0.0, 16 * DAY]), step=step)
        expected = rotated(axis, rate * 16 * DAY, unit_vector(latitude, longitude))
        errors.append(distance(track, -1, expected).max())
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert order == pytest.approx([4, 4], abs=0.35)


def test_an_hour_is_short_enough_for_a_rotation_at_a_metre_a_second():
    axis = np.array([1.0, 0.0, 0.0])
    latitude, longitude = np.array([30.0, 5.0]), np.array([60.0, 120.0])
    track = advect(solid_body(axis, 1 / EARTH_RADIUS), latitude, longitude, np.array([0.0, 10 * DAY]))
    expected = rotated(axis, 10 * DAY / EARTH_RADIUS, unit_vector(latitude, longitude))
    assert distance(track, -1, expected).max() < 1e-3


def test_uniform_flow_follows_a_loxodrome():
    u, v, seconds = 0.7, 0.4, np.array([0.0, 20 * DAY])
    latitude, longitude = np.array([-30.0, 10.0, 55.0]), np.array([0.0, 20.0, -50.0])
    track = advect(uniform(u + 1j * v), latitude, longitude, seconds, step=6 * 3600.0)
    end = latitude + v * seconds[-1] / METRES_PER_DEGREE

    def mercator(degrees):
        return np.degrees(np.arctanh(np.sin(np.radians(degrees))))

    assert track.latitude[:, -1] == pytest.approx(end, abs=1e-12)
    assert track.longitude[:, -1] == pytest.approx(longitude + u / v * (mercator(end) - mercator(latitude)), abs=1e-10)


def test_zonal_flow_turns_around_the_earth_faster_at_high_latitudes():
    latitude = np.array([0.0, 60.0])
    track = advect(uniform(1.0 + 0j), latitude, np.zeros(2), np.array([0.0, 10 * DAY]))
    assert track.longitude[:, -1] == pytest.approx(10 * DAY / metres_per_degree_east(latitude))
    assert track.longitude[1, -1] == pytest.approx(2 * track.longitude[0, -1])


def test_positions_do_not_depend_on_the_times_in_between():
    flow = solid_body(np.array([0.0, 0.6, 0.8]), 1e-6)
    start = np.array([20.0]), np.array([30.0])
    often = advect(flow, *start, np.linspace(0, 4 * DAY, 9), step=3600.0)
    once = advect(flow, *start, np.array([0.0, 4 * DAY]), step=3600.0)
    assert often.latitude[:, -1] == pytest.approx(once.latitude[:, -1], abs=1e-12)


def test_steady_flow_keeps_drifters_on_their_streamline():
    world = Vortices(2)
    parameters = world.sample(1)
    rng = np.random.default_rng(0)
    start = (rng.uniform(34.7, 35.3, (1, 20)), rng.uniform(-40.3, -39.7, (1, 20)))

    def flow(seconds, latitude, longitude):
        return world.velocity(parameters, latitude, longitude)

    def psi(latitude, longitude):
        x, y = world.box.plane(latitude, longitude)
        total = 0
        for cx, cy, radius, swirl in parameters[0]:
            total -= swirl * radius * np.exp(0.5 - ((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
        return total

    track = advect(flow, *start, np.array([0.0, 10 * DAY]), step=1800.0)
    spread = psi(*start).std()
    moved = np.hypot(track.latitude[..., -1] - start[0], track.longitude[..., -1] - start[1])
    assert moved.max() > 0.2
    assert abs(psi(track.latitude[..., -1], track.longitude[..., -1]) - psi(*start)).max() < 1e-5 * spread


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_interpolation_is_exact_for_products_of_linear_functions_on_uneven_grids(seed):
    rng = np.random.default_rng(seed)
    seconds, latitude, longitude = (np.cumsum(rng.uniform(0.5, 2, n)) for n in (3, 5, 6))
    a = 1e-3 * rng.standard_normal((2, 2, 2, 2, 2)) @ np.array([1, 1j])

    def field(t, y, x):
        return sum(a[0, i, j, k] * t**i * y**j * x**k for i in (0, 1) for j in (0, 1) for k in (0, 1))

    values = field(seconds[:, None, None], latitude[:, None], longitude)
    flow = GridFlow(np.stack([values, 2 * values]), seconds, latitude, longitude)
    t, y, x = (rng.uniform(axis[0], axis[-1], 7) for axis in (seconds, latitude, longitude))
    got = flow(t[0], np.stack([y, y]), np.stack([x, x]))
    assert got[0] == pytest.approx(field(t[0], y, x), rel=1e-9, abs=1e-12)
    assert got[1] == pytest.approx(2 * field(t[0], y, x), rel=1e-9, abs=1e-12)


def test_members_do_not_see_each_others_currents():
    world = GaussianOcean(n_waves=64)
    together = simulate_tracks(world.archive(3), n_drifters=4, window="5D", fix_interval="1D", step="6h")
    alone = simulate_tracks(world.archive(1, first_member=1), n_drifters=4, window="5D", fix_interval="1D", step="6h")
    assert (together.member.values == np.repeat([0, 1, 2], 4)).all()
    rows = together.isel(trajectory=together.member.values == 1)
    np.testing.assert_allclose(rows.latitude.values, alone.latitude.values, rtol=0, atol=1e-6)


def test_an_archive_without_members_gives_the_tracks_of_its_only_member():
    archive = GaussianOcean(n_waves=64).archive(1)
    options = {"n_drifters": 5, "window": "4D", "fix_interval": "12h", "step": "6h", "position_error": 200.0, "seed": 3}
    one, other = (simulate_tracks(a, **options) for a in (archive, archive.isel(member=0)))
    xr.testing.assert_equal(one.drop_vars("member"), other)


def test_drifters_feel_the_currents_of_their_time():
    """Speed grows linearly from 0 to 0.2 m/s in ten days: the way is ½ a t²."""
    archive = archive_of(lambda seconds, y, x: np.full(y.shape, 0.2j * seconds / (10 * DAY)), days=(0, 5, 10))
    start = archive.time.values[0] + np.array([0, 3], "timedelta64[D]")
    tracks = simulate_tracks(archive, n_drifters=30, window="4D", fix_interval="4D", step="6h", start=start)
    north = (tracks.latitude[:, 1] - tracks.latitude[:, 0]).values.reshape(2, 30) * METRES_PER_DEGREE
    for row, day in zip(north, (0, 3), strict=True):
        assert row[np.isfinite(row)] == pytest.approx(0.01 * DAY * ((day + 4) ** 2 - day**2), rel=1e-6)


def test_drifters_stop_at_a_coast_and_are_masked_from_then_on():
    archive = archive_of(uniform(0.5 + 0j))
    coast = archive.longitude.values[15]
    archive = archive.where(archive.longitude < coast)
    tracks = simulate_tracks(archive, n_drifters=200, window="10D", fix_interval="6h", step="6h")
    spacing = float(archive.longitude[1] - archive.longitude[0])
    assert set(tracks.fate.values) == {Fate.AGROUND}
    seen = np.isfinite(tracks.longitude.values)
    assert (np.diff(seen.astype(int), axis=1) <= 0).all()
    assert seen[:, 0].all()
    assert np.nanmax(tracks.longitude.values) <= coast - spacing / 2
    assert tracks.longitude.values[:, 0].max() <= coast - spacing
    assert (np.isfinite(tracks.position_error.values) == seen).all()
    assert (np.isnat(tracks.time.values) == ~seen).all()


def test_drifters_that_leave_the_grid_are_masked_from_then_on():
    archive = archive_of(uniform(-0.5j), box=Box(n=10, size=200e3))
    tracks = simulate_tracks(archive, n_drifters=50, window="10D", fix_interval="6h", step="6h")
    assert set(tracks.fate.values) == {Fate.OFF_GRID}
    assert np.nanmin(tracks.latitude.values) >= archive.latitude.values[0]
    assert np.isfinite(tracks.latitude.values[:, 0]).all()
    assert np.isnan(tracks.latitude.values[:, -1]).all()


def test_a_drifter_afloat_has_every_fix():
    tracks = simulate_tracks(archive_of(uniform(0j)), n_drifters=20, window="10D", fix_interval="1D", step="6h")
    assert (tracks.fate.values == Fate.AFLOAT).all()
    assert np.isfinite(tracks.latitude.values).all()
    assert np.ptp(tracks.latitude.values, axis=1).max() == 0


def test_a_node_that_is_missing_once_is_land_in_that_window_alone():
    archive = archive_of(uniform(0j), days=(0.0, 1.0, 2.0, 3.0))
    for name in ("u", "v"):
        archive[name][:, 3] = archive[name][:, 3].where(archive.longitude > -40)
    starts = archive.time.values[[0, 2]]
    tracks = simulate_tracks(archive, n_drifters=200, window="1D", fix_interval="1D", step="6h", start=starts)
    first = tracks.longitude.values[:, 0].reshape(2, 200)
    assert first[0].min() < -40.5
    assert first[1].min() > -40


def test_starts_are_uniform_over_the_water():
    box = Box(n=30, size=3000e3, latitude=40.0)
    archive = archive_of(uniform(0j), box=box)
    archive = archive.where(archive.latitude > archive.latitude[10])
    tracks = simulate_tracks(archive, n_drifters=40_000, window="1D", fix_interval="1D", step="6h")
    sine = np.sin(np.radians(tracks.latitude.values[:, 0]))
    low, high = np.sin(np.radians(archive.latitude.values[[11, -1]]))
    rank = np.sort((sine - low) / (high - low))
    assert rank[0] >= 0
    assert abs(rank - np.linspace(0, 1, len(rank))).max() < 1.63 / np.sqrt(len(rank))  # Kolmogorov, 1%


def test_tracks_have_the_form_that_readers_expect(tmp_path):
    archive = GaussianOcean(n_waves=64).archive(2)
    tracks = simulate_tracks(archive, n_drifters=3, window="5D", fix_interval="12h", step="6h", position_error=100)
    assert dict(tracks.sizes) == {"trajectory": 6, "obs": 11}
    assert tracks.trajectory.attrs["cf_role"] == "trajectory_id"
    assert tracks.attrs == {"Conventions": "CF-1.8", "featureType": "trajectory"}
    assert tracks.latitude.attrs["units"] == "degrees_north"
    assert tracks.longitude.attrs["units"] == "degrees_east"
    assert np.nanmin(tracks.position_error) == np.nanmax(tracks.position_error) == 100
    assert (tracks.time[0, :3].values - archive.time.values[0]).astype("timedelta64[h]").astype(int).tolist() == [
        0,
        12,
        24,
    ]
    tracks.to_netcdf(tmp_path / "tracks.nc")
    with xr.open_dataset(tmp_path / "tracks.nc") as again:
        xr.testing.assert_allclose(again, tracks)


def test_errors_have_the_stated_size_in_metres_in_both_directions():
    archive = archive_of(uniform(0j), box=Box(n=24, size=600e3, latitude=60.0), members=20)
    options = {"n_drifters": 20, "window": "10D", "fix_interval": "6h", "step": "6h", "seed": 1}
    exact = simulate_tracks(archive, **options)
    noisy = simulate_tracks(archive, position_error=250.0, **options)
    north = ((noisy.latitude - exact.latitude) * METRES_PER_DEGREE).values
    east = ((noisy.longitude - exact.longitude) * metres_per_degree_east(exact.latitude.values)).values
    n = north.size
    for errors in (north, east):
        assert errors.std() == pytest.approx(250, abs=4 * 250 / np.sqrt(2 * n))
        assert abs(errors.mean()) < 4 * 250 / np.sqrt(n)
    assert abs(np.corrcoef(north.ravel(), east.ravel())[0, 1]) < 4 / np.sqrt(n)


def test_tracks_are_a_function_of_the_seed():
    archive = GaussianOcean(n_waves=64).archive(2)
    options = {"n_drifters": 3, "window": "2D", "fix_interval": "12h", "step": "6h", "position_error": 100.0}
    first, again, other = (simulate_tracks(archive, seed=seed, **options) for seed in (5, 5, 6))
    xr.testing.assert_identical(first, again)
    assert (first.latitude.values != other.latitude.values).all()


def test_windows_are_the_same_simulated_alone_or_together():
    archive = GaussianOcean(n_waves=64).archive(2)
    starts = archive.time.values[[0, 2, 5]] + np.array([0, 6, 6], "timedelta64[h]")
    options = {"n_drifters": 4, "window": "3D", "fix_interval": "1D", "step": "6h", "position_error": 50.0}
    together = simulate_tracks(archive, start=starts, **options)
    for start in starts:
        alone = simulate_tracks(archive, start=start, **options)
        rows = together.isel(trajectory=together.start.values == start)
        np.testing.assert_array_equal(rows.latitude.values, alone.latitude.values)
        np.testing.assert_array_equal(rows.member.values, alone.member.values)


@pytest.fixture
def small():
    return archive_of(uniform(0.1 + 0j), box=Box(n=6, size=100e3))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.drop_vars("v"), "archive must have a variable 'v'"),
        (lambda a: a.rename(latitude="lat"), r"archive.u must have the dimensions"),
        (lambda a: a.drop_vars("longitude"), "archive must have a coordinate 'longitude'"),
        (lambda a: a.drop_vars("time"), "archive must have a coordinate 'time'"),
        (lambda a: a.sortby("latitude", ascending=False), r"archive.latitude must be finite and ascend.*sortby"),
        (lambda a: a.assign_coords(longitude=a.longitude + 600), "archive.longitude must be within"),
        (lambda a: a.assign_coords(latitude=a.latitude * 3), "archive.latitude"),
        (lambda a: a.isel(latitude=[0]), "archive.latitude must be two or more"),
        (lambda a: a.isel(time=[]), "archive.u must not be empty"),
        (lambda a: a.isel(time=[1, 0]), "archive.time must have no NaT and ascend"),
        (lambda a: a.assign(u=a.u.mean("time")), "archive.u must have the dimensions"),
    ],
)
def test_what_is_no_archive_is_refused_by_name(small, spoil, message):
    with pytest.raises(ValueError, match=message):
        require_archive(spoil(small))


@pytest.mark.parametrize("units", ["cm s-1", "cm/s", "knots", "", None])
@pytest.mark.parametrize("variable", ["u", "v", "latitude", "longitude"])
def test_other_units_and_none_are_refused_by_name(small, variable, units):
    small[variable].attrs.pop("units")
    if units is not None:
        small[variable].attrs["units"] = units
    with pytest.raises(ValueError, match=rf"archive.{variable} must have the units"):
        require_archive(small)


def test_swapped_components_are_refused(small):
    swapped = small.rename(u="v", v="u")
    with pytest.raises(ValueError, match=r"archive.u must have the standard_name 'eastward_sea_water_velocity'"):
        require_archive(swapped)


@pytest.mark.usefixtures("unchecked")
def test_wrong_types_are_refused(small):
    with pytest.raises(TypeError, match=r"archive must be an xarray.Dataset"):
        require_archive(small.u)
    with pytest.raises(TypeError, match=r"archive.u must be of a floating-point type"):
        require_archive(small.assign(u=small.u.astype(int).assign_attrs(small.u.attrs)))
    with pytest.raises(TypeError, match=r"archive.time must be decoded"):
        require_archive(small.assign_coords(time=[0.0, 1.0]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_drifters": 0}, ValueError, "n_drifters must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"window": 5}, TypeError, "window must be a duration with a unit"),
        ({"fix_interval": "often"}, ValueError, "fix_interval must be a duration with a unit"),
        ({"fix_interval": "12"}, ValueError, "fix_interval must be a duration with a unit"),
        ({"window": np.timedelta64(5)}, ValueError, "window must be a duration with a unit"),
        ({"start": "tomorrow"}, ValueError, "start must be one or more times"),
        ({"start": np.datetime64("NaT")}, ValueError, "start must leave a window"),
        ({"start": []}, ValueError, "start must"),
        ({"position_error": "100 m"}, TypeError, "position_error must be a number of metres"),
        ({"step": "0h"}, ValueError, "step must be positive"),
        ({"fix_interval": "6D"}, ValueError, "window must be no shorter than fix_interval"),
        ({"window": "11D"}, ValueError, "start must leave a window of 11 days"),
        ({"start": "1999-01-01"}, ValueError, "start must leave a window"),
        ({"position_error": -1.0}, ValueError, "position_error must be finite"),
        ({"position_error": np.nan}, ValueError, "position_error must be finite"),
    ],
)
def test_wrong_arguments_of_a_simulation_are_refused_by_name(small, change, error, message):
    arguments = {"n_drifters": 2, "window": "5D", "fix_interval": "1D", "step": "6h"} | change
    with pytest.raises(error, match=message):
        simulate_tracks(small, **arguments)


def test_an_archive_without_water_is_refused(small):
    with pytest.raises(ValueError, match="archive must have a cell with water"):
        simulate_tracks(small.where(small.latitude > 90), n_drifters=1, window="1D", fix_interval="1D", step="6h")


@pytest.mark.parametrize("filled", [-32768.0, 1e20, np.inf, -999.0])
def test_fill_values_that_were_not_decoded_are_refused(small, filled):
    small.u[0, 0, 2, 3] = filled
    with pytest.raises(ValueError, match="velocity must be below 20 m/s and NaN on land"):
        simulate_tracks(small, n_drifters=1, window="1D", fix_interval="1D", step="6h")


def test_longitudes_of_either_convention_give_the_same_tracks():
    archive = GaussianOcean(n_waves=64).archive(1)
    options = {"n_drifters": 6, "window": "5D", "fix_interval": "1D", "step": "6h"}
    east = archive.longitude
    west = simulate_tracks(archive, **options)
    turned = simulate_tracks(archive.assign_coords(longitude=(east + 360).assign_attrs(east.attrs)), **options)
    np.testing.assert_allclose(turned.longitude.values, west.longitude.values + 360, rtol=0, atol=1e-8)
