"""One interface for all conditionals, and what they say to bad input."""

import pyro.distributions as dist
import pytest
import torch
from small_models import normal
from torch import nn

import probcl as pcl
from probcl.conditional import GaussianConditional, TiltedConditional
from probcl.conditional.exact import ExactConditional
from probcl.priors import DecoderPrior, EmpiricalPrior, GaussianPrior
from probcl.samplers import NUTS, AutoSampler, ImportanceResampling, TemperedSMC

N_U, N_V, BATCH = 2, 3, 3
NORMAL = dist.Normal(torch.zeros(N_U), 1.0)


def context(batch: int = BATCH) -> torch.Tensor:
    return normal(batch, N_V, seed=20).float()


def linear_model() -> pcl.BimodalModel:
    model = pcl.BimodalModel(pcl.encoders.Linear(N_U, 4), pcl.encoders.Linear(N_V, 4), pcl.L2(), 0.7)
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = 0.7 * normal(*parameter.shape, seed=seed).float()
    return model


class Column(nn.Module):
    """An encoder of scalars."""

    def forward(self, u):
        return u[:, None]


def scalar_model() -> pcl.BimodalModel:
    return pcl.BimodalModel(Column(), pcl.encoders.Linear(N_V, 1), pcl.L2())


def decoder(width: int) -> DecoderPrior:
    return DecoderPrior(nn.Linear(1, width), dist.Normal(torch.zeros(1), 1.0))


def conditionals():
    labels = pcl.BimodalModel(pcl.encoders.Label(4, 4), pcl.encoders.Linear(N_V, 4))
    importance = ImportanceResampling(5000)
    return {
        "gaussian": linear_model().u_given_v(GaussianPrior(torch.zeros(N_U), torch.eye(N_U))),
        "normal": linear_model().u_given_v(NORMAL),
        "bank": linear_model().u_given_v(EmpiricalPrior(normal(30, N_U).float())),
        "labels": labels.u_given_v(EmpiricalPrior(torch.arange(4))),
        "sampled": linear_model().u_given_v(NORMAL, importance),
        "scalars": scalar_model().u_given_v(dist.Normal(0.0, 1.0), importance),
        "bank of scalars": scalar_model().u_given_v(EmpiricalPrior(normal(30).float())),
        "decoder": linear_model().u_given_v(decoder(N_U), importance),
    }


@pytest.mark.parametrize("name", conditionals())
def test_every_conditional_answers_the_same_questions(name):
    d = conditionals()[name].condition(context())
    draws = d.draw(50, seed=0)
    assert draws.z.shape[:2] == (50, BATCH)
    assert torch.equal(draws.z, d.draw(50, seed=0).z)
    assert draws.trusted.shape == draws.ess.shape == draws.log_evidence.shape == (BATCH,)
    assert draws.trusted.all()
    assert d.diagnosis is d.diagnosis
    assert d.ess().shape == d.log_normalizer.shape == d.log_normalizer_se.shape == (BATCH,)
    assert (d.log_normalizer_se >= 0).all()
    values = d.sample((5,))
    assert d.log_ratio(values).shape == (5, BATCH)
    if name != "decoder":
        torch.testing.assert_close(
            d.unnormalized_log_prob(values), d.log_prob(values) + d.log_normalizer.to(d.log_prob(values))
        )
    if name != "labels":
        n = max(1, d.event_shape.numel())
        assert d.covariance.shape == (BATCH, n, n)
        diagonal = d.covariance.diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(diagonal, d.variance.reshape(BATCH, n), rtol=1e-4, atol=1e-6)
    large = d.expand((2, BATCH))
    assert large.ess().shape == large.log_normalizer_se.shape == (2, BATCH)
    assert large.draw(20, seed=0).z.shape[0] == 20


def test_exact_draws_follow_the_conditional_and_say_that_they_are_exact():
    d = conditionals()["gaussian"].condition(context())
    draws = d.draw(20_000, seed=0)
    assert (draws.method, draws.reason) == ("exact", "the conditional is known in closed form")
    torch.testing.assert_close(draws.log_evidence, d.log_normalizer)
    values = d.prior.decode(draws.z)
    assert ((values.mean(0) - d.mean).abs() / d.variance.sqrt()).max() < 5 / 20_000**0.5
    assert (draws.ess == 20_000).all()
    assert d.ess().isinf().all()


def test_the_covariance_of_a_bank_is_that_of_its_weighted_atoms():
    d = conditionals()["bank"].condition(context())
    for b in range(BATCH):
        expected = torch.cov(d.atoms.double().mT, correction=0, aweights=d.probs[b].double())
        torch.testing.assert_close(d.covariance[b].double(), expected, rtol=1e-4, atol=1e-6)


def test_the_covariance_of_scalars_is_their_variance():
    d = conditionals()["scalars"].condition(context())
    torch.testing.assert_close(d.covariance[:, 0, 0], d.variance)
    # N(0, 1) tilted by −½ (u − y)² is N(y/2, 1/2).
    torch.testing.assert_close(d.variance, torch.full((BATCH,), 0.5), rtol=0.1, atol=0)


@pytest.mark.parametrize("sampler", [TemperedSMC(512), AutoSampler(), NUTS(4, 50)], ids=lambda s: type(s).__name__)
def test_a_sampler_that_is_asked_for_is_used_also_where_there_is_a_closed_form(sampler):
    d = linear_model().u_given_v(GaussianPrior(torch.zeros(N_U), torch.eye(N_U)), sampler).condition(context())
    assert isinstance(d, TiltedConditional)
    assert d.sampler is sampler
    automatic = linear_model().u_given_v(NORMAL, "auto").condition(context())
    assert isinstance(automatic, GaussianConditional)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")  # the chains are too short to be trusted
