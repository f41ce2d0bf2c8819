import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import normal
from torch import Tensor
from torch.testing import assert_close

from probcl import L2, Alignment, ConcatMixture, ConditionalLoss, Cosine, FGaussian, Laplace, Power, Scores, SumMixture

F32 = torch.float32
ROOTED: dict[str, Alignment] = {
    "laplace": Laplace(),
    "power 0.5": Power(0.5),
    "power 0.1": Power(0.1),
    "power 1.5": Power(1.5),
    "sum": SumMixture(0.02, 0.02),
    "learned sum": SumMixture(0.02, 0.02, learnable=True),
    "concat": ConcatMixture(0.02, 0.02, laplace_dim=2),
}
rooted = pytest.mark.parametrize("name", ROOTED)
methods = pytest.mark.parametrize("method", ["dense", "tiled"])


class TestIdentities:
    def test_power_two_is_twice_l2_and_power_one_is_laplace(self) -> None:
        x, y = normal(6, 3), normal(5, 3, seed=1)
        assert_close(Power(2)(x, y), 2 * L2()(x, y))
        assert torch.equal(Power(1)(x, y), Laplace()(x, y))
        assert_close(Laplace()(x, y), -torch.cdist(x, y))

    def test_gaussian_on_the_sphere_is_cosine_at_half_the_temperature(self) -> None:
        x, y = (z / z.norm(dim=1, keepdim=True) for z in (normal(9, 4), normal(9, 4, seed=1)))
        loss = ConditionalLoss()
        assert_close(loss(Scores(x, y, Power(2), 0.2)), loss(Scores(x, y, Cosine(), 0.1)), rtol=1e-12, atol=0)

    @given(st.floats(0.02, 5), st.floats(0.02, 5))
    def test_sum_mixture_is_the_logarithm_of_the_sum_of_the_kernels(self, tau_2: float, tau_1: float) -> None:
        x, y = normal(5, 3), normal(4, 3, seed=1)
        kernels = torch.stack([Power(2)(x, y) / tau_2, Laplace()(x, y) / tau_1])
        assert_close(SumMixture(tau_2, tau_1)(x, y), kernels.logsumexp(0))

    def test_the_default_f_gaussian_is_that_of_the_paper(self) -> None:
        x, y = (z / z.norm(dim=1, keepdim=True) for z in (normal(5, 4), normal(6, 4, seed=1)))
        assert_close(FGaussian()(x, y).exp(), (-torch.cdist(x, y).square()).exp())
        assert_close(FGaussian(3.0, 0.7)(5 * x, 0.1 * y).exp(), 3 * (-torch.cdist(x, y).square() / 0.98).exp())

    def test_f_gaussian_refuses_a_zero_vector(self) -> None:
        x = normal(4, 3)
        x[1] = 0
        with pytest.raises(ValueError, match="FGaussian has no value for a zero vector, got one in row 1 of the first"):
            FGaussian()(x, normal(4, 3))


class TestDistanceZero:
    @rooted
    @methods
    @pytest.mark.parametrize("dtype", [F32, torch.float64])
    def test_equal_points_have_finite_gradients(self, name: str, method: str, dtype: torch.dtype) -> None:
        x = torch.cat([normal(4, 3), torch.ones(4, 3).double()]).to(dtype)
        u, v = x.clone().requires_grad_(), x.clone().requires_grad_()
        scores = Scores(u, v, ROOTED[name], 0.02, method)
        loss = ConditionalLoss(diagonal=False)(scores) + scores.mean() + scores.logsumexp()
        for gradient in torch.autograd.grad(loss, (u, v)):
            assert gradient.isfinite().all()

    @rooted
    def test_all_points_equal_has_no_gradient_at_all(self, name: str) -> None:
        u = torch.full((5, 3), 0.7, requires_grad=True)
        loss = ConditionalLoss()(Scores(u, u.detach(), ROOTED[name], 0.05))
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert torch.autograd.grad(loss, u)[0].abs().max() == 0

    @pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 1.9])
    @pytest.mark.parametrize("gap", [1e-3, 1e-8, 1e-18, 1e-30])
    def test_matched_pairs_a_hair_apart_keep_their_distance(self, gamma: float, gap: float) -> None:
        x = torch.zeros(2, 1, requires_grad=True)
        y = torch.full((2, 1), gap)
        value = Power(gamma).matched(x, y)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        if gap >= 1e-8:
            assert_close(value, torch.full((2,), -(gap**gamma)), rtol=1e-5, atol=0)
            assert_close(gradient, torch.full((2, 1), gamma * gap ** (gamma - 1)), rtol=1e-5, atol=0)
        assert gradient.isfinite().all()
        assert value.abs().max() <= gap**gamma * (1 + 1e-5)


