"""Normal laws of Pyro and of torch take the exact route of `GaussianPrior`, and so does every affine encoder."""

import pyro.distributions as dist
import pytest
import torch
from small_models import normal
from torch import nn
from torch.distributions import Independent as TorchIndependent
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import Normal as TorchNormal

import probcl as pcl
from probcl.conditional import GaussianConditional, TiltedConditional
from probcl.information import QuadraticFeatures
from probcl.priors import DistributionPrior, GaussianPrior, as_gaussian

F64 = torch.float64
N_U, N_V, WIDTH = 3, 2, 4
MEAN, SCALES = normal(N_U, seed=1), torch.tensor([0.5, 1.0, 2.0], dtype=F64)
ROOT = normal(N_U, N_U, seed=2)
FACTOR, DIAGONAL = normal(N_U, 1, seed=3), torch.tensor([0.3, 0.2, 0.5], dtype=F64)
LAWS = {
    "normal": dist.Normal(MEAN, SCALES),
    "to_event": dist.Normal(MEAN, SCALES).to_event(1),
    "torch": TorchIndependent(TorchNormal(MEAN, SCALES), 1),
    "one scale": dist.Normal(MEAN, 0.7),
    "covariance": dist.MultivariateNormal(MEAN, ROOT @ ROOT.mT),
    "precision": TorchMultivariateNormal(MEAN, precision_matrix=ROOT @ ROOT.mT),
    "low rank": dist.LowRankMultivariateNormal(MEAN, FACTOR, DIAGONAL),
}
every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def reference(law) -> GaussianPrior:
    """The same law by its covariance."""
    law = law.base_dist if isinstance(law, TorchIndependent) else law
    diagonal = law.event_shape == ()
    return GaussianPrior(MEAN, law.variance.expand(N_U).diag() if diagonal else law.covariance_matrix)


def model(encoder_u: nn.Module | None = None, alignment=None) -> pcl.BimodalModel:
    made = pcl.BimodalModel(
        encoder_u or pcl.encoders.Linear(N_U, WIDTH), pcl.encoders.Linear(N_V, WIDTH), alignment or pcl.L2(), 0.8
    )
    for seed, parameter in enumerate(made.double().parameters()):
        parameter.data = 0.5 * normal(*parameter.shape, seed=seed)
    return made


@every_law
def test_a_normal_law_gives_what_the_gaussian_prior_gives(law):
    ours, theirs = (model().u_given_v(prior).condition(normal(5, N_V)) for prior in (law, reference(law)))
    assert isinstance(ours, GaussianConditional)
    values = normal(4, 5, N_U, seed=6)
    for name in ("mean", "covariance", "variance", "mode", "log_normalizer"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    torch.testing.assert_close(ours.log_prob(values), theirs.log_prob(values))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


@every_law
def test_its_draws_are_of_u_and_agree_with_a_sampler_s(law):
    exact = model().u_given_v(law).condition(normal(2, N_V))
    draws = exact.draw(4000, seed=0)
    assert torch.equal(exact.prior.decode(draws.z), draws.z)
    sampled = model().u_given_v(law, pcl.samplers.ImportanceResampling(20_000)).condition(normal(2, N_V))
    assert isinstance(sampled, TiltedConditional)
    for d in (draws.z.mean(0), sampled.mean):
        assert ((d - exact.mean).abs() / exact.variance.sqrt()).max() < 0.15
    assert (sampled.log_normalizer - exact.log_normalizer).abs().max() < 0.1


def test_the_information_form_takes_a_normal_law_as_well():
    law, same = LAWS["covariance"], reference(LAWS["covariance"])
    roots = normal(4, N_U, N_U, seed=31)
    context = torch.cat([normal(4, N_U), (roots @ roots.mT).flatten(1)], dim=1)
    learned = pcl.BimodalModel(QuadraticFeatures.of(same), nn.Identity()).double()
    ours, theirs = (learned.u_given_v(prior).condition(context) for prior in (law, same))
    assert isinstance(ours, GaussianConditional)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.covariance, theirs.covariance)


def test_batches_of_normal_vectors_that_are_made_an_event_are_independent():
    roots = normal(2, N_U, N_U, seed=5)
    law = dist.MultivariateNormal(normal(2, N_U), scale_tril=(roots @ roots.mT + torch.eye(N_U)).tril())
    prior = as_gaussian(DistributionPrior(law.to_event(1)))
    assert prior.event_shape == (2, N_U)
    u = normal(7, 2, N_U, seed=8)
    torch.testing.assert_close(prior.log_prob(u), law.log_prob(u).sum(-1))


def test_a_scalar_normal_is_gaussian():
    prior = as_gaussian(DistributionPrior(dist.Normal(torch.tensor(1.5), 2.0)))
    torch.testing.assert_close(prior.log_prob(torch.tensor(0.3)), dist.Normal(1.5, 2.0).log_prob(torch.tensor(0.3)))


class Shifted(dist.Normal):
    def log_prob(self, value):
        return super().log_prob(value - 1)


@pytest.mark.parametrize(
    "law", [dist.StudentT(4.0, MEAN), dist.LogNormal(MEAN, SCALES), dist.HalfNormal(SCALES), Shifted(MEAN, SCALES)]
)
def test_a_law_that_is_not_normal_is_not_taken_for_one(law):
    assert as_gaussian(DistributionPrior(law)) is None


ENCODERS = {
    "linear": pcl.encoders.Linear(N_U, WIDTH),
    "with intercept": nn.Linear(N_U, WIDTH),
    "sequential": nn.Sequential(nn.Linear(N_U, WIDTH)),
    "nested": nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(N_U, 6), pcl.encoders.Linear(6, WIDTH))),
}


@pytest.mark.parametrize("alignment", [pcl.L2(), pcl.InnerProduct(), pcl.WithPotentials()])
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_an_affine_encoder_is_exact_and_has_the_scores_of_the_model(encoder, alignment):
    made = model(encoder, alignment)
    context, values = normal(3, N_V), normal(6, 3, N_U, seed=9)
    d = made.u_given_v(LAWS["covariance"]).condition(context)
    assert isinstance(d, GaussianConditional)
    scores = torch.stack([made.scores(row, context).diagonal() for row in values]).detach()
    expected = LAWS["covariance"].log_prob(values) + scores - d.log_normalizer
    torch.testing.assert_close(d.log_prob(values), expected)
    torch.testing.assert_close(d.log_prob(values), dist.MultivariateNormal(d.mean, d.covariance).log_prob(values))


@pytest.mark.parametrize(
    "encoder",
    [nn.Sequential(nn.Linear(N_U, WIDTH), nn.Tanh()), nn.Sequential(nn.Linear(N_U, WIDTH), nn.LayerNorm(WIDTH))],
)
def test_an_encoder_that_is_not_affine_is_sampled(encoder):
    assert isinstance(model(encoder).u_given_v(LAWS["normal"]).condition(normal(1, N_V)), TiltedConditional)
