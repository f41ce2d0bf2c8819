import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from matplotlib.figure import Figure
from posterior_cases import gaussian_case, gaussian_posterior
from scipy.stats import energy_distance, norm
from small_models import normal
from torch import Tensor

from probcl.diagnostics import Score, crps, energy_score


def brute_force(samples: Tensor, truth: Tensor, fair: bool) -> Tensor:
    """The definition, over the last axis as a vector."""
    count = len(samples)
    to_truth = (samples - truth).norm(dim=-1).mean(0)
    among = (samples[:, None] - samples[None]).norm(dim=-1).sum((0, 1))
    return to_truth - among / (2 * count * (count - fair))


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("num_samples", [2, 3, 50])
def test_scores_are_those_of_the_definition(num_samples, fair):
    samples, truth = normal(num_samples, 7, 4), normal(7, 4, seed=1)
    torch.testing.assert_close(energy_score(samples, truth, fair=fair).values, brute_force(samples, truth, fair))
    by_component = brute_force(samples[..., None], truth[..., None], fair)
    torch.testing.assert_close(crps(samples, truth, fair=fair).values, by_component)


@pytest.mark.parametrize("fair", [False, True])
def test_the_energy_score_of_scalars_is_the_crps(fair):
    samples, truth = normal(30, 9), normal(9, seed=1)
    expected = crps(samples, truth, fair=fair).values
    torch.testing.assert_close(energy_score(samples, truth, fair=fair).values, expected)
    torch.testing.assert_close(energy_score(samples[..., None], truth[:, None], fair=fair).values, expected)


def test_the_crps_is_half_the_squared_energy_distance_of_scipy():
    samples, truth = normal(40, 5), normal(5, seed=1)
    expected = [energy_distance(samples[:, b], truth[b : b + 1]) ** 2 / 2 for b in range(5)]
    np.testing.assert_allclose(crps(samples, truth).values, expected, rtol=1e-10)


def gaussian_crps(truth: Tensor, deviation: float) -> np.ndarray:
    """Of N(0, deviation²), Gneiting & Raftery 2007, §4.2."""
    z = truth.numpy() / deviation
    return deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize("deviation", [0.3, 2.0])
def test_the_crps_of_a_gaussian_is_its_closed_form(deviation):
    truth = torch.linspace(-3, 3, 13, dtype=torch.float64)
    samples = deviation * normal(40_000, 13)
    error = crps(samples, truth).values.numpy() - gaussian_crps(truth, deviation)
    assert np.abs(error).max() < 5 * deviation / 200
    # Quantiles in place of draws leave no noise.
    quantiles = deviation * torch.from_numpy(norm.ppf((np.arange(20_000) + 0.5) / 20_000))
    exact = crps(quantiles[:, None].expand(-1, 13), truth).values
    np.testing.assert_allclose(exact, gaussian_crps(truth, deviation), atol=1e-4 * deviation)


@pytest.mark.parametrize("score", [crps, energy_score])
@pytest.mark.parametrize("num_samples", [2, 5, 40])
def test_the_expected_fair_score_does_not_depend_on_the_number_of_draws(score, num_samples):
    truth = torch.zeros(20_000, dtype=torch.float64)
    result = score(normal(num_samples, 20_000), truth, fair=True)
    assert abs(float(result.mean) - gaussian_crps(truth[:1], 1.0)[0]) < 4 * float(result.standard_error)


@pytest.mark.parametrize("num_samples", [2, 5, 40])
def test_the_plain_score_is_worse_by_half_the_mean_distance_over_the_number_of_draws(num_samples):
    truth = torch.zeros(20_000, dtype=torch.float64)
    samples = normal(num_samples, 20_000)
    surplus = crps(samples, truth).mean - crps(samples, truth, fair=True).mean
    assert float(surplus) == pytest.approx(1 / math.sqrt(math.pi) / num_samples, rel=0.03)


@pytest.mark.parametrize("score", [crps, energy_score])
def test_no_posterior_scores_better_than_the_right_one(score):
    right = gaussian_case(8000, 12, 2)
    best = score(right.samples, right.truth, fair=True)
    for wrong in ({"width": 0.6}, {"width": 1.5}, {"bias": 0.5}, {"bias": -0.5}):
        case = gaussian_case(8000, 12, 2, **wrong)
        assert torch.equal(case.truth, right.truth)
        loss = Score("difference", score(case.samples, case.truth, fair=True).values - best.values)
        assert (loss.mean > 3 * loss.standard_error).all()


@given(npst.arrays(float, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-1e3, 1e3)))
def test_scores_are_not_negative_and_follow_shift_and_scale(samples):
    samples = torch.from_numpy(samples)
    truth = torch.linspace(-1, 1, samples.shape[1], dtype=torch.float64)
    values = crps(samples, truth).values
    assert values.min() > -1e-9
    torch.testing.assert_close(crps(3 * samples + 7, 3 * truth + 7).values, 3 * values, atol=1e-9, rtol=1e-9)
    assert energy_score(samples, truth).values.min() > -1e-9


def test_a_common_offset_costs_no_digits():
    samples, truth = normal(20, 5), normal(5, seed=1)
    # Exactly representable, so that the offset itself loses nothing.
    samples, truth = (x.mul(2**20).round().div(2**20) for x in (samples, truth))
    for score in (crps, energy_score):
        torch.testing.assert_close(
            score(samples + 2.0**30, truth + 2.0**30).values, score(samples, truth).values, rtol=1e-13, atol=0
        )


def test_many_conditions_are_taken_in_parts(monkeypatch):
    samples, truth = normal(20, 9, 3), normal(9, 3, seed=1)
    whole = energy_score(samples, truth).values
    monkeypatch.setattr("probcl.diagnostics.proper_scores._ENTRIES_AT_ONCE", 900)
    assert torch.equal(energy_score(samples, truth).values, whole)


def test_a_distribution_is_drawn_from_and_event_shapes_are_kept():
    case = gaussian_case(50, 1, 6)
    posterior = gaussian_posterior(case.v)
    result = crps(posterior, case.truth, num_samples=30, seed=0)
    assert result.values.shape == (50, 6)
    assert result.mean.shape == result.standard_error.shape == (6,)
    assert torch.equal(result.values, crps(posterior, case.truth, num_samples=30, seed=0).values)
    assert energy_score(posterior, case.truth, seed=0).values.shape == (50,)


@pytest.mark.parametrize("dimensions", [1, 4])
def test_plots_are_labelled(dimensions):
    case = gaussian_case(40, 10, dimensions)
    ax = crps(case.samples, case.truth).plot(Figure().subplots())
    assert "CRPS" in ax.get_xlabel() + ax.get_ylabel()
    assert "CRPS of shape" in repr(crps(case.samples, case.truth))


def test_a_single_draw_cannot_be_scored_fairly():
    assert float(crps(torch.ones(1, 1), torch.zeros(1)).mean) == 1
    with pytest.raises(ValueError, match=r"^a fair score needs at least two draws"):
        crps(torch.ones(1, 1), torch.zeros(1), fair=True)
