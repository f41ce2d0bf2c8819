import copy
import pickle
from functools import cache

import pyro.distributions as dist
import pytest
import torch
from small_models import normal
from test_priors_continuous import deterministic, hierarchical
from torch import Tensor, nn
from torch.distributions import constraints

import probcl as pcl
from probcl.conditional import Conditional, GaussianConditional, TiltedConditional
from probcl.priors import DecoderPrior, GaussianPrior, ModelPrior
from probcl.samplers import NUTS, AutoSampler, ImportanceResampling, TemperedSMC

N_V, BATCH = 3, 3
IMPORTANCE = ImportanceResampling(num_proposals=10_000)


def model_of(n_u: int, alignment=None, temperature: float = 1.0, seed: int = 0) -> pcl.BimodalModel:
    """A model whose encoder of u is not linear."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder_u = pcl.encoders.MLP(n_u, 4, hidden=(16,), activation="tanh")
        model = pcl.BimodalModel(encoder_u, pcl.encoders.Linear(N_V, 4, bias=True), alignment, temperature)
    model.encoder_u.layers[1].weight.data *= 3
    return model


def context(batch: int = BATCH) -> Tensor:
    return normal(batch, N_V, seed=20, dtype=torch.float32)


def conditional_of(model: pcl.BimodalModel, prior, sampler=IMPORTANCE, batch: int = BATCH) -> TiltedConditional:
    d = model.u_given_v(prior, sampler).condition(context(batch))
    assert isinstance(d, TiltedConditional)
    return d


MODELS = {
    "inner product": model_of(2, temperature=0.6),
    "cosine": model_of(2, pcl.Cosine(), temperature=0.4),
    "l2": model_of(2, pcl.L2()),
    "re-gauged over v": model_of(2).regauged("v", pcl.EmpiricalPrior(normal(30, N_V).float())),
    "re-gauged over u": model_of(2).regauged("u", pcl.EmpiricalPrior(normal(30, 2).float())),
}
PRIORS = {
    "normal": (dist.Normal(torch.zeros(2), 1.0), (-5.5, 5.5)),
    "box": (dist.Uniform(-torch.ones(2), torch.tensor([1.0, 2.0])), (-1.0, 2.0)),
    "positive": (dist.Gamma(torch.tensor([3.0, 4.0]), 4.0), (0.0, 7.0)),
    "mixture": (
        dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.3, 0.7])),
            dist.MultivariateNormal(torch.tensor([[-1.5, 0.0], [1.0, 1.0]]), torch.eye(2)),
        ),
        (-6.0, 6.0),
    ),
    "gaussian": (GaussianPrior(torch.tensor([0.5, -0.5]), torch.tensor([[1.0, 0.6], [0.6, 0.8]])), (-6.0, 6.0)),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
every_prior = pytest.mark.parametrize(("prior", "bounds"), PRIORS.values(), ids=PRIORS)


@cache
def cells(low: float, high: float, points: int = 120) -> tuple[Tensor, float]:
    """Midpoints of a square grid, (points², 2), and the area of a cell."""
    axis = low + (torch.arange(points) + 0.5) * (high - low) / points
    return torch.cartesian_prod(axis, axis), ((high - low) / points) ** 2


def on_grid(d: TiltedConditional, bounds: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Points of the plane where the prior has a density, and log μ + s there for each condition, by brute force."""
    u, area = cells(*bounds)
    u = u[d.support.check(u)]
    model = d.conditional.model
    scores = model.scores_of_embeddings(model.embed_u(u), model.embed_v(context())).matrix().detach().double()
    return u, d.prior.log_prob(u).double()[:, None] + scores + torch.tensor(area).log()


