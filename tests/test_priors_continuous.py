import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine
from scipy.stats import kstest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from small_models import normal
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from probcl.priors import DecoderPrior, DistributionPrior, EmpiricalPrior, GaussianPrior, ModelPrior, Prior, as_prior


def covariance(n: int, seed: int = 0) -> Tensor:
    root = normal(n, n, seed=seed)
    return root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)


def low_rank(shape: tuple[int, ...] = (2, 3), rank: int = 2) -> GaussianPrior:
    return GaussianPrior.from_scale(normal(*shape, seed=1), normal(math.prod(shape), rank, seed=2))


# GaussianPrior


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_dense_gaussian_prior_has_the_density_of_the_normal_law(n):
    mean, C, u = normal(n, seed=1), covariance(n), normal(4, 5, n, seed=2)
    prior = GaussianPrior(mean, C)
    torch.testing.assert_close(prior.log_prob(u), dist.MultivariateNormal(mean, C).log_prob(u))
    torch.testing.assert_close(prior.covariance, C)


def test_draws_of_a_gaussian_prior_have_its_moments():
    prior = GaussianPrior(normal(2, 2, seed=3), covariance(4))
    draws = prior.sample((40_000,))
    assert draws.shape == (40_000, 2, 2)
    flat = draws.reshape(-1, 4)
    assert (flat.mean(0) - prior.mean.reshape(-1)).abs().max() < 5 * (prior.covariance.diagonal() / 40_000).sqrt().max()
    torch.testing.assert_close(flat.mT.cov(), prior.covariance, rtol=0.05, atol=0.02)


def test_a_diagonal_is_added_to_a_low_rank_covariance():
    scale, diagonal, mean = normal(5, 2), torch.arange(1.0, 6.0, dtype=torch.float64), normal(5, seed=1)
    prior = GaussianPrior.from_scale(mean, scale, diagonal)
    torch.testing.assert_close(prior.covariance, scale @ scale.mT + diagonal.diag())
    u = normal(3, 5, seed=4)
    torch.testing.assert_close(prior.log_prob(u), dist.LowRankMultivariateNormal(mean, scale, diagonal).log_prob(u))


def test_the_density_keeps_its_digits_where_squaring_the_scale_would_lose_them():
    scale = torch.tensor([[1.0, 0.0], [1.0, 1e-6]], dtype=torch.float32)
    density = GaussianPrior.from_scale(torch.zeros(2), scale).log_prob(scale @ torch.tensor([0.3, -0.7]))
    expected = -0.5 * (0.3**2 + 0.7**2) - math.log(2 * math.pi) - math.log(1e-6)
    assert float(density) == pytest.approx(expected, abs=0.02)  # of u rounded to float32


def test_whitening_undoes_decoding_and_projects_what_is_off_the_subspace():
    prior = low_rank()
    x = normal(4, 7, 2, seed=5)
    u = prior.decode(x)
    assert u.shape == (4, 7, 2, 3)
    torch.testing.assert_close(prior.whiten(u), x)
    off = torch.linalg.qr(prior.scale, mode="complete").Q[:, -1].reshape(2, 3)
    torch.testing.assert_close(prior.whiten(u + off), x)


