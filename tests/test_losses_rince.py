"""RINCE against the statements of its paper (LOSSES.md d)."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from small_models import normal
from test_losses import scores_of_table
from torch.testing import assert_close

from probcl import ConditionalLoss, RINCELoss


class TestRINCE:
    @given(st.integers(2, 9), st.integers(0, 1000), st.floats(0.1, 4))
    def test_q_zero_is_infonce_plus_log_lambda(self, n: int, seed: int, scale: float) -> None:
        scores = scores_of_table(scale * normal(n, n, seed=seed))
        infonce = ConditionalLoss()(scores) + math.log(n)
        assert_close(RINCELoss(0, 0.05)(scores), infonce + math.log(0.05), rtol=1e-12, atol=1e-12)
        assert_close(RINCELoss(0)(scores), ConditionalLoss()(scores), rtol=1e-12, atol=1e-12)

    def test_value_and_gradient_tend_to_infonce(self) -> None:
        table = normal(6, 6).requires_grad_()
        near, limit = (RINCELoss(q)(scores_of_table(table)) for q in (1e-12, 0))
        assert abs(near - limit) < 1e-10
        difference = torch.autograd.grad(near, table)[0] - torch.autograd.grad(limit, table)[0]
        assert difference.abs().max() < 1e-10

    @given(st.integers(2, 7), st.integers(0, 1000), st.floats(0.01, 1), st.floats(1e-3, 0.2))
    def test_is_the_printed_formula(self, n: int, seed: int, q: float, lam: float) -> None:
        table = normal(n, n, seed=seed)
        e = table.exp()
        rows = -(e.diagonal() ** q) / q + (lam * e.sum(1)) ** q / q
        columns = -(e.diagonal() ** q) / q + (lam * e.sum(0)) ** q / q
        assert_close(RINCELoss(q, lam)(scores_of_table(table)), (rows + columns).mean() / 2, rtol=1e-10, atol=1e-10)
        assert_close(
            RINCELoss(q, lam, lambda_u=0, lambda_v=2)(scores_of_table(table)), rows.mean(), rtol=1e-10, atol=1e-10
        )

    @given(st.integers(2, 7), st.integers(0, 1000))
    def test_q_one_is_linear_in_the_exponentials_and_its_gradient_too(self, n: int, seed: int) -> None:
        table, lam = normal(n, n, seed=seed).requires_grad_(), 0.3 / n
        e = table.exp()
        plain = -(1 - lam) * e.diagonal().sum() / n + lam * (e.sum() - e.diagonal().sum()) / n
        value = RINCELoss(1, lam)(scores_of_table(table))
        assert_close(value, plain, rtol=1e-12, atol=1e-12)
        found, expected = (torch.autograd.grad(part, table)[0] for part in (value, plain))
        assert_close(found, expected, rtol=1e-10, atol=1e-12)

    @given(st.integers(2, 8), st.integers(0, 1000), st.floats(0, 1))
    def test_shuffling_pairs_scales_it_at_q_one_and_changes_nothing_else(self, n: int, seed: int, noise: float) -> None:
        """With λ = 1/n: the mean over all rotations of the partners is zero, as for a loss blind to labels."""
        table, loss = normal(n, n, seed=seed), RINCELoss(1)
        rotated = torch.stack([loss(scores_of_table(table.roll(k, dims=1))) for k in range(n)])
        clean = rotated[0]
        expected_under_noise = (1 - noise) * clean + noise * rotated.mean()
        assert_close(expected_under_noise, (1 - noise) * clean, rtol=1e-12, atol=1e-12)
        infonce = torch.stack([ConditionalLoss()(scores_of_table(table.roll(k, dims=1))) for k in range(n)])
        assert infonce.mean() > 0

    def test_is_below_the_wasserstein_distance_on_200_random_problems(self) -> None:
        """−L ≤ (1 − λ) Lip(e^{qs})/q · W₁(matched, unmatched), λ = 1/n; tight for none, violated by none."""
        generator = np.random.default_rng(5)
        fullest = 0.0
        for problem in range(200):
            n = int(generator.integers(2, 6))
            x, y = generator.normal(size=(n, 2)), generator.normal(size=(n, 2))
            table = generator.uniform(0.2, 2) * torch.tensor(generator.normal(size=(n, n)))
            if problem % 2:  # a score that knows the distance, so that the bound has something to bound
                table = -torch.cdist(torch.tensor(x), torch.tensor(x)) * generator.uniform(0.2, 2)
            q = float(generator.choice([0.25, 0.5, 1.0]))
            points = np.array([[*x[i], *y[j]] for i in range(n) for j in range(n)])
            costs = np.linalg.norm(points[:, None] - points[None], axis=-1)
            matched = np.eye(n).ravel() / n
            unmatched = (1 - np.eye(n)).ravel() / (n * (n - 1))
            values = (q * table).exp().numpy().ravel()
            apart = costs > 0
            lipschitz = (np.abs(values[:, None] - values[None])[apart] / costs[apart]).max()
            bound = (1 - 1 / n) * lipschitz / q * wasserstein(costs, matched, unmatched)
            value = -float(RINCELoss(q, lambda_u=0, lambda_v=2)(scores_of_table(table)))
            assert value <= bound + 1e-9
            fullest = max(fullest, value / bound)
        assert fullest > 0.2


def wasserstein(costs: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    """Optimal transport between laws on the same points, by linear programming."""
    rows, columns = np.flatnonzero(p), np.flatnonzero(q)
    marginals = np.concatenate(
        [np.kron(np.eye(len(rows)), np.ones(len(columns))), np.kron(np.ones(len(rows)), np.eye(len(columns)))]
    )
    result = linprog(
        costs[np.ix_(rows, columns)].ravel(), A_eq=marginals, b_eq=np.concatenate([p[rows], q[columns]]), method="highs"
    )
    assert result.status == 0
    return float(result.fun)
