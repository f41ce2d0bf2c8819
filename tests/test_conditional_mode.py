"""The mode is that of the density of u, whatever coordinates its prior is written in."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from small_models import normal
from torch import nn

import probcl as pcl
from probcl.priors import ModelPrior
from probcl.samplers import ImportanceResampling


class PoissonScore(nn.Module):
    """u ↦ (log u, u), whose inner product with (k, −1) is the log-likelihood k log u − u of a count k."""

    def forward(self, u):
        return torch.cat([u.log(), u], dim=1)


class Count(nn.Module):
    def forward(self, k):
        return torch.cat([k, -torch.ones_like(k)], dim=1)


def gamma_rate():
    with pyro.plate("rates", 1):
        return pyro.sample("u", dist.Gamma(3.0, 2.0))


def rate_and_double():
    u = gamma_rate()
    return pyro.deterministic("double", 2 * u)


COUNTS = torch.tensor([[0.0], [4.0], [11.0]])
SAMPLER = ImportanceResampling(20_000)
# Gamma(3 + k, 2 + 1) has its mode at (3 + k − 1) / 3.
EXACT = (2 + COUNTS) / 3
PRIORS = {
    "distribution": dist.Gamma(torch.full((1,), 3.0), 2.0),
    "model": ModelPrior(gamma_rate, "u"),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_the_mode_of_a_constrained_prior_is_that_of_the_conjugate_posterior(prior):
    d = pcl.BimodalModel(PoissonScore(), Count()).u_given_v(prior, SAMPLER).condition(COUNTS)
    torch.testing.assert_close(d.mode, EXACT, rtol=1e-3, atol=1e-3)


def test_a_model_whose_u_is_computed_has_the_mode_of_its_own_sites():
    class Half(PoissonScore):
        def forward(self, u):
            return super().forward(u / 2)

    d = pcl.BimodalModel(Half(), Count()).u_given_v(ModelPrior(rate_and_double, "double"), SAMPLER).condition(COUNTS)
    torch.testing.assert_close(d.mode, 2 * EXACT, rtol=1e-3, atol=1e-3)


def test_the_mode_in_a_simplex_is_that_of_the_dirichlet_posterior():
    class Logarithm(nn.Module):
        def forward(self, u):
            return u.log()

    def shares():
        return pyro.sample("u", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))

    counts = torch.tensor([[1.0, 0.0, 2.0], [5.0, 1.0, 1.0]])
    posterior = torch.tensor([2.0, 3.0, 4.0]) + counts
    model = pcl.BimodalModel(Logarithm(), pcl.encoders.Identity())
    d = model.u_given_v(ModelPrior(shares, "u"), SAMPLER).condition(counts)
    expected = (posterior - 1) / (posterior - 1).sum(1, keepdim=True)
    torch.testing.assert_close(d.mode, expected, rtol=0, atol=2e-3)


def test_no_value_nearby_is_more_probable_than_the_mode_under_a_model_prior():
    def box():
        with pyro.plate("components", 2):
            return pyro.sample("u", dist.LogNormal(0.0, 1.0))

    model = pcl.BimodalModel(pcl.encoders.MLP(2, 4, hidden=(16,)), pcl.encoders.Linear(3, 4))
    d = model.u_given_v(ModelPrior(box, "u"), SAMPLER).condition(normal(2, 3).float())
    around = (d.mode * (0.3 * normal(200, 2, 2, seed=1).float()).exp()).clamp(min=1e-6)
    assert (d.unnormalized_log_prob(around) <= d.unnormalized_log_prob(d.mode) + 1e-4).all()


def test_the_search_survives_a_joint_density_without_a_mode():
    def funnel():
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        with pyro.plate("components", 2):
            return pyro.sample("u", dist.Normal(0.0, scale))

    model = pcl.BimodalModel(pcl.encoders.MLP(2, 4, hidden=(16,)), pcl.encoders.Linear(3, 4))
    d = model.u_given_v(ModelPrior(funnel, "u"), SAMPLER).condition(normal(2, 3).float())
    assert d.mode.isfinite().all()
