import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, random_fourier

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import OptimalInterpolation, gaspari_cohn
from probcl.assimilation.baselines.covariance import Points
from probcl.assimilation.fields import FieldPrior, window_index, windows_at
from probcl.assimilation.hybrid import _partitions, fit_hybrid
from probcl.sphere import EARTH_RADIUS

ONE = np.zeros(1, "timedelta64[ns]")
THREE = np.arange(-1, 2) * DAY


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive.of(random_fourier(60, 5, seed=1))


def test_eofs_are_those_of_numpys_singular_values(archive: Archive) -> None:
    prior = FieldPrior.eofs(archive, THREE, rank=10)
    windows = windows_at(archive, window_index(archive, THREE), THREE).reshape(180, -1)
    _, singular, directions = np.linalg.svd(windows - windows.mean(0), full_matrices=False)
    expected = directions[:10].T * singular[:10] / np.sqrt(179)
    found = prior.modes.reshape(10, -1).T
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4 * np.abs(expected).max() ** 2)


def test_modes_and_the_unresolved_part_hold_all_of_the_variance(archive: Archive) -> None:
    prior = FieldPrior.eofs(archive, ONE, rank=12)
    resolved = np.square(prior.modes[:, 0]).sum(0)
    np.testing.assert_allclose(
        resolved + np.square(prior.unresolved), archive.maps.var(0, ddof=1), rtol=0.02, atol=1e-5
    )


def test_encoding_is_the_inverse_of_decoding(archive: Archive) -> None:
    prior = FieldPrior.eofs(archive, ONE, rank=7)
    x = np.random.default_rng(0).standard_normal((4, 7))
    np.testing.assert_allclose(prior.encode(prior.decode(x)[:, None]), x, atol=1e-4)


def test_coordinates_of_the_archive_are_standard_normal_in_mean_and_variance(archive: Archive) -> None:
    prior = FieldPrior.eofs(archive, THREE, rank=9)
    x = prior.encode(windows_at(archive, window_index(archive, THREE), THREE))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(x.T), np.eye(9), atol=2e-3)


def test_modes_that_add_nothing_are_left_out() -> None:
    archive = Archive.of(random_fourier(40, 1, seed=2, waves=3))
    assert FieldPrior.eofs(archive, ONE, rank=39).rank < 30


def test_modes_of_the_stream_function_have_the_covariance_of_optimal_interpolation(archive: Archive) -> None:
    process = OptimalInterpolation().fit_to(archive)
    points = archive.values.shape[-1]
    prior = FieldPrior.stream_function(archive, THREE, rank=2 * points - 1, hyperparameters=process.hyperparameters)
    covariance, variance, _, _ = process.hyperparameters
    sigma = process.stddev.reshape(-1)
    there = process._grid_points
    expected = variance * covariance(there, there) * np.multiply.outer(sigma, sigma)
    for lag, days in enumerate(THREE / DAY):
        # Of each map with the one in the middle.
        later = Points(there.frame, np.full(points, days))
        crossed = variance * covariance(later, there) * np.multiply.outer(sigma, sigma)
        found = np.einsum("kcp,kdq->cpdq", prior.modes[:, lag], prior.modes[:, 1]).reshape(expected.shape)
        np.testing.assert_allclose(found, crossed, atol=1e-4 * expected.max())


def test_modes_of_the_hybrid_have_the_mixed_covariance(archive: Archive) -> None:
    process = OptimalInterpolation().fit_to(archive)
    points = archive.values.shape[-1]
    prior = FieldPrior.hybrid(archive, ONE, rank=2 * points - 1, hyperparameters=process.hyperparameters)
    share, radius, _ = fit_hybrid(archive, process)
    there = process._grid_points
    sigma = process.stddev.reshape(-1)
    covariance, variance, unresolved, _ = process.hyperparameters
    smooth = variance * covariance(there, there) * np.multiply.outer(sigma, sigma)
    sample = np.cov(archive.maps.reshape(len(archive.maps), -1).T)
    distance = EARTH_RADIUS * np.linalg.norm(there.frame.position[:, None] - there.frame.position, axis=2)
    expected = (1 - share) * smooth + share * np.tile(gaspari_cohn(distance, radius), (2, 2)) * sample
    modes = prior.modes[:, 0].reshape(prior.rank, -1).astype(float)
    np.testing.assert_allclose(modes.T @ modes, expected, atol=1e-4 * expected.max())
    whole = (1 - share) * (variance + unresolved) * sigma**2 + share * np.diagonal(sample)
    np.testing.assert_allclose(np.square(modes).sum(0) + np.square(prior.unresolved).ravel(), whole, rtol=1e-4)


def test_the_archives_share_is_large_where_its_currents_are_of_few_patterns_and_none_where_maps_are_few() -> None:
    """Currents that are sums of three patterns, over the whole sea, are told by sixty maps."""
    patterns = random_fourier(3, 1, seed=3)
    amounts = xr.DataArray(np.random.default_rng(0).standard_normal((60, 3)), dims=("case", "member"))
    sums = patterns.u * amounts, patterns.v * amounts
    summed = xr.Dataset({name: part.sum("member", skipna=False) for name, part in zip("uv", sums, strict=True)})
    few = Archive.of(patterns.drop_dims("member").assign(summed.rename(case="member")))
    share, radius, likelihood = fit_hybrid(few, OptimalInterpolation().fit_to(few))
    assert share >= 0.8
    assert radius > few.grid.diagonal
    assert np.isfinite(likelihood)
    sparse = Archive.of(random_fourier(4, 1, seed=3))
    assert fit_hybrid(sparse, OptimalInterpolation().fit_to(sparse)).share == 0.0


def test_what_is_left_out_is_apart_from_what_the_covariance_is_of() -> None:
    one = Archive.of(random_fourier(1, 40, seed=5))
    for known, left_out in _partitions(one, days=3.0):
        apart = np.abs(np.flatnonzero(known)[:, None] - left_out)
        assert apart.min() > 3
    many = Archive.of(random_fourier(8, 2, seed=5))
    for known, left_out in _partitions(many, days=3.0):
        assert not set(np.flatnonzero(known) // 2) & set(left_out // 2)


def test_windows_between_maps_are_linear_in_time(archive: Archive) -> None:
    index = window_index(archive, np.array([-1, 0, 1]) * DAY)
    halves = windows_at(archive, index, np.array([-12, 0, 12]) * np.timedelta64(1, "h"))
    whole = windows_at(archive, index, np.array([-1, 0, 1]) * DAY)
    np.testing.assert_allclose(halves[:, 0], 0.5 * (whole[:, 0] + whole[:, 1]), atol=1e-7)


def test_an_archive_shorter_than_its_lags_is_refused(archive: Archive) -> None:
    with pytest.raises(ValueError, match="archive must cover a window"):
        FieldPrior.eofs(archive, np.array([-9, 0, 9]) * DAY, rank=3)


def test_the_variance_of_maps_is_that_of_their_covariance_and_of_its_root(archive: Archive) -> None:
    prior = FieldPrior.eofs(archive, THREE, 6)
    root = np.random.default_rng(0).standard_normal((2, 4, prior.rank))
    covariance = np.swapaxes(root, 1, 2) @ root
    modes = prior.modes[:, prior.now].reshape(prior.rank, -1).astype(float)
    expected = np.stack([np.diag(modes.T @ one @ modes) for one in covariance]).reshape(2, *prior.unresolved.shape)
    np.testing.assert_allclose(prior.variance(covariance), expected, rtol=1e-5)
    np.testing.assert_allclose(prior.variance_of_root(root), expected, rtol=1e-5)