@every_model
@every_prior
def test_normaliser_density_and_moments_are_those_on_a_grid(model, prior, bounds):
    d = conditional_of(model, prior)
    u, log_joint = on_grid(d, bounds)
    error = (d.log_normalizer - log_joint.logsumexp(0)).abs()
    assert (error < 4 * d.log_normalizer_se + 2e-3).all()

    log_density = d.log_prob(u[:, None]).double()
    assert log_density.shape == (len(u), BATCH)
    torch.testing.assert_close(
        log_density, log_joint - torch.tensor(cells(*bounds)[1]).log() - d.log_normalizer, rtol=1e-3, atol=1e-3
    )
    mass = log_density.exp().sum(0) * cells(*bounds)[1]
    assert ((mass - 1).abs() < 4 * d.log_normalizer_se + 4e-3).all()
    assert (d.log_normalizer_se < 0.05).all()

    p = log_joint.softmax(0)
    mean = p.mT @ u.double()
    covariance = torch.einsum("nb,nbi,nbj->bij", p, u[:, None] - mean, u[:, None] - mean)
    deviation = covariance.diagonal(dim1=1, dim2=2).sqrt()
    tolerance = 4 / d.ess().clamp(max=2000).sqrt()[:, None]
    assert ((d.mean - mean).abs() / deviation < tolerance).all()
    assert ((d.variance.sqrt() / deviation - 1).abs() < 2 * tolerance).all()
    assert (
        (d.covariance - covariance).abs() / deviation[:, :, None] / deviation[:, None] < 3 * tolerance[..., None]
    ).all()


@every_prior
def test_the_mode_has_the_largest_density_on_a_grid(prior, bounds):
    d = conditional_of(MODELS["l2"], prior)
    u, log_joint = on_grid(d, bounds)
    best = log_joint.amax(0) - torch.tensor(cells(*bounds)[1]).log()
    at_mode = d.unnormalized_log_prob(d.mode)
    assert (at_mode > best - 1e-4).all()  # no point of the grid beats it
    nearest = u[log_joint.argmax(0)]
    assert (d.mode - nearest).abs().max() < 0.1


def test_the_mode_is_exact_where_it_is_known():
    model, prior = linear_model(), PRIORS["gaussian"][0]
    exact, d = routes(model, prior)
    torch.testing.assert_close(d.mode, exact.mode, rtol=0, atol=2e-4)


def linear_model(seed: int = 3) -> pcl.BimodalModel:
    model = pcl.BimodalModel(pcl.encoders.Linear(2, 4), pcl.encoders.Linear(N_V, 4), pcl.L2(), temperature=0.7)
    model.encoder_u.weight.data = normal(4, 2, seed=seed).float()
    model.encoder_v.weight.data = normal(4, N_V, seed=seed + 1).float()
    return model


def routes(
    model: pcl.BimodalModel, prior: GaussianPrior, sampler=None
) -> tuple[GaussianConditional, TiltedConditional]:
    """The exact conditional, and the same one by a sampler."""
    nu = model.u_given_v(prior, sampler)
    return model.u_given_v(prior).condition(context()), TiltedConditional(nu, nu.embed_given(context()))


@pytest.mark.parametrize("sampler", ["auto", IMPORTANCE, TemperedSMC(1024)], ids=["auto", "importance", "smc"])
@pytest.mark.parametrize("rank", [2, 1])
def test_samplers_agree_with_the_exact_gaussian(sampler, rank):
    prior = PRIORS["gaussian"][0]
    prior = prior if rank == 2 else GaussianPrior.from_scale(prior.mean, prior.scale[:, :1])
    exact, d = routes(linear_model(), prior, sampler)
    assert ((d.log_normalizer - exact.log_normalizer).abs() < 4 * d.log_normalizer_se + 1e-3).all()
    deviation = exact.variance.sqrt()
    tolerance = 4 / d.ess().clamp(max=2000).sqrt()[:, None]
    assert ((d.mean - exact.mean).abs() / deviation < tolerance).all()
    assert ((d.variance.sqrt() / deviation - 1).abs() < tolerance).all()
    values = exact.sample((5,))
    torch.testing.assert_close(d.log_ratio(values), exact.log_ratio(values), rtol=0, atol=0.1)
    if rank == 2:
        torch.testing.assert_close(d.log_prob(values), exact.log_prob(values), rtol=0, atol=0.1)
    draws = d.sample((1000,))
    assert draws.shape == (1000, BATCH, 2)
    assert ((draws.mean(0) - exact.mean).abs() / deviation < 6 / 1000**0.5).all()


