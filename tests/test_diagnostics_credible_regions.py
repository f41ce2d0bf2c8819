import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from posterior_cases import gaussian_case, gaussian_posterior
from scipy.stats import binomtest, chi2, norm
from small_models import normal, table_model
from torch.distributions import Independent

import probcl as pcl
from probcl.diagnostics import coverage, hpd_coverage

LEVELS = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
# The largest deviation of 4000 pairs' ECDF that happens once in a thousand times (Kolmogorov).
KOLMOGOROV = 1.95 / 4000**0.5


def analytic_hpd(levels, width: float, dimensions: int) -> np.ndarray:
    """Coverage of N(m, width² Σ) at truths of N(m, Σ): |truth|² against width² times the quantile of χ²."""
    return chi2.cdf(width**2 * chi2.ppf(levels, dimensions), dimensions)


@pytest.mark.parametrize(("width", "dimensions"), [(0.6, 1), (1.0, 3), (1.7, 3)])
def test_hpd_coverage_of_a_gaussian_of_the_wrong_width_is_the_analytic_one(width, dimensions):
    case = gaussian_case(4000, 200, dimensions, width)
    posterior = gaussian_posterior(case.v, width)
    result = coverage(case.samples, case.truth, log_prob=posterior.log_prob, seed=0)
    assert np.abs(result.at(LEVELS)[:, 0].numpy() - analytic_hpd(LEVELS, width, dimensions)).max() < KOLMOGOROV
    assert (result.p_value > 0.01) == (width == 1)


@pytest.mark.parametrize("width", [0.6, 1.0, 1.7])
def test_central_coverage_of_a_gaussian_of_the_wrong_width_is_the_analytic_one(width):
    case = gaussian_case(4000, 200, 2, width)
    result = coverage(case.samples, case.truth, region="central", seed=0)
    expected = 2 * norm.cdf(width * norm.ppf((1 + LEVELS) / 2)) - 1
    assert np.abs(result.at(LEVELS).numpy() - expected[:, None]).max() < KOLMOGOROV
    assert (result.p_value > 0.01) == (width == 1)


@pytest.mark.parametrize("region", ["hpd", "central"])
def test_excess_is_negative_for_a_sure_posterior_and_positive_for_a_wide_one(region):
    excess = []
    for width in (0.7, 1.0, 1.4):
        case = gaussian_case(2000, 200, 1, width)
        log_prob = gaussian_posterior(case.v, width).log_prob
        excess.append(float(coverage(case.samples, case.truth, region=region, log_prob=log_prob, seed=0).excess))
    standard_error = 1 / (12 * 2000) ** 0.5
    assert excess[0] < -4 * standard_error
    assert abs(excess[1]) < 3 * standard_error
    assert excess[2] > 4 * standard_error
    # ∫ (coverage − level) of 2 Φ(k z) − 1 is 2 arctan(k) / π − 1/2.
    assert excess[2] == pytest.approx(2 * np.arctan(1.4) / np.pi - 0.5, abs=3 * standard_error)


def test_bias_is_caught():
    case = gaussian_case(1000, 100, 2, bias=0.6)
    posterior = gaussian_posterior(case.v + 0.6 * 2**0.5)
    assert coverage(posterior, case.truth, seed=0).p_value < 1e-6
    assert coverage(posterior, case.truth, region="central", seed=0).p_value < 1e-3


def test_an_unnormalised_density_does_as_well():
    case = gaussian_case(50, 30, 2)
    log_prob = gaussian_posterior(case.v).log_prob
    of_v = 100 * case.v.sum(-1)
    normalised = hpd_coverage(log_prob(case.samples), log_prob(case.truth), seed=0)
    shifted = hpd_coverage(log_prob(case.samples) + of_v, log_prob(case.truth) + of_v, seed=0)
    assert torch.equal(normalised.values, shifted.values)


class Unnormalised(Independent):
    """A posterior that knows its density up to a factor for each v."""

    def log_prob(self, value):
        raise NotImplementedError("the normaliser is not known")

    def unnormalized_log_prob(self, value):
        return super().log_prob(value) + 100 * self.mean.sum(-1)


