import numpy as np
import pytest
import xarray as xr

from probcl.assimilation import simulate_tracks
from probcl.assimilation.baselines import LinearGaussian, segments
from probcl.datasets.ocean import Box, GaussianOcean

WORLD = GaussianOcean(Box(n=16), n_waves=32)
CAMPAIGN = {"n_drifters": 6, "window": "4D", "position_error": 100.0}


@pytest.fixture(scope="module")
def archive() -> xr.Dataset:
    return WORLD.archive(8, days=range(5))


def test_the_regression_is_the_conditional_of_the_worlds_joint_covariance(archive: xr.Dataset) -> None:
    tracks = simulate_tracks(archive.isel(member=[0]), fix_interval="24h", **CAMPAIGN)
    time = archive["time"].values[2]
    found = LinearGaussian(WORLD.features, error_floor=0.05).fit(archive).analyse(tracks, time, members=4000)
    observed = segments(tracks, 0.05)
    seen = observed.time, observed.latitude, observed.longitude
    rows, columns = (axis.ravel() for axis in np.meshgrid(archive["latitude"], archive["longitude"], indexing="ij"))
    here = np.full(len(rows), time), rows, columns
    own = WORLD.covariance(seen, seen).reshape(2 * len(observed), -1) + np.diag(np.repeat(observed.error**2, 2))
    cross = WORLD.covariance(here, seen).reshape(2 * len(rows), -1)
    gain = np.linalg.solve(own, cross.T).T
    mean = (gain @ observed.velocity.ravel()).reshape(*archive["u"].shape[2:], 2)
    variance = np.square(WORLD.features(*here)).sum(-1).ravel() - (gain * cross).sum(1)
    for k, name in enumerate("uv"):
        np.testing.assert_allclose(found[f"{name}_mean"], mean[..., k], atol=1e-9)
        stddev = np.sqrt(variance).reshape(mean.shape)[..., k]
        np.testing.assert_allclose(found[f"{name}_stddev"], stddev, atol=1e-7)
        np.testing.assert_allclose(found[name].std("realization"), stddev, rtol=0.1)
        assert abs(found[name].mean("realization") - mean[..., k]).max() < 6 * stddev.max() / np.sqrt(4000)


def test_at_sparse_fixes_the_mean_along_a_segment_is_worth_more_than_its_middle(archive: xr.Dataset) -> None:
    errors = []
    for along in (False, True):
        method = LinearGaussian(WORLD.features, along=along, error_floor=0.05).fit(archive)
        for member in archive["member"].values:
            one = archive.sel(member=[member])
            tracks = simulate_tracks(one, fix_interval="48h", seed=1, **CAMPAIGN)
            found = method.analyse(tracks, archive["time"].values[2], members=2)
            truth = one.isel(member=0, time=2)
            errors.append(float(((found["u_mean"] - truth["u"]) ** 2 + (found["v_mean"] - truth["v"]) ** 2).mean()))
    middle, along_it = np.mean(np.reshape(errors, (2, -1)), axis=1)
    assert along_it < middle