def test_one_dimension_agrees_with_quadrature():
    model = model_of(1, temperature=0.3)
    d = conditional_of(model, dist.StudentT(5.0, torch.zeros(1), 1.0))
    u = torch.linspace(-40, 40, 200_001)[:, None]
    log_joint = d.unnormalized_log_prob(u[:, None]).double()
    log_normalizer = torch.trapezoid(log_joint.exp(), u.double(), dim=0).log()
    assert ((d.log_normalizer - log_normalizer).abs() < 4 * d.log_normalizer_se + 1e-3).all()
    torch.testing.assert_close(
        d.log_prob(u[::1000, None]), (log_joint[::1000] - d.log_normalizer).float(), rtol=1e-4, atol=1e-4
    )


# Priors without a density in u


def test_a_decoder_prior_is_sampled_through_its_latent_variable():
    """A linear decoder, so that the truth is Gaussian: DecoderPrior(z ↦ Lz + m) is GaussianPrior.from_scale(m, L)."""
    decoder = nn.Linear(1, 2)
    prior = DecoderPrior(decoder, dist.Normal(torch.zeros(1), 1.0))
    model = linear_model()
    d = conditional_of(model, prior)
    exact = model.u_given_v(GaussianPrior.from_scale(decoder.bias.detach(), decoder.weight.detach())).condition(
        context()
    )
    assert ((d.log_normalizer - exact.log_normalizer).abs() < 4 * d.log_normalizer_se + 1e-3).all()
    tolerance = 4 / d.ess().clamp(max=2000).sqrt()[:, None]
    assert ((d.mean - exact.mean).abs() < tolerance * exact.variance.sqrt() + 1e-6).all()
    torch.testing.assert_close(d.mode, exact.mode, rtol=0, atol=1e-3)
    values = exact.sample((4,))
    torch.testing.assert_close(d.log_ratio(values), exact.log_ratio(values), rtol=0, atol=0.1)
    with pytest.raises(NotImplementedError, match="no density that is known; use log_ratio"):
        d.log_prob(values)


def test_images_of_a_convolutional_decoder_keep_their_shape():
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid())
    prior = DecoderPrior(decoder, dist.Normal(torch.zeros(2), 1.0))
    model = model_of(16)
    d = conditional_of(model, prior)
    assert d.sample((5,)).shape == (5, BATCH, 1, 4, 4)
    assert d.mean.shape == d.variance.shape == d.mode.shape == (BATCH, 1, 4, 4)
    assert d.covariance.shape == (BATCH, 16, 16)
    assert d.log_ratio(d.sample((5,))).shape == (5, BATCH)
    assert d.support.check(torch.rand(1, 4, 4))
    assert all(parameter.grad is None for parameter in (*model.parameters(), *decoder.parameters()))


def test_a_hierarchical_model_prior_is_weighted_as_its_draws_are():
    model = model_of(3)
    prior = ModelPrior(hierarchical, "u")
    d = conditional_of(model, prior)
    u = prior.sample((100_000,))
    scores = model.scores(u, context()).matrix().detach().double()
    weights = scores.softmax(0)
    mean = weights.mT @ u.double()
    deviation = (weights.mT @ u.double().square() - mean.square()).sqrt()
    assert (d.log_normalizer - scores.logsumexp(0) + torch.tensor(1e5).log()).abs().max() < 0.05
    assert ((d.mean - mean).abs() / deviation < 5 / d.ess().clamp(max=2000).sqrt()[:, None]).all()
    assert d.log_ratio(u[:4, None]).shape == (4, BATCH)


@pytest.mark.parametrize(
    "sampler",
    [TemperedSMC(512), pytest.param(NUTS(num_chains=4, warmup=100), marks=pytest.mark.slow)],
    ids=["smc", "nuts"],
)
def test_gradients_and_moves_go_through_a_model_prior(sampler):
    prior = ModelPrior(deterministic, "u")
    model = model_of(5)
    reference, d = conditional_of(model, prior), conditional_of(model, prior, sampler, batch=2)
    draws = prior.decode(d.draw(1000, seed=1).z)
    deviation = reference.variance.sqrt()[:2]
    assert ((draws.mean(0) - reference.mean[:2]).abs() / deviation).max() < 0.3
    assert (draws.std(0) / deviation - 1).abs().max() < 0.25


