"""The tiled kernel where it differs from the dense one: many tiles and threads, accuracy, memory, derivatives."""

import multiprocessing
from collections.abc import Iterator

import pytest
import torch
from alignment_cases import LogCauchy
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import normal, seeded
from torch import Tensor, nn
from torch.testing import assert_close

from probcl import L2, Alignment, ConditionalLoss, Cosine, InnerProduct, JointLoss, Loss, Scores, WithPotentials
from probcl.alignment import Factors
from probcl.kernels import tiles

F32 = torch.float32
LOSSES: dict[str, Loss] = {
    "two-sided": ConditionalLoss(),
    "u|v": ConditionalLoss(2, 0),
    "v|u": ConditionalLoss(0, 2),
    "off the diagonal": ConditionalLoss(diagonal=False),
    "joint": JointLoss(),
    "joint off the diagonal": JointLoss(diagonal=False),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_TILE_ON_CPU", (16, 24))


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def value_and_gradients(loss: Loss, scores: Scores, *leaves: Tensor) -> list[Tensor]:
    value = loss(scores)
    return [value.detach(), *torch.autograd.grad(value, leaves, materialize_grads=True)]


@pytest.mark.usefixtures("small_tiles")
class TestAgainstFloat64:
    @every_loss
    @pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
    def test_gradients_in_single_precision_are_within_1e_5(self, name: str, tau: float) -> None:
        u, v = normal(101, 16), normal(101, 16, seed=1)
        v = u + 0.7 * v
        found = []
        for method, dtype in (("tiled", F32), ("dense", torch.float64)):
            leaves = [u.to(dtype).requires_grad_(), v.to(dtype).requires_grad_()]
            found.append(value_and_gradients(LOSSES[name], Scores(*leaves, Cosine(), tau, method), *leaves))
        for got, expected in zip(*found, strict=True):
            assert (got.double() - expected).norm() <= 1e-5 * expected.norm()

    @pytest.mark.parametrize("margin", [1.0, 5.0, 12.0, 25.0])
    def test_loss_and_gradient_keep_their_digits_near_convergence(self, margin: float) -> None:
        u = torch.eye(60, dtype=torch.float64) + 0.02 * normal(60, 60)
        found = []
        for method, dtype in (("tiled", F32), ("dense", torch.float64)):
            # The same numbers in either precision, so that what differs is the arithmetic.
            leaf = (margin * u).to(F32).to(dtype).requires_grad_()
            other = torch.eye(60, dtype=dtype)
            found.append(nll_and_gradient(Scores(leaf, other, method=method), leaf))
        for got, expected in zip(*found, strict=True):
            assert (got.double() - expected).norm() <= 5e-6 * expected.norm()

    @settings(max_examples=60, deadline=None)
    @given(
        st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 9)),
        st.sampled_from(
            [InnerProduct(), Cosine(), L2(), LogCauchy(), WithPotentials(L2(), 1), WithPotentials(Cosine(), 1)]
        ),
        st.sampled_from([0.01, 1.0, 100.0]),
        st.sampled_from([1e-3, 1.0, 1e3]),
    )
    def test_any_shape_temperature_and_magnitude(
        self, shape: tuple[int, int, int], alignment: Alignment, tau: float, magnitude: float
    ) -> None:
        n, m, d = shape
        u, v = magnitude * normal(n, d + 1), magnitude * normal(m, d + 1, seed=1)
        u[0] = v[0]
        found = []
        for method in ("tiled", "dense"):
            leaves = [
                u.clone().requires_grad_(),
                v.clone().requires_grad_(),
                torch.tensor(tau).double().requires_grad_(),
            ]
            scores = Scores(*leaves[:2], alignment, leaves[2], method)
            reduced = [
                scores.logsumexp(0),
                scores.logsumexp(1),
                scores.logsumexp()[None],
                scores.mean(torch.sigmoid, 0),
            ]
            total = sum((part * normal(len(part), seed=k)).sum() for k, part in enumerate(reduced))
            found.append([*reduced, *torch.autograd.grad(total, leaves)])
        scale = magnitude**2 / tau
        for got, expected in zip(*found, strict=True):
            assert_close(got, expected, rtol=1e-9, atol=1e-9 * max(1.0, scale))


def nll_and_gradient(scores: Scores, leaf: Tensor) -> list[Tensor]:
    value = scores.diagonal_nll(0).mean() + scores.diagonal_nll(1).mean()
    return [value.detach(), torch.autograd.grad(value, leaf)[0]]