class TestParameters:
    @methods
    @pytest.mark.parametrize("alignment", [SumMixture(0.3, 0.6, learnable=True), FGaussian(2.0, 0.8, learnable=True)])
    def test_are_learned_through_their_logarithms(self, alignment: Alignment, method: str) -> None:
        x, y = normal(5, 3), normal(5, 3, seed=1)
        alignment = type(alignment)(*alignment_values(alignment), learnable=True).double()
        parameters = list(alignment.parameters())
        scores = Scores(x, y, alignment, 1.0, method)
        objective = scores.logsumexp(dim=1).square().sum() + scores.diagonal().sum()
        found = torch.autograd.grad(objective, parameters)

        def at(shift: Tensor) -> Tensor:
            values = alignment_values(alignment)
            moved = type(alignment)(*(value * math.exp(step) for value, step in zip(values, shift, strict=True)))
            other = Scores(x, y, moved)
            return other.logsumexp(dim=1).square().sum() + other.diagonal().sum()

        step = 1e-5
        for k, gradient in enumerate(torch.cat([part.reshape(-1) for part in found])):
            shift = torch.zeros(2, dtype=torch.float64)
            shift[k] = step
            assert float(gradient) == pytest.approx(float(at(shift) - at(-shift)) / (2 * step), rel=1e-6)

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Power(0), "gamma must be finite and positive, got 0"),
            (lambda: SumMixture(-1.0), "tau_2 must be finite and positive, got -1"),
            (lambda: SumMixture(1.0, math.inf), "tau_1 must be finite and positive, got inf"),
            (lambda: FGaussian(mu=0), "mu must be finite and positive, got 0"),
            (lambda: FGaussian(sigma=-2), "sigma must be finite and positive, got -2"),
        ],
    )
    def test_must_be_positive(self, make, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()


def alignment_values(alignment: Alignment) -> list[float]:
    """The positive parameters an alignment is made with, as they are now."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in alignment.parameters()]).exp().tolist()


class TestSinglePrecision:
    """LOSSES.md a: loss and gradient within 1e-5 of double precision down to τ = 0.02."""

    @staticmethod
    def loss_and_gradients(alignment: Alignment, tau: float, method: str, dtype: torch.dtype) -> list[Tensor]:
        u = normal(96, 16, dtype=F32)
        v = u + 0.5 * normal(96, 16, seed=1, dtype=F32)
        # The same numbers in either precision, so that what differs is the arithmetic.
        u, v = ((z / z.norm(dim=1, keepdim=True)).to(dtype).requires_grad_() for z in (u, v))
        loss = ConditionalLoss()(Scores(u, v, alignment, tau, method))
        return [loss.detach(), *torch.autograd.grad(loss, (u, v))]

    @methods
    @pytest.mark.parametrize("tau", [0.02, 0.1, 0.5])
    @pytest.mark.parametrize("kind", [Power(2), Laplace(), Power(0.5), SumMixture, ConcatMixture, FGaussian()])
    def test_is_within_1e_5_of_double(self, kind, tau: float, method: str) -> None:
        alignment, temperature = (kind(tau, tau), 1.0) if isinstance(kind, type) else (kind, tau)
        found = self.loss_and_gradients(alignment, temperature, method, F32)
        exact = self.loss_and_gradients(alignment, temperature, "dense", torch.float64)
        for got, expected in zip(found, exact, strict=True):
            assert (got.double() - expected).norm() <= 1e-5 * expected.norm()

    def test_the_same_view_twice_is_as_exact(self) -> None:
        """Self-pairs masked, as in SimCLR: what the square root meets on the diagonal is rounding."""
        z = normal(64, 8, dtype=F32)
        found = []
        for dtype in (F32, torch.float64):
            leaf = (z / z.norm(dim=1, keepdim=True)).to(dtype).requires_grad_()
            value = Scores(leaf, leaf, Laplace(), 0.1).logsumexp(dim=1, diagonal=False).mean()
            found.append((value.detach(), *torch.autograd.grad(value, leaf)))
        for got, expected in zip(*found, strict=True):
            assert (got.double() - expected).norm() <= 1e-5 * expected.norm()

    def test_subtracting_the_diagonal_would_not_do(self) -> None:
        """As in Kernel-InfoNCE's public code: the kernel's own 1 swallows what is left of the others at τ = 0.02."""
        z = normal(64, 8, dtype=F32)
        z = (z / z.norm(dim=1, keepdim=True)).requires_grad_()
        kernel = (Laplace()(z, z) / 0.02).exp()
        naive = (kernel.sum(1) - kernel.diagonal()).log().mean()
        ours = Scores(z, z, Laplace(), 0.02).logsumexp(dim=1, diagonal=False).mean()
        assert not naive.isfinite()
        assert ours.isfinite()
        assert torch.autograd.grad(ours, z)[0].isfinite().all()

    @pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3])
    def test_unmatched_points_at_a_small_distance_are_off_by_epsilon_over_it(self, gap: float) -> None:
        """What a matrix product costs; matched pairs are subtracted before they are squared, and do not pay it."""
        x = normal(64, 16, dtype=F32)
        x = x / x.norm(dim=1, keepdim=True)
        y = x + gap * torch.nn.functional.normalize(normal(64, 16, seed=1, dtype=F32), dim=1)
        exact = Laplace().matched(x.double(), y.double())
        error = (Laplace()(x, y).diagonal() - exact).abs().max()
        assert error <= 2 * torch.finfo(F32).eps / gap
        assert_close(Laplace().matched(x, y).double(), exact, rtol=1e-6, atol=0)
