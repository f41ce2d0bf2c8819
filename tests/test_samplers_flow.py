import pyro.distributions as dist
import pytest
import torch
from small_models import normal
from tilted_cases import F64, LinearGaussian, OnGrid, banana, c2st, evidence_errors, standard_normal, target_of

from probcl import ProbclWarning
from probcl.samplers import AmortizedFlow, ImportanceResampling, Target, TemperedSMC
from probcl.samplers.flow_network import ConditionalFlow

PRECISION = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=F64)


def family(b: torch.Tensor) -> LinearGaussian:
    return LinearGaussian(b, PRECISION.expand(len(b), 2, 2))


@pytest.fixture(scope="module")
def fitted() -> AmortizedFlow:
    return AmortizedFlow().fit(family(2 * normal(150, 2)).target, steps=400, lr=5e-3, seed=0)


def test_the_flow_comes_within_a_fraction_of_a_nat_of_the_posterior(fitted):
    """The likelihood's minimum is the mean conditional entropy; what is above it is the divergence."""
    law = family(2 * normal(200, 2, seed=5))
    factor = torch.linalg.cholesky(law.covariance)
    z = law.mean + (factor @ normal(200, 2, seed=6)[..., None])[..., 0]
    entropy = torch.distributions.MultivariateNormal(law.mean, law.covariance).entropy().mean()
    likelihood = fitted.flow.condition(law.b).log_prob(z).mean()
    assert abs(float(-likelihood - entropy)) < 0.15
    assert fitted.losses[0] - fitted.losses[-1] > 1


def test_it_draws_for_conditions_it_was_not_trained_on(fitted):
    law = family(1.5 * normal(6, 2, seed=9))
    draws = fitted.draw(law.target, 1000, seed=0)
    assert draws.trusted.all()
    assert (draws.ess > 1000).all()
    assert (evidence_errors(draws, law.log_evidence) < 3).all()
    error = (1 / draws.ess + 1 / 1000).sqrt()[:, None]
    assert (law.whitened(draws.z).mean(0).abs() < 4 * error).all()


def test_far_from_its_training_it_says_so(fitted):
    law = family(torch.tensor([[0.5, 0.5], [60.0, -60.0]], dtype=F64))
    with pytest.warns(ProbclWarning, match=r"amortised flow .* 1 of 2 conditions \[1\] .*Fit the flow longer"):
        draws = fitted.draw(law.target, 200, seed=0)
    assert draws.trusted.tolist() == [True, False]


def test_one_dimension_and_a_constrained_latent():
    """Gamma(2, 1) tilted by k log z − n z, a different (k, n) each time: Gamma(2 + k, 1 + n)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        training, new = (torch.rand(count, 2, dtype=F64) * 5 + 0.5 for count in (100, 4))

    def target(kn: torch.Tensor) -> Target:
        return target_of(
            dist.Gamma(torch.tensor(2.0, dtype=F64), 1.0), lambda z, v: v[:, 0] * z.log() - v[:, 1] * z, kn
        )

    flow = AmortizedFlow(num_splines=1).fit(target(training), steps=200, lr=1e-2, seed=0)
    draws = flow.draw(target(new), 2000, seed=0)
    assert draws.trusted.all()
    k, n = new.T
    assert torch.allclose(draws.z.mean(0), (2 + k) / (1 + n), rtol=0.08)
    assert (evidence_errors(draws, torch.lgamma(2 + k) - (2 + k) * (1 + n).log()) < 3).all()


@pytest.mark.parametrize("dim", [1, 2])
def test_flow_densities_integrate_to_one_and_draws_follow_them(dim):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = ConditionalFlow(2 * normal(500, dim) + 1, normal(500, 3), hidden=16)
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        law = flow.condition(normal(2, 3, seed=1))
        draws = law.sample((4000,)).detach()
    axis = torch.linspace(-40, 40, 350 if dim == 2 else 10_000, dtype=F64)
    x = torch.cartesian_prod(*[axis] * dim).reshape(-1, 1, dim).expand(-1, 2, dim)
    with torch.no_grad():
        log_density = law.log_prob(x)
        entropy = -law.log_prob(draws)
    cell = float(axis[1] - axis[0]) ** dim
    assert torch.allclose(log_density.exp().sum(0) * cell, torch.ones(2, dtype=F64), atol=0.01)
    expected = -(log_density.exp() * log_density).nan_to_num(0.0).sum(0) * cell
    assert ((entropy.mean(0) - expected).abs() < 4 * entropy.std(0) / 4000**0.5 + 0.01).all()


@pytest.mark.slow
def test_a_curved_family_is_learned_from_smc_draws():
    levels = [float(level) for level in torch.linspace(-1, 2, 60)]
    flow = AmortizedFlow().fit(banana(tuple(levels)), teacher=TemperedSMC(512), steps=1500, seed=0)
    target = banana((0.2, 1.3))
    draws = flow.draw(target, 2000, seed=0)
    grid = OnGrid(target, 6.0)
    assert draws.trusted.all()
    assert (evidence_errors(draws, grid.log_evidence) < 3).all()
    exact = grid.sample(2000, seed=0)
    assert max(c2st(draws.z[:, b], exact[:, b]) for b in range(2)) <= 0.55


def test_conditions_that_the_teacher_fails_at_are_left_out_with_a_warning():
    b = torch.cat([normal(5, 2), 300 + normal(6, 2)])
    with pytest.warns(ProbclWarning, match=r"not trained on 6 of 11 conditions \[5, 6"):
        AmortizedFlow().fit(family(b).target, teacher=ImportanceResampling(), steps=2, seed=0)
    with pytest.raises(ValueError, match=r"failed everywhere: 6 of 6 conditions"):
        AmortizedFlow().fit(family(b[5:]).target, teacher=ImportanceResampling(), steps=2, seed=0)


def test_misuse_is_refused(fitted):
    target = family(normal(2, 2)).target
    without = Target(target.prior, target.log_tilt, target.log_tilt_shared, 2)
    with pytest.raises(ValueError, match="not fitted"):
        AmortizedFlow().draw(target, 10)
    with pytest.raises(ValueError, match=r"needs target.context"):
        AmortizedFlow().fit(without)
    with pytest.raises(ValueError, match=r"needs target.context"):
        fitted.draw(without, 10)
    wide = target_of(standard_normal(2), lambda z, v: z.sum(-1), torch.zeros(2, 5, dtype=F64))
    with pytest.raises(ValueError, match=r"must have 2 columns"):
        fitted.draw(wide, 10)
    deep = target_of(standard_normal(3), lambda z, v: z.sum(-1), torch.zeros(2, 2, dtype=F64))
    with pytest.raises(ValueError, match=r"latents of dimension 2, got one of 3"):
        fitted.draw(deep, 10)


def test_fitting_with_a_seed_is_deterministic_and_leaves_the_generators_alone():
    target = family(normal(20, 2)).target
    before = torch.get_rng_state()
    first, second = (AmortizedFlow().fit(target, steps=5, seed=4) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.losses == second.losses
    assert all(torch.equal(a, b) for a, b in zip(first.flow.parameters(), second.flow.parameters(), strict=True))
