"""Curved, ring-like and bimodal laws on the plane against exact draws from a grid, and eight dimensions."""

from itertools import pairwise

import pytest
import torch
from small_models import normal
from tilted_cases import (
    F64,
    LinearGaussian,
    OnGrid,
    banana,
    c2st,
    evidence_errors,
    standard_normal,
    target_of,
    two_modes,
    two_moons,
)

from probcl import ProbclWarning
from probcl.samplers import (
    HMC,
    NUTS,
    AmortizedFlow,
    AutoSampler,
    Hamiltonian,
    ImportanceResampling,
    Sampler,
    Target,
    TemperedSMC,
)

COUNT = 2000
SHAPES = {"banana": (banana(), 6.0), "two moons": (two_moons(), 1.0), "two modes": (two_modes(), 5.0)}
PARTICLES = {
    "importance": ImportanceResampling(100_000),
    "smc": TemperedSMC(),
    "smc with gradients": TemperedSMC(move=Hamiltonian()),
}
CHAINS = {"nuts": NUTS(), "hmc": HMC(num_draws=1000)}


@pytest.fixture(scope="module")
def grids() -> dict[str, OnGrid]:
    return {name: OnGrid(*case) for name, case in SHAPES.items()}


@pytest.mark.parametrize("sampler", PARTICLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_particles_cannot_be_told_from_exact_draws(grids, shape, sampler):
    grid = grids[shape]
    draws = PARTICLES[sampler].draw(SHAPES[shape][0], COUNT, seed=0)
    assert draws.trusted.all()
    error = (1 / draws.ess + 1 / COUNT).sqrt()[:, None]
    assert ((draws.z.mean(0) - grid.mean).abs() < 4 * error * grid.deviation).all()
    assert (evidence_errors(draws, grid.log_evidence) < 3).all()
    exact = grid.sample(COUNT, seed=1)
    assert max(c2st(draws.z[:, b], exact[:, b]) for b in range(2)) <= 0.55


def test_the_classifier_does_tell_draws_apart_that_are_wrong(grids):
    """So that the tests above can fail: the other condition, and the banana's Gaussian."""
    exact = grids["banana"].sample(COUNT, seed=0)
    assert c2st(exact[:, 0], exact[:, 1]) > 0.6
    gaussian = exact[:, 0].mean(0) + normal(COUNT, 2) @ torch.linalg.cholesky(torch.cov(exact[:, 0].mT)).mT
    assert c2st(exact[:, 0], gaussian) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("sampler", CHAINS)
@pytest.mark.parametrize("shape", ["banana", "two moons"])
def test_chains_cannot_be_told_from_exact_draws(grids, shape, sampler):
    grid = grids[shape]
    draws = CHAINS[sampler].draw(SHAPES[shape][0], COUNT, seed=0)
    assert draws.trusted.all()
    exact = grid.sample(COUNT, seed=1)
    assert max(c2st(draws.z[:, b], exact[:, b]) for b in range(2)) <= 0.55


@pytest.mark.parametrize("sampler", [NUTS(warmup=100, num_draws=100), HMC(warmup=100, num_draws=100)], ids=repr)
def test_r_hat_is_raised_by_chains_in_modes_they_never_leave(sampler: Sampler):
    with pytest.warns(ProbclWarning, match=r"2 of 2 conditions \[0, 1\] .*R̂ .*use TemperedSMC"):
        draws = sampler.draw(two_modes(apart=(2.5, 3.5), width=0.2), 100, seed=0)
    assert (draws.r_hat > 1.2).all()


FAMILIES = {
    "banana": lambda: banana(tuple(torch.linspace(-1, 2, 60).tolist())),
    "two moons": lambda: two_moons(tuple(map(tuple, (0.4 * normal(100, 2)).tolist()))),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", FAMILIES)
def test_all_samplers_agree_with_each_other(shape):
    target = SHAPES[shape][0]
    flow = AmortizedFlow(20_000).fit(FAMILIES[shape](), teacher=TemperedSMC(512), steps=1500, seed=0)
    samplers: list[Sampler] = [*PARTICLES.values(), *CHAINS.values(), AutoSampler(), flow]
    z = [sampler.draw(target, COUNT, seed=3).z[:, 0] for sampler in samplers]
    # Each with the next: a chain of comparisons that reaches every sampler.
    assert max(c2st(a, b) for a, b in pairwise(z)) <= 0.55


def eight_dimensions() -> LinearGaussian:
    return LinearGaussian.random(batch=3, dim=8, strength=2.0, seed=1)


@pytest.mark.parametrize("sampler", [TemperedSMC(), TemperedSMC(move=Hamiltonian())], ids=["smc", "gradients"])
def test_eight_dimensional_gaussian_in_closed_form(sampler: Sampler):
    law = eight_dimensions()
    draws = sampler.draw(law.target, COUNT, seed=0)
    assert draws.trusted.all()
    assert (evidence_errors(draws, law.log_evidence) < 3).all()
    white = law.whitened(draws.z)
    error = (1 / draws.ess + 1 / COUNT).sqrt()[:, None]
    assert (white.mean(0).abs() < 4 * error).all()
    covariance = torch.einsum("sbi,sbj->bij", white, white) / COUNT
    assert ((covariance - torch.eye(8, dtype=F64)).abs() < 4.5 * 2**0.5 * error[..., None]).all()


@pytest.mark.slow
def test_nuts_in_eight_dimensions_in_closed_form():
    law = eight_dimensions()
    draws = NUTS().draw(law.target, COUNT, seed=0)
    assert draws.trusted.all()
    white = law.whitened(draws.z)
    error = (1 / draws.ess + 1 / COUNT).sqrt()[:, None]
    assert (white.mean(0).abs() < 4 * error).all()
    exact = normal(COUNT, 8)
    assert max(c2st(white[:, b], exact) for b in range(3)) <= 0.55


def four_bananas() -> Target:
    """Independent bananas in eight dimensions: the evidence is the fourth power, the marginals are those of one."""

    def score(z, v):
        pairs = z.unflatten(-1, (4, 2))
        return (-0.5 * ((pairs[..., 1] - pairs[..., 0].square() + v[:, :1]) / 0.3).square()).sum(-1)

    return target_of(standard_normal(8), score, torch.tensor([[0.0], [1.0]], dtype=F64))


def test_eight_dimensional_bananas_against_the_grid_of_one(grids):
    draws = TemperedSMC(4096).draw(four_bananas(), COUNT, seed=0)
    assert draws.trusted.all()
    assert (evidence_errors(draws, 4 * grids["banana"].log_evidence) < 3).all()
    pairs = draws.z.unflatten(-1, (4, 2))
    error = (1 / draws.ess + 1 / COUNT).sqrt()[:, None, None]
    assert (
        (pairs.mean(0) - grids["banana"].mean[:, None]).abs() < 4 * error * grids["banana"].deviation[:, None]
    ).all()
    exact = grids["banana"].sample(COUNT, seed=1)
    assert max(c2st(pairs[:, b, 2], exact[:, b]) for b in range(2)) <= 0.55
