"""The coordinates and the Markov moves under tempered SMC."""

import math

import pyro.distributions as dist
import pytest
import torch
from small_models import normal, seeded
from tilted_cases import F64, Latent, LinearGaussian, standard_normal, target_of

from probcl.samplers import CrankNicolson, Hamiltonian, Target
from probcl.samplers.moves import Geometry, Particles
from probcl.samplers.smc import island_ess
from probcl.samplers.unconstrained import Unconstrained

ONE, TWO = torch.ones((), dtype=F64), torch.tensor([1.0, 2.0], dtype=F64)
LATENTS = {
    "gamma": dist.Gamma(2 * ONE, ONE),
    "gammas": dist.Gamma(2 * TWO, TWO).to_event(1),
    "box": dist.Uniform(-TWO, TWO).to_event(1),
    "dirichlet": dist.Dirichlet(torch.tensor([2.0, 3.0, 1.5], dtype=F64)),
    "normal": standard_normal(2),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(TWO), dist.Normal(normal(2, 2), 0.5 * torch.ones(2, 2, dtype=F64)).to_event(1)
    ),
    "mixture of gammas": dist.MixtureSameFamily(dist.Categorical(TWO), dist.Gamma(3 * TWO, TWO)),
}


def untilted(latent: torch.distributions.Distribution, batch: int = 1) -> Target:
    event_dim = len(latent.event_shape)
    return target_of(
        latent, lambda z, v: 0 * (z.flatten(-event_dim).sum(-1) if event_dim else z), torch.zeros(batch, 1, dtype=F64)
    )


@pytest.mark.parametrize("name", LATENTS)
def test_unconstrained_density_integrates_to_one(name):
    law = Unconstrained(untilted(LATENTS[name]))
    axis = torch.linspace(-20, 20, 1201 if law.dim == 2 else 20_001, dtype=F64)
    x = torch.cartesian_prod(*[axis] * law.dim).reshape(-1, law.dim)
    mass = law.log_prior(x).exp().sum() * float(axis[1] - axis[0]) ** law.dim
    assert float(mass) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", LATENTS)
