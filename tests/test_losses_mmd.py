"""The MMD losses against their definitions, written out."""

import itertools
import math

import pytest
import torch
from small_models import normal
from torch.nn.functional import one_hot
from torch.testing import assert_close

from probcl import ConditionalMMDLoss, JointMMDLoss, Scores
from probcl.losses import EnergyKernel, GaussianKernel, LaplaceKernel, median_distance


class TestMMD:
    def test_conditional_is_the_mmd_of_every_conditional_to_its_point(self) -> None:
        u, v = normal(6, 2, seed=2), normal(6, 3, seed=3)
        scores, kernel = Scores(normal(6, 3), normal(6, 3, seed=1)), GaussianKernel(0.9)
        gram, s = kernel(u), scores.matrix()
        total = 0.0
        for j in range(6):
            law = s[:, j].softmax(0)
            signed = law - one_hot(torch.tensor(j), 6)
            total += float(0.5 * signed @ gram @ signed - 0.5 * gram[j, j]) / 6
        found = ConditionalMMDLoss(2, 0, kernel_u=kernel).given(u, v)(scores)
        assert float(found) == pytest.approx(total, rel=1e-12)

    def test_the_energy_kernel_makes_it_the_energy_score(self) -> None:
        u, v, scores = normal(6, 2, seed=2), normal(6, 3, seed=3), Scores(normal(6, 3), normal(6, 3, seed=1))
        distances, s = torch.cdist(u, u), scores.matrix()
        laws = s.softmax(0)
        scored = sum(laws[:, j] @ distances[:, j] - 0.5 * laws[:, j] @ distances @ laws[:, j] for j in range(6)) / 6
        constant = 1.5 * (u - u.mean(0)).norm(dim=1).mean()
        found = ConditionalMMDLoss(2, 0, kernel_u=EnergyKernel()).given(u, v)(scores)
        assert_close(found, scored - constant, rtol=1e-12, atol=1e-12)

    def test_joint_is_the_double_sum_over_pairs(self) -> None:
        u, v, n = normal(4, 2, seed=2), normal(4, 3, seed=3), 4
        scores, kernel = Scores(normal(n, 3), normal(n, 3, seed=1)), LaplaceKernel(1.1)
        p, of_u, of_v = scores.matrix().flatten().softmax(0).view(n, n), kernel(u), kernel(v)
        indices = list(itertools.product(range(n), repeat=2))
        own = sum(p[i, j] * p[k, m] * of_u[i, k] * of_v[j, m] for i, j in indices for k, m in indices)
        cross = sum(p[i, j] * of_u[i, k] * of_v[j, k] for i, j in indices for k in range(n)) / n
        assert_close(JointMMDLoss(kernel, kernel).given(u, v)(scores), own - 2 * cross)

    @pytest.mark.parametrize("kernel", [GaussianKernel(), LaplaceKernel(), EnergyKernel()])
    def test_kernels_are_positive_definite_take_any_shape_and_no_gradient(self, kernel) -> None:
        x = normal(8, 2, 3).requires_grad_()
        gram = kernel(x)
        assert not gram.requires_grad
        assert torch.linalg.eigvalsh(gram).min() > 0
        assert_close(gram, kernel(x.flatten(1)))
        assert kernel(torch.arange(5)).dtype == torch.float32
        shifted = kernel(x + 10)
        assert_close(shifted, gram)

    def test_the_bandwidth_is_the_median_distance(self) -> None:
        x = torch.tensor([[0.0], [1.0], [3.0]])
        assert median_distance(x) == 2.0
        assert median_distance(torch.ones(4, 2)) == 1.0
        assert_close(GaussianKernel()(x), GaussianKernel(2.0)(x))
        assert_close(LaplaceKernel(2.0)(x)[0, 1], torch.tensor(math.exp(-0.5)))

    def test_needs_the_pairs(self) -> None:
        scores = Scores(normal(5, 2), normal(5, 2))
        for loss in (ConditionalMMDLoss(), JointMMDLoss()):
            with pytest.raises(ValueError, match=r"needs the pairs themselves: loss.given\(u, v\)\(scores\)"):
                loss(scores)
            with pytest.raises(ValueError, match="the loss must be given the 5 pairs of the scores, got 4"):
                loss.given(normal(4, 2), normal(4, 2))(scores)
            assert loss.pairs is None