def test_a_prior_on_a_subspace_has_no_density():
    with pytest.raises(NotImplementedError, match="rank 2 in 6 dimensions has no density; use log_ratio"):
        low_rank().log_prob(normal(3, 2, 3))
    singular = GaussianPrior.from_scale(normal(3), normal(3, 1, seed=1), torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(NotImplementedError, match="rank 2 in 3 dimensions"):
        singular.log_prob(normal(3))


@given(st.integers(1, 4), st.integers(5, 12), st.integers(0, 5))
def test_eofs_are_scikit_learn_s_principal_components(rank, count, seed):
    data = normal(count, 2, 3, seed=seed) * torch.arange(1.0, 4.0)
    prior = GaussianPrior.fit(data, rank=rank)
    pca = PCA(rank).fit(data.reshape(count, -1).numpy())
    torch.testing.assert_close(prior.mean.reshape(-1), torch.from_numpy(pca.mean_))
    expected = torch.from_numpy(pca.components_.T * pca.explained_variance_ @ pca.components_)
    torch.testing.assert_close(prior.covariance, expected)
    torch.testing.assert_close(prior.scale.square().sum(0), torch.from_numpy(pca.explained_variance_))


def test_whitened_training_data_have_unit_covariance():
    data = normal(50, 6) @ normal(6, 6, seed=1)
    x = GaussianPrior.fit(data, rank=3).whiten(data)
    torch.testing.assert_close(x.mT.cov(), torch.eye(3, dtype=torch.float64))


def test_all_eofs_are_the_sample_covariance_with_its_density():
    data = normal(50, 4) @ normal(4, 4, seed=1)
    prior = GaussianPrior.fit(data, rank=4)
    torch.testing.assert_close(prior.covariance, data.mT.cov())
    law = dist.MultivariateNormal(data.mean(0), data.mT.cov())
    torch.testing.assert_close(prior.log_prob(data), law.log_prob(data))


@pytest.mark.parametrize("count", [5, 200])
def test_a_dense_fit_is_scikit_learn_s_ledoit_wolf(count):
    data = normal(count, 8) @ normal(8, 8, seed=1) + 3
    prior = GaussianPrior.fit(data.float())
    assert prior.scale.dtype == torch.float32
    reference = LedoitWolf().fit(data.float().numpy())
    torch.testing.assert_close(
        prior.covariance.double(), torch.from_numpy(reference.covariance_).double(), rtol=1e-4, atol=1e-4
    )


def test_a_fit_without_shrinkage_is_the_sample_covariance():
    data = normal(40, 2, 2)
    prior = GaussianPrior.fit(data, shrink=False)
    torch.testing.assert_close(prior.covariance, data.reshape(40, 4).mT.cov(correction=0))
    assert prior.event_shape == (2, 2)


# DistributionPrior

CONTINUOUS = {
    "normal": dist.Normal(torch.zeros(3), 2.0),
    "scalar": dist.Normal(0.0, 2.0),
    "torch's own": torch.distributions.Normal(torch.zeros(3), 2.0),
    "torch's own vector": torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "uniform": dist.Uniform(-torch.ones(2), torch.tensor([1.0, 3.0])),
    "gamma": dist.Gamma(torch.tensor([2.0, 3.0]), 1.5),
    "beta": dist.Beta(torch.tensor([2.0]), 1.5),
    "log-normal": dist.LogNormal(torch.zeros(2), 0.5).to_event(1),
    "half-cauchy": dist.HalfCauchy(torch.ones(2)),
    "student": dist.StudentT(4.0, torch.zeros(2), 1.0),
    "laplace": dist.Laplace(torch.zeros(2, 3), 1.0).to_event(2),
    "von mises": dist.VonMises(torch.zeros(2), 3.0),
    "dirichlet": dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
    "lkj": dist.LKJCholesky(3, torch.tensor(2.0)),
    "multivariate normal": dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "mixture": dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([-2.0, 2.0]), 0.5)),
    "mixture of vectors": dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.MultivariateNormal(torch.tensor([[-2.0, 0], [2.0, 0]]), torch.eye(2))
    ),
    "mixtures": dist.MixtureSameFamily(
        dist.Categorical(torch.ones(3, 2)), dist.Gamma(torch.full((3, 2), 2.0), torch.tensor([1.0, 4.0]))
    ),
    "transformed": dist.TransformedDistribution(
        dist.Normal(torch.zeros(2), 1.0), [dist.transforms.SigmoidTransform(), dist.transforms.AffineTransform(1, 2)]
    ),
}
every_distribution = pytest.mark.parametrize("law", CONTINUOUS.values(), ids=CONTINUOUS)


@every_distribution
def test_a_distribution_is_a_prior_of_one_event_with_its_draws_and_density(law):
    prior = as_prior(law)
    assert isinstance(prior, DistributionPrior)
    assert prior.event_shape == law.batch_shape + law.event_shape
    assert prior.latent.batch_shape == ()
    u = prior.sample((7, 2))
    assert u.shape == (7, 2, *prior.event_shape)
    assert prior.log_prob(u).shape == (7, 2)
    torch.testing.assert_close(prior.log_prob(u), law.log_prob(u).reshape(7, 2, -1).sum(-1))
    assert prior.decode(u) is u


