"""The conditional as a Pyro model: what `pyro.infer` makes of it is the conditional's own answer."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import HMC, MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from small_models import normal
from test_priors_continuous import hierarchical
from torch import Tensor

import probcl as pcl
from probcl.conditional import Conditional, GaussianConditional
from probcl.priors import GaussianPrior, ModelPrior

BATCH, N_U, N_V = 2, 2, 3
# Pyro's handlers are slow under jaxtyping's checks, which the other tests of these classes have on.
pytestmark = pytest.mark.usefixtures("unchecked", "clean_parameters")


def context() -> Tensor:
    return normal(BATCH, N_V, seed=20, dtype=torch.float32)


def conditional_of(alignment=None, prior=None) -> Conditional:
    model = pcl.BimodalModel(pcl.encoders.Linear(N_U, 4), pcl.encoders.Linear(N_V, 4), alignment or pcl.L2(), 0.7)
    for seed, encoder in enumerate((model.encoder_u, model.encoder_v)):
        encoder.weight.data = 0.7 * normal(*encoder.weight.shape, seed=seed).float()
    prior = prior or GaussianPrior(torch.tensor([0.5, -0.5]), torch.tensor([[1.0, 0.6], [0.6, 0.8]]))
    return model.u_given_v(prior)


def assert_draws_of(exact: GaussianConditional, draws: Tensor, within: float) -> None:
    """Means within so many deviations, deviations within so much of themselves."""
    deviation = exact.variance.sqrt()
    assert ((draws.mean(0) - exact.mean).abs() / deviation).max() < within
    assert (draws.std(0) / deviation - 1).abs().max() < within


@pytest.mark.parametrize("kernel", [NUTS, HMC])
def test_mcmc_in_pyro_draws_from_the_conditional(kernel):
    nu = conditional_of()
    exact = nu.condition(context())
    settings = {"max_tree_depth": 4} if kernel is NUTS else {"trajectory_length": 2.0}
    mcmc = MCMC(kernel(nu.pyro_model, **settings), num_samples=300, warmup_steps=100, disable_progbar=True)
    mcmc.run(context())
    z = mcmc.get_samples()["z"]
    assert z.shape == (300, BATCH, N_U)
    assert_draws_of(exact, nu.prior.decode(z), within=0.3)
    assert all(parameter.grad is None for parameter in nu.model.parameters())

    draws = Predictive(nu.pyro_model, mcmc.get_samples())(context())["u"]
    torch.testing.assert_close(draws.reshape(300, BATCH, N_U), nu.prior.decode(z))


def test_the_embedded_conditional_is_the_same_model():
    nu = conditional_of()
    d = nu.condition(context())
    torch.manual_seed(3)
    ours = poutine.trace(d.pyro_model).get_trace()
    torch.manual_seed(3)
    theirs = poutine.trace(nu.pyro_model).get_trace(context())
    assert torch.equal(ours.nodes["u"]["value"], theirs.nodes["u"]["value"])
    torch.testing.assert_close(ours.log_prob_sum(), theirs.log_prob_sum())


def test_the_log_joint_is_the_latent_density_and_the_score():
    nu = conditional_of()
    trace = poutine.trace(nu.pyro_model).get_trace(context())
    z, u = trace.nodes["z"]["value"], trace.nodes["u"]["value"]
    assert u.shape == (BATCH, N_U)
    scores = nu.model.scores(u, context()).diagonal().detach()
    expected = dist.Normal(0.0, 1.0).log_prob(z).sum() + scores.sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected)


def test_variational_inference_finds_the_exact_posterior_where_its_family_holds_it():
    """Under the inner product z given v is N(b, I), a product of normals."""
    nu = conditional_of(pcl.InnerProduct())
    exact = nu.condition(context())
    guide = AutoNormal(nu.pyro_model, init_scale=0.5)
    svi = SVI(nu.pyro_model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.985}), Trace_ELBO(8, True))
    for _ in range(200):
        loss = svi.step(context())
    median = guide.median()["z"]
    torch.testing.assert_close(median.detach(), exact.latent_mean, rtol=0, atol=0.1)
    scale = guide.quantiles([0.8413447])["z"].squeeze(0).detach() - median.detach()
    torch.testing.assert_close(scale, torch.ones(BATCH, N_U), rtol=0, atol=0.1)
    # The bound is tight: it is the evidence.
    assert -loss == pytest.approx(float(exact.log_normalizer.sum()), abs=0.3)
    assert all(parameter.grad is None for parameter in nu.model.parameters())


@pytest.mark.parametrize("parallel", [True, False])
def test_without_observations_predictive_draws_from_the_prior(parallel):
    nu = conditional_of()
    draws = Predictive(nu.pyro_model, num_samples=500, parallel=parallel)(context())
    u = draws["u"].reshape(500, BATCH, N_U)
    deviation = nu.prior.covariance.diagonal().sqrt()
    assert ((u.mean(0) - nu.prior.mean).abs() / deviation).max() < 5 / 500**0.5
    assert (u.std(0) / deviation - 1).abs().max() < 0.2


@pytest.mark.slow
def test_a_hierarchical_pyro_prior_goes_through_pyro_s_nuts():
    nu = conditional_of(prior=ModelPrior(two_components, "u"))
    d = nu.condition(context())
    mcmc = MCMC(NUTS(nu.pyro_model, max_tree_depth=5), num_samples=300, warmup_steps=200, disable_progbar=True)
    mcmc.run(context())
    draws = nu.prior.decode(mcmc.get_samples()["z"])
    deviation = d.variance.sqrt()
    assert ((draws.mean(0) - d.mean).abs() / deviation).max() < 0.4


def two_components():
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("components", N_U):
        return pyro.sample("u", dist.Normal(m, 0.8))


def test_a_model_prior_inside_pyro_has_its_own_density_and_no_foreign_sites():
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 4), pcl.encoders.Linear(N_V, 4))
    nu = model.u_given_v(ModelPrior(hierarchical, "u"))
    trace = poutine.trace(nu.pyro_model).get_trace(context())
    assert [name for name, node in trace.nodes.items() if node["type"] == "sample"] == ["conditions", "z", "tilt", "u"]
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], nu.prior.latent.log_prob(trace.nodes["z"]["value"]))


def test_a_single_label_is_a_plate_of_one():
    model = pcl.BimodalModel(pcl.encoders.MLP(2, 4), pcl.encoders.Label(3, 4))
    nu = model.u_given_v(dist.Normal(torch.zeros(2), 1.0))
    assert nu.pyro_model(torch.tensor(1)).shape == (1, 2)
    assert nu.condition(torch.tensor(1)).pyro_model().shape == (1, 2)


def test_scalars_are_events_without_axes():
    model = pcl.BimodalModel(torch.nn.Unflatten(0, (-1, 1)), pcl.encoders.Linear(N_V, 1))
    nu = model.u_given_v(dist.Normal(0.0, 1.0))
    assert nu.pyro_model(context()).shape == (BATCH,)
    draws = Predictive(nu.pyro_model, num_samples=20, parallel=True)(context())["u"]
    assert draws.shape == (20, BATCH)


def test_a_data_bank_is_sampled_otherwise():
    nu = conditional_of(prior=pcl.EmpiricalPrior(normal(5, N_U).float()))
    with pytest.raises(NotImplementedError, match="sample from condition"):
        nu.pyro_model(context())


def test_arviz_reads_a_run_of_mcmc(arviz):
    nu = conditional_of()
    mcmc = MCMC(NUTS(nu.pyro_model, max_tree_depth=3), num_samples=60, warmup_steps=40, disable_progbar=True)
    mcmc.run(context())
    data = arviz.from_pyro(mcmc, log_likelihood=False)
    assert data.posterior["z"].shape == (1, 60, BATCH, N_U)
    assert arviz.summary(data, kind="stats").shape[0] == BATCH * N_U