# What a distribution must be able to do


def test_draws_respect_a_bounded_support():
    d = conditional_of(MODELS["l2"], PRIORS["box"][0])
    assert d.support.check(d.sample((500,))).all()
    assert not d.support.check(torch.tensor([0.0, 2.5]))
    assert d.support.check(d.mode).all()
    positive = conditional_of(MODELS["l2"], PRIORS["positive"][0])
    assert (positive.sample((500,)) > 0).all()
    assert isinstance(conditional_of(MODELS["l2"], PRIORS["normal"][0]).support.base_constraint, type(constraints.real))


def test_moments_do_not_change_from_call_to_call_nor_with_the_caller_s_random_state():
    first, second = (conditional_of(MODELS["l2"], PRIORS["normal"][0]) for _ in range(2))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(first.mean, first.mean)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.log_normalizer, second.log_normalizer)
    assert torch.equal(first.mode, second.mode)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_follow_torch_s_seed():
    d = conditional_of(MODELS["l2"], PRIORS["normal"][0])
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(d.sample((10,)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_expanding_keeps_the_draws_behind_moments_and_normaliser():
    d = conditional_of(MODELS["l2"], PRIORS["normal"][0])
    large = d.expand((4, BATCH))
    for name in ("mean", "variance", "covariance", "mode", "log_normalizer", "log_normalizer_se"):
        assert torch.equal(getattr(large, name), getattr(d, name).expand(4, *getattr(d, name).shape))
    assert torch.equal(large.ess(), d.ess().expand(4, -1))
    assert large.diagnosis is d.diagnosis
    values = normal(2, 4, BATCH, 2).float()
    torch.testing.assert_close(large.log_prob(values), d.log_prob(values))
    for expanded in (large, large.expand((2, 4, BATCH)), d.expand((1, BATCH))):
        draws = expanded.sample((300,))
        assert draws.shape == (300, *expanded.batch_shape, 2)
        pooled = draws.reshape(-1, BATCH, 2)
        assert ((pooled.mean(0) - d.mean).abs() / d.variance.sqrt()).max() < 0.35
        assert large.sample().shape == (4, BATCH, 2)


def test_an_axis_of_length_one_expands_to_conditions_of_their_own():
    d = conditional_of(MODELS["l2"], PRIORS["normal"][0], batch=1)
    large = d.expand((3,))
    assert large.sample((2,)).shape == (2, 3, 2)
    assert torch.equal(large.mean, d.mean.expand(3, -1))
    assert not torch.equal(large.sample()[0], large.sample()[1])


def test_a_single_label_gives_a_distribution_without_batch_axes():
    model = pcl.BimodalModel(pcl.encoders.MLP(2, 4), pcl.encoders.Label(3, 4))
    nu = model.u_given_v(PRIORS["normal"][0], IMPORTANCE)
    one, three = nu.condition(torch.tensor(1)), nu.condition(torch.arange(3))
    assert (one.batch_shape, one.sample().shape, one.sample((2, 5)).shape) == ((), (2,), (2, 5, 2))
    assert one.mean.shape == one.mode.shape == (2,)
    assert one.covariance.shape == (2, 2)
    assert one.log_prob(torch.zeros(4, 2)).shape == (4,)
    torch.testing.assert_close(one.log_normalizer, three.log_normalizer[1])


def test_the_other_direction_is_its_mirror():
    model = MODELS["l2"]
    mirror = pcl.BimodalModel(model.encoder_v, model.encoder_u, model.alignment)
    ours = mirror.v_given_u(PRIORS["normal"][0], IMPORTANCE).condition(context())
    theirs = conditional_of(model, PRIORS["normal"][0])
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.log_normalizer, theirs.log_normalizer)


def test_it_survives_pickling_and_copying():
    d = conditional_of(MODELS["l2"], PRIORS["normal"][0], AutoSampler())
    values, mean = d.sample((2,)), d.mean
    for same in (pickle.loads(pickle.dumps(d)), copy.deepcopy(d)):
        assert torch.equal(same.mean, mean)
        assert torch.equal(same.log_prob(values), d.log_prob(values))
        assert same.sample((3,)).shape == (3, BATCH, 2)


def test_the_density_is_differentiable_in_the_value_and_leaves_the_model_alone():
    model = model_of(2, pcl.L2()).double()
    prior = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    d = model.u_given_v(prior, IMPORTANCE).condition(context().double())
    values = normal(BATCH, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: d.log_prob(u), (values,), fast_mode=True)
    d.log_prob(values).sum().backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_model_s_dropout_and_learned_temperature_do_not_show():
    encoder = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5)).train()
    model = pcl.BimodalModel(encoder, pcl.encoders.Linear(N_V, 4), pcl.L2(), learn_temperature=True)
    d = conditional_of(model, PRIORS["normal"][0])
    values = torch.zeros(2, BATCH, 2)
    assert torch.equal(d.log_prob(values), d.log_prob(values))
    assert not d.log_normalizer.requires_grad
    assert not d.log_prob(values).requires_grad
    assert encoder.training
    assert encoder[1].training


