import math
import pickle

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from gaussian_cases import random_covariance
from pyro.infer import Predictive
from scipy.stats import multivariate_normal, normaltest
from small_models import normal
from torch import Tensor, nn

import probcl as pcl
from probcl.conditional import GaussianConditional, TiltedConditional
from probcl.information import QuadraticFeatures
from probcl.priors import GaussianPrior

F64 = torch.float64
N_U, N_V, WIDTH, BATCH = 3, 2, 4, 5
ALIGNMENTS = {
    "inner": pcl.InnerProduct,
    "l2": pcl.L2,
    "inner with potentials": pcl.WithPotentials,
    "l2 with potentials": lambda: pcl.WithPotentials(pcl.L2(), potential_dim=1),
    "potentials twice": lambda: pcl.WithPotentials(pcl.WithPotentials(), potential_dim=2),
}
every_alignment = pytest.mark.parametrize("alignment", ALIGNMENTS.values(), ids=ALIGNMENTS)


def linear_model(alignment, temperature=1.0, bias=False, target="u", gauge=False) -> pcl.BimodalModel:
    encoder_u, encoder_v = pcl.encoders.Linear(N_U, WIDTH, bias), pcl.encoders.Linear(N_V, WIDTH, bias)
    model = pcl.BimodalModel(encoder_u, encoder_v, alignment(), temperature).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = 0.5 * normal(*parameter.shape, seed=seed)
    if gauge:
        width = N_U if target == "u" else N_V
        return model.regauged(target, pcl.EmpiricalPrior(normal(20, width, seed=50)))
    return model


def prior_of(n: int, rank: int | None = None) -> GaussianPrior:
    scale = normal(n, n if rank is None else rank, seed=11) * 0.8
    mean = normal(n, seed=12)
    return GaussianPrior(mean, scale @ scale.mT) if rank is None else GaussianPrior.from_scale(mean, scale)


def conditional_of(model: pcl.BimodalModel, target: str, prior: GaussianPrior) -> GaussianConditional:
    context = normal(BATCH, N_V if target == "u" else N_U, seed=20)
    nu = model.u_given_v(prior) if target == "u" else model.v_given_u(prior)
    d = nu.condition(context)
    assert isinstance(d, GaussianConditional)
    return d


def score(model: pcl.BimodalModel, target: str, values: Tensor, context: Tensor) -> Tensor:
    """s of all values (rows) with all contexts (columns)."""
    pairs = (values, context) if target == "u" else (context, values)
    matrix = (
        model.scores(*pairs).matrix()
        if model.gauge is None
        else model.scores_of_embeddings(model.embed_u(pairs[0]), model.embed_v(pairs[1])).matrix()
    )
    return (matrix if target == "u" else matrix.mT).detach()


