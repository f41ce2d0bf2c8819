"""Simulation-based inference: fit pairs of parameters and simulations, and the posterior follows."""

import math

import pyro.distributions as dist
import pytest
import torch
from small_models import seeded
from torch import Tensor

import probcl as pcl
from applications.inference.__main__ import CONFIG
from applications.inference.experiment import SIMULATORS, Config, infer, learn, mean_c2st
from probcl.datasets import GaussianMixture, Simulator, TwoMoons

every_simulator = pytest.mark.parametrize(
    "simulator", [TwoMoons(), GaussianMixture()], ids=lambda simulator: type(simulator).__name__
)
F64 = torch.float64
OBSERVATION = {TwoMoons: (0.0, 0.0), GaussianMixture: (9.5, -3.0)}  # the latter's posterior is cut by the prior


def grid(half_width: float, points: int) -> tuple[Tensor, float]:
    """Midpoints of the cells of a square, and the area of one."""
    side = 2 * half_width / points
    axis = (torch.arange(points, dtype=F64) + 0.5) * side - half_width
    return torch.cartesian_prod(axis, axis), side**2


def data_grid(simulator: Simulator) -> tuple[Tensor, float]:
    """Cells that cover the data of a θ near zero; the moons end abruptly, and need small ones."""
    return grid(1.0, 2500) if isinstance(simulator, TwoMoons) else grid(6.0, 600)


def mean_log_likelihood(simulator: Simulator) -> float:
    """E log p(x|θ), from the entropies of angle and radius for the moons, on a grid for the mixture."""
    if isinstance(simulator, TwoMoons):
        uniform = (torch.arange(10_000, dtype=F64) + 0.5) / 10_000
        mean_log_radius = (0.1 + 0.01 * torch.special.ndtri(uniform)).log().mean().item()
        return -math.log(0.01 * math.sqrt(2 * math.pi * math.e)) - math.log(math.pi) - mean_log_radius
    x, area = data_grid(simulator)
    log_density = simulator.log_likelihood(torch.zeros(2, dtype=F64), x)
    return float((log_density.exp() * log_density).sum() * area)


@every_simulator
def test_the_likelihood_is_a_density_of_the_data(simulator):
    x, area = data_grid(simulator)
    density = simulator.log_likelihood(torch.tensor([0.3, -0.5], dtype=F64), x).exp()
    assert (density.sum() * area).item() == pytest.approx(1, abs=2e-3)


@every_simulator
def test_simulations_have_the_mean_log_likelihood_of_the_likelihood(simulator):
    theta, x = simulator.sample(100_000, seed=1)
    found = simulator.log_likelihood(theta.double(), x.double())
    found = found[found.isfinite()]
    assert len(found) > 99_900  # single precision takes some of the moons' tips off their support
    exact = mean_log_likelihood(simulator)
    assert found.mean().item() == pytest.approx(exact, abs=4 * found.std().item() / len(found) ** 0.5)


@every_simulator
def test_exact_posterior_draws_fall_where_likelihood_times_prior_is(simulator):
    x = torch.tensor(OBSERVATION[type(simulator)], dtype=F64)
    draws = simulator.posterior(x, 20_000, seed=2)
    assert simulator.prior.support.check(draws).all()
    cells, _ = grid(simulator.half_width, 1600)
    probability = simulator.log_likelihood(cells, x).softmax(0)
    for f in (lambda t: t, lambda t: t.square(), lambda t: t.prod(-1, keepdim=True), lambda t: (t > x).double()):
        found, exact = f(draws), probability @ f(cells)
        error = found.std(0) / len(draws) ** 0.5
        assert ((found.mean(0) - exact).abs() < 4 * error + 2e-3 * simulator.half_width).all()
    # The mean log-likelihood sees the width of the crescents and the share of the narrow bump.
    found, at_cells = simulator.log_likelihood(draws, x), simulator.log_likelihood(cells, x)
    exact = probability @ at_cells.clamp(min=-700)
    assert (found.mean() - exact).abs() < 4 * found.std() / len(draws) ** 0.5 + 0.01


@every_simulator
def test_exact_posterior_draws_are_those_of_rejection(simulator):
    x = torch.tensor(OBSERVATION[type(simulator)], dtype=F64)
    theta = simulator.sample(600_000, seed=3).u.double()
    log_likelihood = simulator.log_likelihood(theta, x)
    keep = torch.rand(len(theta), generator=seeded(0), dtype=F64).log() < log_likelihood - log_likelihood.max()
    by_rejection = theta[keep]
    assert len(by_rejection) > 100
    draws = simulator.posterior(x, len(by_rejection), seed=4)
    assert pcl.diagnostics.c2st(draws, by_rejection, seed=0).p_value > 0.01


@every_simulator
def test_draws_are_repeatable_and_leave_the_global_generator_alone(simulator):
    state = torch.get_rng_state()
    first, second, other = (simulator.sample(50, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.v, second.v)
    assert not torch.equal(first.v, other.v)
    assert torch.equal(simulator.posterior(first.v, 3, seed=5), simulator.posterior(first.v, 3, seed=5))
    assert simulator.posterior(first.v, 3).shape == (3, 50, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_data_that_no_parameter_explains_are_refused(unchecked):
    with pytest.raises(RuntimeError, match=r"x must be data that the simulator can produce, got \[5"):
        TwoMoons().posterior(torch.tensor([5.0, 0.0]), 10)
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 2\)"):
        TwoMoons().posterior(torch.zeros(3), 10)
    with pytest.raises(ValueError, match="n must be"):
        GaussianMixture().sample(0)


def test_three_lines_find_a_conjugate_posterior():
    theta = torch.randn(10_000, 1, generator=seeded(0))
    x = theta + 0.5 * torch.randn(10_000, 1, generator=seeded(1))
    prior, observed = dist.Normal(torch.zeros(1), 1.0), torch.tensor([[-1.0], [0.0], [1.5]])

    model = pcl.BimodalModel(pcl.encoders.Linear(1, 2), pcl.encoders.Linear(1, 2), pcl.WithPotentials())
    pcl.fit(model, (theta, x), epochs=20, lr=2e-2, schedule="cosine", seed=0)
    posterior = model.u_given_v(prior).condition(observed)

    draws = posterior.draw(10_000, seed=0)
    assert draws.trusted.all()
    torch.testing.assert_close(draws.z.mean(0), 0.8 * observed, atol=0.02, rtol=0)
    torch.testing.assert_close(draws.z.std(0), torch.full((3, 1), 0.2**0.5), atol=0, rtol=0.03)


# The sampler may distrust one of ten narrow bimodal posteriors, by its islands' disagreement.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")
@pytest.mark.parametrize("name", SIMULATORS)
def test_ten_thousand_pairs_are_enough_for_a_posterior_close_to_the_exact_one(name):
    config = Config.read(CONFIG)
    learned = learn(name, config)
    posteriors = infer(learned, config)
    assert posteriors.trusted >= 0.8
    assert learned.seconds + posteriors.seconds < 300
    for classifier in ("network", "boosting"):
        assert mean_c2st(posteriors.learned, posteriors.exact, classifier, seed=0) <= 0.65
    # The measure can tell: of two exact posteriors nothing, of the next observation's everything.
    again = learned.simulator.posterior(posteriors.x, config.n_draws, seed=9)
    assert mean_c2st(again, posteriors.exact, "boosting", seed=0) < 0.53
    assert mean_c2st(posteriors.exact.roll(1, 1), posteriors.exact, "boosting", seed=0) > 0.9
