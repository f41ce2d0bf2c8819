import math

import numpy as np
import pytest
import torch
from gaussian_cases import C_2D, normal, random_covariance
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import seeded
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from probcl import gaussian


def random_score(n_u: int, n_v: int, C: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A, B, C_ with indefinite B and C_ and a normalisable joint: whitened spectral norms below 0.45."""
    generator = seeded(seed)
    law = gaussian.learned_law(C, n_u, torch.zeros(n_u, n_v, dtype=torch.float64))
    W_u, W_v = law.whitening.inverse_root_u, law.whitening.inverse_root_v
    A, B, C_ = normal(generator, n_u, n_v), normal(generator, n_u, n_u), normal(generator, n_v, n_v)
    A, B, C_ = (0.45 * M / torch.linalg.matrix_norm(M, 2) for M in (A, B + B.T, C_ + C_.T))
    return W_u @ A @ W_v, W_u @ B @ W_u, W_v @ C_ @ W_v


@given(n_u=st.integers(1, 4), n_v=st.integers(1, 4), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_joint_loss_exceeds_conditional_loss_by_half_the_divergences_of_the_marginals(n_u, n_v, seed):
    C, _ = random_covariance(n_u, n_v, seed)
    score = random_score(n_u, n_v, C, seed)
    law = gaussian.learned_law(C, n_u, *score)

    def kl(truth: Tensor, learned: Tensor) -> float:
        mean = torch.zeros(len(truth), dtype=torch.float64)
        return float(kl_divergence(MultivariateNormal(mean, truth), MultivariateNormal(mean, learned)))

    kl_u, kl_v = kl(C[:n_u, :n_u], law.cov_u), kl(C[n_u:, n_u:], law.cov_v)
    kl_joint = kl(C, law.covariance)
    gap = gaussian.joint_loss(C, n_u, *score) - gaussian.conditional_loss(C, n_u, *score)
    assert gap >= 0
    assert float(gap) == pytest.approx(0.5 * (kl_u + kl_v), abs=1e-9)
    assert float(gaussian.joint_divergence(C, n_u, *score)) == pytest.approx(kl_joint, abs=1e-9)
    # The chain rule: KL(μ‖ν) = KL(μ_v‖ν_v) + E_v KL(μ_{u|v}‖ν_{u|v}).
    for weights, expected in [((2.0, 0.0), kl_joint - kl_v), ((0.0, 2.0), kl_joint - kl_u)]:
        divergence = gaussian.conditional_divergence(C, n_u, *score, *weights)
        assert float(divergence) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_population_losses_agree_with_gauss_hermite_quadrature(seed):
    C, _ = random_covariance(1, 1, seed)
    A, B, C_ = (float(x) for x in random_score(1, 1, C, seed))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    L = np.linalg.cholesky(C.numpy())
    u, v = np.sqrt(float(C[0, 0])) * nodes, np.sqrt(float(C[1, 1])) * nodes

    def score(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return A * u * v - 0.5 * B * u**2 - 0.5 * C_ * v**2

    x, y = np.meshgrid(nodes, nodes, indexing="ij")
    mean_score = weights @ score(L[0, 0] * x, L[1, 0] * x + L[1, 1] * y) @ weights
    tilt = np.exp(score(u[:, None], v[None, :]))
    log_u, log_v = weights @ np.log(weights @ tilt), weights @ np.log(tilt @ weights)
    log_joint = np.log(weights @ tilt @ weights)

    tensors = [torch.full((1, 1), x, dtype=torch.float64) for x in (A, B, C_)]
    for lambda_u, lambda_v in [(1.0, 1.0), (2.0, 0.0), (0.0, 2.0), (0.3, 1.9)]:
        expected = -0.5 * (lambda_u + lambda_v) * mean_score + 0.5 * lambda_u * log_u + 0.5 * lambda_v * log_v
        computed = gaussian.conditional_loss(C, 1, *tensors, lambda_u, lambda_v)
        assert float(computed) == pytest.approx(expected, abs=1e-8)
    assert float(gaussian.joint_loss(C, 1, *tensors)) == pytest.approx(log_joint - mean_score, abs=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_learned_law_agrees_with_integration_on_a_grid(seed):
    C, _ = random_covariance(1, 1, seed)
    A, B, C_ = random_score(1, 1, C, seed)
    law = gaussian.learned_law(C, 1, A, B, C_)
    grid = torch.linspace(-30, 30, 2401, dtype=torch.float64)
    u, v = grid[:, None] * C[0, 0].sqrt(), grid[None, :] * C[1, 1].sqrt()
    log_density = A * u * v - 0.5 * B * u**2 - 0.5 * C_ * v**2 - 0.5 * grid[:, None] ** 2 - 0.5 * grid**2
    nu = torch.softmax(log_density.flatten(), 0).reshape(log_density.shape)
    torch.testing.assert_close((nu * u * v).sum(), law.cross_cov.squeeze())
    torch.testing.assert_close((nu * u**2).sum(), law.cov_u.squeeze())
    torch.testing.assert_close((nu * v**2).sum(), law.cov_v.squeeze())

    i, j = 1260, 1140  # grid points ±1.5
    u_given_v, v_given_u = torch.softmax(log_density[:, j], 0), torch.softmax(log_density[i], 0)
    for p, x, at, slope, variance in [
        (u_given_v, u[:, 0], v[0, j], law.mean_map_u_given_v, law.cov_u_given_v),
        (v_given_u, v[0], u[i, 0], law.mean_map_v_given_u, law.cov_v_given_u),
    ]:
        mean = (p * x).sum()
        torch.testing.assert_close(mean, slope.squeeze() * at)
        torch.testing.assert_close((p * (x - mean) ** 2).sum(), variance.squeeze())


def test_one_sided_losses_fit_one_conditional_and_average_to_the_two_sided_loss():
    C, _ = random_covariance(2, 3)
    A, B, C_ = random_score(2, 3, C, seed=0)
    u_only, v_only = (gaussian.conditional_loss(C, 2, A, B, C_, *w) for w in [(2.0, 0.0), (0.0, 2.0)])
    torch.testing.assert_close(gaussian.conditional_loss(C, 2, A, B, C_), 0.5 * (u_only + v_only))
    # (2, 0) fits u|v: it sees neither what depends on v alone nor whether ν(v|u) exists.
    far_too_negative = -2 * torch.linalg.inv(C[2:, 2:])
    assert gaussian.conditional_loss(C, 2, A, B, far_too_negative, 2.0, 0.0) == u_only
    assert gaussian.conditional_loss(C, 2, A, B, far_too_negative, 0.0, 2.0) == math.inf
    assert gaussian.conditional_loss(C, 2, A, B, far_too_negative) == math.inf


def test_conditionals_exist_where_the_joint_does_not():
    A = torch.tensor([[1.0]], dtype=torch.float64)  # whitened 1.5: beyond what the joint can bear
    law = gaussian.learned_law(C_2D, 1, A)
    assert not law.normalisable
    assert float(law.mean_map_u_given_v) == pytest.approx(1.5)
    assert math.isfinite(gaussian.conditional_loss(C_2D, 1, A))
    assert gaussian.joint_loss(C_2D, 1, A) == math.inf
    for name in ("covariance", "cov_u", "cov_v", "cross_cov"):
        with pytest.raises(ValueError, match="joint tilt"):
            getattr(law, name)
    without_u = gaussian.learned_law(C_2D, 1, A, B=-A)
    with pytest.raises(ValueError, match=r"ν\(u\|v\)"):
        without_u.cov_u_given_v  # noqa: B018
    assert float(without_u.cov_v_given_u) == pytest.approx(1.5)


def test_losses_are_differentiable_in_the_score():
    C, _ = random_covariance(2, 3)
    score = tuple(x.requires_grad_() for x in random_score(2, 3, C, seed=0))
    assert torch.autograd.gradcheck(lambda *s: gaussian.conditional_loss(C, 2, *s, 0.3, 1.9), score)
    assert torch.autograd.gradcheck(lambda *s: gaussian.joint_loss(C, 2, *s), score)
    diverged = gaussian.joint_loss(C, 2, 100 * score[0])
    diverged.backward()
    assert diverged == math.inf
    assert not score[0].grad.any()


def test_only_the_symmetric_parts_of_quadratic_terms_matter():
    C, _ = random_covariance(2, 2)
    A, B, C_ = random_score(2, 2, C, seed=0)
    skew = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    expected = gaussian.joint_loss(C, 2, A, B, C_)
    torch.testing.assert_close(gaussian.joint_loss(C, 2, A, B + skew, C_ - skew), expected)