def test_a_distribution_without_a_normaliser_is_covered_alike():
    case = gaussian_case(50, 30, 2)
    right = gaussian_posterior(case.v)
    by_both = [coverage(d, case.truth, num_samples=40, seed=0) for d in (right, Unnormalised(right.base_dist, 1))]
    assert torch.equal(by_both[0].values, by_both[1].values)


def test_credibility_is_the_share_of_draws_that_are_denser_than_the_truth():
    log_prob = torch.tensor([[-1.0], [-2.0], [-3.0], [-4.0]])
    for truth, denser in ((-0.5, 0), (-2.5, 2), (-torch.inf, 4)):
        value = float(hpd_coverage(log_prob, torch.tensor([truth])).values)
        assert denser / 5 <= value <= (denser + 1) / 5


def test_a_distribution_brings_its_own_draws_and_density():
    case = gaussian_case(800, 1, 3)
    for width, right in ((1.0, True), (1.5, False)):
        posterior = gaussian_posterior(case.v, width)
        assert (coverage(posterior, case.truth, num_samples=200, seed=0).p_value > 0.01) == right
        first, second = (coverage(posterior, case.truth, region="central", num_samples=9, seed=5) for _ in range(2))
        assert torch.equal(first.values, second.values)


def test_a_conditional_on_a_data_bank_is_covered_at_every_level():
    model = table_model(2 * normal(7, 5))
    d = model.v_given_u(pcl.EmpiricalPrior(torch.arange(5))).condition(torch.arange(7).repeat(150))
    truth = d.sample()
    assert coverage(d, truth, num_samples=50, seed=1).p_value > 0.01
    assert coverage(d, torch.zeros_like(truth), num_samples=50, seed=1).p_value < 1e-6


def test_confidence_limits_are_those_of_scipy():
    case = gaussian_case(60, 100, 3)
    result = coverage(case.samples, case.truth, region="central", seed=0)
    for level in (0.0, 0.5, 0.9, 1.0):
        low, high = result.interval(level, 0.9)
        for component, hits in enumerate((result.values <= level).sum(0).tolist()):
            expected = binomtest(hits, 60).proportion_ci(0.9)
            assert (float(low[component]), float(high[component])) == pytest.approx((expected.low, expected.high))


def test_coverage_at_one_level_is_one_number_a_component():
    case = gaussian_case(60, 100, 3)
    result = coverage(case.samples, case.truth, region="central", seed=0)
    assert torch.equal(result.at(0.5), result.at(torch.tensor([0.5]))[0])
    assert result.at(1.0).tolist() == [1, 1, 1]
    assert result.at(0.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("dimensions", [1, 3, 9])
@pytest.mark.parametrize("kind", ["coverage", "histogram", "ecdf"])
def test_plots_are_labelled(dimensions, kind):
    case = gaussian_case(100, 20, dimensions)
    ax = coverage(case.samples, case.truth, region="central").plot(Figure().subplots(), kind)
    assert ax.get_xlabel()
    assert ax.get_ylabel()


CASE = gaussian_case(6, 4, 2)
LOG_PROB = torch.zeros(4, 6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: coverage(CASE.samples, CASE.truth), ValueError, r"^region='hpd' needs log_prob"),
        (lambda: coverage(CASE.samples, CASE.truth, region="ball"), ValueError, r"^region must be 'hpd' or 'central'"),
        (lambda: hpd_coverage(LOG_PROB, LOG_PROB), ValueError, r"^log_prob_samples must be \(S, B\) beside \(B,\)"),
        (lambda: hpd_coverage(LOG_PROB + torch.nan, LOG_PROB[0]), ValueError, r"^log_prob_samples must be finite or"),
        (lambda: hpd_coverage(LOG_PROB, LOG_PROB[0] + torch.inf), ValueError, r"^log_prob_truth must be finite or"),
        (lambda: hpd_coverage([0.0], LOG_PROB[0]), TypeError, r"^log_prob_samples must be a torch.Tensor"),
        (
            lambda: coverage(CASE.samples, CASE.truth, region="central").interval(0.5, 1.0),
            ValueError,
            r"^confidence must be between",
        ),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
