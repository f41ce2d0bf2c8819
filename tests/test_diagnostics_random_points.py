import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from posterior_cases import DEVIATION, gaussian_case, gaussian_posterior, prior_case
from scipy.stats import ncx2
from torch import Tensor

from probcl.diagnostics import tarp

LEVELS = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
KOLMOGOROV = 1.95 / 4000**0.5


def analytic(levels: Tensor, width: float, dimensions: int, distance: float) -> np.ndarray:
    """Coverage of balls around points at this many posterior deviations from the posterior mean.

    Squared distances to such a point, in posterior deviations, are noncentral χ²: of truth, and scaled of draws.
    """
    squared_radius = width**2 * ncx2.ppf(levels, dimensions, (distance / width) ** 2)
    return ncx2.cdf(squared_radius, dimensions, distance**2)


@pytest.mark.parametrize(("dimensions", "distance"), [(1, 1.5), (3, 0.5)])
@pytest.mark.parametrize("width", [0.6, 1.0, 1.7])
def test_coverage_of_a_gaussian_of_the_wrong_width_is_the_analytic_one(width, dimensions, distance):
    case = gaussian_case(4000, 200, dimensions, width)
    towards = torch.ones_like(case.v) / dimensions**0.5
    references = case.v / 2 + distance * DEVIATION * towards
    result = tarp(case.samples, case.truth, references=references, normalize=False, num_bootstrap=2, seed=0)
    expected = analytic(LEVELS, width, dimensions, distance)
    assert np.abs(result.at(LEVELS)[:, 0].numpy() - expected).max() < KOLMOGOROV
    assert (result.p_value > 0.01) == (width == 1)


@pytest.mark.parametrize(
    ("wrong", "sign"),
    [({"width": 0.6}, -1), ({"width": 1.6}, 1), ({"bias": 0.8}, -1)],
    ids=["too narrow", "too wide", "biased"],
)
def test_a_wrong_posterior_is_caught_with_random_references(wrong, sign):
    case = gaussian_case(1000, 100, 3, **wrong)
    result = tarp(case.samples, case.truth, seed=0)
    assert result.p_value < 1e-4
    assert sign * float(result.excess) > 0.015


@pytest.mark.parametrize("dimensions", [1, 4])
def test_the_right_posterior_passes_with_any_reference(dimensions):
    case = gaussian_case(1000, 100, dimensions)
    assert tarp(case.samples, case.truth, seed=0).p_value > 0.05
    assert tarp(case.samples, case.truth, references=torch.tanh(3 * case.v), seed=0).p_value > 0.05
    assert tarp(gaussian_posterior(case.v), case.truth, num_samples=100, seed=2).p_value > 0.05


def test_a_posterior_that_returns_the_prior_passes_unless_the_references_know_v():
    case = prior_case(1000, 100)
    assert tarp(case.samples, case.truth, seed=0).p_value > 0.05
    assert tarp(case.samples, case.truth, references=case.v, seed=0).p_value < 1e-6


def test_bootstrap_limits_are_as_wide_as_the_binomial_ones():
    case = gaussian_case(1000, 100, 2)
    result = tarp(case.samples, case.truth, num_bootstrap=2000, seed=0)
    middle = (result.levels > 0.1) & (result.levels < 0.9)
    curve = result.at(result.levels)[:, 0]
    expected = 2 * 1.96 * (curve * (1 - curve) / 1000).sqrt()
    np.testing.assert_allclose((result.upper - result.lower)[middle], expected[middle], rtol=0.12)
    assert ((result.lower <= curve) & (curve <= result.upper)).all()


def test_normalised_distances_do_not_depend_on_units():
    case = gaussian_case(200, 50, 3)
    units = torch.tensor([1.0, 1e3, 1e-3], dtype=torch.float64)
    first = tarp(case.samples, case.truth, seed=0)
    second = tarp(case.samples * units, case.truth * units, seed=0)
    torch.testing.assert_close(first.values, second.values)
    plain = tarp(case.samples * units, case.truth * units, normalize=False, seed=0)
    assert not torch.allclose(first.values, plain.values)


def test_a_component_that_never_changes_is_no_trouble():
    case = gaussian_case(50, 20, 2)
    case.samples[..., 1], case.truth[:, 1] = 3.0, 3.0
    assert tarp(case.samples, case.truth, seed=0).values.isfinite().all()


def test_a_seed_makes_everything_reproducible_and_leaves_the_generator_alone():
    case = gaussian_case(50, 20, 2)
    state = torch.get_rng_state()
    first, second = (tarp(case.samples, case.truth, seed=1) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.lower, second.lower)
    assert torch.equal(torch.get_rng_state(), state)


def test_many_draws_in_many_dimensions_are_taken_in_parts(monkeypatch):
    case = gaussian_case(40, 30, 5)
    whole = tarp(case.samples, case.truth, seed=0).values
    monkeypatch.setattr("probcl.diagnostics.random_points._ENTRIES_AT_ONCE", 1000)
    assert torch.equal(tarp(case.samples, case.truth, seed=0).values, whole)


def test_the_plot_is_labelled():
    case = gaussian_case(50, 20, 2)
    ax = tarp(case.samples, case.truth).plot(Figure().subplots())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("credibility level", "expected coverage")


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused():
    case = gaussian_case(6, 4, 2)
    with pytest.raises(ValueError, match=r"^references must have the truth's shape \(6, 2\)"):
        tarp(case.samples, case.truth, references=case.truth[:5])
    with pytest.raises(ValueError, match=r"^num_bootstrap must be at least 2"):
        tarp(case.samples, case.truth, num_bootstrap=1)