@pytest.mark.usefixtures("small_tiles")
class TestThreads:
    @every_loss
    def test_any_number_gives_the_same(self, name: str, threads: int) -> None:
        u, v = (normal(130, 5, seed=k).requires_grad_() for k in (0, 1))
        several = value_and_gradients(LOSSES[name], Scores(u, v, L2(), method="tiled"), u, v)
        again = value_and_gradients(LOSSES[name], Scores(u, v, L2(), method="tiled"), u, v)
        torch.set_num_threads(1)
        one = value_and_gradients(LOSSES[name], Scores(u, v, L2(), method="tiled"), u, v)
        assert all(torch.equal(a, b) for a, b in zip(several, again, strict=True))
        assert_close(several, one, rtol=1e-12, atol=1e-12)

    def test_search_is_shared_out_too(self, threads: int) -> None:
        scores = Scores(normal(130, 5), normal(400, 5, seed=1), method="tiled")
        draws, top = scores.sample(3, generator=seeded()), scores.topk(4)
        torch.set_num_threads(1)
        assert torch.equal(draws, scores.sample(3, generator=seeded()))
        assert torch.equal(top.indices, scores.topk(4).indices)

    def test_number_of_threads_is_left_alone(self, threads: int) -> None:
        Scores(normal(130, 5), normal(400, 5), method="tiled").logsumexp()
        assert torch.get_num_threads() == threads

    def test_a_forked_process_starts_its_own(self, threads: int) -> None:
        expected = total()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply_async(total).get(60) == expected


def total() -> float:
    return float(Scores(normal(130, 5), normal(400, 5, seed=1), method="tiled").logsumexp())


class Kernel(Alignment):
    """log(w e^{−d²/2} + (1 − w)) with a learned w."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def factorize(self, x: Tensor, y: Tensor) -> Factors:
        return L2().factorize(x, y)

    def link(self, product: Tensor) -> Tensor:
        weight = self.logit.sigmoid()
        return (weight * product.exp() + 1 - weight).log()


@pytest.mark.usefixtures("small_tiles")
class TestDerivatives:
    @every_loss
    def test_parameters_of_a_link_get_their_gradient(self, name: str) -> None:
        u, v, alignment = normal(40, 3).requires_grad_(), normal(40, 3, seed=1), Kernel()
        dense, tiled = (
            value_and_gradients(LOSSES[name], Scores(u, v, alignment, 0.5, method), u, alignment.logit)  # type: ignore[arg-type]
            for method in ("dense", "tiled")
        )
        assert_close(tiled, dense, rtol=1e-10, atol=1e-12)

    def test_a_second_derivative_is_refused(self) -> None:
        u, v = normal(40, 3).requires_grad_(), normal(40, 3, seed=1)
        for reduce in (
            lambda s: s.logsumexp(0).sum(),
            lambda s: s.logsumexp(),
            lambda s: s.mean(torch.exp),
            lambda s: s.weighted_sum(v).sum(),
        ):
            (gradient,) = torch.autograd.grad(reduce(Scores(u, v, method="tiled")), u, create_graph=True)
            with pytest.raises(NotImplementedError, match=r"first derivatives only.*method='dense'"):
                torch.autograd.grad(gradient.sum(), u)

    def test_a_function_with_parameters_of_its_own_is_refused(self) -> None:
        factor = torch.tensor(2.0, requires_grad=True)
        scores = Scores(normal(4, 2), normal(4, 2), method="tiled")
        for use in (scores.mean, lambda fn: scores.weighted_sum(normal(4, 1), fn)):
            with pytest.raises(ValueError, match=r"fn depends on a tensor that requires a gradient.*method='dense'"):
                use(lambda s: factor * s)

    def test_weights_get_their_gradient(self) -> None:
        u, v, w = normal(40, 3), normal(50, 3, seed=1), normal(50, 2, seed=2).requires_grad_()
        found = [
            torch.autograd.grad(Scores(u, v, method=method).weighted_sum(w, torch.tanh).square().sum(), w)  # type: ignore[arg-type]
            for method in ("dense", "tiled")
        ]
        assert_close(*found, rtol=1e-12, atol=1e-12)


class TestMemory:
    def test_nothing_as_large_as_the_matrix_is_ever_stored(self) -> None:
        u, v = (normal(4096, 4, seed=k, dtype=F32).requires_grad_() for k in (0, 1))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            for loss in (ConditionalLoss(), JointLoss()):
                loss(Scores(u, v, method="tiled")).backward()
        largest = max(event.self_cpu_memory_usage for event in profile.events() or [])
        assert 0 < largest < 4 * 4096**2 / 50
