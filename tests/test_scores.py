import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from alignment_cases import CASES, WIDTH, brute_force
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from small_models import normal, seeded
from torch import Tensor
from torch.testing import assert_close

from probcl import L2, Cosine, InnerProduct, JointLoss, Scores, WithPotentials
from probcl.kernels import KERNELS, DenseKernel, tiles

N = 4
INF = math.inf


@pytest.fixture(params=["dense", "tiled"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What "auto" chooses; tiles so small that every case here has several, of different shapes."""
    monkeypatch.setattr(tiles, "_TILE_ON_CPU", (2, 3))
    monkeypatch.setattr("probcl.scores._TILED_FROM", 0 if request.param == "tiled" else INF)
    return str(request.param)


def off_diagonal(matrix: Tensor, dim: int | None) -> Tensor:
    """The entries beside the diagonal, with the axis that is reduced last."""
    n = len(matrix)
    rows = matrix.mT if dim == 0 else matrix
    kept = torch.stack([torch.cat([rows[i, :i], rows[i, i + 1 :]]) for i in range(n)])
    return kept.flatten() if dim is None else kept


def entries(matrix: Tensor, dim: int | None, diagonal: bool) -> Tensor:
    if not diagonal:
        return off_diagonal(matrix, dim)
    return matrix.flatten() if dim is None else matrix.movedim(dim, -1)


Reduce = Callable[[Scores], Tensor]
Reference = Callable[[Tensor], Tensor]


def over_entries(
    reduction: Callable[..., Tensor], reference: Callable[[Tensor], Tensor], dim: int | None, diagonal: bool
) -> tuple[Reduce, Reference]:
    return (
        lambda scores: reduction(scores, dim=dim, diagonal=diagonal),
        lambda matrix: reference(entries(matrix, dim, diagonal)),
    )


WEIGHTS = normal(N, 3, seed=9)
SHIFT = normal(N, seed=10)

# name: (reduction of Scores, the same of the explicit N × N matrix)
REDUCTIONS: dict[str, tuple[Reduce, Reference]] = {
    "matrix": (Scores.matrix, lambda s: s),
    "diagonal": (Scores.diagonal, torch.diagonal),
    "shifted": (lambda s: s.shifted(SHIFT, -SHIFT).matrix(), lambda s: s + SHIFT[:, None] - SHIFT),
    "shifted diagonal": (lambda s: s.shifted(SHIFT).diagonal(), lambda s: s.diagonal() + SHIFT),
}
for axis in (0, 1, None):
    for with_diagonal in (True, False):
        label = f"dim={axis}" + ("" if with_diagonal else " off the diagonal")
        for reduction_name, reduction, reference in (
            ("logsumexp", Scores.logsumexp, lambda e: e.exp().sum(-1).log()),
            ("logmeanexp", Scores.logmeanexp, lambda e: e.exp().mean(-1).log()),
            ("mean", Scores.mean, lambda e: e.mean(-1)),
            ("mean of a function", lambda s, **k: s.mean(torch.tanh, **k), lambda e: e.tanh().mean(-1)),
        ):
            REDUCTIONS[f"{reduction_name} {label}"] = over_entries(reduction, reference, axis, with_diagonal)
for axis in (0, 1):
    REDUCTIONS |= {
        f"weighted_sum dim={axis}": (
            lambda s, axis=axis: s.weighted_sum(WEIGHTS, dim=axis),
            lambda s, axis=axis: s.exp().movedim(axis, 1) @ WEIGHTS,
        ),
        f"weighted_sum of a function dim={axis}": (
            lambda s, axis=axis: s.weighted_sum(WEIGHTS, torch.sin, dim=axis),
            lambda s, axis=axis: s.sin().movedim(axis, 1) @ WEIGHTS,
        ),
        f"topk dim={axis}": (
            lambda s, axis=axis: s.topk(2, dim=axis).values,
            lambda s, axis=axis: s.movedim(axis, 1).sort(dim=1, descending=True).values[:, :2],
        ),
        f"normalized dim={axis}": (
            lambda s, axis=axis: s.normalized(axis).matrix(),
            lambda s, axis=axis: s.log_softmax(dim=axis),
        ),
        f"diagonal_nll dim={axis}": (
            lambda s, axis=axis: s.diagonal_nll(axis),
            lambda s, axis=axis: -s.log_softmax(dim=axis).diagonal(),
        ),
    }

every_alignment = pytest.mark.parametrize("name", CASES)


@every_alignment
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_value_and_gradients_agree_with_the_explicit_matrix(name: str, reduction: str) -> None:
    (alignment, definition), (reduce, reference) = CASES[name], REDUCTIONS[reduction]
    inputs = [normal(N, WIDTH), normal(N, WIDTH, seed=1), torch.tensor(0.7), normal(N, seed=2), normal(N, seed=3)]
    u, v, tau, bias_u, bias_v = (tensor.double().requires_grad_() for tensor in inputs)

    got = reduce(Scores(u, v, alignment, tau, bias_u=bias_u, bias_v=bias_v))
    expected = reference(brute_force(definition, u, v) / tau + bias_u[:, None] + bias_v)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)

    cotangent = normal(got.numel(), seed=4).reshape(got.shape)
    leaves = (u, v, tau, bias_u, bias_v)
    of_got = torch.autograd.grad(got, leaves, cotangent, materialize_grads=True)
    of_expected = torch.autograd.grad(expected, leaves, cotangent, materialize_grads=True)
    assert_close(of_got, of_expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck(reduction: str) -> None:
    reduce, _ = REDUCTIONS[reduction]

    def of_inputs(u: Tensor, v: Tensor, tau: Tensor, bias: Tensor) -> Tensor:
        return reduce(Scores(u, v, WithPotentials(L2(), 1), tau, bias_u=bias))

    u, v, bias = normal(N, 3), normal(N, 3, seed=1), normal(N, seed=2)
    inputs = tuple(tensor.double().requires_grad_() for tensor in (u, v, torch.tensor(0.7), bias))
    assert torch.autograd.gradcheck(of_inputs, inputs)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))


class TestAnyShape:
    @given(shapes, st.sampled_from([InnerProduct(), Cosine(), L2()]), st.floats(0.01, 100))
    def test_reductions_over_all_pairs_are_reductions_of_those_over_one_side(
        self, shape: tuple[int, int, int], alignment: InnerProduct, temperature: float
    ) -> None:
        n, m, d = shape
        scores = Scores(normal(n, d), normal(m, d, seed=1), alignment, temperature)
        assert scores.shape == (n, m) == tuple(scores.matrix().shape)
        for dim in (0, 1):
            assert scores.logsumexp(dim).shape == ((m,) if dim == 0 else (n,))
            assert_close(scores.logsumexp(dim).logsumexp(0), scores.logsumexp())
            assert_close(scores.logmeanexp(dim).logsumexp(0) - math.log(len(scores.mean(dim=dim))), scores.logmeanexp())
            assert_close(scores.mean(dim=dim).mean(), scores.mean())

    @given(shapes, st.sampled_from([0, 1]), st.floats(1e-3, 10))
    def test_normalized_scores_are_a_softmax(self, shape: tuple[int, int, int], dim: int, temperature: float) -> None:
        n, m, d = shape
        scores = Scores(normal(n, d), normal(m, d, seed=1), temperature=temperature)
        normalized = scores.normalized(dim)
        assert_close(normalized.matrix().exp(), scores.matrix().softmax(dim), rtol=1e-6, atol=1e-9)
        assert_close(
            normalized.logsumexp(dim), torch.zeros(m if dim == 0 else n, dtype=torch.float64), rtol=0, atol=1e-8
        )
        values = normal(scores.shape[dim], 2, seed=2)
        of_softmax = scores.matrix().softmax(dim).movedim(dim, 1) @ values
        assert_close(normalized.weighted_sum(values, dim=dim), of_softmax, rtol=1e-6, atol=1e-8)

    @given(shapes, st.sampled_from([0, 1]), st.data())
    def test_topk_is_the_head_of_a_sort(self, shape: tuple[int, int, int], dim: int, data: st.DataObject) -> None:
        n, m, d = shape
        scores = Scores(normal(n, d), normal(m, d, seed=1), L2(), 0.1)
        k = data.draw(st.integers(1, scores.shape[dim]))
        top = scores.topk(k, dim=dim)
        rows = scores.matrix().movedim(dim, 1)
        assert_close(top.values, rows.sort(descending=True).values[:, :k], rtol=1e-12, atol=1e-12)
        assert_close(rows.gather(1, top.indices), top.values, rtol=1e-12, atol=1e-12)


class TestDiagonal:
    @given(st.integers(2, 12), st.floats(0.5, 250))
    def test_nll_keeps_its_digits_however_small_it_is(self, n: int, score: float) -> None:
        eye = torch.eye(n, dtype=torch.float64)
        expected = math.log1p((n - 1) * math.exp(-score))
        for dim in (0, 1):
            assert_close(
                Scores(score * eye, eye).diagonal_nll(dim),
                torch.full((n,), expected, dtype=eye.dtype),
                rtol=1e-13,
                atol=0,
            )

    @pytest.mark.parametrize("margin", [19.0, 21.0, 25.0, 49.0, 51.0])
    def test_nll_keeps_its_digits_where_a_softplus_is_nearly_linear(self, margin: float) -> None:
        scores = Scores(torch.tensor([[-margin], [0.0]], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
        assert float(scores.diagonal_nll(0)[0]) == pytest.approx(margin + math.log1p(math.exp(-margin)), rel=1e-14)

    def test_nll_of_a_badly_scored_pair_is_its_margin(self) -> None:
        eye = torch.eye(3)
        assert_close(Scores(-1e4 * eye, eye).diagonal_nll(1), torch.full((3,), 1e4 + math.log(2)))

    def test_needs_as_many_u_as_v(self) -> None:
        scores = Scores(normal(3, 2), normal(4, 2))
        with pytest.raises(ValueError, match=r"as many u as v, got shape \(3, 4\)"):
            scores.diagonal()
        for reduction in (scores.logsumexp, scores.logmeanexp, scores.mean):
            with pytest.raises(ValueError, match=r"diagonal=False needs as many u as v.*\(3, 4\)"):
                reduction(diagonal=False)

    @pytest.mark.parametrize("dim", [0, 1, None])
    def test_a_single_pair_has_nothing_off_the_diagonal(self, dim: int | None) -> None:
        scores = Scores(normal(1, 2), normal(1, 2))
        for reduction in (scores.logsumexp, scores.logmeanexp, scores.mean):
            with pytest.raises(ValueError, match="at least two pairs"):
                reduction(dim=dim, diagonal=False)

    def test_what_is_left_out_cannot_spoil_the_gradient(self) -> None:
        u = torch.eye(3, requires_grad=True)
        mean = Scores(u, torch.eye(3), Cosine(), temperature=0.01).mean(
            torch.exp, diagonal=False
        )  # e¹⁰⁰ on the diagonal
        mean.backward()
        assert mean == 1
        assert u.grad.isfinite().all()


class TestBiases:
    @every_alignment
    def test_minus_infinity_removes_an_atom(self, name: str) -> None:
        alignment, _ = CASES[name]
        u, v = normal(3, WIDTH), normal(5, WIDTH, seed=1)
        kept = torch.tensor([True, False, True, True, False])
        bias = torch.zeros(5, dtype=torch.float64).masked_fill(~kept, -INF)
        masked, smaller = Scores(u, v, alignment, bias_v=bias), Scores(u, v[kept], alignment)
        assert_close(masked.logsumexp(1), smaller.logsumexp(1))
        assert_close(masked.logsumexp(), smaller.logsumexp())
        assert_close(masked.normalized(1).matrix()[:, kept], smaller.normalized(1).matrix())
        assert_close(masked.topk(3).values, smaller.topk(3).values)
        assert not torch.isin(masked.sample(200, generator=seeded()), (~kept).nonzero()).any()

    def test_minus_infinity_leaves_gradients_finite(self) -> None:
        u, v = normal(3, 2).requires_grad_(), normal(3, 2, seed=1).requires_grad_()
        bias = torch.tensor([0, -INF, 0], dtype=torch.float64)
        (Scores(u, v, bias_v=bias).logsumexp(1).sum() + Scores(u, v, bias_v=bias).logsumexp()).backward()
        assert u.grad.isfinite().all()
        assert torch.equal(v.grad[1], torch.zeros(2, dtype=torch.float64))

    @pytest.mark.parametrize(
        ("side", "dim", "place"), [("bias_u", 1, 0), ("bias_v", 0, 0), ("bias_v", 1, ...), ("bias_u", 0, ...)]
    )
    def test_a_row_or_column_with_nothing_possible_has_no_softmax(self, side: str, dim: int, place: Any) -> None:
        bias = torch.zeros(3, dtype=torch.float64)
        bias[place] = -INF
        scores = Scores(normal(3, 2), normal(3, 2, seed=1), **{side: bias})
        for use in (scores.normalized, lambda dim: scores.sample(1, dim)):
            with pytest.raises(ValueError, match=f"leaves a {'row' if dim == 1 else 'column'} without any possible"):
                use(dim)

    def test_shifts_add_up(self) -> None:
        a, b = normal(3), normal(3, seed=1)
        scores = Scores(normal(3, 2), normal(3, 2, seed=1), bias_u=a)
        assert_close(scores.shifted(b, a).shifted(a, b).matrix(), scores.matrix() + (a + b)[:, None] + (a + b))


class TestSample:
    @pytest.mark.parametrize("dim", [0, 1])
    @pytest.mark.parametrize("alignment", [InnerProduct(), Cosine(), L2()])
    def test_draws_are_distributed_as_the_softmax(self, alignment: InnerProduct, dim: int) -> None:
        bias = torch.tensor([0.3, -INF, -1.0, 0.0], dtype=torch.float64)
        u, v = normal(4, 2), normal(4, 2, seed=1)
        scores = Scores(u, v, alignment, 0.8, **{"bias_u" if dim == 0 else "bias_v": bias})
        draws = scores.sample(10_000, dim, generator=seeded())
        assert draws.shape == (10_000, 4)
        expected = scores.matrix().softmax(dim).movedim(dim, 1)
        for row, probabilities in zip(draws.mT, expected, strict=True):
            counts = torch.bincount(row, minlength=4)
            possible = probabilities > 0
            assert counts[~possible].sum() == 0
            assert chisquare(counts[possible], 10_000 * probabilities[possible]).pvalue > 1e-3

    def test_rows_and_draws_are_independent(self) -> None:
        draws = Scores(torch.zeros(2, 1), torch.zeros(2, 1)).sample(10_000, generator=seeded())
        pairs = torch.bincount(2 * draws[:, 0] + draws[:, 1], minlength=4)
        successive = torch.bincount(2 * draws[:-1:2, 0] + draws[1::2, 0], minlength=4)
        assert chisquare(pairs).pvalue > 1e-3
        assert chisquare(successive).pvalue > 1e-3

    def test_huge_scores_pick_the_largest(self) -> None:
        scores = Scores(torch.eye(3), torch.eye(3), temperature=1e-4)
        assert torch.equal(scores.sample(10, generator=seeded()), torch.arange(3).expand(10, 3))

    def test_the_generator_decides_and_the_global_state_is_left_alone(self) -> None:
        scores = Scores(normal(5, 2), normal(7, 2, seed=1))
        before = torch.get_rng_state()
        assert torch.equal(scores.sample(20, generator=seeded(3)), scores.sample(20, generator=seeded(3)))
        assert not torch.equal(scores.sample(20, generator=seeded(3)), scores.sample(20, generator=seeded(4)))
        assert torch.equal(torch.get_rng_state(), before)


class TestTemperature:
    @pytest.mark.parametrize("tau", [0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]]).double()])
    def test_numbers_and_tensors_of_one_element_are_alike(self, tau: float | Tensor) -> None:
        u, v = normal(3, 4, dtype=torch.float32), normal(3, 4, seed=1, dtype=torch.float32)
        scores, expected = Scores(u, v, WithPotentials(), tau), WithPotentials()(u, v) / 0.5
        assert_close(scores.matrix(), expected)
        assert_close(scores.diagonal(), expected.diagonal())
        assert_close(scores.logsumexp(0), expected.logsumexp(0))

    def test_scores_at_a_tiny_temperature_do_not_overflow(self) -> None:
        u, v = normal(40, 16, dtype=torch.float32), normal(60, 16, seed=1, dtype=torch.float32)
        scores, exact = Scores(u, v, Cosine(), 0.001), Scores(u.double(), v.double(), Cosine(), 0.001)
        for dim in (0, 1, None):
            assert_close(scores.logsumexp(dim).double(), exact.logsumexp(dim), rtol=1e-6, atol=0)
        assert scores.normalized(1).matrix().exp().isfinite().all()


class TestGradientMode:
    """Half of a graph is a wrong gradient: reductions follow the mode in which the scores were made."""

    @staticmethod
    def gradient(u: Tensor, between: Callable[[Scores], Any]) -> Tensor:
        scores = Scores(u, normal(3, 2, seed=1), L2())
        between(scores)
        (gradient,) = torch.autograd.grad(JointLoss()(scores), u)
        return gradient

    def test_a_look_without_gradients_does_not_change_later_ones(self) -> None:
        def look(scores: Scores) -> None:
            with torch.no_grad():
                scores.topk(1)

        u = normal(3, 2).requires_grad_()
        assert torch.equal(self.gradient(u, look), self.gradient(u, lambda scores: None))

    def test_scores_made_without_gradients_have_none(self) -> None:
        u, tau = normal(3, 2).requires_grad_(), torch.tensor(0.5, requires_grad=True)
        with torch.no_grad():
            scores = Scores(u, u, WithPotentials(potential_dim=1), tau)
        assert not JointLoss()(scores).requires_grad


class TestMethod:
    def test_a_new_kernel_is_chosen_by_name_and_no_caller_changes(
        self, monkeypatch: pytest.MonkeyPatch, unchecked: None
    ) -> None:
        class Counting(DenseKernel):
            calls = 0

            def logsumexp(self, dim, diagonal):
                type(self).calls += 1
                return super().logsumexp(dim, diagonal)

        monkeypatch.setitem(KERNELS, "counting", Counting)
        u, v = normal(3, 2), normal(3, 2, seed=1)
        assert JointLoss()(Scores(u, v, method="counting")) == JointLoss()(Scores(u, v))
        assert Counting.calls == 1
        Scores(u, v, method="counting").shifted(u[:, 0]).logsumexp()
        assert Counting.calls == 2

    def test_auto_is_one_of_the_others(self, kernel: str) -> None:
        u, v = normal(3, 2), normal(4, 2, seed=1)
        assert torch.equal(Scores(u, v).logsumexp(0), Scores(u, v, method=kernel).logsumexp(0))


GOOD = normal(3, 2)


def spoiled(value: float) -> Tensor:
    bad = GOOD.clone()
    bad[1, 0] = value
    return bad


# name: (arguments of Scores beside good ones, exception, what its message says)
BAD_SCORES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "NaN": ({"u": spoiled(math.nan)}, ValueError, "u must be finite, got 1 NaN or infinite of 6 values"),
    "infinite": ({"v": spoiled(-INF)}, ValueError, "v must be finite, got 1 NaN or infinite of 6 values"),
    "scores too large": (
        {"u": 1e200 * GOOD, "v": 1e200 * GOOD},
        ValueError,
        r"scores that torch.float64 can hold, got entries up to \d.*e\+200 and .*e\+200 at temperature 1",
    ),
    "no rows": ({"u": GOOD[:0]}, ValueError, r"u must be a non-empty \(n, d\) matrix.*\(0, 2\)"),
    "no columns": ({"u": GOOD[:, :0], "v": GOOD[:, :0]}, ValueError, r"u must be a non-empty.*\(3, 0\)"),
    "a vector": ({"v": GOOD[:, 0]}, ValueError, r"v must be a non-empty \(n, d\) matrix.*\(3,\)"),
    "three axes": ({"v": GOOD[None]}, ValueError, r"v must be a non-empty \(n, d\) matrix.*\(1, 3, 2\)"),
    "integers": ({"u": GOOD.long()}, TypeError, "u must be of a floating-point type, got a torch.int64"),
    "an array": ({"u": GOOD.numpy()}, TypeError, "u must be a torch.Tensor, got a NumPy array of float64"),
    "widths": ({"u": GOOD[:, :1]}, ValueError, "u and v must have the same embedding width, got 1 and 2"),
    "dtypes": ({"v": GOOD.float()}, TypeError, "u and v must have the same dtype, got torch.float64 and torch.float32"),
    "zero temperature": ({"temperature": 0.0}, ValueError, "temperature must be finite and positive, got 0.0"),
    "negative temperature": (
        {"temperature": torch.tensor(-1.0)},
        ValueError,
        "temperature must be finite and positive",
    ),
    "NaN temperature": ({"temperature": math.nan}, ValueError, "temperature must be finite and positive, got nan"),
    "infinite temperature": ({"temperature": INF}, ValueError, "temperature must be finite and positive, got inf"),
    "two temperatures": (
        {"temperature": torch.ones(2)},
        ValueError,
        r"temperature must be a number or .* shape \(2,\)",
    ),
    "named temperature": ({"temperature": "cold"}, TypeError, "temperature must be a number or .* 'cold'"),
    "method": ({"method": "quick"}, ValueError, r"method must be 'auto' or one of \['dense'.*\], got 'quick'"),
    "alignment's name": ({"alignment": "cosine"}, TypeError, r"alignment must be an Alignment such as Cosine\(\)"),
    "alignment's class": ({"alignment": Cosine}, TypeError, r"alignment must be an Alignment such as Cosine\(\)"),
    "bias too short": ({"bias_u": GOOD[:2, 0]}, ValueError, r"bias_u must have shape \(3,\), got .*\(2,\)"),
    "NaN bias": ({"bias_v": GOOD[:, 0] * math.nan}, ValueError, "bias_v must be finite or −inf"),
    "+inf bias": ({"bias_v": GOOD[:, 0].abs() * INF}, ValueError, "bias_v must be finite or −inf"),
    "integer bias": ({"bias_u": GOOD[:, 0].long()}, TypeError, "bias_u must have the embeddings' dtype torch.float64"),
    "bias's dtype": ({"bias_u": GOOD[:, 0].float()}, TypeError, "bias_u must have the embeddings' dtype torch.float64"),
    "a number as bias": ({"bias_u": 1.0}, TypeError, "bias_u must be a torch.Tensor, got 1.0"),
}

# name: (a use of good 3 × 4 scores, exception, what its message says)
BAD_USES: dict[str, tuple[Callable[[Scores], Any], type[Exception], str]] = {
    "k too large": (lambda s: s.topk(5), ValueError, "k must be at most the 4 entries along dim=1, got 5"),
    "k too large for columns": (lambda s: s.topk(4, dim=0), ValueError, "at most the 3 entries along dim=0, got 4"),
    "k is zero": (lambda s: s.topk(0), ValueError, "k must be at least 1, got 0"),
    "k is no integer": (lambda s: s.topk(2.0), TypeError, "k must be an integer, got 2.0"),
    "no draws": (lambda s: s.sample(0), ValueError, "num_samples must be at least 1, got 0"),
    "weights of the other side": (
        lambda s: s.weighted_sum(normal(3, 2)),
        ValueError,
        r"weights must be a matrix of 4 rows for dim=1, got .*\(3, 2\)",
    ),
    "weights without axis": (lambda s: s.weighted_sum(normal(4)), ValueError, "weights must be a matrix of 4 rows"),
    "weights' dtype": (
        lambda s: s.weighted_sum(normal(4, 1).float()),
        TypeError,
        "weights must have the embeddings' dtype",
    ),
    "shift of another length": (lambda s: s.shifted(bias_u=normal(4)), ValueError, r"bias_u must have shape \(3,\)"),
}
for method_name in ("logsumexp", "logmeanexp", "topk", "sample", "normalized", "weighted_sum", "mean"):
    for bad_dim in (-1, 2):
        arguments = {"topk": (1,), "weighted_sum": (normal(4, 1),)}.get(method_name, ())
        BAD_USES[f"{method_name} dim={bad_dim}"] = (
            lambda s, name=method_name, dim=bad_dim, arguments=arguments: getattr(s, name)(*arguments, dim=dim),
            ValueError,
            rf"dim must be 0 \(over u\) or 1 \(over v\), got {bad_dim}",
        )


@pytest.mark.usefixtures("unchecked")
class TestBadInput:
    @pytest.mark.parametrize("case", BAD_SCORES)
    def test_is_refused_when_the_scores_are_made(self, case: str) -> None:
        arguments, error, message = BAD_SCORES[case]
        with pytest.raises(error, match=message):
            Scores(**({"u": GOOD, "v": GOOD} | arguments))

    @pytest.mark.parametrize("case", BAD_USES)
    def test_is_refused_when_the_scores_are_used(self, case: str) -> None:
        use, error, message = BAD_USES[case]
        with pytest.raises(error, match=message):
            use(Scores(normal(3, 2), normal(4, 2, seed=1)))


def test_repr_shows_what_the_scores_are() -> None:
    text = repr(Scores(normal(3, 2), normal(4, 2), L2(), torch.tensor(0.25, requires_grad=True)))
    assert text == "Scores(3 × 4, alignment=L2(), temperature=0.25, method='auto')"
