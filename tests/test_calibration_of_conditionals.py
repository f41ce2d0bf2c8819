"""Where the likelihood is known: is the truth where the conditionals say it is, as often as they say?"""

from collections.abc import Callable
from dataclasses import dataclass

import pyro.distributions as dist
import pytest
import torch
from score_cases import gaussian_model, gaussian_pairs
from small_models import normal, seeded
from test_information import one_token, whitened_errors
from tilted_cases import F64, LinearGaussian, standard_normal, target_of
from torch import Tensor
from torch.distributions import Distribution

import probcl as pcl
from probcl.datasets import GaussianProcessPairs
from probcl.diagnostics import coverage, sbc
from probcl.information import GaussianConditionalLoss, Information, QuadraticFeatures
from probcl.samplers import ImportanceResampling, Sampler, TemperedSMC

LEVEL, TOLERANCE, SMALLEST_P_VALUE = 0.95, 0.02, 0.01


@dataclass(frozen=True)
class Problem:
    """A prior, a likelihood up to a function of v, and draws of v from it."""

    prior: Distribution
    score: Callable[[Tensor, Tensor], Tensor]
    simulate: Callable[[Tensor, torch.Generator], Tensor]


def noise(z: Tensor, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(len(z), width, generator=generator, dtype=F64)


def banana(z: Tensor, v: Tensor) -> Tensor:
    return -0.5 * ((z[..., 1] - z[..., 0].square() - v[:, 0]) / 0.3).square()


def mixture(z: Tensor, v: Tensor) -> Tensor:
    """½ N(z, .4²) + ½ N(−z, .4²): two modes, one in the shadow of a prior off the centre."""
    plus, minus = (-0.5 * ((v - sign * z) / 0.4).square().sum(-1) for sign in (1, -1))
    return torch.logaddexp(plus, minus)


def moons(z: Tensor, v: Tensor) -> Tensor:
    """Crescents: a noisy radius around a place that does not tell the sign of z_0 + z_1."""
    along = v[:, 0] + (z[..., 0] + z[..., 1]).abs()
    across = v[:, 1] + z[..., 0] - z[..., 1]
    radius = (along.square() + across.square()).sqrt()
    return -0.5 * ((radius - 1) / 0.2).square() - radius.log() - 1e6 * (along < 0)


def simulate_moons(z: Tensor, generator: torch.Generator) -> Tensor:
    angle = torch.pi * (torch.rand(len(z), generator=generator, dtype=F64) - 0.5)
    radius = 1 + 0.2 * noise(z, 1, generator)[:, 0]
    place = torch.stack([-(z[:, 0] + z[:, 1]).abs(), z[:, 1] - z[:, 0]], 1)
    return place + torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


PROBLEMS = {
    "banana": Problem(
        standard_normal(2), banana, lambda z, g: (z[:, 1] - z[:, 0].square())[:, None] + 0.3 * noise(z, 1, g)
    ),
    "mixture": Problem(
        dist.Normal(torch.full((2,), 0.5, dtype=F64), 1.0).to_event(1),
        mixture,
        lambda z, g: (2 * torch.randint(2, (len(z), 1), generator=g) - 1) * z + 0.4 * noise(z, 2, g),
    ),
    "moons": Problem(standard_normal(2), moons, simulate_moons),
}
PAIRS = 1500
SAMPLERS: dict[str, Sampler] = {"importance": ImportanceResampling(20_000), "smc": TemperedSMC(512)}


def assert_calibrated(values: pcl.diagnostics.Coverage, ranks: pcl.diagnostics.SBC) -> None:
    assert float((values.at(LEVEL) - LEVEL).abs().max()) <= TOLERANCE
    assert ranks.p_value > SMALLEST_P_VALUE


@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")  # a few of so many conditions have a small sample
@pytest.mark.parametrize("name", ["importance", pytest.param("smc", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", PROBLEMS)
def test_samplers_are_calibrated_where_the_likelihood_is_known(shape: str, name: str) -> None:
    problem = PROBLEMS[shape]
    generator = seeded(3)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        truth = problem.prior.sample((PAIRS,))
    v = problem.simulate(truth, generator)
    target = target_of(problem.prior, problem.score, v)
    z = SAMPLERS[name].draw(target, 199, seed=5).z

    def density(values: Tensor) -> Tensor:
        return problem.prior.log_prob(values) + problem.score(values, v)

    regions = coverage(z, truth, region="hpd", log_prob=density, seed=6)
    ranks = sbc(z, truth, quantity=lambda u: torch.cat([u, density(u)[..., None]], -1), seed=7)
    assert_calibrated(regions, ranks)


def test_the_exact_gaussian_route_is_calibrated() -> None:
    u, v = gaussian_pairs(4000, seed=8)
    prior = pcl.GaussianPrior(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    assert_posterior_calibrated(gaussian_model().u_given_v(prior).condition(v), u)


def assert_posterior_calibrated(posterior: pcl.conditional.GaussianConditional, truth: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(9)
        draws = posterior.sample((199,))
    assert_calibrated(coverage(draws, truth, log_prob=posterior.log_prob, seed=0), sbc(draws, truth, seed=0))


PROCESS = GaussianProcessPairs()
N_U, N_V = PROCESS.n_u, PROCESS.n_v


def process_prior(dtype: torch.dtype = F64) -> pcl.GaussianPrior:
    return pcl.GaussianPrior(torch.zeros(N_U, dtype=dtype), PROCESS.covariance()[:N_U, :N_U].to(dtype))


def linear_encoders() -> pcl.BimodalModel:
    """The closed form of the L2 alignment at full rank, which is the true conditional of u (THEORY §4)."""
    best = pcl.gaussian.optimum(PROCESS.covariance(), N_U, N_V, alignment="l2", loss="u|v")
    model = pcl.BimodalModel(pcl.encoders.Linear(N_U, N_V), pcl.encoders.Linear(N_V, N_V), pcl.L2()).double()
    model.encoder_u.weight.data, model.encoder_v.weight.data = best.encoder_u, best.encoder_v
    return model


class OneToken(torch.nn.Module):
    """The information encoder of v as one observation."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Information(1, N_U, N_V, hidden=(16,))

    def forward(self, v: Tensor) -> Tensor:
        return self.encoder(one_token(v))


def information_form() -> pcl.BimodalModel:
    """Of E[v|x] = Rᵀx and a covariance of I − RᵀR: A = R(I − RᵀR)⁻¹ and W = I − RᵀR, written into the last layers."""
    prior, encoder = process_prior(), OneToken().double()
    R = prior.whitener @ PROCESS.covariance()[:N_U, N_U:]
    noise = torch.eye(N_V, dtype=F64) - R.mT @ R
    factor, last = torch.linalg.cholesky(noise), encoder.encoder
    torch.nn.init.zeros_(last.root.weight)
    last.gain.bias.data = torch.linalg.solve(noise, R.mT).mT.flatten()
    last.root.bias.data = (factor.tril(-1) + torch.expm1(factor.diagonal()).log().diag()).flatten()
    return pcl.BimodalModel(QuadraticFeatures.of(prior), encoder)


def fitted_information_form() -> pcl.BimodalModel:
    model = pcl.BimodalModel(QuadraticFeatures.of(process_prior(torch.float32)), OneToken())
    settings = {"epochs": 6, "batch_size": 500, "lr": 1e-2, "schedule": "cosine", "device": "cpu", "progress": False}
    pcl.fit(model, PROCESS.sample(200_000, seed=0), GaussianConditionalLoss(), **settings)
    return model.double()


@pytest.mark.parametrize(
    "model",
    [linear_encoders, information_form, pytest.param(fitted_information_form, marks=pytest.mark.slow)],
    ids=lambda model: model.__name__,
)
@pytest.mark.usefixtures("unchecked")
def test_the_conditionals_of_a_gaussian_process_are_right_and_calibrated(model: Callable[[], pcl.BimodalModel]) -> None:
    u, v = PROCESS.sample(1000, seed=1, dtype=F64)
    posterior = model().u_given_v(process_prior()).condition(v)
    assert isinstance(posterior, pcl.conditional.GaussianConditional)
    error_of_mean, error_of_covariance = whitened_errors(posterior, PROCESS.covariance(), N_U, v)
    assert error_of_mean < 0.02
    assert error_of_covariance < 0.05
    assert_posterior_calibrated(posterior, u)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")
def test_eight_dimensions_are_calibrated() -> None:
    """z ~ N(0, I), v = Az + noise: the tilt is (Aᵀv)ᵀz − ½ zᵀAᵀAz."""
    A, z, eps = normal(8, 8), normal(1000, 8, seed=1), normal(1000, 8, seed=2)
    law = LinearGaussian((z @ A.mT + eps) @ A, (A.mT @ A).expand(1000, 8, 8))
    draws = TemperedSMC(512).draw(law.target, 199, seed=0).z
    regions = coverage(draws, z, log_prob=lambda values: -law.whitened(values).square().sum(-1), seed=0)
    assert_calibrated(regions, sbc(draws, z, seed=0))