def test_coordinates_go_there_and_back(name):
    law = Unconstrained(untilted(LATENTS[name]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = LATENTS[name].sample((5, 3))
    x = law.unconstrain(z)
    assert x.shape == (5, 3, law.dim)
    assert torch.allclose(law.constrain(x), z)


def test_a_discrete_latent_is_refused():
    with pytest.raises(TypeError, match="continuous support"):
        Unconstrained(Target(Latent(dist.Poisson(ONE)), torch.sum, torch.sum, 1))


def test_places_that_are_not_finite_are_impossible_not_errors():
    law = Unconstrained(untilted(standard_normal(2)))
    x = torch.tensor([[[0.0, 1.0]], [[torch.nan, 1.0]], [[torch.inf, 0.0]]], dtype=F64)
    log_prior, log_tilt = law.log_terms(x)
    assert log_prior.isfinite().flatten().tolist() == [True, False, False]
    assert log_tilt.isneginf().flatten().tolist() == [False, True, True]


def test_geometry_is_the_particles_mean_and_covariance():
    x = normal(20_000, 3, 4) @ normal(4, 4, seed=1) + 5
    geometry = Geometry.of(x)
    assert torch.allclose(geometry.mean, x.mean(0))
    for b in range(3):
        covariance = geometry.factor[b] @ geometry.factor[b].mT
        assert torch.allclose(covariance, torch.cov(x[:, b].mT), rtol=2e-3, atol=2e-3)
    white = geometry.whiten(x)
    assert torch.allclose(geometry.mean + geometry.colour(white), x)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_geometry_exists_for_fewer_particles_than_dimensions(count):
    factor = Geometry.of(normal(count, 2, 6)).factor
    assert factor.isfinite().all()
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()


@pytest.mark.parametrize("step", [0.1, 0.6, 1.0])
def test_crank_nicolson_is_reversible_for_the_t_law_it_is_built_on(step):
    """Its acceptance ratio is one when the target is t_ν(m, LLᵀ)."""
    nu, mean = 5.0, normal(3)
    factor = torch.linalg.cholesky(torch.cov(normal(3, 50)))
    law = Unconstrained(untilted(dist.MultivariateStudentT(torch.tensor(nu, dtype=F64), mean, factor), batch=2))
    x = 3 * normal(200, 2, 3)
    particles = Particles(x, *law.log_terms(x))
    geometry = Geometry(mean.expand(2, 3), factor.expand(2, 3, 3))
    move = CrankNicolson(degrees_of_freedom=nu)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        proposals, log_ratio = move.propose(
            law, particles, torch.ones(2, dtype=F64), torch.full((2,), step, dtype=F64), geometry
        )
    assert (proposals.x - x).abs().min() > 0
    assert float(log_ratio.abs().max()) < 1e-9


def test_hamiltonian_keeps_the_energy_to_second_order_in_the_step():
    case = LinearGaussian.random(batch=2, dim=3, strength=1.0, seed=0)
    law = Unconstrained(case.target)
    x = normal(300, 2, 3)
    particles, geometry = Particles(x, *law.log_terms(x)), Geometry.of(x)
    errors = []
    for step in (0.1, 0.05):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _, log_ratio = Hamiltonian(leapfrogs=round(1 / step)).propose(
                law, particles, torch.ones(2, dtype=F64), torch.full((2,), step, dtype=F64), geometry
            )
        errors.append(float(log_ratio.abs().mean()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("move", [CrankNicolson(repeats=20), Hamiltonian(repeats=10)], ids=repr)
def test_moves_leave_the_law_as_it_is_and_forget_the_start(move):
    case = LinearGaussian.random(batch=2, dim=2, strength=1.5, seed=4)
    law = Unconstrained(case.target)
    factor = torch.linalg.cholesky(case.covariance)
    exact = case.mean + (factor @ normal(8000, 2, 2)[..., None])[..., 0]
    particles = Particles(exact, *law.log_terms(exact))
    one = torch.ones(2, dtype=F64)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        moved, step = move(law, particles, one, move.first_step(law.dim) * one)
    white, start = case.whitened(moved.x), case.whitened(exact)
    assert (white.mean(0).abs() < 4 / math.sqrt(8000)).all()
    assert ((white.square().mean(0) - 1).abs() < 4 * math.sqrt(2 / 8000)).all()
    assert ((white * start).mean(0).abs() < 0.1).all()
    assert (step > 0).all()
    assert torch.allclose(moved.log_tilt, case.target.log_tilt(moved.x))


@pytest.mark.parametrize("move", [CrankNicolson(repeats=40), Hamiltonian(repeats=40)], ids=repr)
def test_step_sizes_adapt_to_the_acceptance_wanted(move):
    """A ring, which no Gaussian proposal fits; the steps begin a thousand times too small."""
    target = target_of(
        standard_normal(2), lambda z, v: -200 * (z.square().sum(-1) - 1).square(), torch.zeros(1, 1, dtype=F64)
    )
    law = Unconstrained(target)
    angle = 2 * math.pi * torch.rand(4000, 1, generator=seeded(), dtype=F64)
    x = torch.stack([angle.cos(), angle.sin()], -1)
    particles, one = Particles(x, *law.log_terms(x)), torch.ones(1, dtype=F64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        particles, step = move(law, particles, one, 1e-3 * one)
        _, log_ratio = move.propose(law, particles, one, step, Geometry.of(particles.x))
    assert float(log_ratio.clamp(max=0).exp().mean()) == pytest.approx(move.acceptance, abs=0.12)


def test_island_ess_counts_independent_draws():
    x = normal(32, 64, 40, 2)
    ess = island_ess(x, torch.zeros(32, 40, dtype=F64))
    assert float(ess.median()) == pytest.approx(2048, rel=0.15)


def test_island_ess_sees_copies_and_islands_that_carry_everything():
    x = normal(32, 64, 40, 2)
    copies = x[:, :8].repeat(1, 8, 1, 1)
    assert float(island_ess(copies, torch.zeros(32, 40, dtype=F64)).median()) == pytest.approx(256, rel=0.25)
    log_evidence = torch.zeros(32, 40, dtype=F64)
    log_evidence[3] = 50
    assert (island_ess(x, log_evidence) <= 64 + 1e-6).all()