@every_distribution
def test_the_support_of_a_distribution_can_be_mapped_to_the_reals(law):
    prior = as_prior(law)
    u = prior.sample((20,))
    assert prior.support.check(u).all()
    assert prior.support.check(u).shape == (20,)
    bijection = biject_to(prior.support)
    torch.testing.assert_close(bijection(bijection.inv(u)), u, rtol=1e-3, atol=1e-3)


@every_distribution
def test_a_distribution_as_a_prior_survives_pickling(law):
    prior = as_prior(law)
    u = prior.sample((3,))
    assert torch.equal(pickle.loads(pickle.dumps(prior)).log_prob(u), prior.log_prob(u))


# DecoderPrior


def decoder() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Dropout(), nn.Unflatten(1, (2, 3)))


def test_a_decoder_prior_decodes_draws_of_its_latent_law_in_any_batch_shape():
    network = decoder()
    prior = DecoderPrior(network, dist.Normal(torch.zeros(2), 1.0))
    assert prior.event_shape == (2, 3)
    z = normal(4, 5, 2, dtype=torch.float32)
    expected = torch.tanh(network[0](z.reshape(20, 2))).reshape(4, 5, 2, 3)
    torch.testing.assert_close(prior.decode(z), expected)
    assert prior.sample((4,)).shape == (4, 2, 3)
    assert prior.sample().shape == (2, 3)
    with pytest.raises(NotImplementedError, match="no density that is known; use log_ratio"):
        prior.log_prob(prior.sample((4,)))


def test_a_decoder_is_used_in_evaluation_mode_and_left_as_it_was():
    network = decoder().train()
    prior = DecoderPrior(network, dist.Normal(torch.zeros(2), 1.0))
    z = normal(4, 2, dtype=torch.float32)
    assert torch.equal(prior.decode(z), prior.decode(z))
    assert network.training
    assert network[2].training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_decoding_is_differentiable_in_the_latent_variable_and_leaves_the_decoder_s_gradients_alone():
    network = decoder()
    prior = DecoderPrior(network, dist.Normal(torch.zeros(2), 1.0))
    z = normal(4, 2, dtype=torch.float32).requires_grad_()
    prior.decode(z).sum().backward()
    slope = 1 - torch.tanh(network[0](z.detach())).square()
    torch.testing.assert_close(z.grad, slope @ network[0].weight.detach())
    assert network[0].weight.grad is None


# ModelPrior

CONCENTRATION = torch.tensor([2.0, 3.0], dtype=torch.float64)


def single():
    return pyro.sample("u", dist.Gamma(CONCENTRATION, 1.5).to_event(1))


def undeclared_batch():
    return pyro.sample("u", dist.LogNormal(torch.zeros(3), 0.5))


def hierarchical():
    m = pyro.sample("m", dist.Normal(1.0, 2.0))
    s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
    with pyro.plate("components", 3):
        return pyro.sample("u", dist.Normal(m, s))


def nested_plates():
    s = pyro.sample("s", dist.Exponential(2.0))
    with pyro.plate("rows", 2, dim=-2):
        row = pyro.sample("row", dist.Normal(0.0, s))
        with pyro.plate("columns", 4, dim=-1):
            return pyro.sample("u", dist.Normal(row, 0.3))


def left_plate():
    with pyro.plate("rows", 3, dim=-2):
        return pyro.sample("u", dist.Normal(0.5, 2.0))


