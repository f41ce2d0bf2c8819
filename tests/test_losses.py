import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from alignment_cases import CASES, WIDTH
from hypothesis import given
from hypothesis import strategies as st
from small_models import normal, seeded
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torch.testing import assert_close

from probcl import ConditionalLoss, Cosine, JointLoss, Loss, Scores
from probcl.losses import Identifies

TWO_SIDED, U_GIVEN_V, V_GIVEN_U = ConditionalLoss(), ConditionalLoss(2, 0), ConditionalLoss(0, 2)
EVERY_LOSS: dict[str, Loss] = {
    "two-sided": TWO_SIDED,
    "u|v": U_GIVEN_V,
    "v|u": V_GIVEN_U,
    "weighted": ConditionalLoss(0.3, 1.9),
    "joint": JointLoss(),
    "two-sided off the diagonal": ConditionalLoss(diagonal=False),
    "joint off the diagonal": JointLoss(diagonal=False),
}
every_loss = pytest.mark.parametrize("loss", EVERY_LOSS.values(), ids=EVERY_LOSS)
every_alignment = pytest.mark.parametrize("name", CASES)


def batch(n: int = 6, name: str = "inner", seed: int = 0, temperature: float = 0.7) -> Scores:
    return Scores(normal(n, WIDTH, seed=seed), normal(n, WIDTH, seed=seed + 1), CASES[name][0], temperature)


def scores_of_table(table: Tensor) -> Scores:
    """Scores whose matrix is the given one."""
    return Scores(torch.eye(len(table), dtype=table.dtype), table.mT)


class TestConditionalLoss:
    @every_alignment
    @pytest.mark.parametrize("weights", [(1, 1), (2, 0), (0, 2), (0.3, 1.9), (5, 0.25)])
    def test_is_torchs_cross_entropy_less_log_n(self, name: str, weights: tuple[float, float]) -> None:
        scores = batch(7, name)
        matrix, targets = scores.matrix(), torch.arange(7)
        of_u, of_v = cross_entropy(matrix.mT, targets) - math.log(7), cross_entropy(matrix, targets) - math.log(7)
        expected = weights[0] / 2 * of_u + weights[1] / 2 * of_v
        assert_close(ConditionalLoss(*weights)(scores), expected, rtol=1e-12, atol=1e-12)

    def test_plus_log_n_is_clips_loss(self) -> None:
        image, text = normal(16, 8), normal(16, 8, seed=1)
        logits = (image / image.norm(dim=1, keepdim=True)) @ (text / text.norm(dim=1, keepdim=True)).mT / 0.07
        clip = (cross_entropy(logits, torch.arange(16)) + cross_entropy(logits.mT, torch.arange(16))) / 2
        assert_close(ConditionalLoss()(Scores(image, text, Cosine(), 0.07)) + math.log(16), clip)

    @pytest.mark.parametrize("weights", [(1, 1), (2, 0), (0.3, 1.9)])
    def test_off_the_diagonal_is_the_formula_over_the_others(self, weights: tuple[float, float]) -> None:
        scores = batch(5)
        s = scores.matrix().tolist()
        others = [[j for j in range(5) if j != i] for i in range(5)]
        of_u = sum(math.log(sum(math.exp(s[i][j]) for i in others[j]) / 4) - s[j][j] for j in range(5)) / 5
        of_v = sum(math.log(sum(math.exp(s[i][j]) for j in others[i]) / 4) - s[i][i] for i in range(5)) / 5
        expected = weights[0] / 2 * of_u + weights[1] / 2 * of_v
        assert float(ConditionalLoss(*weights, diagonal=False)(scores)) == pytest.approx(expected, rel=1e-12)

    @given(st.integers(2, 20), st.floats(1e-3, 1e3), st.integers(0, 100))
    def test_bound_never_exceeds_log_n(self, n: int, scale: float, seed: int) -> None:
        scores = scores_of_table(scale * normal(n, n, seed=seed))
        for loss in (TWO_SIDED, U_GIVEN_V, V_GIVEN_U):
            assert -loss(scores) <= math.log(n) + 1e-12

    def test_off_the_diagonal_is_not_capped_at_log_n(self) -> None:
        assert -ConditionalLoss(diagonal=False)(scores_of_table(10 * torch.eye(4))) == pytest.approx(10)