def test_chains_come_back_in_the_precision_of_the_prior():
    d = linear_model().u_given_v(NORMAL, NUTS(num_chains=4, warmup=20, max_tree_depth=3)).condition(context(1))
    assert d.draw(100, seed=0).z.dtype == torch.float32
    assert d.sample((3,)).dtype == torch.float32
    double = linear_model().double()
    prior = dist.Normal(torch.zeros(N_U, dtype=torch.float64), 1.0)
    d = double.u_given_v(prior, NUTS(num_chains=4, warmup=20, max_tree_depth=3)).condition(context(1).double())
    assert d.draw(100, seed=0).z.dtype == torch.float64


# What an encoder may return


class Half(nn.Module):
    """NaN where the first component is positive."""

    def forward(self, u):
        return torch.where(u[:, :1] > 0, torch.nan, u)


class Overflowing(nn.Module):
    """A difference of squares, which are infinite for large values: NaN there."""

    def forward(self, u):
        return u.square() * u.square() - (u + 1).square() * u.square()


def nan_model(encoder: nn.Module) -> pcl.BimodalModel:
    return pcl.BimodalModel(encoder, pcl.encoders.Linear(N_V, N_U))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("sampler", [ImportanceResampling(1000), TemperedSMC(512), NUTS(4, 20)], ids=repr)
def test_an_encoder_that_returns_nan_is_named_and_not_taken_for_impossible(sampler):
    d = nan_model(Half()).u_given_v(NORMAL, sampler).condition(context())
    with pytest.raises(ValueError, match=r"^encoder_u must not return NaN, and does for"):
        d.draw(100, seed=0)
    mirror = pcl.BimodalModel(pcl.encoders.Linear(N_V, N_U), Half()).v_given_u(NORMAL, sampler).condition(context())
    with pytest.raises(ValueError, match=r"^encoder_v must not return NaN"):
        mirror.draw(100, seed=0)


def test_a_nan_of_overflow_is_impossible_and_no_error():
    nu = nan_model(Overflowing()).u_given_v(NORMAL)
    given = nu.embed_given(context(2))
    values = torch.tensor([[1e30, 1e30], [0.5, 0.5]])
    assert Overflowing()(values)[0].isnan().all()
    scores = nu.matched_scores(values, given)
    assert scores[0] == -torch.inf
    assert scores[1].isfinite()
    shared = nu.shared_scores(values, given)
    assert (shared[0] == -torch.inf).all()
    torch.testing.assert_close(shared[1, 1], scores[1])


# Bad input


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "prior",
    [
        dist.Normal(torch.zeros(5), 1.0),
        dist.Normal(torch.zeros(N_U, 3), 1.0).to_event(2),
        GaussianPrior(torch.zeros(5), torch.eye(5)),
        decoder(5),
    ],
    ids=["wide", "matrix", "gaussian", "decoder"],
)
def test_a_prior_that_the_encoder_cannot_take_is_found_when_it_is_given(prior):
    model, before = linear_model(), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"^prior must be a law of what encoder_u takes, got"):
        model.u_given_v(prior)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["gaussian", "normal", "bank", "sampled"])
@pytest.mark.parametrize("question", ["log_prob", "log_ratio", "unnormalized_log_prob"])
def test_values_that_are_no_values_are_refused(name, question):
    ask = getattr(conditionals()[name].condition(context()), question)
    for values, error, message in [
        (torch.tensor([0.0, torch.nan]), ValueError, "^values must not be NaN, got 1 of 2"),
        (torch.zeros(5, 3), ValueError, r"^values must end in the event shape \(2,\)"),
        (torch.zeros(7, 2), ValueError, r"^values must have shape \(\*sample_shape, 3, 2\)"),
        ([0.0, 1.0], TypeError, "^values must be a torch.Tensor"),
    ]:
        with pytest.raises(error, match=message):
            ask(values)


@pytest.mark.usefixtures("unchecked")
def test_an_infinite_value_is_impossible():
    d = conditionals()["sampled"].condition(context())
    assert (d.unnormalized_log_prob(torch.tensor([torch.inf, 0.0])) == -torch.inf).all()


@pytest.mark.usefixtures("unchecked")
def test_no_conditions_at_all_are_refused():
    for nu in (conditionals()["gaussian"], conditionals()["bank"], conditionals()["sampled"]):
        with pytest.raises(ValueError, match=r"^context must have at least one condition, got .* \(0, 3\)"):
            nu.condition(context()[:0])


@pytest.mark.usefixtures("unchecked")
def test_a_data_bank_takes_no_sampler():
    with pytest.raises(ValueError, match=r"^sampler must be None for a data bank"):
        linear_model().u_given_v(EmpiricalPrior(normal(5, N_U).float()), TemperedSMC())


@pytest.mark.usefixtures("unchecked")
def test_what_a_conditional_does_not_have_it_says():
    sampled = conditionals()["sampled"].condition(context())
    with pytest.raises(NotImplementedError, match=r"entropy of TiltedConditional has no closed form; -d.log_prob"):
        sampled.entropy()
    with pytest.raises(NotImplementedError, match=r"^TiltedConditional has no differentiable draws; use sample"):
        sampled.rsample()
    for d in (sampled, conditionals()["gaussian"].condition(context())):
        with pytest.raises(NotImplementedError, match="cannot be enumerated"):
            d.enumerate_support()
        for call in (d.cdf, d.icdf):
            with pytest.raises(NotImplementedError, match=f"{type(d).__name__} has no .* function; use"):
                call(torch.zeros(N_U))
    assert isinstance(conditionals()["bank"].condition(context()), ExactConditional)