def plate_of_vectors():
    w = pyro.sample("w", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    with pyro.plate("rows", 2):
        return pyro.sample("u", dist.Dirichlet(10 * w))


def deterministic():
    amplitude = pyro.sample("amplitude", dist.HalfNormal(1.0))
    phase = pyro.sample("phase", dist.Uniform(-math.pi, math.pi))
    x = torch.linspace(0, 1, 5)
    return pyro.deterministic("u", amplitude[..., None] * torch.sin(6 * x + phase[..., None]))


def moving_support():
    b = pyro.sample("b", dist.LogNormal(0.0, 1.0))
    return pyro.sample("u", dist.Uniform(-b, b))


def sequential_plate():
    parts = [pyro.sample(f"part {i}", dist.Normal(float(i), 1.0)) for i in pyro.plate("parts", 2)]
    return pyro.deterministic("u", torch.stack(parts, dim=-1))


MODELS = [
    single,
    undeclared_batch,
    hierarchical,
    nested_plates,
    left_plate,
    plate_of_vectors,
    deterministic,
    moving_support,
    sequential_plate,
]
every_model = pytest.mark.parametrize("model", MODELS)


def log_joint(model, values: dict[str, Tensor]) -> Tensor:
    """Log density of one run of a model in Pyro, without batches."""
    return poutine.trace(poutine.condition(model, values)).get_trace().log_prob_sum()


def one_run(model) -> dict[str, Tensor]:
    nodes = poutine.trace(model).get_trace().nodes
    return {k: n["value"] for k, n in nodes.items() if n["type"] == "sample" and not poutine.util.site_is_subsample(n)}


@every_model
def test_vectorised_draws_have_the_law_of_single_runs(model):
    prior = ModelPrior(model, "u")
    many = prior.sample((2000,))
    assert many.shape == (2000, *one_run(model)["u"].shape)
    single_runs = torch.stack([one_run(model)["u"] for _ in range(500)])
    for ours, theirs in zip(many.reshape(2000, -1).T, single_runs.reshape(500, -1).T, strict=True):
        assert kstest(ours.numpy(), theirs.numpy()).pvalue > 1e-4


@every_model
def test_the_latent_density_is_pyro_s_of_the_constrained_values_and_the_jacobian(model):
    prior = ModelPrior(model, "u")
    z = prior.latent.sample((3, 2))
    assert prior.latent.log_prob(z).shape == (3, 2)
    for row in z.reshape(6, -1)[:3]:
        nodes, _ = prior.latent.run(row[None])
        values = {name: nodes[name]["value"].reshape(site.shape) for name, site in prior.latent.sites.items()}
        supports = {
            name: node["fn"].support
            for name, node in poutine.trace(poutine.condition(model, values)).get_trace().nodes.items()
            if name in values
        }
        free = {name: biject_to(supports[name]).inv(value) for name, value in values.items()}
        jacobian = sum(
            biject_to(supports[name]).log_abs_det_jacobian(free[name], values[name]).sum() for name in values
        )
        torch.testing.assert_close(
            prior.latent.log_prob(row), log_joint(model, values) + jacobian, rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(torch.cat([x.reshape(-1) for x in free.values()]), row, rtol=1e-3, atol=1e-3)


def test_a_hierarchical_prior_has_the_density_written_by_hand():
    prior = ModelPrior(hierarchical, "u")
    z = prior.latent.sample((50,)).double()
    m, log_s, u = z[:, 0], z[:, 1], z[:, 2:]
    expected = (
        dist.Normal(1.0, 2.0).log_prob(m)
        + dist.Normal(0.0, 0.5).log_prob(log_s)  # of s, LogNormal, with the Jacobian of s = e^{log s}
        + dist.Normal(m[:, None], log_s.exp()[:, None]).log_prob(u).sum(1)
    )
    torch.testing.assert_close(prior.latent.log_prob(z), expected)
    torch.testing.assert_close(prior.decode(z), u)


def test_a_support_that_depends_on_another_site_moves_with_it():
    prior = ModelPrior(moving_support, "u")
    z = torch.tensor([[0.0, 1.5], [3.0, -2.0]])  # log b, and the logit of (u + b) / 2b
    b, share = z[:, 0].exp(), torch.sigmoid(z[:, 1])
    torch.testing.assert_close(prior.decode(z), (2 * share - 1) * b)
    expected = dist.Normal(0.0, 1.0).log_prob(z[:, 0]) + (share * (1 - share)).log()
    torch.testing.assert_close(prior.latent.log_prob(z), expected)


@pytest.mark.parametrize(
    ("model", "law"),
    [
        (single, dist.Gamma(CONCENTRATION, 1.5).to_event(1)),
        (undeclared_batch, dist.LogNormal(torch.zeros(3), 0.5).to_event(1)),
        (left_plate, dist.Normal(torch.full((3, 1), 0.5), 2.0).to_event(2)),
    ],
)
def test_a_site_of_its_own_has_a_density_and_a_support(model, law):
    prior = ModelPrior(model, "u")
    u = law.sample((4, 2))
    torch.testing.assert_close(prior.log_prob(u), law.log_prob(u))
    assert prior.support.check(u).shape == (4, 2)
    assert prior.support.check(u).all()
    assert bool(prior.support.check(-u).all()) == (law.support.base_constraint is constraints.real)


@pytest.mark.parametrize("model", [hierarchical, deterministic])
def test_a_site_among_others_has_no_density_of_its_own(model):
    prior = ModelPrior(model, "u")
    with pytest.raises(NotImplementedError, match="integrated out is not known"):
        prior.log_prob(prior.sample((3,)))


@every_model
def test_decoding_and_the_latent_density_are_differentiable(model):
    prior = ModelPrior(model, "u")
    z = prior.latent.sample((3,)).double().requires_grad_()
    assert torch.autograd.gradcheck(prior.latent.log_prob, (z,), atol=1e-4, rtol=1e-3)
    assert torch.autograd.gradcheck(prior.decode, (z,), atol=1e-4, rtol=1e-3)


def test_a_model_runs_as_if_alone_within_another_pyro_program():
    prior = ModelPrior(hierarchical, "u")

    def program():
        with pyro.plate("outer", 5), pyro.plate("middle", 2):
            return pyro.sample("z", prior.latent)

    trace = poutine.trace(program).get_trace()
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    assert z.shape == (2, 5, 5)
    assert set(trace.nodes) == {"_INPUT", "_RETURN", "outer", "middle", "z"}
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], prior.latent.log_prob(z))