class TestJointLoss:
    @every_alignment
    @pytest.mark.parametrize("diagonal", [True, False])
    def test_is_the_donsker_varadhan_formula(self, name: str, diagonal: bool) -> None:
        scores = batch(5, name)
        s = scores.matrix().tolist()
        exponentials = [math.exp(s[i][j]) for i in range(5) for j in range(5) if diagonal or i != j]
        expected = math.log(sum(exponentials) / len(exponentials)) - sum(s[i][i] for i in range(5)) / 5
        assert float(JointLoss(diagonal=diagonal)(scores).detach()) == pytest.approx(expected, rel=1e-12)

    @given(st.integers(2, 12), st.floats(1e-2, 1e2), st.integers(0, 100), st.booleans())
    def test_is_never_below_the_conditional_loss(self, n: int, scale: float, seed: int, diagonal: bool) -> None:
        scores = scores_of_table(scale * normal(n, n, seed=seed))
        for weights in ((1, 1), (2, 0), (0, 2)):
            conditional = ConditionalLoss(*weights, diagonal=diagonal)(scores)
            assert conditional <= JointLoss(diagonal=diagonal)(scores) + 1e-12 * scale


class TestDiscreteLaw:
    """A batch that lists the pairs of a finite law, each as often as it is probable, is that law's population."""

    COUNTS = torch.tensor([[4, 1, 0], [2, 2, 1], [0, 1, 5], [1, 1, 1]])
    JOINT = COUNTS.double() / COUNTS.sum()
    OF_U, OF_V = JOINT.sum(1), JOINT.sum(0)
    INFORMATION = float(torch.special.xlogy(JOINT, JOINT / (OF_U[:, None] * OF_V)).sum())

    def population(self, table: Tensor) -> Scores:
        pairs = torch.tensor([(i, j) for i in range(4) for j in range(3) for _ in range(self.COUNTS[i, j])])
        return Scores(one_hot(pairs[:, 0], 4).double(), table.mT[pairs[:, 1]])

    def tilted(self, table: Tensor, dim: int | None) -> Tensor:
        """e^s μ_u μ_v, normalised over everything or along one axis."""
        weights = table.exp() * self.OF_U[:, None] * self.OF_V
        return weights / (weights.sum() if dim is None else weights.sum(dim, keepdim=True))

    @staticmethod
    def divergence(p: Tensor, q: Tensor) -> float:
        return float(torch.special.xlogy(p, p / q).sum())

    @given(st.integers(0, 1000), st.floats(0, 5))
    def test_the_bound_misses_the_information_by_the_divergences_of_the_conditionals(
        self, seed: int, scale: float
    ) -> None:
        table = scale * normal(4, 3, seed=seed)
        of_u = self.divergence(self.JOINT, self.tilted(table, 0) * self.OF_V)
        of_v = self.divergence(self.JOINT, self.tilted(table, 1) * self.OF_U[:, None])
        scores = self.population(table)
        for loss, gap in ((U_GIVEN_V, of_u), (V_GIVEN_U, of_v), (TWO_SIDED, (of_u + of_v) / 2)):
            assert float(loss(scores)) + self.INFORMATION == pytest.approx(gap, abs=1e-12)
            assert gap >= 0

    @given(st.integers(0, 1000), st.floats(0, 5))
    def test_joint_less_conditional_is_half_the_divergences_of_the_marginals(self, seed: int, scale: float) -> None:
        table = scale * normal(4, 3, seed=seed)
        model, scores = self.tilted(table, None), self.population(table)
        gap = (self.divergence(self.OF_U, model.sum(1)) + self.divergence(self.OF_V, model.sum(0))) / 2
        assert float(JointLoss()(scores) - TWO_SIDED(scores)) == pytest.approx(gap, abs=1e-12)
        assert float(JointLoss()(scores)) + self.INFORMATION == pytest.approx(
            self.divergence(self.JOINT, model), abs=1e-12
        )

    @pytest.mark.parametrize("loss", [TWO_SIDED, U_GIVEN_V, V_GIVEN_U, JointLoss()], ids=repr)
    def test_the_log_density_ratio_is_the_minimiser_and_reaches_the_information(self, loss: Loss) -> None:
        ratio = (self.JOINT / (self.OF_U[:, None] * self.OF_V)).clamp(min=1e-30).log().requires_grad_()
        value = loss(self.population(ratio))
        (gradient,) = torch.autograd.grad(value, ratio)
        assert value.item() == pytest.approx(-self.INFORMATION, abs=1e-12)
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