def test_values_that_overflow_are_impossible_and_no_error():
    d = conditional_of(linear_model(), PRIORS["normal"][0])
    values = torch.tensor([[3e38, 3e38], [torch.inf, 0.0], [0.0, 0.0]])
    scores = d.conditional.matched_scores(values, d.given)
    assert scores.tolist()[:2] == [-torch.inf, -torch.inf]
    assert scores[2].isfinite()


def test_without_an_evidence_there_is_an_unnormalised_density_only():
    d = conditional_of(MODELS["l2"], PRIORS["normal"][0], NUTS(num_chains=8, warmup=20, max_tree_depth=3), batch=1)
    reference = conditional_of(MODELS["l2"], PRIORS["normal"][0], batch=1)
    values = torch.zeros(1, 2)
    with pytest.raises(NotImplementedError, match=r"NUTS does not estimate the normaliser.*unnormalized_log_prob"):
        d.log_prob(values)
    expected = reference.log_prob(values) + reference.log_normalizer
    torch.testing.assert_close(d.unnormalized_log_prob(values), expected.float())


def test_a_sampler_that_fails_says_so():
    model = linear_model()
    model.temperature.fixed_value = 1e-6
    d = conditional_of(model, PRIORS["normal"][0], ImportanceResampling(1000))
    with pytest.warns(pcl.ProbclWarning, match="importance resampling are not to be trusted for 3 of 3 conditions"):
        assert d.mean.shape == (BATCH, 2)
    assert not d.diagnosis.trusted.any()


@pytest.mark.slow
def test_the_automatic_sampler_says_why_it_chose_and_stays_right_where_the_data_are_sharp():
    model, prior = linear_model(), PRIORS["gaussian"][0]
    model.temperature.fixed_value = 1e-3
    exact, d = routes(model, prior)
    assert "importance resampling" in d.diagnosis.reason
    assert d.diagnosis.trusted.all()
    assert ((d.mean - exact.mean).abs() / exact.variance.sqrt()).max() < 0.2
    assert ((d.log_normalizer - exact.log_normalizer).abs() < 4 * d.log_normalizer_se + 1e-2).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MODELS["l2"].u_given_v(torch.zeros(3)), TypeError, "^prior must be an EmpiricalPrior"),
        (
            lambda: Conditional(MODELS["l2"], PRIORS["normal"][0], "u", NUTS),
            TypeError,
            "^sampler must be 'auto' or a sampler such as",
        ),
        (
            lambda: MODELS["l2"].u_given_v(PRIORS["normal"][0]).condition(torch.full((1, N_V), torch.nan)),
            ValueError,
            "^context must be finite",
        ),
        (
            lambda: conditional_of(MODELS["l2"], PRIORS["normal"][0]).log_ratio(torch.zeros(5, 3)),
            ValueError,
            r"^values must end in the event shape \(2,\)",
        ),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_auto_may_be_asked_for_by_name():
    assert isinstance(Conditional(MODELS["l2"], PRIORS["normal"][0], "u", "auto").sampler, AutoSampler)