def test_a_model_prior_survives_pickling():
    prior = ModelPrior(hierarchical, "u")
    z = prior.latent.sample((3,))
    assert torch.equal(pickle.loads(pickle.dumps(prior)).latent.log_prob(z), prior.latent.log_prob(z))


# All of them


@pytest.mark.parametrize(
    "make",
    [
        lambda _: GaussianPrior(normal(2), covariance(2)),
        lambda network: DecoderPrior(network, dist.Normal(torch.zeros(2), 1.0)),
        lambda _: DistributionPrior(dist.Normal(torch.zeros(2), 1.0)),
        lambda _: ModelPrior(hierarchical, "u"),
    ],
    ids=["gaussian", "decoder", "distribution", "model"],
)
def test_making_a_prior_draws_none_of_the_caller_s_random_numbers(make):
    network = decoder()
    before = torch.get_rng_state()
    make(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_as_prior_returns_priors_as_they_are():
    for prior in (low_rank(), EmpiricalPrior(normal(3, 2)), ModelPrior(single, "u")):
        assert as_prior(prior) is prior
    assert issubclass(GaussianPrior, Prior)


def test_priors_tell_what_they_are():
    assert repr(low_rank()) == "GaussianPrior(event_shape=(2, 3), rank=2)"
    assert repr(ModelPrior(hierarchical, "u")) == "ModelPrior(hierarchical, site='u')"
    assert repr(as_prior(dist.Normal(torch.zeros(3), 1.0))).startswith("DistributionPrior(Independent(")
    assert repr(DecoderPrior(decoder(), dist.Normal(torch.zeros(2), 1.0))).startswith(
        "DecoderPrior(Sequential, latent="
    )


def observed():
    pyro.sample("u", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


def discrete():
    k = pyro.sample("k", dist.Bernoulli(0.5))
    pyro.sample("u", dist.Normal(k, 1.0))


def nothing():
    return pyro.deterministic("u", torch.zeros(3))


def subsampled():
    with pyro.plate("rows", 10, subsample_size=3):
        return pyro.sample("u", dist.Normal(0.0, 1.0))


def mean_over_all_draws():
    x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    return pyro.deterministic("u", x - x.mean())


def stacked_from_the_left():
    a, b = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("b", dist.Normal(0.0, 1.0))
    return pyro.deterministic("u", torch.stack([a, b]))


def noise_outside_of_sites():
    return pyro.deterministic("u", pyro.sample("x", dist.Normal(0.0, 1.0)) + torch.randn(()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GaussianPrior([0.0], torch.eye(1)), TypeError, r"^mean must be a torch.Tensor"),
        (lambda: GaussianPrior(torch.arange(2), torch.eye(2)), TypeError, r"^mean must be of a floating-point type"),
        (lambda: GaussianPrior(torch.zeros(2), torch.eye(3)), ValueError, r"^covariance must have shape \(2, 2\)"),
        (
            lambda: GaussianPrior(torch.zeros(1), torch.full((1, 1), torch.nan)),
            ValueError,
            r"^covariance must be finite",
        ),
        (lambda: GaussianPrior(torch.zeros(2), torch.tensor([[1, 0.5], [0, 1]])), ValueError, r"must be symmetric"),
        (lambda: GaussianPrior(torch.zeros(2), torch.ones(2, 2)), ValueError, r"positive definite.*from_scale"),
        (lambda: GaussianPrior.from_scale(torch.zeros(2), torch.ones(3, 1)), ValueError, r"^scale must have one row"),
        (lambda: GaussianPrior.from_scale(torch.zeros(2), torch.ones(2)), ValueError, r"^scale must have one row"),
        (lambda: GaussianPrior.from_scale(torch.zeros(2), torch.ones(2, 0)), ValueError, r"^scale must have one row"),
        (
            lambda: GaussianPrior.from_scale(torch.zeros(2), torch.ones(2, 1), torch.tensor([1.0, -1])),
            ValueError,
            r"^diagonal must be 2 non-negative",
        ),
        (lambda: GaussianPrior.fit(torch.zeros(1, 3)), ValueError, r"^data must have at least two rows"),
        (lambda: GaussianPrior.fit(torch.arange(6).reshape(3, 2)), TypeError, r"^data must be of a floating-point"),
        (lambda: GaussianPrior.fit(normal(5, 3), rank=4), ValueError, r"^rank must be at most 3"),
        (lambda: GaussianPrior.fit(normal(3, 5), rank=3), ValueError, r"^rank must be at most 2"),
        (lambda: GaussianPrior.fit(normal(3, 5), rank=0), ValueError, r"^rank must be at least 1"),
        (lambda: as_prior(dist.Categorical(torch.ones(3))), ValueError, r"^prior must be continuous.*EmpiricalPrior"),
        (lambda: as_prior(dist.Poisson(torch.ones(3)).to_event(1)), ValueError, r"^prior must be continuous"),
        (lambda: as_prior(dist.Normal(torch.zeros(2, 3), 1.0)), ValueError, r"batch axes.*to_event.*\(2, 3\)"),
        (
            lambda: as_prior(dist.MultivariateNormal(torch.zeros(4, 2), torch.eye(2))),
            ValueError,
            r"batch_shape \(4,\) and event_shape \(2,\)",
        ),
        (lambda: as_prior(torch.zeros(3)), TypeError, r"^prior must be an EmpiricalPrior.*\(3,\)"),
        (lambda: DecoderPrior(torch.tanh, dist.Normal(0.0, 1.0)), TypeError, r"^decoder must be a torch.nn.Module"),
        (
            lambda: DecoderPrior(nn.Flatten(0), dist.Normal(torch.zeros(3), 1.0)),
            ValueError,
            r"^decoder must map \(n, \*latent\).*\(6,\) for n = 2",
        ),
        (
            lambda: DecoderPrior(nn.Identity(), dist.Poisson(torch.ones(3))),
            ValueError,
            r"must be continuous",
        ),
        (lambda: ModelPrior(single, "w"), ValueError, r"^site must be one of the model's \['u'\], got 'w'"),
        (lambda: ModelPrior(observed, "u"), ValueError, r"must not have observed sites, got 'y'"),
        (lambda: ModelPrior(discrete, "u"), ValueError, r"sites must be continuous, got 'k'"),
        (lambda: ModelPrior(nothing, "u"), ValueError, r"must have a latent site"),
        (lambda: ModelPrior(subsampled, "u"), ValueError, r"plates must not subsample, got 'rows'"),
        (lambda: ModelPrior(mean_over_all_draws, "u"), ValueError, r"must be vectorised.*differs from one by one"),
        (lambda: ModelPrior(stacked_from_the_left, "u"), ValueError, r"must be vectorised.*shape \(2, 1\)"),
        (lambda: ModelPrior(noise_outside_of_sites, "u"), ValueError, r"differs from one by one"),
    ],
)
def test_bad_priors_are_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