def gaussian_by_quadrature(log_tilt, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-normaliser, mean and covariance of N(0, I) e^{log_tilt} for each column of log_tilt (Gauss-Hermite)."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss({2: 100, 3: 32}[dim]))
    z = torch.cartesian_prod(*[nodes] * dim).reshape(-1, dim)
    log_w = torch.cartesian_prod(*[weights.log()] * dim).reshape(-1, dim).sum(1) - dim / 2 * math.log(2 * math.pi)
    log_p = log_w[:, None] + log_tilt(z)
    p = log_p.softmax(0)
    mean = p.mT @ z
    centred = z[None] - mean[:, None]
    return log_p.logsumexp(0), mean, torch.einsum("bn,bni,bnj->bij", p.mT, centred, centred)


@every_alignment
@pytest.mark.parametrize("target", ["u", "v"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("bias", "gauge"), [(False, False), (True, False), (True, True)])
def test_normaliser_and_moments_are_those_of_quadrature(alignment, target, temperature, bias, gauge):
    model = linear_model(alignment, temperature, bias, target, gauge)
    prior = prior_of(N_U if target == "u" else N_V)
    d = conditional_of(model, target, prior)
    context = normal(BATCH, N_V if target == "u" else N_U, seed=20)
    scale = prior.scale

    def log_tilt(z: Tensor) -> Tensor:
        return score(model, target, prior.decode(z), context)

    log_normalizer, mean, covariance = gaussian_by_quadrature(log_tilt, scale.shape[1])
    torch.testing.assert_close(d.log_normalizer, log_normalizer, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(d.latent_mean, mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d.latent_precision, torch.linalg.inv(covariance), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d.mean, prior.decode(mean), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d.covariance, scale @ covariance @ scale.mT, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d.variance, d.covariance.diagonal(dim1=1, dim2=2))
    assert torch.equal(d.mode, d.mean)


@every_alignment
@pytest.mark.parametrize("target", ["u", "v"])
def test_the_density_is_the_prior_times_the_tilt_over_the_normaliser_and_that_of_a_normal_law(alignment, target):
    model = linear_model(alignment, 0.8, bias=True)
    n = N_U if target == "u" else N_V
    prior = prior_of(n)
    d = conditional_of(model, target, prior)
    context, values = normal(BATCH, N_V if target == "u" else N_U, seed=20), normal(7, BATCH, n, seed=21)
    tilts = torch.stack([score(model, target, row, context).diagonal() for row in values])
    torch.testing.assert_close(d.log_ratio(values), tilts - d.log_normalizer)
    torch.testing.assert_close(d.log_prob(values), prior.log_prob(values) + tilts - d.log_normalizer)
    expected = dist.MultivariateNormal(d.mean, d.covariance).log_prob(values)
    torch.testing.assert_close(d.log_prob(values), expected)


@pytest.mark.parametrize(("n_u", "n_v"), [(1, 1), (2, 3), (4, 2), (8, 8)])
@pytest.mark.parametrize(
    ("name", "alignment", "loss"),
    [
        ("inner", pcl.InnerProduct, "conditional"),
        ("inner", pcl.InnerProduct, "joint"),
        ("l2", pcl.L2, "u|v"),
        ("l2", pcl.L2, "conditional"),
        ("potentials", pcl.WithPotentials, "conditional"),
    ],
)
def test_the_optimum_of_the_gaussian_theory_has_the_conditionals_the_oracle_says(n_u, n_v, name, alignment, loss):
    C, _ = random_covariance(n_u, n_v)
    best = pcl.gaussian.optimum(C, n_u, min(n_u, n_v), name, loss)
    weights = [(best.encoder_u, best.potential_u), (best.encoder_v, best.potential_v)]
    model = pcl.BimodalModel(*[pcl.encoders.Linear(n, 1) for n in (n_u, n_v)], alignment()).double()
    for encoder, (g, k) in zip((model.encoder_u, model.encoder_v), weights, strict=True):
        encoder.weight.data = torch.cat([g, k]) if name == "potentials" else g
    u, v = normal(4, n_u), normal(4, n_v)
    prior_u, prior_v = (
        GaussianPrior(torch.zeros(n_u, dtype=F64), C[:n_u, :n_u]),
        GaussianPrior(torch.zeros(n_v, dtype=F64), C[n_u:, n_u:]),
    )
    u_given_v, v_given_u = model.u_given_v(prior_u).condition(v), model.v_given_u(prior_v).condition(u)
    close = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(u_given_v.mean, v @ best.law.mean_map_u_given_v.mT, **close)
    torch.testing.assert_close(u_given_v.covariance[0], best.law.cov_u_given_v, **close)
    torch.testing.assert_close(v_given_u.mean, u @ best.law.mean_map_v_given_u.mT, **close)
    torch.testing.assert_close(v_given_u.covariance[-1], best.law.cov_v_given_u, **close)


def test_draws_are_independent_normals_of_mean_and_covariance():
    d = conditional_of(linear_model(pcl.L2), "u", prior_of(N_U))
    draws = d.sample((8000,))
    assert draws.shape == (8000, BATCH, N_U)
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(d.covariance), (draws - d.mean)[..., None], upper=False
    )[..., 0]
    flat = whitened.flatten(1)  # all conditions at once: they are independent, too
    assert flat.mean(0).abs().max() < 4.5 / 8000**0.5
    assert (flat.mT.cov() - torch.eye(flat.shape[1])).abs().max() < 4.5 * 2**0.5 / 8000**0.5
    assert (torch.tensor(normaltest(flat.numpy()).pvalue) > 1e-4).all()


def test_draws_of_a_covariance_for_each_condition_have_it():
    prior = prior_of(N_U)
    model = pcl.BimodalModel(QuadraticFeatures.of(prior), nn.Identity())
    roots = normal(4, N_U, N_U)
    information = torch.cat([3 * normal(4, N_U), (roots @ roots.mT).flatten(1)], dim=1)
    d = model.u_given_v(prior).condition(information)
    draws = d.sample((20_000,)).movedim(0, 1)
    for b in range(4):
        torch.testing.assert_close(
            draws[b].mean(0), d.mean[b], rtol=0, atol=5 * float(d.variance[b].max() / 20_000) ** 0.5
        )
        torch.testing.assert_close(draws[b].mT.cov(), d.covariance[b], rtol=0, atol=0.05 * float(d.variance[b].max()))


def test_it_is_the_bayesian_posterior_when_the_score_is_the_log_likelihood():
    """v = H u + e, e ~ N(0, R): s = ⟨Hu, R⁻¹v⟩ − ½|R^{-½}Hu|² + f(v), an inner product with potentials."""
    H, R, prior = normal(N_V, N_U, seed=5), torch.diag(torch.tensor([0.5, 2.0], dtype=F64)), prior_of(N_U)
    model = pcl.BimodalModel(pcl.encoders.Linear(N_U, 4), pcl.encoders.Linear(N_V, 4), pcl.WithPotentials()).double()
    model.encoder_u.weight.data = torch.cat([H, R.sqrt().inverse() @ H])
    model.encoder_v.weight.data = torch.cat([R.inverse(), torch.zeros(2, N_V, dtype=F64)])
    v = normal(6, N_V, seed=6)
    d = model.u_given_v(prior).condition(v)
    gain = prior.covariance @ H.mT @ (H @ prior.covariance @ H.mT + R).inverse()
    torch.testing.assert_close(d.mean, prior.mean + (v - H @ prior.mean) @ gain.mT)
    torch.testing.assert_close(d.covariance[0], prior.covariance - gain @ H @ prior.covariance)
    # The evidence is that of Bayes' rule, up to the factor of v that the score leaves out.
    evidence = torch.from_numpy(
        multivariate_normal((H @ prior.mean).numpy(), (H @ prior.covariance @ H.mT + R).numpy()).logpdf(v)
    )
    white = torch.from_numpy(multivariate_normal([0, 0], R.numpy()).logpdf(v))
    torch.testing.assert_close(d.log_normalizer, evidence - white)


@every_alignment
def test_a_prior_on_eofs_gives_conditionals_on_their_span(alignment):
    prior = prior_of(N_U, rank=2)
    model = linear_model(alignment, 0.7, bias=True)
    d = conditional_of(model, "u", prior)

    def log_tilt(z: Tensor) -> Tensor:
        return score(model, "u", prior.decode(z), normal(BATCH, N_V, seed=20))

    log_normalizer, mean, covariance = gaussian_by_quadrature(log_tilt, 2)
    torch.testing.assert_close(d.log_normalizer, log_normalizer)
    torch.testing.assert_close(d.mean, prior.decode(mean))
    torch.testing.assert_close(d.covariance, prior.scale @ covariance @ prior.scale.mT)
    draws = d.sample((10,))
    torch.testing.assert_close(prior.decode(prior.whiten(draws)), draws)
    assert torch.linalg.matrix_rank(d.covariance[0]) == 2
    assert d.log_ratio(draws).shape == (10, BATCH)
    for refused in (lambda: d.log_prob(draws), d.entropy):
        with pytest.raises(NotImplementedError, match="rank 2 in 3 dimensions has no density"):
            refused()


def test_more_latent_variables_than_components_change_nothing():
    scale, diagonal, mean = normal(N_U, 2), torch.rand(N_U, dtype=F64) + 0.1, normal(N_U, seed=1)
    wide = GaussianPrior.from_scale(mean, scale, diagonal)
    dense = GaussianPrior(mean, scale @ scale.mT + diagonal.diag())
    ours, theirs = (conditional_of(linear_model(pcl.L2), "u", prior) for prior in (wide, dense))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.covariance, theirs.covariance)
    torch.testing.assert_close(ours.log_normalizer, theirs.log_normalizer)
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


@pytest.mark.parametrize(
    "prior", [prior_of(N_U), GaussianPrior.from_scale(normal(N_U), normal(N_U, 2), torch.ones(N_U, dtype=F64))]
)
def test_entropy_is_that_of_the_normal_law_of_u(prior):
    d = conditional_of(linear_model(pcl.L2, 0.5), "u", prior)
    torch.testing.assert_close(d.entropy(), dist.MultivariateNormal(d.mean, d.covariance).entropy())


def information_model(prior: GaussianPrior) -> pcl.BimodalModel:
    return pcl.BimodalModel(QuadraticFeatures.of(prior), nn.Identity(), temperature=0.9).double()


def information(batch: int, k: int) -> Tensor:
    roots = normal(batch, k, k, seed=31)
    return torch.cat([normal(batch, k, seed=30), 0.3 * (roots @ roots.mT).flatten(1)], dim=1)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("target", ["u", "v"])
def test_the_information_form_is_that_of_quadrature_also_under_another_prior(own, target):
    learned_with = prior_of(N_U)
    prior = (
        learned_with
        if own
        else GaussianPrior(normal(N_U, seed=33), 0.5 * learned_with.covariance + 0.1 * torch.eye(N_U))
    )
    model, context = information_model(learned_with), information(BATCH, N_U)
    if target == "v":
        model = pcl.BimodalModel(model.encoder_v, model.encoder_u, temperature=0.9)
    d = (model.u_given_v(prior) if target == "u" else model.v_given_u(prior)).condition(context)
    assert isinstance(d, GaussianConditional)
    log_normalizer, mean, covariance = gaussian_by_quadrature(
        lambda z: score(model, target, prior.decode(z), context), N_U
    )
    torch.testing.assert_close(d.log_normalizer, log_normalizer, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d.mean, prior.decode(mean), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.covariance, prior.scale @ covariance @ prior.scale.mT, rtol=1e-4, atol=1e-5)
    values = normal(6, BATCH, N_U)
    torch.testing.assert_close(d.log_prob(values), dist.MultivariateNormal(d.mean, d.covariance).log_prob(values))


def test_only_the_symmetric_part_of_the_information_counts():
    prior, context = prior_of(N_U), information(BATCH, N_U)
    skew = normal(N_U, N_U)
    twisted = context.clone()
    twisted[:, N_U:] += 5 * (skew - skew.mT).flatten()
    ours, theirs = (information_model(prior).u_given_v(prior).condition(v) for v in (twisted, context))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.covariance, theirs.covariance)


