"""The losses against the theorems of the papers they come from (LOSSES.md a, c, d)."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import ALLOWED, DIVERGENCES, OF_VON_MISES_FISHER, f_micl
from scipy.integrate import quad
from scipy.stats import vonmises_fisher
from small_models import normal, seeded
from test_losses import scores_of_table
from torch import Tensor
from torch.nn.functional import one_hot
from torch.testing import assert_close

from probcl import (
    L2,
    ConditionalLoss,
    ConditionalMMDLoss,
    FGaussian,
    InnerProduct,
    JointMMDLoss,
    RINCELoss,
    Scores,
    SigmoidLoss,
    SpectralLoss,
)
from probcl.losses import EnergyKernel, GaussianKernel, Identifies, LaplaceKernel

F64 = torch.float64


def hessian_of(function, at: Tensor) -> Tensor:
    return torch.autograd.functional.hessian(function, at)


class TestSpectralClustering:
    """InfoNCE is the cross-entropy of random graphs in which every node has one out-edge (Tan et al. 2024)."""

    @staticmethod
    def cross_entropy(similarity: Tensor, log_kernel: Tensor, loops: bool) -> float:
        """−Σ_W P_π(W) log P_K(W), graph by graph: node i picks one j, P_K(W) ∝ Π_i K(i, j_i)."""
        n, m = similarity.shape
        choices = [[j for j in range(m) if loops or j != i] for i in range(n)]
        graphs = torch.tensor(list(itertools.product(*choices)))
        rows = torch.arange(n)
        weights, logs = similarity[rows, graphs].prod(1), log_kernel[rows, graphs].sum(1)
        return float(-(weights * (logs - logs.logsumexp(0))).sum())

    def test_one_modality_all_graphs_infonce_and_the_trace_agree(self) -> None:
        tau, z = 0.6, normal(5, 3)
        similarity = (2 * normal(5, 5, seed=1)).masked_fill(torch.eye(5, dtype=torch.bool), -torch.inf).softmax(1)
        scores = Scores(z, z, L2(), tau)
        brute = self.cross_entropy(similarity, scores.matrix(), loops=False)
        normalisers = scores.logsumexp(dim=1, diagonal=False).sum()
        infonce = normalisers - (similarity * scores.matrix()).sum()
        symmetric = (similarity + similarity.mT) / 2
        laplacian = symmetric.sum(1).diag() - symmetric
        trace = (z.mT @ laplacian @ z).trace() / tau + normalisers
        assert float(infonce) == pytest.approx(brute, abs=1e-10)
        assert float(trace) == pytest.approx(brute, abs=1e-10)

    @pytest.mark.parametrize("weights", [(1, 1), (2, 0), (0, 2)])
    def test_two_modalities_all_bipartite_graphs_are_the_conditional_loss(self, weights: tuple[int, int]) -> None:
        n, tau = 4, 0.8
        scores = Scores(normal(n, 3), normal(n, 3, seed=1), L2(), tau)
        pairs, logs = torch.eye(n, dtype=F64), scores.matrix()
        of_u, of_v = (self.cross_entropy(pairs, k, loops=True) for k in (logs.mT, logs))
        expected = (weights[0] * of_u + weights[1] * of_v) / (2 * n)
        assert float(ConditionalLoss(*weights)(scores)) + math.log(n) == pytest.approx(expected, abs=1e-10)

    def test_the_curvature_at_collapse_is_the_laplacian_less_that_of_the_complete_graph(self) -> None:
        n, tau = 6, 0.7
        symmetric = normal(n, n).exp().fill_diagonal_(0)
        symmetric = symmetric + symmetric.mT

        def loss(z: Tensor) -> Tensor:
            scores = Scores(z[:, None], z[:, None], L2(), tau)
            return scores.logsumexp(dim=1, diagonal=False).sum() - (symmetric * scores.matrix()).sum()

        laplacian = symmetric.sum(1).diag() - symmetric
        complete = n / (n - 1) * (torch.eye(n, dtype=F64) - 1 / n)
        found = hessian_of(loss, torch.zeros(n, dtype=F64))
        assert (found - 2 / tau * (laplacian - complete)).abs().max() < 1e-9


class TestFMICL:
    KAPPA, DIM = 4.0, 8

    def marginal(self, t: float) -> float:
        """Density of the cosine of two independent uniform directions, but for its constant."""
        return (1 - t * t) ** ((self.DIM - 3) / 2)

    @property
    def log_constant(self) -> float:
        """log C of the density ratio C e^{κt} of a von Mises-Fisher pair."""
        mass = quad(self.marginal, -1, 1)[0]
        return math.log(mass / quad(lambda t: self.marginal(t) * math.exp(self.KAPPA * t), -1, 1)[0])

    @pytest.mark.parametrize("name", ALLOWED)
    def test_on_a_von_mises_fisher_pair_it_is_the_f_mutual_information(self, name: str) -> None:
        divergence, shift, mass = ALLOWED[name], self.log_constant, quad(self.marginal, -1, 1)[0]

        def integrand(t: float) -> float:
            return float(divergence.f(torch.tensor(shift + self.KAPPA * t, dtype=F64))) * self.marginal(t) / mass

        exact = quad(integrand, -1, 1)[0]
        assert exact == pytest.approx(OF_VON_MISES_FISHER[name], abs=6e-5)

    @pytest.mark.slow
    def test_the_true_score_reaches_it_and_others_do_not(self) -> None:
        """FGaussian contains the truth: log μ − (1 − t)/σ² with 1/σ² = κ. Within 2%, Pearson 3% (LOSSES.md c)."""
        batches, size = 800, 250
        rng = np.random.default_rng(5)
        # About the first axis, then turned by a reflection that takes it to x, uniform.
        pole = vonmises_fisher(np.eye(self.DIM)[0], self.KAPPA).rvs(batches * size, random_state=rng)
        x = rng.normal(size=(batches * size, self.DIM))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        mirror = x - np.eye(self.DIM)[0]
        y = pole - 2 * mirror * (mirror * pole).sum(1, keepdims=True) / (mirror**2).sum(1, keepdims=True)
        pairs = list(zip(torch.tensor(x).split(size), torch.tensor(y).split(size), strict=True))
        losses = {name: f_micl(divergence) for name, divergence in ALLOWED.items()}

        def estimates(sigma: float, first: int) -> dict[str, list[float]]:
            alignment = FGaussian(math.exp(self.log_constant + self.KAPPA), sigma)
            scores = [Scores(u, v, alignment) for u, v in pairs[:first]]
            return {name: [float(-loss(part)) for part in scores] for name, loss in losses.items()}

        found, other = estimates(self.KAPPA**-0.5, batches), estimates(0.6, 100)
        for name, exact in OF_VON_MISES_FISHER.items():
            assert np.mean(found[name]) == pytest.approx(exact, rel=0.03 if name == "pearson" else 0.02)
            assert np.mean(other[name]) < np.mean(found[name][:100])

    @pytest.mark.parametrize("name", [*ALLOWED, "tsallis 3"])
    @pytest.mark.parametrize("count", [2, 4, 6])
    def test_the_uniform_term_is_least_on_a_regular_simplex(self, name: str, count: int) -> None:
        divergence = DIVERGENCES[name]
        z = normal(count, 5, seed=3).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [z], max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = Scores(z, z, FGaussian()).mean(divergence.conjugate, diagonal=False)
            value.backward()
            return value

        optimizer.step(closure)
        cosines = torch.cosine_similarity(z[:, None], z[None], dim=-1)[~torch.eye(count, dtype=torch.bool)]
        assert (cosines + 1 / (count - 1)).abs().max() < 1e-4

    @pytest.mark.parametrize("name", ["reverse-kl", "neyman"])
    def test_without_a_simplex_for_what_the_theory_excludes(self, name: str) -> None:
        """Two opposite clusters do as well as a simplex, or better."""
        simplex = torch.eye(4, dtype=F64) - 0.25
        clusters = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0], [-1, 0, 0, 0]], dtype=F64)
        conjugate = DIVERGENCES[name].conjugate
        values = [float(Scores(z, z, FGaussian()).mean(conjugate, diagonal=False)) for z in (simplex, clusters)]
        assert values[1] <= values[0] + 1e-12

    def test_pearson_with_the_score_for_the_ratio_is_the_spectral_loss(self) -> None:
        ratio = normal(6, 6).exp()
        pearson, spectral = (
            f_micl(ALLOWED["pearson"])(scores_of_table(ratio.log())),
            SpectralLoss()(scores_of_table(ratio)),
        )
        # −L_f = 2E⁺u − E u² − 1: the constant is −1, not the printed −3 (LOSSES.md c).
        assert_close(-pearson, -spectral - 1)


class TestDiscreteLaw:
    """A batch that lists the pairs of a finite law, each as often as it is probable, is that law's population."""

    COUNTS = torch.tensor([[4, 1, 1], [2, 2, 1], [1, 1, 5], [1, 1, 1]])
    JOINT = COUNTS.double() / COUNTS.sum()
    OF_U, OF_V = JOINT.sum(1), JOINT.sum(0)
    RATIO = JOINT / (OF_U[:, None] * OF_V)
    PAIRS = COUNTS.nonzero().repeat_interleave(COUNTS.flatten(), 0)

    def scores(self, table: Tensor) -> Scores:
        return Scores(one_hot(self.PAIRS[:, 0], 4).double(), table.mT[self.PAIRS[:, 1]])

    def data(self) -> tuple[Tensor, Tensor]:
        return normal(4, 2, seed=7)[self.PAIRS[:, 0]], normal(3, 2, seed=8)[self.PAIRS[:, 1]]

    def divergence(self, name: str) -> float:
        return float((self.OF_U[:, None] * self.OF_V * DIVERGENCES[name].f(self.RATIO.log())).sum())

    @pytest.mark.parametrize("name", DIVERGENCES)
    @pytest.mark.parametrize("alpha", [1.0, 3.0])
    def test_f_micl_is_least_at_the_log_ratio_less_log_alpha(self, name: str, alpha: float) -> None:
        table = (self.RATIO.log() - math.log(alpha)).requires_grad_()
        loss = f_micl(DIVERGENCES[name], alpha, diagonal=True)
        value = loss(self.scores(table))
        assert_close(torch.autograd.grad(value, table)[0], torch.zeros(4, 3, dtype=F64), rtol=0, atol=1e-14)
        if alpha == 1:
            assert float(-value.detach()) == pytest.approx(self.divergence(name), abs=1e-12)
        for seed in range(5):
            other = self.scores(table.detach() + normal(4, 3, seed=seed))
            assert loss(other) > value

    def test_spectral_is_least_at_the_ratio_and_bounds_pearson(self) -> None:
        table = self.RATIO.clone().requires_grad_()
        value = SpectralLoss(diagonal=True)(self.scores(table))
        assert_close(torch.autograd.grad(value, table)[0], torch.zeros(4, 3, dtype=F64), rtol=0, atol=1e-14)
        assert float(-value.detach()) - 1 == pytest.approx(self.divergence("pearson"), abs=1e-12)

    @pytest.mark.parametrize("dim", [0, 1])
    @pytest.mark.parametrize("kernel", [GaussianKernel(0.8), LaplaceKernel(1.3), EnergyKernel(), GaussianKernel()])
    def test_conditional_mmd_is_least_at_the_log_ratio_up_to_the_condition(self, dim: int, kernel) -> None:
        gauge = normal(1, 3) if dim == 0 else normal(4, 1)
        weights = (2, 0) if dim == 0 else (0, 2)
        loss = ConditionalMMDLoss(*weights, kernel_u=kernel, kernel_v=kernel).given(*self.data())
        table = (self.RATIO.log() + gauge).requires_grad_()
        value = loss(self.scores(table))
        assert_close(torch.autograd.grad(value, table)[0], torch.zeros(4, 3, dtype=F64), rtol=0, atol=1e-13)
        assert value < loss(self.scores(table.detach() + normal(4, 3, seed=3)))

    @pytest.mark.parametrize("kernel", [GaussianKernel(0.8), LaplaceKernel(1.3), EnergyKernel()])
    def test_joint_mmd_is_least_at_the_log_ratio_and_is_the_mmd(self, kernel) -> None:
        u, v = self.data()
        loss = JointMMDLoss(kernel, kernel).given(u, v)
        own = (kernel(u) * kernel(v)).mean()
        table = (self.RATIO.log() + 2.0).requires_grad_()
        value = loss(self.scores(table))
        assert_close(torch.autograd.grad(value, table)[0], torch.zeros(4, 3, dtype=F64), rtol=0, atol=1e-13)
        assert float((value + own).detach()) == pytest.approx(0, abs=1e-12)
        assert float(loss(self.scores(normal(4, 3))) + own) > 1e-4

    @given(st.floats(0.1, 0.9), st.integers(0, 1000))
    def test_rince_prefers_the_escort_of_the_ratio_among_scores_of_one_normaliser(self, q: float, seed: int) -> None:
        """e^s ∝ r^{1/(1−q)} in every row: conditionals of a RINCE model are too sharp."""

        def normalised(table: Tensor) -> Tensor:
            return table - (table.exp() @ self.OF_V).log()[:, None]

        best = normalised(self.RATIO.log() / (1 - q))
        loss = RINCELoss(q, lambda_u=0, lambda_v=2)
        value = loss(self.scores(best))
        assert loss(self.scores(normalised(best + normal(4, 3, seed=seed)))) > value
        assert loss(self.scores(normalised(self.RATIO.log()))) > value

    def test_identifies_is_what_these_show(self) -> None:
        for loss in (f_micl(DIVERGENCES["js"], 3.0), JointMMDLoss(), ConditionalMMDLoss(), SigmoidLoss(), RINCELoss(0)):
            assert loss.identifies is Identifies.RATIO
        for loss in (RINCELoss(0, lambda_u=2, lambda_v=0), ConditionalMMDLoss(2, 0)):
            assert loss.identifies is Identifies.RATIO_UP_TO_V
        for loss in (RINCELoss(0, lambda_u=0, lambda_v=2), ConditionalMMDLoss(0, 2)):
            assert loss.identifies is Identifies.RATIO_UP_TO_U
        for loss in (RINCELoss(), RINCELoss(1), SpectralLoss()):
            assert loss.identifies is Identifies.TRANSFORM