class TestEveryLoss:
    @every_loss
    def test_gradients(self, loss: Loss) -> None:
        inputs = tuple(t.requires_grad_() for t in (normal(4, 3), normal(4, 3, seed=1), torch.tensor(0.7).double()))
        assert torch.autograd.gradcheck(lambda u, v, tau: loss(Scores(u, v, Cosine(), tau)), inputs)

    @every_loss
    def test_does_not_depend_on_the_order_of_the_pairs(self, loss: Loss) -> None:
        u, v = normal(9, 3), normal(9, 3, seed=1)
        order = torch.randperm(9, generator=seeded())
        assert_close(loss(Scores(u[order], v[order])), loss(Scores(u, v)), rtol=1e-13, atol=0)

    @every_loss
    def test_is_a_scalar_of_the_embeddings_dtype_or_single_for_half(self, loss: Loss) -> None:
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            u, v = normal(4, 3).to(dtype), normal(4, 3, seed=1).to(dtype)
            value = loss(Scores(u, v))
            assert value.shape == ()
            assert value.dtype == (dtype if dtype.itemsize > 2 else torch.float32)
            assert_close(value.double(), loss(Scores(u.double(), v.double())), rtol=1e-5, atol=1e-5)

    @every_loss
    def test_mirror_image_swaps_the_weights(self, loss: Loss) -> None:
        u, v = normal(5, 3), normal(5, 3, seed=1)
        mirror = loss
        if isinstance(loss, ConditionalLoss):
            mirror = ConditionalLoss(loss.lambda_v, loss.lambda_u, diagonal=loss.diagonal)
        assert_close(mirror(Scores(v, u)), loss(Scores(u, v)), rtol=1e-13, atol=0)

    @every_loss
    def test_needs_matched_pairs(self, loss: Loss) -> None:
        with pytest.raises(ValueError, match=r"as many u as v, got scores of shape \(3, 4\)"):
            loss(Scores(normal(3, 2), normal(4, 2)))

    @every_loss
    def test_needs_two_pairs(self, loss: Loss) -> None:
        with pytest.raises(ValueError, match="at least two pairs, got one"):
            loss(Scores(normal(1, 2), normal(1, 2)))

    @pytest.mark.usefixtures("unchecked")
    @every_loss
    def test_takes_scores_and_not_features_or_matrices(self, loss: Loss) -> None:
        with pytest.raises(
            TypeError, match=r"a loss takes Scores, as in loss\(Scores\(z_u, z_v\)\), got a torch.float64"
        ):
            loss(normal(4, 4))


class TestGauge:
    """Which shifts s + a(u) + b(v) + c a loss cannot see is what it leaves open (THEORY §2)."""

    A, B = normal(6, seed=5), normal(6, seed=6)

    @pytest.mark.parametrize(
        ("loss", "blind_to_a", "blind_to_b"),
        [
            (U_GIVEN_V, False, True),
            (V_GIVEN_U, True, False),
            (TWO_SIDED, False, False),
            (ConditionalLoss(0.3, 1.9), False, False),
            (JointLoss(), False, False),
        ],
        ids=repr,
    )
    def test_what_a_loss_is_blind_to_is_what_it_does_not_identify(
        self, loss: Loss, blind_to_a: bool, blind_to_b: bool
    ) -> None:
        scores = batch()
        value = loss(scores)
        assert_close(loss(scores.shifted(bias_u=torch.full_like(self.A, 3.0))), value, rtol=1e-12, atol=1e-12)
        for shifted, blind in (
            (scores.shifted(bias_u=self.A), blind_to_a),
            (scores.shifted(bias_v=self.B), blind_to_b),
        ):
            assert torch.isclose(loss(shifted), value, rtol=1e-12, atol=1e-12) == blind
        expected = {(False, False): Identifies.RATIO, (True, False): Identifies.RATIO_UP_TO_U}
        assert loss.identifies is expected.get((blind_to_a, blind_to_b), Identifies.RATIO_UP_TO_V)


