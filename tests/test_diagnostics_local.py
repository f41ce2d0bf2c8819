import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from matplotlib.figure import Figure
from posterior_cases import gaussian_case, gaussian_posterior
from scipy.stats import binomtest, chi2, chisquare, kstest, norm
from small_models import normal, seeded
from torch import Tensor

from probcl.diagnostics import coverage, local_coverage


def uniform(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=seeded(seed), dtype=torch.float64)


def test_a_posterior_that_is_right_on_average_only_is_caught():
    # 90% intervals that hold 85% of the truths where v > 0, and 95% where v < 0.
    case = gaussian_case(6000, 300)
    sure, unsure = (float(norm.ppf((1 + p) / 2) / norm.ppf(0.95)) for p in (0.85, 0.95))
    width = torch.where(case.v > 0, sure, unsure)
    centred = (case.samples - case.v / 2) * width + case.v / 2
    result = coverage(centred, case.truth, region="central", seed=0)
    low, high = result.interval(0.9, 0.99)
    assert low < 0.9 < high
    local = local_coverage(result, case.v, bins=8)
    assert local.p_value < 1e-6
    np.testing.assert_allclose(local.coverage[:4], 0.95, atol=0.03)
    np.testing.assert_allclose(local.coverage[4:], 0.85, atol=0.04)
    # It does not show along a covariate that has nothing to do with it.
    assert local_coverage(result, normal(6000, seed=5), bins=8).p_value > 0.01


def test_the_right_posterior_passes_for_any_covariate():
    case = gaussian_case(3000, 200)
    result = coverage(gaussian_posterior(case.v), case.truth, seed=0)
    for covariate in (case.v, case.v.abs(), (case.v > 1).double()):
        assert local_coverage(result, covariate).p_value > 0.01


def test_p_values_are_uniform():
    p = [local_coverage(uniform(600, seed), uniform(600, seed + 1000), bins=6).p_value for seed in range(150)]
    assert kstest(p, "uniform").pvalue > 0.01


def test_bins_hold_equal_numbers_and_their_limits_are_those_of_scipy():
    values, covariate = uniform(103), normal(103)
    result = local_coverage(values, covariate, level=0.8, bins=4)
    order = covariate.argsort()
    assert result.counts.tolist() == [25, 26, 26, 26]
    for index, rows in enumerate(order.split(result.counts.tolist())):
        hits = int((values[rows] <= 0.8).sum())
        limits = binomtest(hits, len(rows)).proportion_ci(0.95)
        assert result.coverage[index] == hits / len(rows)
        assert (float(result.lower[index]), float(result.upper[index])) == pytest.approx((limits.low, limits.high))
        assert float(result.centers[index]) == pytest.approx(float(covariate[rows].mean()))
    counts, hits = result.counts.double(), result.coverage * result.counts
    observed, expected = (
        torch.stack([hits, counts - hits], 1),
        counts[:, None] * torch.tensor([0.8, 0.2], dtype=torch.float64),
    )
    statistic = sum(chisquare(*row).statistic for row in zip(observed, expected, strict=True))
    assert result.p_value == pytest.approx(chi2.sf(statistic, 4))


@given(npst.arrays(np.int64, st.integers(1, 60), elements=st.integers(-3, 3)), st.integers(1, 12))
def test_equal_covariates_are_never_parted_and_no_bin_is_empty(covariate, bins):
    result = local_coverage(uniform(len(covariate)), covariate, bins=bins)
    assert int(result.counts.sum()) == len(covariate)
    assert int(result.counts.min()) >= 1
    assert len(result.counts) <= bins
    assert len(result.edges) == len(result.counts) + 1
    inner = result.edges[1:-1].numpy()
    per_bin = np.histogram(covariate, np.concatenate([[-np.inf], inner, [np.inf]]))[0]
    assert per_bin.tolist() == result.counts.tolist()


def test_classes_make_a_bin_each():
    labels = torch.arange(3).repeat(100)
    assert local_coverage(uniform(300), labels, bins=10).centers.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("pairs", "bins"), [(10_000, 10), (200, 4), (20, 1)])
def test_by_default_five_misses_are_expected_in_each_bin(pairs, bins):
    assert len(local_coverage(uniform(pairs), normal(pairs)).counts) == bins


def test_a_component_can_be_chosen():
    case = gaussian_case(200, 50, 3)
    result = coverage(case.samples, case.truth, region="central", seed=0)
    chosen = local_coverage(result, case.v[:, 1], component=1)
    assert torch.equal(chosen.coverage, local_coverage(result.values[:, 1], case.v[:, 1]).coverage)
    with pytest.raises(ValueError, match=r"^component must be chosen, from 0 to 2"):
        local_coverage(result, case.v[:, 1])


def test_the_plot_says_which_level():
    ax = local_coverage(uniform(200), normal(200), level=0.95).plot(Figure().subplots())
    assert ax.get_ylabel() == "coverage of 95% regions"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local_coverage(uniform(9), normal(8)), r"^covariate must have shape \(9,\)"),
        (lambda: local_coverage(uniform(9), normal(9), level=1.0), r"^level must be between 0 and 1"),
        (lambda: local_coverage(uniform(9), normal(9), bins=0), r"^bins must be at least 1"),
        (lambda: local_coverage(uniform(9) + 1, normal(9)), r"^calibration must lie in \[0, 1\]"),
        (lambda: local_coverage(uniform(9)[:, None], normal(9)), r"^calibration must be a Coverage or credibilities"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
