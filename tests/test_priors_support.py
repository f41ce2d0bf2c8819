"""Mixtures, whose support torch hides: gradient samplers, the mode and Pyro's own inference need to know it."""

from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from small_models import normal
from tilted_cases import Latent
from torch import nn
from torch.distributions import biject_to

import probcl as pcl
from probcl.generation import Autoencoder, ImagePrior, fit_mixture
from probcl.priors import DecoderPrior
from probcl.priors.support import WithSupport
from probcl.samplers import ImportanceResampling, TemperedSMC
from probcl.samplers.unconstrained import unconstraining

Categorical, MixtureSameFamily = dist.Categorical, dist.MixtureSameFamily
HALF = Categorical(torch.ones(2))
MEANS = torch.tensor([[-1.5, 0.0], [1.0, 1.0]])
GAUSSIANS = MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), dist.MultivariateNormal(MEANS, torch.eye(2)))
MIXTURES = {
    "vectors": GAUSSIANS,
    "scalars": MixtureSameFamily(Categorical(torch.ones(2, 2)), dist.Normal(MEANS, 1.0)).to_event(1),
    "rates": MixtureSameFamily(Categorical(torch.ones(2, 2)), dist.Gamma(MEANS + 3, 1.0)),
    "boxes": MixtureSameFamily(HALF, dist.Uniform(torch.zeros(2, 2), torch.tensor([1.0, 2.0])).to_event(1)),
}
every_mixture = pytest.mark.parametrize("law", MIXTURES.values(), ids=MIXTURES)


def model() -> pcl.BimodalModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return pcl.BimodalModel(pcl.encoders.MLP(2, 4, hidden=(16,)), pcl.encoders.Linear(3, 4))


def context(batch: int = 2) -> torch.Tensor:
    return normal(batch, 3, seed=20).float()


@every_mixture
def test_the_support_of_a_mixture_maps_to_the_reals_and_holds_its_draws(law):
    prior = pcl.priors.as_prior(law)
    draws = prior.sample((50,))
    assert draws.shape == (50, 2)
    assert prior.support.check(draws).all()
    transform = biject_to(prior.support)
    torch.testing.assert_close(transform(transform.inv(draws)), draws)
    assert prior.support.check(transform(10 * normal(50, 2).float())).all()


@every_mixture
def test_smc_the_mode_and_importance_resampling_agree_on_a_mixture_prior(law):
    reference = model().u_given_v(law, ImportanceResampling(20_000)).condition(context())
    d = model().u_given_v(law, TemperedSMC(1024)).condition(context())
    assert ((d.mean - reference.mean).abs() / reference.variance.sqrt()).max() < 0.2
    assert (d.log_normalizer - reference.log_normalizer).abs().max() < 0.1
    best = reference.unnormalized_log_prob(reference.sample((2000,))).amax(0)
    assert (d.unnormalized_log_prob(d.mode) >= best - 1e-3).all()


@pytest.mark.usefixtures("unchecked")
@every_mixture
def test_the_automatic_sampler_takes_a_mixture_prior_through_smc(law):
    few = pcl.samplers.AutoSampler(ImportanceResampling(100))  # of which half of the draws asked for cannot come
    d = model().u_given_v(law, few).condition(context(1))
    draws = d.draw(400, seed=0)
    assert "tempered SMC" in draws.reason
    assert d.support.check(draws.z).all()


def images() -> ImagePrior:
    torch.manual_seed(0)
    return ImagePrior(Autoencoder((1, 8, 8), latent_dim=2, width=2, hidden=8), fit_mixture(normal(60, 2).float(), 3))


def linear_decoder() -> DecoderPrior:
    return DecoderPrior(nn.Linear(2, 2), GAUSSIANS)


PRIORS = {**{name: lambda law=law: law for name, law in MIXTURES.items()}, "decoder": linear_decoder, "images": images}


