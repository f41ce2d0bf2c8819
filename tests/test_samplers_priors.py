"""Priors that are not Gaussian: conjugate pairs, whose posteriors and evidences are textbook formulas."""

import math

import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from small_models import seeded
from tilted_cases import F64, evidence_errors, target_of
from torch import Tensor

from probcl.samplers import HMC, NUTS, AutoSampler, Hamiltonian, ImportanceResampling, Sampler, Target, TemperedSMC

COUNT = 1000
FAST = {
    "importance": ImportanceResampling(20_000),
    "smc": TemperedSMC(),
    "smc with gradients": TemperedSMC(move=Hamiltonian()),
    "auto": AutoSampler(),
}
CHAINS = {"nuts": NUTS(num_chains=10, warmup=150), "hmc": HMC(num_chains=10, warmup=150, num_draws=400)}
every_sampler = pytest.mark.parametrize(
    "sampler",
    [pytest.param(sampler, id=name) for name, sampler in FAST.items()]
    + [pytest.param(sampler, id=name, marks=pytest.mark.slow) for name, sampler in CHAINS.items()],
)


def assert_follows(draws: Tensor, law: object, ess: float) -> None:
    """Kolmogorov-Smirnov at the 0.1% level, for as many draws as are effective."""
    kept = draws[: int(min(ess, len(draws)) / 2)].numpy()
    assert scipy.stats.kstest(kept, law.cdf).pvalue > 1e-3


@every_sampler
def test_gamma_prior_of_a_poisson_rate(sampler: Sampler):
    """Gamma(a, b) tilted by k log z − n z is Gamma(a + k, b + n)."""
    a, b = 2.0, 1.0
    counts = torch.tensor([[3.0, 2.0], [0.0, 1.0], [25.0, 4.0]], dtype=F64)
    prior = dist.Gamma(torch.tensor(a, dtype=F64), b)
    target = target_of(prior, lambda z, v: v[:, 0] * z.log() - v[:, 1] * z, counts)
    draws = sampler.draw(target, COUNT, seed=0)
    assert draws.z.shape == (COUNT, 3)
    assert draws.trusted.all()
    k, n = counts.T
    for i in range(3):
        assert_follows(draws.z[:, i], scipy.stats.gamma(a + float(k[i]), scale=1 / (b + float(n[i]))), draws.ess[i])
    if draws.log_evidence is not None:
        exact = a * math.log(b) - math.lgamma(a) + torch.lgamma(a + k) - (a + k) * (b + n).log()
        assert (evidence_errors(draws, exact) < 3).all()


@every_sampler
def test_box_prior_of_binomial_probabilities(sampler: Sampler):
    """U(0, 1)² tilted by Σ_j k_j log z_j + (n − k_j) log(1 − z_j) is a product of Beta(1 + k_j, 1 + n − k_j)."""
    n = 6.0
    successes = torch.tensor([[1.0, 6.0], [3.0, 3.0]], dtype=F64)
    prior = dist.Uniform(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64)).to_event(1)
    target = target_of(prior, lambda z, v: (v * z.log() + (n - v) * (-z).log1p()).sum(-1), successes)
    draws = sampler.draw(target, COUNT, seed=0)
    assert draws.trusted.all()
    assert ((draws.z > 0) & (draws.z < 1)).all()
    for i in range(2):
        for j in range(2):
            k = float(successes[i, j])
            assert_follows(draws.z[:, i, j], scipy.stats.beta(1 + k, 1 + n - k), draws.ess[i])
    if draws.log_evidence is not None:
        exact = (torch.lgamma(1 + successes) + torch.lgamma(1 + n - successes) - math.lgamma(n + 2)).sum(-1)
        assert (evidence_errors(draws, exact) < 3).all()


