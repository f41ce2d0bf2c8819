import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from posterior_cases import DEVIATION, gaussian_case, gaussian_posterior, prior_case
from scipy.stats import binom, norm
from small_models import linear_model, normal, seeded, table_model
from torch.distributions import Normal, Poisson

import probcl as pcl
from probcl.diagnostics import coverage, pit, sbc


@pytest.mark.parametrize("num_samples", [1, 19, 200])
def test_p_values_of_the_right_posterior_are_uniform_for_any_number_of_draws(num_samples):
    case = gaussian_case(100 * 300, num_samples)
    values = sbc(case.samples, case.truth, seed=0).values.reshape(300, 100)
    p = pcl.diagnostics.Uniformity(values.T).p_values.numpy()
    for level in (0.05, 0.25, 0.5):
        low, high = binom.interval(0.999, 300, level)
        assert low <= (p <= level).sum() <= high


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"width": 0.7}, lambda ranks: ((ranks < 10) | (ranks > 90)).double().mean() > 0.25),
        ({"width": 1.5}, lambda ranks: ((ranks > 25) & (ranks < 75)).double().mean() > 0.6),
        ({"bias": 0.4}, lambda ranks: ranks.double().mean() < 45),
        ({"bias": -0.4}, lambda ranks: ranks.double().mean() > 55),
    ],
    ids=["too narrow", "too wide", "too high", "too low"],
)
def test_a_wrong_posterior_is_caught_and_the_ranks_show_how(wrong, where):
    case = gaussian_case(600, 99, dimensions=3, **wrong)
    for result in (sbc(case.samples, case.truth, seed=0), pit(case.samples, case.truth, seed=0)):
        assert result.p_value < 1e-3
        assert result.chi_square_p_values.max() < 0.01
    assert where(sbc(case.samples, case.truth, seed=0).ranks)


def test_only_the_wrong_component_is_blamed():
    case = gaussian_case(500, 99, dimensions=4)
    case.samples[..., 2] += 0.5 * DEVIATION
    result = sbc(case.samples, case.truth, seed=1)
    assert result.worst == 2
    assert result.p_values[[0, 1, 3]].min() > 0.01


def test_ranks_count_the_draws_below_the_truth():
    case = gaussian_case(50, 30, dimensions=2)
    ranks = sbc(case.samples, case.truth).ranks
    assert torch.equal(ranks, (case.samples < case.truth).sum(0))
    assert ranks.shape == (50, 2)


def test_ranks_among_equal_draws_take_every_value():
    result = sbc(torch.zeros(3, 4000), torch.zeros(4000), seed=0)
    counts = result.ranks[:, 0].bincount(minlength=4)
    assert (counts - 1000).abs().max() < 100


def test_a_posterior_that_returns_the_prior_passes_unless_the_quantity_knows_v():
    case = prior_case(1000, 99)
    assert sbc(case.samples, case.truth, seed=0).p_value > 0.05
    likelihood = sbc(case.samples, case.truth, quantity=lambda u: Normal(u, 1).log_prob(case.v), seed=0)
    assert likelihood.p_value < 1e-6


def test_a_quantity_may_have_components_of_its_own():
    case = gaussian_case(40, 20, dimensions=3)
    result = sbc(case.samples, case.truth, quantity=lambda u: torch.stack([u.sum(-1), u[..., 0]], -1), seed=0)
    assert torch.equal(result.ranks[:, 0], (case.samples.sum(-1) < case.truth.sum(-1)).sum(0))
    assert torch.equal(result.ranks[:, 1], sbc(case.samples, case.truth, seed=0).ranks[:, 0])


def test_pit_of_a_distribution_is_its_distribution_function():
    case = gaussian_case(200, 1)
    result = pit(gaussian_posterior(case.v), case.truth)
    np.testing.assert_allclose(result.values[:, 0], norm.cdf(case.standardised_truth), rtol=1e-12)
    assert result.p_value > 0.01
    assert pit(gaussian_posterior(case.v, width=0.6), case.truth).p_value < 1e-3


def test_pit_from_draws_tends_to_the_distribution_function():
    case = gaussian_case(100, 20_000)
    exact = pit(gaussian_posterior(case.v), case.truth).values
    assert (pit(case.samples, case.truth).values - exact).abs().max() < 0.015