@pytest.mark.usefixtures("unchecked", "clean_parameters")
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_nuts_and_variational_inference_of_pyro_run_on_a_mixture_unchanged(prior):
    law = prior()
    encoder = pcl.encoders.MLP(64, 4, hidden=(8,)) if isinstance(law, ImagePrior) else model().encoder_u
    nu = pcl.BimodalModel(encoder, model().encoder_v).u_given_v(law)
    mcmc = MCMC(NUTS(nu.pyro_model, max_tree_depth=2), num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run(context())
    assert mcmc.get_samples()["z"].shape == (5, 2, 2)
    guide = AutoNormal(nu.pyro_model)
    svi = SVI(nu.pyro_model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert all(torch.tensor(svi.step(context())).isfinite() for _ in range(3))
    draws = Predictive(nu.pyro_model, guide=guide, num_samples=4)(context())["u"]
    assert draws.shape == (4, 2, *nu.prior.event_shape)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_pyro_s_nuts_finds_the_moments_of_a_tilted_mixture():
    law = MIXTURES["rates"]
    exact = model().u_given_v(law, ImportanceResampling(50_000)).condition(context())
    mcmc = MCMC(NUTS(exact.pyro_model, max_tree_depth=5), num_samples=600, warmup_steps=200, disable_progbar=True)
    mcmc.run()
    z = mcmc.get_samples()["z"]
    assert ((z.mean(0) - exact.mean).abs() / exact.variance.sqrt()).max() < 0.25


def test_a_law_with_its_support_is_otherwise_the_law():
    law = GAUSSIANS
    same = WithSupport(law).expand((3,))
    assert (same.batch_shape, same.event_shape) == ((3,), (2,))
    values = normal(5, 3, 2).float()
    torch.testing.assert_close(same.log_prob(values), law.log_prob(values))
    torch.manual_seed(4)
    first = same.sample((4,))
    torch.manual_seed(4)
    assert torch.equal(first, law.expand((3,)).sample((4,)))


class Unknown(dist.TorchDistribution):
    """A law that does not say where it lives."""

    arg_constraints: ClassVar = {}


UNLIKE = MixtureSameFamily(HALF, dist.Uniform(torch.zeros(2), torch.tensor([1.0, 2.0])))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("law", "message"),
    [
        (dist.Poisson(3.0), "must be continuous, got Poisson"),
        (dist.Categorical(torch.ones(3)), "must be continuous, got Categorical"),
        (dist.Bernoulli(torch.full((2,), 0.5)).to_event(1), "must be continuous, got Bernoulli"),
        (MixtureSameFamily(HALF, dist.Poisson(torch.ones(2))), "must be continuous, got Poisson"),
        (UNLIKE, "components of a mixture must share one support.*ImportanceResampling"),
        (Unknown(validate_args=False), "must know its support"),
    ],
)
def test_a_law_without_a_map_to_the_reals_is_refused_by_the_samplers_that_need_one(law, message):
    with pytest.raises(TypeError, match=f"(?s)continuous support that maps to the reals.*{message}"):
        unconstraining(law)
    target = pcl.samplers.Target(Latent(law), lambda z: z.sum(-1), lambda z: z, 1)
    for sampler in (TemperedSMC(512), pcl.samplers.NUTS(), pcl.samplers.HMC()):
        with pytest.raises(TypeError, match=f"(?s){message}"):
            sampler.draw(target, 100)


def test_components_of_other_supports_still_go_through_importance_resampling():
    scalar = pcl.BimodalModel(nn.Unflatten(0, (-1, 1)), pcl.encoders.Linear(3, 1))
    d = scalar.u_given_v(UNLIKE, ImportanceResampling(5000)).condition(context())
    assert d.sample((10,)).shape == (10, 2)
    with pytest.raises(TypeError, match="components of a mixture must share one support"):
        _ = d.mode


@every_mixture
def test_a_pyro_model_may_have_a_mixture_for_its_site(law):
    def site():
        return pyro.sample("u", law if law.event_shape else law.to_event(1))

    prior = pcl.ModelPrior(site, "u")
    u = prior.sample((5,))
    torch.testing.assert_close(prior.log_prob(u), pcl.priors.as_prior(law).log_prob(u))
    ours, theirs = (model().u_given_v(p).condition(context()) for p in (prior, law))
    torch.testing.assert_close(ours.mode, theirs.mode, rtol=1e-2, atol=1e-2)


def test_a_pyro_model_may_have_mixtures_in_a_plate():
    def site():
        with pyro.plate("items", 2):
            return pyro.sample("u", MixtureSameFamily(HALF, dist.Gamma(torch.tensor([2.0, 5.0]), 1.0)))

    prior = pcl.ModelPrior(site, "u")
    assert (prior.sample((20,)) > 0).all()
    assert model().u_given_v(prior, sampler=TemperedSMC()).condition(context()).sample((10,)).shape == (10, 2, 2)