@every_sampler
def test_dirichlet_prior_of_category_probabilities(sampler: Sampler):
    """Dir(α) tilted by Σ_j n_j log z_j is Dir(α + n)."""
    alpha = torch.tensor([1.0, 2.0, 1.5], dtype=F64)
    counts = torch.tensor([[0.0, 0.0, 0.0], [5.0, 1.0, 2.0]], dtype=F64)
    target = target_of(dist.Dirichlet(alpha), lambda z, v: (v * z.log()).sum(-1), counts)
    draws = sampler.draw(target, COUNT, seed=0)
    assert draws.trusted.all()
    assert torch.allclose(draws.z.sum(-1), torch.ones((), dtype=F64))
    posterior = alpha + counts
    for i in range(2):
        for j in range(3):
            rest = float(posterior[i].sum() - posterior[i, j])
            assert_follows(draws.z[:, i, j], scipy.stats.beta(float(posterior[i, j]), rest), draws.ess[i])
    if draws.log_evidence is not None:

        def log_beta(a: Tensor) -> Tensor:
            return torch.lgamma(a).sum(-1) - torch.lgamma(a.sum(-1))

        assert (evidence_errors(draws, log_beta(posterior) - log_beta(alpha)) < 3).all()


@every_sampler
def test_mixture_prior_with_a_gaussian_tilt_is_a_mixture(sampler: Sampler):
    target, weights, means, deviation, log_evidence = gaussian_mixture()
    draws = sampler.draw(target, COUNT, seed=0)
    assert draws.trusted.all()
    for i in range(target.batch_size):
        for j in range(2):
            law = _Mixture(weights[i], means[i, :, j], deviation)
            assert_follows(draws.z[:, i, j], law, draws.ess[i])
    if draws.log_evidence is not None:
        assert (evidence_errors(draws, log_evidence) < 3).all()


def gaussian_mixture() -> tuple[Target, Tensor, Tensor, float, Tensor]:
    """Σ_k w_k N(m_k, I) on the plane tilted by −½λ|z − y|²: component k has mean (m_k + λy)/(1+λ), variance 1/(1+λ)
    and weight ∝ w_k (1+λ)^{-1} exp(−½ |y − m_k|² λ/(1+λ)).
    """
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    means = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.5]], dtype=F64)
    y = torch.tensor([[0.0, 0.0], [-1.0, 0.5]], dtype=F64)
    strength = 1.5
    prior = dist.MixtureSameFamily(
        dist.Categorical(weights), dist.Normal(means, torch.ones(3, 2, dtype=F64)).to_event(1)
    )
    target = target_of(prior, lambda z, v: -0.5 * strength * (z - v).square().sum(-1), y)
    shrunk = 1 / (1 + strength)
    distances = (y[:, None] - means).square().sum(-1)
    log_parts = weights.log() + math.log(shrunk) - 0.5 * strength * shrunk * distances
    centres = shrunk * (means + strength * y[:, None])
    return target, log_parts.softmax(-1), centres, math.sqrt(shrunk), log_parts.logsumexp(-1)


class _Mixture:
    def __init__(self, weights: Tensor, means: Tensor, deviation: float) -> None:
        self.weights, self.law = weights.numpy(), scipy.stats.norm(means.numpy(), deviation)

    def cdf(self, x):
        return self.law.cdf(x[:, None]) @ self.weights


def test_a_matrix_valued_latent_keeps_its_shape():
    """N(0, 1) on 2 × 3 matrices, its trace-like projection observed: only that direction changes."""
    direction = torch.randn(2, 3, generator=seeded(), dtype=F64)
    direction = direction / direction.norm()
    prior = dist.Normal(torch.zeros(2, 3, dtype=F64), 1.0).to_event(2)
    y = torch.tensor([[-1.0], [2.0]], dtype=F64)
    target = target_of(prior, lambda z, v: -0.5 * 3 * ((z * direction).sum((-1, -2)) - v[:, 0]).square(), y)
    draws = TemperedSMC().draw(target, COUNT, seed=0)
    assert draws.z.shape == (COUNT, 2, 2, 3)
    along = (draws.z * direction).sum((-1, -2))
    assert torch.allclose(along.mean(0), 0.75 * y[:, 0], atol=0.06)
    assert torch.allclose(along.var(0), torch.tensor(0.25, dtype=F64), rtol=0.15)
    rest = draws.z - along[..., None, None] * direction
    assert torch.allclose(rest.square().sum((-1, -2)).mean(0), torch.tensor(5.0, dtype=F64), rtol=0.06)
