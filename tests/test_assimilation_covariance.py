import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocean_cases import random_fourier

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import IsotropicCovariance, StreamFunctionCovariance, gaspari_cohn
from probcl.assimilation.baselines.covariance import Covariance, Points, profile
from probcl.assimilation.baselines.localization import taper
from probcl.sphere import EARTH_RADIUS, METRES_PER_DEGREE, frame

SHAPES = ["gaussian", "matern52", "matern72"]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def points(latitude: list[float], longitude: list[float], days: float = 0.0) -> Points:
    return Points(frame(np.array(latitude), np.array(longitude)), np.full(len(latitude), days))


def scattered(n: int, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    where = frame(rng.uniform(-40, -30, n), rng.uniform(15, 30, n))
    return Points(where, rng.uniform(0, 10, n))


@every_shape
def test_derivatives_of_the_profile_match_finite_differences(shape: str) -> None:
    squared, h = np.linspace(0.1, 8, 30), 1e-5
    ahead, behind, here = (profile(shape, squared + k * h) for k in (1, -1, 0))
    np.testing.assert_allclose((ahead.value - behind.value) / (2 * h), here.slope, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose((ahead.slope - behind.slope) / (2 * h), here.curvature, rtol=1e-6, atol=1e-9)


@every_shape
def test_stream_function_covariance_matches_finite_differences_of_that_of_psi(shape: str) -> None:
    covariance = StreamFunctionCovariance(120e3, 7.0, shape)
    latitude, longitude, step = -61.0, 179.9, 0.01  # where a plane would not do

    def psi(a: tuple[float, float], b: tuple[float, float]) -> float:
        return float(covariance.of_stream_function(points([a[0]], [a[1]]), points([b[0]], [b[1]], 3.0))[0, 0])

    def derivative(f, at: tuple[float, float], component: int) -> float:
        # u = −∂_north ψ, v = ∂_east ψ, in metres
        if component == 0:
            ahead, behind = (at[0] + step, at[1]), (at[0] - step, at[1])
            return -(f(ahead) - f(behind)) / (2 * step * METRES_PER_DEGREE)
        ahead, behind = (at[0], at[1] + step), (at[0], at[1] - step)
        return (f(ahead) - f(behind)) / (2 * step * METRES_PER_DEGREE * np.cos(np.deg2rad(at[0])))

    other = (latitude + 0.7, longitude + 1.1)
    numerical = [
        [derivative(lambda a, j=j: derivative(lambda b: psi(a, b), other, j), (latitude, longitude), i) for j in (0, 1)]
        for i in (0, 1)
    ]
    exact = covariance(points([latitude], [longitude]), points([other[0]], [other[1]], 3.0))
    np.testing.assert_allclose(exact, numerical, atol=2e-4)
    assert np.abs(exact).max() > 0.05


@every_shape
def test_stream_function_covariance_is_non_divergent_on_the_sphere(shape: str) -> None:
    covariance = StreamFunctionCovariance(150e3, 7.0, shape)
    latitude, longitude, h = 55.0, 10.0, 1e-3
    other = points([54.2], [11.0], 1.0)

    def at(north: float, east: float) -> np.ndarray:
        return covariance(points([latitude + north], [longitude + east]), other)

    cosine = np.cos(np.deg2rad(latitude + np.array([h, -h])))
    of_u = (at(0, h)[0] - at(0, -h)[0]) / (2 * h)
    of_v = (cosine[0] * at(h, 0)[1] - cosine[1] * at(-h, 0)[1]) / (2 * h)
    assert np.abs(of_u).max() > 1e-2
    np.testing.assert_allclose(of_u + of_v, 0, atol=1e-6)


@every_shape
@pytest.mark.parametrize("kind", [StreamFunctionCovariance, IsotropicCovariance])
def test_covariances_have_unit_variance_and_are_positive_definite(kind: type[Covariance], shape: str) -> None:
    where = scattered(60)
    matrix = kind(200e3, 5.0, shape)(where, where)
    np.testing.assert_allclose(np.diagonal(matrix), 1, rtol=1e-9)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_stream_function_covariance_is_that_of_random_fourier_currents() -> None:
    archive = Archive.of(random_fourier(3000, 3, waves=60))
    rng = np.random.default_rng(0)
    point, moment = rng.choice(71, 12, replace=False), rng.integers(3, size=12)
    values = archive.values[:, moment, :, point] / 0.3  # (points, members, components)
    seen = values.transpose(2, 0, 1).reshape(24, -1)
    where = Points(type(archive.grid.frame)(*(part[point] for part in archive.grid.frame)), moment.astype(float))
    exact = StreamFunctionCovariance(60e3, 8.0)(where, where)
    # Standard error of a covariance of unit variables: 1/√3000 ≈ .018; the plane of the sample adds about .01.
    np.testing.assert_allclose(seen @ seen.T / seen.shape[1], exact, atol=0.09)
    assert np.abs(exact - np.eye(24)).max() > 0.4


def test_isotropic_components_are_independent() -> None:
    where = scattered(5)
    matrix = IsotropicCovariance(100e3, 5.0)(where, where)
    assert (matrix[:5, 5:] == 0).all()
    np.testing.assert_array_equal(matrix[:5, :5], matrix[5:, 5:])


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(-360, 360))
def test_covariance_does_not_depend_on_where_longitude_is_counted_from(north: float, east: float, turn: float) -> None:
    covariance = StreamFunctionCovariance(200e3, 5.0)
    a, b = points([north], [east]), points([min(north + 1, 89.5)], [east + 1])
    a_turned, b_turned = points([north], [east + turn]), points([min(north + 1, 89.5)], [east + 1 + turn])
    np.testing.assert_allclose(covariance(a_turned, b_turned), covariance(a, b), atol=1e-6)


def test_gaspari_cohn_is_one_at_zero_decreases_and_ends_at_the_radius() -> None:
    distance = np.linspace(0, 500e3, 2001)
    value = gaspari_cohn(distance, 300e3)
    assert value[0] == 1
    assert (np.diff(value) <= 1e-12).all()
    assert (value[distance >= 300e3] == 0).all()
    assert (value[distance < 290e3] > 0).all()
    # The paper's (4.10) at z = 1 from both sides: 5/24.
    assert gaspari_cohn(np.array([150e3]), 300e3)[0] == pytest.approx(5 / 24)


@given(st.integers(0, 10_000), st.floats(50e3, 5000e3))
def test_gaspari_cohn_is_positive_definite_on_the_sphere(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    where = frame(rng.uniform(-80, 80, 40), rng.uniform(-180, 180, 40) * rng.uniform(0.01, 1))
    assert np.linalg.eigvalsh(taper(where, where, radius)).min() > -1e-9


@pytest.mark.usefixtures("unchecked")
def test_a_covariance_refuses_bad_scales_by_name() -> None:
    with pytest.raises(ValueError, match="length must be finite and positive"):
        StreamFunctionCovariance(-1.0, 5.0)
    with pytest.raises(ValueError, match="period must be finite and positive"):
        IsotropicCovariance(1e5, float("nan"))
    with pytest.raises(ValueError, match="shape must be 'gaussian', 'matern52' or 'matern72', got 'cubic'"):
        IsotropicCovariance(1e5, 1.0, "cubic")  # type: ignore[arg-type]


def test_frames_point_east_and_north() -> None:
    where = frame(np.array([0.0, 45.0]), np.array([0.0, 90.0]))
    np.testing.assert_allclose(where.position[0], [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(where.east[0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(where.north[0], [0, 0, 1], atol=1e-15)
    ahead = frame(np.array([45.0 + 1e-6]), np.array([90.0])).position[0] - where.position[1]
    np.testing.assert_allclose(ahead / np.linalg.norm(ahead), where.north[1], atol=1e-7)
    assert pytest.approx(EARTH_RADIUS * np.pi / 180) == METRES_PER_DEGREE
