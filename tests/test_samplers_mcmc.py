import warnings

import pytest
import torch
from small_models import linear_model, normal
from tilted_cases import F64, LinearGaussian, standard_normal, target_of

import probcl as pcl
from probcl import ProbclWarning
from probcl.samplers import HMC, NUTS
from probcl.samplers.mcmc import Potential, diagnose
from probcl.samplers.unconstrained import Unconstrained


def autoregressive(rho: float, shift: float = 0.0, chains: int = 4, steps: int = 500) -> torch.Tensor:
    """Chains (C, n, B=3, D=2) of x' = ρx + √(1−ρ²)ξ, the last of them moved by `shift`."""
    noise = normal(steps, chains, 3, 2)
    x = [noise[0]]
    for step in noise[1:]:
        x.append(rho * x[-1] + (1 - rho**2) ** 0.5 * step)
    stacked = torch.stack(x, dim=1)
    stacked[-1] += shift
    return stacked


@pytest.mark.parametrize(("rho", "shift"), [(0.0, 0.0), (0.9, 0.0), (0.5, 1.0), (-0.4, 0.0)])
def test_diagnostics_agree_with_arviz(arviz, rho, shift):
    chains = autoregressive(rho, shift)
    r_hat, ess = diagnose(chains)
    for b in range(3):
        columns = [chains[:, :, b, j].numpy() for j in range(2)]
        assert float(r_hat[b]) == pytest.approx(max(arviz.rhat(x, method="rank") for x in columns), rel=1e-6)
        # Pyro weighs late autocorrelations otherwise than Stan and ArviZ do.
        assert float(ess[b]) == pytest.approx(min(arviz.ess(x, method="bulk") for x in columns), rel=0.3)


def test_effective_sample_size_is_that_of_an_autoregression():
    _, ess = diagnose(autoregressive(0.8, chains=8, steps=4000))
    assert torch.allclose(ess, torch.tensor(32_000 * 0.2 / 1.8, dtype=F64), rtol=0.2)


def test_r_hat_sees_chains_that_differ_in_spread_only():
    chains = normal(4, 500, 1, 1)
    chains[0] *= 5
    r_hat, _ = diagnose(chains)
    assert float(r_hat) > 1.1


def test_chains_that_stand_still_are_not_to_be_trusted():
    start = normal(4, 1, 2, 3)
    r_hat, ess = diagnose(start.expand(4, 200, 2, 3))
    assert (r_hat > 2).all()
    assert (ess < 10).all()


def test_potential_is_minus_the_log_density_of_everything():
    law = LinearGaussian.random(batch=3, dim=2, strength=1.0, seed=0)
    x = normal(4, 3, 2)
    assert torch.allclose(Potential(Unconstrained(law.target))({"x": x}), -law.target.log_prob(x).sum())


def test_chains_start_only_where_the_score_is_possible():
    cut = torch.tensor([[0.5], [2.0]], dtype=F64)
    target = target_of(standard_normal(1), lambda z, v: torch.where(z[..., 0] > v[:, 0], 0.0, -torch.inf), cut)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = NUTS(num_chains=20)._start(Unconstrained(target))
    assert x.shape == (20, 2, 1)
    assert (x[..., 0] > cut[:, 0]).all()


@pytest.mark.parametrize("count", [7, 100, 301])
def test_as_many_draws_come_back_as_were_asked_for(count):
    law = LinearGaussian.random(batch=2, dim=1, strength=0.5, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = NUTS(num_chains=2, warmup=10, max_tree_depth=2).draw(law.target, count, seed=0)
    assert draws.z.shape == (count, 2, 1)
    assert len(draws.z.unique(dim=0)) > 0.5 * count


def funnel(z: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Tilts N(0, I) into Neal's funnel, z_0 ~ N(0, 3²) and z_1 | z_0 ~ N(0, e^{z_0})."""
    neck, width = z[..., 0], z[..., 1]
    return (z**2).sum(-1) / 2 - neck**2 / 18 - (width**2 * (-neck).exp() + neck) / 2


def test_trajectories_that_diverge_are_reported():
    target = target_of(standard_normal(2), funnel, torch.zeros(1, 1, dtype=F64))
    with pytest.warns(ProbclWarning, match=r"NUTS are not to be trusted for .*divergent 0\.\d\d"):
        draws = NUTS(num_chains=4, warmup=50, max_tree_depth=5).draw(target, 400, seed=0)
    assert draws.divergent is not None
    assert float(draws.divergent) > 0.01


def test_draws_under_a_gaussian_prior_in_single_precision():
    model = linear_model(2, 3, 2, dtype=torch.float32)
    prior = pcl.GaussianPrior(torch.ones(2), torch.eye(2))
    given = 0.5 * normal(2, 3, dtype=torch.float32)
    exact = model.u_given_v(prior).condition(given)
    draws = prior.decode(model.u_given_v(prior, HMC(num_chains=4, warmup=50)).condition(given).draw(400, seed=0).z)
    assert draws.dtype == torch.float32
    torch.testing.assert_close(draws.mean(0), exact.mean, rtol=0, atol=0.2)