@pytest.mark.parametrize("own", [True, False])
def test_a_large_batch_in_parts_is_the_same_as_at_once(own, monkeypatch):
    learned_with = prior_of(N_U)
    prior = learned_with if own else prior_of(N_U, rank=2)
    nu, context = information_model(learned_with).u_given_v(prior), information(BATCH, N_U)
    at_once = nu.condition(context)
    monkeypatch.setattr("probcl.conditional.gaussian._ENTRIES_AT_ONCE", 2 * N_U**2)
    in_parts = nu.condition(context)
    for name in ("latent_mean", "latent_precision", "log_normalizer", "covariance"):
        torch.testing.assert_close(getattr(in_parts, name), getattr(at_once, name))


def test_the_precision_matrices_are_not_formed_before_they_are_asked_for():
    prior = prior_of(N_U)
    d = information_model(prior).u_given_v(prior).condition(information(BATCH, N_U))
    d.sample()
    held = {value.data_ptr() for value in vars(d).values() if isinstance(value, Tensor) and value.shape[-2:] == (3, 3)}
    assert held == {d._factor.data_ptr()}
    torch.testing.assert_close(torch.linalg.inv(d.latent_precision), _latent_covariance(d))


def _latent_covariance(d: GaussianConditional) -> Tensor:
    whitener = d.prior.whitener
    return whitener @ d.covariance @ whitener.mT


