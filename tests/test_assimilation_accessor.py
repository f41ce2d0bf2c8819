"""What `dataset.probcl` says of a posterior, against weighted sums and scores written out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

import probcl.assimilation
from probcl import diagnostics
from probcl.assimilation import scores

MEMBERS, TIMES, SHAPE = 6, 2, (3, 4)
LAND = (1, 2)


def posterior(weighted: bool = True, changing: bool = False, members: int = MEMBERS) -> xr.Dataset:
    rng = np.random.default_rng(0)
    dims = ("realization", "time", "latitude", "longitude")
    values = rng.normal(size=(2, members, TIMES, *SHAPE))
    values[..., LAND[0], LAND[1]] = np.nan
    result = xr.Dataset(
        {"u": (dims, values[0], {"units": "m s-1"}), "v": (dims, values[1])},
        {"time": np.arange(TIMES), "latitude": np.arange(3.0), "longitude": np.arange(4.0)},
    )
    if weighted:
        weights = rng.exponential(size=(members, TIMES)) if changing else rng.exponential(size=members)
        result["member_weight"] = (dims[: weights.ndim], weights / weights.sum(0))
    return result


def truth() -> xr.Dataset:
    return posterior(members=7).isel(realization=6, drop=True)[["u", "v"]]


def weights_of(dataset: xr.Dataset) -> np.ndarray:
    """The weights, shape (members, time)."""
    equal = xr.DataArray(np.full(dataset.sizes["realization"], 1 / dataset.sizes["realization"]), dims="realization")
    weights = dataset.get("member_weight", equal)
    return weights.broadcast_like(dataset["u"][:, :, 0, 0]).transpose("realization", "time").values


every_kind = pytest.mark.parametrize("kind", [{"weighted": False}, {"weighted": True}, {"changing": True}], ids=str)


@every_kind
def test_mean_and_deviation_are_weighted_sums(kind):
    given = posterior(**kind)
    w = weights_of(given)[:, :, None, None]
    for name in ("u", "v"):
        x = given[name].values
        mean = (w * x).sum(0)
        np.testing.assert_allclose(given.probcl.mean()[name], mean)
        np.testing.assert_allclose(given.probcl.std()[name], np.sqrt((w * (x - mean) ** 2).sum(0)))
    assert given.probcl.mean()["u"].attrs == {"units": "m s-1"}


def test_quantiles_of_equal_weights_are_numpy_s():
    given = posterior(weighted=False)
    np.testing.assert_allclose(given.probcl.quantile([0.1, 0.5])["u"], np.quantile(given["u"], [0.1, 0.5], axis=0))


def test_all_the_weight_on_one_member_makes_it_every_quantile():
    given = posterior()
    given["member_weight"][:] = np.eye(MEMBERS)[2]
    np.testing.assert_allclose(given.probcl.quantile(0.3)["v"], given["v"][2])


@every_kind
def test_ranks_are_the_weight_below_the_truth(kind):
    given, true = posterior(**kind), truth()
    w = weights_of(given)[:, :, None, None]
    expected = (w * (given["u"].values < true["u"].values)).sum(0)
    expected[:, LAND[0], LAND[1]] = np.nan
    np.testing.assert_allclose(given.probcl.rank(true)["u"], expected)


def test_half_of_what_equals_the_truth_lies_below_it():
    given = posterior(weighted=False).fillna(0.0) * 0
    assert (given.probcl.rank(given.isel(realization=0))["u"] == 0.5).all()


@every_kind
def test_the_mean_crps_over_points_is_the_score_of_a_window(kind):
    given, true = posterior(**kind), truth()
    ocean = np.isfinite(true["v"].values[0])
    ensemble = given["v"].values[:, :, ocean].swapaxes(0, 1)
    expected = scores.fair_crps(ensemble, true["v"].values[:, ocean], weights_of(given).T)
    crps = given.probcl.crps(true)["v"]
    np.testing.assert_allclose(crps.mean(("latitude", "longitude")), expected)
    assert np.isnan(crps.values[:, LAND[0], LAND[1]]).all()


def test_the_crps_of_equal_weights_is_that_of_the_diagnostics():
    given, true = posterior(weighted=False), truth()
    point = {"time": 1, "latitude": 0, "longitude": 3}
    x, y = given["u"].isel(point).values[:, None, None], true["u"].isel(point).values[None, None]
    expected = diagnostics.crps(torch.tensor(x), torch.tensor(y), fair=True).values.item()
    assert float(given.probcl.crps(true)["u"].isel(point)) == pytest.approx(expected, rel=1e-9)


@every_kind
def test_draws_are_members_as_often_as_they_weigh(kind):
    given = posterior(**kind).fillna(0.0)
    drawn = given.probcl.sample(4000, seed=1)
    assert dict(drawn.sizes) == {"realization": 4000, "time": TIMES, "latitude": 3, "longitude": 4}
    assert drawn["u"].dims == given["u"].dims
    for time, weights in enumerate(weights_of(given).T):
        maps, known = (x["u"].isel(time=time).values.reshape(len(x["u"]), -1) for x in (drawn, given))
        same = (maps[:, None] == known).all(-1)
        assert (same.sum(1) == 1).all()
        np.testing.assert_allclose(same.mean(0), weights, atol=4 * 0.5 / np.sqrt(4000))
        # A member is drawn as a whole, v with u.
        of_v = drawn["v"].isel(time=time).values[0]
        assert (of_v == given["v"].isel(time=time).values[same[0].argmax()]).all()
    np.testing.assert_allclose(drawn["member_weight"], 1 / 4000)


def test_weights_in_single_precision_are_drawn_by():
    given = posterior()
    given["member_weight"] = given["member_weight"].astype(np.float32)
    assert given.probcl.sample(5)["u"].sizes["realization"] == 5


def test_a_truth_elsewhere_and_a_dataset_without_members_are_refused():
    given, true = posterior(), truth()
    with pytest.raises(ValueError, match="longitude"):
        given.probcl.rank(true.assign_coords(longitude=true["longitude"] + 1))
    with pytest.raises(ValueError, match="must have u and v on realization"):
        true.probcl.mean()
    with pytest.raises(ValueError, match=r"truth must have u and v, got none of \['v'\]"):
        given.probcl.crps(true[["u"]])
    with pytest.raises(ValueError, match="n must be at least 1"):
        given.probcl.sample(0)


def test_is_there_once_assimilation_is_imported():
    assert xr.Dataset.probcl is probcl.assimilation.PosteriorAccessor
    there = "print(hasattr(xarray.Dataset, 'probcl'))"
    script = f"import xarray; {there}; import probcl.assimilation; {there}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