class TestSigmoid:
    def test_is_the_papers_pseudo_code(self) -> None:
        z_u, z_v, n, bias = normal(7, 3), normal(7, 3, seed=1), 7, -1.5
        logits = z_u @ z_v.mT / 0.4 + bias
        labels = 2 * torch.eye(n, dtype=F64) - 1
        expected = -torch.nn.functional.logsigmoid(labels * logits).sum() / n
        assert_close(SigmoidLoss(bias).double()(Scores(z_u, z_v, InnerProduct(), 0.4)), expected)

    @pytest.mark.parametrize("method", ["dense", "tiled"])
    def test_the_bias_has_its_gradient(self, method: str) -> None:
        loss = SigmoidLoss(-1.0).double()
        value = loss(Scores(normal(7, 3), normal(7, 3, seed=1), method=method))
        (found,) = torch.autograd.grad(value, loss.bias)
        up, down = (
            SigmoidLoss(b).double()(Scores(normal(7, 3), normal(7, 3, seed=1))) for b in (-1 + 2**-13, -1 - 2**-13)
        )
        assert float(found) == pytest.approx(float((up - down).detach()) / 2**-12, rel=1e-6)
        assert not any(p.requires_grad for p in SigmoidLoss(learnable=False).parameters())

    def test_is_least_at_the_log_ratio_less_the_bias_and_log_of_the_others(self) -> None:
        """Of weights p on matched and (n−1)q on unmatched entries, pointwise."""
        p, q, n, bias = torch.rand(5, generator=seeded()), torch.rand(5, generator=seeded(1)), 9, -3.0
        best = ((p / q).log() - bias - math.log(n - 1)).double().requires_grad_()
        softplus = torch.nn.functional.softplus
        value = (p * softplus(-(best + bias)) + (n - 1) * q * softplus(best + bias)).sum()
        assert_close(torch.autograd.grad(value, best)[0], torch.zeros(5, dtype=F64), rtol=0, atol=1e-6)