def test_information_that_is_not_positive_is_refused():
    prior, context = prior_of(N_U), information(BATCH, N_U)
    context[1, N_U:] = -3 * torch.eye(N_U).flatten()
    with pytest.raises(ValueError, match=r"I \+ Λ\(v\) must be positive definite, and is not for 1 of 5 v"):
        information_model(prior).u_given_v(prior).condition(context)


def test_without_an_encoder_the_embedding_is_u_itself():
    prior, context = prior_of(WIDTH), normal(BATCH, N_V)
    encoder_v = pcl.encoders.Linear(N_V, WIDTH).double()
    identity, linear = pcl.encoders.Identity(), pcl.encoders.Linear(WIDTH, WIDTH).double()
    linear.weight.data = torch.eye(WIDTH, dtype=F64)
    ours, theirs = (
        pcl.BimodalModel(encoder, encoder_v, pcl.L2()).u_given_v(prior).condition(context)
        for encoder in (identity, linear)
    )
    assert isinstance(ours, GaussianConditional)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.log_normalizer, theirs.log_normalizer)


class Halved(pcl.encoders.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


@pytest.mark.parametrize(
    ("model", "prior"),
    [
        (pcl.BimodalModel(pcl.encoders.MLP(N_U, 4), pcl.encoders.Linear(N_V, 4)), prior_of(N_U)),
        (pcl.BimodalModel(Halved(N_U, 4), pcl.encoders.Linear(N_V, 4)), prior_of(N_U)),
        (linear_model(pcl.Cosine), prior_of(N_U)),
        (linear_model(lambda: pcl.WithPotentials(pcl.Cosine())), prior_of(N_U)),
        (linear_model(pcl.InnerProduct), dist.StudentT(4.0, torch.zeros(N_U))),
    ],
    ids=["nonlinear", "subclass", "cosine", "cosine with potentials", "another prior"],
)
def test_other_conditionals_are_drawn_by_a_sampler(model, prior):
    assert isinstance(model.double().u_given_v(prior).condition(normal(2, N_V)), TiltedConditional)


def test_a_gauge_over_the_other_side_is_not_quadratic():
    model = linear_model(pcl.InnerProduct).regauged("v", pcl.EmpiricalPrior(normal(20, N_V)))
    assert isinstance(model.u_given_v(prior_of(N_U)).condition(normal(2, N_V)), TiltedConditional)
    assert isinstance(model.v_given_u(prior_of(N_V)).condition(normal(2, N_U)), GaussianConditional)


# A TorchDistribution


def test_expanding_shares_everything_and_broadcasts():
    for d in (
        conditional_of(linear_model(pcl.L2), "u", prior_of(N_U)),
        information_model(prior_of(N_U)).u_given_v(prior_of(N_U)).condition(information(BATCH, N_U)),
    ):
        large = d.expand((7, BATCH))
        assert (large.batch_shape, large.event_shape) == ((7, BATCH), (N_U,))
        for name in ("mean", "variance", "covariance", "latent_mean", "latent_precision", "log_normalizer"):
            ours, theirs = getattr(large, name), getattr(d, name)
            assert ours.shape == (7, *theirs.shape)
            torch.testing.assert_close(ours, theirs.expand(ours.shape))
        torch.testing.assert_close(large.entropy(), d.entropy().expand(7, BATCH))
        values = normal(2, 7, BATCH, N_U)
        torch.testing.assert_close(large.log_prob(values), d.log_prob(values))
        draws = large.expand((3, 7, BATCH)).sample((400,))
        assert draws.shape == (400, 3, 7, BATCH, N_U)
        z = (draws.flatten(0, 2) - d.mean) / d.variance.sqrt()
        assert z.mean(0).abs().max() < 5 / 8400**0.5
        assert (z.var(0) - 1).abs().max() < 5 * (2 / 8400) ** 0.5


def test_axes_of_length_one_expand():
    prior = prior_of(N_U)
    d = information_model(prior).u_given_v(prior).condition(information(1, N_U)).expand((6,))
    draws = d.sample((4000,))
    assert draws.shape == (4000, 6, N_U)
    assert (draws.mean(0) - d.mean).abs().max() < 5 * (d.variance.max() / 4000) ** 0.5


def test_a_single_label_gives_a_distribution_without_batch_axes():
    model = pcl.BimodalModel(pcl.encoders.Linear(N_U, 4), pcl.encoders.Label(3, 4), pcl.L2()).double()
    prior = prior_of(N_U)
    one, three = (model.u_given_v(prior).condition(v) for v in (torch.tensor(1), torch.arange(3)))
    assert (one.batch_shape, one.sample().shape, one.sample((2,)).shape) == ((), (N_U,), (2, N_U))
    torch.testing.assert_close(one.mean, three.mean[1])
    torch.testing.assert_close(one.log_prob(normal(4, N_U)), three.log_prob(normal(4, 1, N_U))[:, 1])
    assert one.covariance.shape == (N_U, N_U)


def test_events_may_have_several_axes_in_the_information_form():
    prior = GaussianPrior(normal(2, 3), prior_of(6).covariance)
    d = information_model(prior).u_given_v(prior).condition(information(BATCH, 6))
    assert d.sample((4,)).shape == (4, BATCH, 2, 3)
    assert d.mean.shape == d.variance.shape == (BATCH, 2, 3)
    assert d.covariance.shape == (BATCH, 6, 6)
    values = normal(4, BATCH, 2, 3)
    flat = dist.MultivariateNormal(d.mean.flatten(1), d.covariance).log_prob(values.flatten(2))
    torch.testing.assert_close(d.log_prob(values), flat)


def test_it_survives_pickling():
    d = conditional_of(linear_model(pcl.L2), "u", prior_of(N_U))
    copy, values = pickle.loads(pickle.dumps(d)), normal(4, BATCH, N_U)
    assert torch.equal(copy.log_prob(values), d.log_prob(values))
    torch.manual_seed(1)
    ours = copy.sample((3,))
    torch.manual_seed(1)
    assert torch.equal(ours, d.sample((3,)))


def test_the_density_is_differentiable_in_the_value():
    d = conditional_of(linear_model(pcl.L2, bias=True), "u", prior_of(N_U))
    values = normal(2, BATCH, N_U).requires_grad_()
    (gradient,) = torch.autograd.grad(d.log_prob(values).sum(), values)
    expected = -torch.linalg.solve(d.covariance, (values.detach() - d.mean)[..., None])[..., 0]
    torch.testing.assert_close(gradient, expected)
    assert all(parameter.grad is None for parameter in d.conditional.parameters())


@pytest.mark.parametrize("alignment", [pcl.L2, pcl.WithPotentials])
def test_draws_are_differentiable_in_the_prior_and_in_the_embeddings(alignment):
    model, rank = linear_model(alignment), 2
    given = normal(BATCH, WIDTH, seed=40).requires_grad_()
    mean, scale = normal(N_U, seed=41).requires_grad_(), normal(N_U, rank, seed=42).requires_grad_()

    def draw(given: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        nu = model.u_given_v(GaussianPrior.from_scale(mean, scale))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return GaussianConditional(nu, given).rsample((2,))

    assert torch.autograd.gradcheck(draw, (given, mean, scale), fast_mode=True)


def test_nothing_it_returns_carries_gradients_of_the_model():
    model = pcl.BimodalModel(
        pcl.encoders.Linear(N_U, 4), pcl.encoders.Linear(N_V, 4), pcl.L2(), temperature=0.5, learn_temperature=True
    )
    prior = GaussianPrior(torch.zeros(N_U), torch.eye(N_U))
    d = model.u_given_v(prior).condition(torch.zeros(2, N_V))
    for value in (d.mean, d.covariance, d.log_normalizer, d.entropy(), d.rsample(), d.log_prob(torch.zeros(2, N_U))):
        assert not value.requires_grad
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_prior_s_precision_is_that_of_the_draws_and_may_differ_from_the_model_s():
    model = linear_model(pcl.L2)
    reference = conditional_of(model, "u", prior_of(N_U))
    for model_dtype, prior_dtype in ((torch.float32, F64), (F64, torch.float32), (torch.float32, torch.float32)):
        prior = prior_of(N_U)
        prior = GaussianPrior(prior.mean.to(prior_dtype), prior.covariance.to(prior_dtype))
        d = conditional_of(model.to(model_dtype), "u", prior)
        assert d.sample().dtype == d.mean.dtype == d.variance.dtype == prior_dtype
        torch.testing.assert_close(d.mean.double(), reference.mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            d.log_prob(reference.mean.to(prior_dtype)).double(),
            reference.log_prob(reference.mean),
            rtol=1e-3,
            atol=1e-3,
        )
    model.double()


def test_precision_holds_where_the_data_are_sharp():
    """τ = 1e-6: the posterior is a million times sharper than the prior, in float32."""
    model = linear_model(pcl.L2, temperature=1e-6)
    sharp = conditional_of(model, "u", prior_of(N_U))
    prior = GaussianPrior(prior_of(N_U).mean.float(), prior_of(N_U).covariance.float())
    d = conditional_of(model.float(), "u", prior)
    torch.testing.assert_close(d.mean.double(), sharp.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(d.covariance.double(), sharp.covariance, rtol=1e-2, atol=1e-9)


def test_in_a_pyro_model_it_is_a_prior_like_any_other():
    d = conditional_of(linear_model(pcl.L2), "u", prior_of(N_U))

    def program():
        with pyro.plate("conditions", BATCH):
            u = pyro.sample("u", d)
            pyro.sample("y", dist.Normal(u.sum(-1), 0.1))

    draws = Predictive(program, num_samples=2000, parallel=True)()
    assert draws["u"].shape == (2000, BATCH, N_U)
    variance = d.covariance.sum((1, 2)) + 0.01
    assert (draws["y"].mean(0) - d.mean.sum(-1)).abs().max() < 5 * (variance.max() / 2000) ** 0.5
    torch.testing.assert_close(draws["y"].var(0), variance, rtol=0.2, atol=0)


def test_the_variance_of_a_large_field_needs_no_covariance_matrix():
    """40,000 grid points: their covariance would be 12 GB."""
    n, k = 40_000, 3
    prior = GaussianPrior.from_scale(torch.zeros(n), torch.randn(n, k) / k**0.5)
    model = pcl.BimodalModel(QuadraticFeatures.of(prior), nn.Identity())
    d = model.u_given_v(prior).condition(information(2, k).float())
    expected = torch.einsum("nk,bkl,nl->bn", prior.scale, torch.linalg.inv(d.latent_precision), prior.scale)
    torch.testing.assert_close(d.variance, expected, rtol=1e-3, atol=1e-5)
    assert d.sample((2,)).shape == (2, 2, n)