def test_pit_of_counts_is_uniform():
    rate = 3 * torch.rand(3000, generator=seeded(1))
    truth = torch.poisson(rate, generator=seeded(2))
    assert pit(Poisson(rate), truth, num_samples=100, seed=1).p_value > 0.05
    assert pit(Poisson(1.3 * rate), truth, num_samples=100, seed=0).p_value < 1e-3


def test_a_learned_conditional_on_a_data_bank_is_calibrated_for_draws_of_itself():
    model = table_model(2 * normal(7, 5))
    d = model.v_given_u(pcl.EmpiricalPrior(torch.arange(5))).condition(torch.arange(7).repeat(200))
    truth = d.sample()
    assert sbc(d, truth, num_samples=50, seed=1).p_value > 0.05
    uniform = torch.randint(5, truth.shape, generator=seeded(0))
    assert sbc(d, uniform, num_samples=50, seed=0).p_value < 1e-6


@pytest.mark.parametrize("diagnostic", [sbc, pit])
def test_a_seed_makes_draws_reproducible_and_leaves_the_generator_alone(diagnostic):
    case = gaussian_case(30, 1, dimensions=2)
    posterior = gaussian_posterior(case.v)
    state = torch.get_rng_state()
    first, second = (diagnostic(posterior, case.truth, num_samples=20, seed=3).values for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(diagnostic(posterior, case.truth, num_samples=20, seed=4).values, first)


def test_numpy_arrays_and_any_event_shape_are_taken():
    case = gaussian_case(20, 15, dimensions=6)
    grid = sbc(case.samples.reshape(15, 20, 2, 3).numpy(), case.truth.reshape(20, 2, 3).float().double().numpy())
    assert grid.values.shape == (20, 6)


def test_the_plot_is_labelled_by_what_it_shows():
    case = gaussian_case(100, 19, dimensions=2)
    assert "rank" in sbc(case.samples, case.truth).plot(Figure().subplots()).get_xlabel()
    assert "below the truth" in pit(case.samples, case.truth).plot(Figure().subplots(), "ecdf").get_xlabel()
    assert "100 pairs, 2 components" in repr(sbc(case.samples, case.truth))


CASE = gaussian_case(6, 4, dimensions=2)
MODEL = linear_model(2, 2, 2)
NU = MODEL.u_given_v(pcl.EmpiricalPrior(CASE.truth))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sbc(CASE.samples[0], CASE.truth), ValueError, r"^posterior must have draws of shape \(S, 6, 2\)"),
        (lambda: sbc(CASE.samples[:0], CASE.truth), ValueError, r"^posterior must have draws"),
        (lambda: sbc(CASE.samples, CASE.truth[:5]), ValueError, r"shape \(S, 5, 2\), got a .* \(4, 6, 2\)"),
        (lambda: sbc(CASE.samples / 0, CASE.truth), ValueError, r"^posterior must be finite"),
        (lambda: sbc(CASE.samples, CASE.truth * torch.nan), ValueError, r"^truth must be finite"),
        (lambda: sbc([1.0], CASE.truth), TypeError, r"^posterior must be a torch.Tensor or a NumPy array"),
        (lambda: sbc(MODEL, CASE.truth), TypeError, r"^posterior must be .*condition\(v\), got a BimodalModel$"),
        (lambda: coverage(NU, CASE.truth), TypeError, r"^posterior must be .*condition\(v\), got a Conditional$"),
        (lambda: sbc(CASE.samples, CASE.truth, seed="a"), TypeError, r"^seed must be an integer, got 'a'"),
        (lambda: sbc(CASE.samples, CASE.truth, seed=-1), ValueError, r"^seed must be at least 0"),
        (lambda: sbc(CASE.samples > 0, CASE.truth), TypeError, r"^posterior must be real numbers"),
        (lambda: sbc(CASE.samples, torch.tensor(1.0)), ValueError, r"^truth must have one value for each"),
        (lambda: sbc(Normal(CASE.truth, 1), CASE.truth, num_samples=0), ValueError, r"^num_samples must be at least"),
        (lambda: sbc(CASE.samples, CASE.truth, quantity=lambda u: u.sum()), ValueError, r"^quantity must keep"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