def relative_error(value: Tensor, exact: Tensor) -> float:
    return ((value.double() - exact).norm() / exact.norm()).item()


# At these temperatures the loss of 32 nearly orthogonal pairs runs from 1 to 1e-11 (checked in the test).
NEAR_CONVERGENCE = {0.6: (0.5, 5), 0.2: (0.05, 0.5), 0.1: (1e-4, 1e-2), 0.06: (1e-7, 1e-4), 0.03: (1e-13, 1e-10)}


class TestAccuracyNearConvergence:
    """In float32 a small loss is not lost to rounding (PERF.md: 5e-6 relative, loss and gradient)."""

    @staticmethod
    def clip(u: Tensor, v: Tensor, temperature: float) -> Tensor:
        scores = Scores(u, v, Cosine(), temperature)
        return (scores.diagonal_nll(0).mean() + scores.diagonal_nll(1).mean()) / 2

    @pytest.mark.parametrize("temperature", NEAR_CONVERGENCE)
    def test_loss_and_gradient(self, temperature: float) -> None:
        u = (torch.eye(32) + 0.05 * normal(32, 32, dtype=torch.float32)).requires_grad_()
        v = (torch.eye(32) + 0.05 * normal(32, 32, seed=1, dtype=torch.float32)).requires_grad_()
        exact_u, exact_v = (z.detach().double().requires_grad_() for z in (u, v))
        loss, exact = self.clip(u, v, temperature), self.clip(exact_u, exact_v, temperature)
        smallest, largest = NEAR_CONVERGENCE[temperature]
        assert smallest < exact.item() < largest
        assert relative_error(loss, exact) <= 5e-6

        of_loss = torch.autograd.grad(ConditionalLoss()(Scores(u, v, Cosine(), temperature)), (u, v))
        of_exact = torch.autograd.grad(exact, (exact_u, exact_v))
        for got, expected in zip(of_loss, of_exact, strict=True):
            assert relative_error(got, expected) <= 5e-6

    def test_the_textbook_formula_would_not_do(self) -> None:
        u = torch.eye(32) + 0.05 * normal(32, 32, dtype=torch.float32)
        logits = Scores(u, u, Cosine(), 0.03).matrix()
        exact = self.clip(u.double(), u.double(), 0.03)
        assert relative_error(cross_entropy(logits, torch.arange(32)), exact) > 1e-2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lambda_u": -1.0}, ValueError, "lambda_u must be finite and not negative, got -1.0"),
        ({"lambda_v": math.nan}, ValueError, "lambda_v must be finite and not negative, got nan"),
        ({"lambda_v": math.inf}, ValueError, "lambda_v must be finite and not negative, got inf"),
        ({"lambda_u": 0, "lambda_v": 0}, ValueError, "lambda_u and lambda_v must not both be zero"),
        ({"lambda_u": "1"}, TypeError, "lambda_u must be a number, got '1'"),
        ({"lambda_v": None}, TypeError, "lambda_v must be a number, got None"),
    ],
)
def test_bad_weights_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ConditionalLoss(**arguments)


@pytest.mark.parametrize("weights", [(2, 0), (0, 2), (1, 1)])
def test_a_zero_weight_costs_nothing(weights: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reduced: list[int] = []
    original: Callable[[Scores, int], Tensor] = Scores.diagonal_nll
    monkeypatch.setattr(Scores, "diagonal_nll", lambda scores, dim: reduced.append(dim) or original(scores, dim))
    ConditionalLoss(*weights)(batch())
    assert reduced == [dim for dim, weight in enumerate(weights) if weight]


def test_repr_shows_the_weights() -> None:
    assert repr(ConditionalLoss(2, 0, diagonal=False)) == "ConditionalLoss(lambda_u=2, lambda_v=0, diagonal=False)"
    assert repr(JointLoss()) == "JointLoss()"
