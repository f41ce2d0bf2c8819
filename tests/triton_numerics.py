"""Values and gradients of the Triton programs beside dense scores in double precision.

Run by tests/test_kernels_triton.py in a process of its own: through Triton's interpreter, on the CPU, where
TRITON_INTERPRET=1 is set before the programs are defined, and compiled on a GPU otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from alignment_cases import CASES
from small_models import normal
from torch import Tensor
from torch.testing import assert_close

from probcl import Alignment, Scores
from probcl.kernels import DenseKernel, TiledKernel, TritonKernel, triton_launch
from probcl.kernels.triton_tiles import interpreted_tile

DEVICE = "cpu" if triton_launch.programs().INTERPRETED else "cuda"
LINEAR = ["inner", "cosine", "l2", "potentials", "potentials of l2"]
# Tall, wide, one row, one column, primes, exact tiles; widths of one slice and of several. The interpreter is slow.
SHAPES = [(1, 19, 4), (19, 1, 4), (37, 41, 4), (37, 37, 4), (32, 16, 16), (17, 17, 65)]
# What stands for −∞ in the reference, whose gradient is no number where a row has nothing else.
IMPOSSIBLE = -1e5
VANISHING = 1e-12
INF = math.inf

Reduce = Callable[[Scores], Tensor]


@pytest.fixture(params=["one launch", "many launches"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either a program for every tile, or programs that go along all tiles, and a launch for every block of rows."""
    if request.param == "many launches":
        monkeypatch.setattr(triton_launch, "_BUSY", 1)
        monkeypatch.setattr(triton_launch, "_SCRATCH", 1)


def weighted(diagonal: bool = True, dims: tuple[int | None, ...] = (1, 0, None)) -> Reduce:
    """A scalar that depends on every row, column and total log-sum-exp with a weight of its own."""

    def reduce(scores: Scores) -> Tensor:
        parts = [scores.logsumexp(dim, diagonal=diagonal).reshape(-1) for dim in dims]
        values = torch.cat(parts)
        possible = values > IMPOSSIBLE / 2
        weights = torch.linspace(0.3, 1.7, len(values), dtype=values.dtype, device=values.device)
        return (values[possible] * weights[possible]).sum()

    return reduce


class Problem:
    """Scores twice: by Triton in the given precision, and dense in double precision from the same numbers."""

    def __init__(
        self,
        n: int,
        m: int,
        d: int,
        alignment: Alignment,
        tau: float = 0.7,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        biases: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.alignment = alignment
        single = torch.float32 if dtype.itemsize < 4 else dtype
        self.inputs = {
            "u": (scale * normal(n, d, seed=1)).to(dtype),
            "v": (scale * normal(m, d, seed=2)).to(dtype),
            "temperature": torch.tensor(tau, dtype=single),
        }
        if biases is not None:
            self.inputs |= {"bias_u": biases[0].to(dtype), "bias_v": biases[1].to(dtype)}

    def scores(self, method: str, needed: tuple[str, ...] = ()) -> tuple[Scores, dict[str, Tensor]]:
        dtype = torch.float64 if method == "dense" else None
        inputs = {
            name: value.to(DEVICE, dtype, copy=True).requires_grad_(name in (needed or self.inputs))
            for name, value in self.inputs.items()
        }
        if method == "dense":
            for name in inputs.keys() & {"bias_u", "bias_v"}:
                inputs[name] = inputs[name].detach().clamp(min=IMPOSSIBLE).requires_grad_(inputs[name].requires_grad)
        return Scores(**inputs, alignment=self.alignment, method=method), inputs  # type: ignore[arg-type]

    def compare(self, reduce: Reduce, value: float, gradient: float, needed: tuple[str, ...] = ()) -> None:
        """Check values entry by entry and gradients relative to their largest entry."""
        results = []
        for method in ("triton", "dense"):
            scores, inputs = self.scores(method, needed)
            reduced = reduce(scores)
            wanted = [tensor for tensor in inputs.values() if tensor.requires_grad]
            results.append((reduced.detach().double(), torch.autograd.grad(reduced.sum(), wanted)))
        (ours, in_ours), (exact, in_exact) = results
        assert_close(ours, exact, rtol=value, atol=value)
        for found, expected in zip(in_ours, in_exact, strict=True):
            largest = float(expected.abs().max())
            # Of a gradient that is zero, such as a cosine's in one dimension, rounding is left.
            size = largest if largest > VANISHING else 1.0
            assert_close(found.double(), expected, rtol=0, atol=gradient * size)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("diagonal", [True, False])
def test_every_alignment(name: str, diagonal: bool) -> None:
    Problem(37, 37, 4, CASES[name][0]).compare(weighted(diagonal), value=1e-6, gradient=2e-5)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(shape: tuple[int, int, int]) -> None:
    n, m, d = shape
    Problem(n, m, d, CASES["l2"][0]).compare(weighted(diagonal=n != m), value=1e-6, gradient=2e-5)


@pytest.mark.parametrize("name", ["inner", "cosine", "l2"])
def test_embeddings_of_one_dimension(name: str) -> None:
    Problem(20, 20, 1, CASES[name][0]).compare(weighted(diagonal=False), value=1e-6, gradient=2e-5)


@pytest.mark.parametrize("name", ["inner", "l2"])
@pytest.mark.parametrize("diagonal", [True, False])
def test_impossible_atoms(name: str, diagonal: bool) -> None:
    bias_u, bias_v = normal(37, seed=3), normal(37, seed=4)
    bias_u[[0, 20, 36]] = -INF
    bias_v[:18] = -INF  # a tile and a bit, so that some tiles have nothing at all
    problem = Problem(37, 37, 4, CASES[name][0], biases=(bias_u, bias_v))
    problem.compare(weighted(diagonal), value=1e-6, gradient=2e-5)
    scores, _ = problem.scores("triton")
    assert torch.equal(scores.logsumexp(1).isneginf().cpu(), bias_u.isneginf())
    assert torch.equal(scores.logsumexp(0).isneginf().cpu(), bias_v.isneginf())


def test_nothing_possible() -> None:
    nothing = torch.full((20,), -INF)
    scores, inputs = Problem(20, 20, 4, CASES["inner"][0], biases=(nothing, torch.zeros(20))).scores("triton")
    reduced = torch.cat([scores.logsumexp(1), scores.logsumexp(0), scores.logsumexp()[None]])
    assert reduced.isneginf().all()
    (in_u,) = torch.autograd.grad(reduced, inputs["u"], torch.ones_like(reduced))
    assert torch.equal(in_u, torch.zeros_like(in_u))


@pytest.mark.parametrize(("name", "tau"), [("cosine", 0.01), ("cosine", 0.1), ("cosine", 1.0), ("l2", 0.01)])
def test_temperatures(name: str, tau: float) -> None:
    Problem(19, 19, 8, CASES[name][0], tau).compare(weighted(diagonal=False), value=1e-6, gradient=4e-5)


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_scores_too_far_apart_for_one_exponential(scale: float) -> None:
    # Scores of hundreds and ten thousands: what single precision's rounding of them leaves is what can be asked for.
    rounding = 2**-23 * (scale**2) * 10
    Problem(37, 41, 4, CASES["inner"][0], 1.0, scale).compare(weighted(), value=1e-6, gradient=rounding + 2e-5)


@pytest.mark.parametrize("dims", [(1,), (0,), (None,)], ids=["rows", "columns", "total"])
def test_one_reduction_alone(dims: tuple[int | None, ...]) -> None:
    problem = Problem(37, 19, 4, CASES["l2"][0])
    problem.compare(weighted(dims=dims), value=1e-6, gradient=2e-5)


@pytest.mark.parametrize("needed", ["u", "v", "temperature", "bias_u", "bias_v"])
def test_one_gradient_alone(needed: str) -> None:
    biases = (normal(37, seed=3), normal(19, seed=4))
    problem = Problem(37, 19, 4, CASES["l2"][0], biases=biases)
    problem.compare(weighted(), value=1e-6, gradient=2e-5, needed=(needed,))


@pytest.mark.parametrize("separation", [1.0, 4.0, 8.0])
def test_losses_near_convergence_keep_their_digits(separation: float) -> None:
    problem = Problem(20, 20, 20, CASES["inner"][0], 1.0)
    for side in ("u", "v"):
        problem.inputs[side] = separation * torch.eye(20) + 0.01 * problem.inputs[side]

    def loss(scores: Scores) -> Tensor:
        return scores.diagonal_nll(0).mean() + scores.diagonal_nll(1).mean()

    size = float(loss(problem.scores("dense")[0]).detach())
    problem.compare(lambda scores: loss(scores) / size, value=2e-5, gradient=2e-5)


@pytest.mark.parametrize(
    ("dtype", "gradient"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)], ids=["bfloat16", "float16"]
)
@pytest.mark.parametrize(
    ("name", "value"), [("inner", 2e-6), ("cosine", 2e-3), ("l2", 1e-2), ("potentials", 2e-6)], ids=str
)
def test_half_precision(name: str, value: float, dtype: torch.dtype, gradient: float) -> None:
    # An inner product loses nothing. What a cosine normalises and a distance centres is rounded once more.
    problem = Problem(35, 19, 34, CASES[name][0], 1.0, 0.5, dtype)
    problem.compare(weighted(), value=value, gradient=gradient)


def test_small_weights_are_not_lost_in_half_precision() -> None:
    # Each below the smallest positive float16.
    problem = Problem(19, 19, 4, CASES["inner"][0], 1.0, 0.5, torch.float16)
    results = []
    for method in ("triton", "dense"):
        scores, inputs = problem.scores(method)
        (in_temperature,) = torch.autograd.grad(1e-9 * weighted()(scores), inputs["temperature"])
        results.append(in_temperature.double())
    assert_close(*results, rtol=1e-3, atol=0)


def test_rows_of_a_larger_matrix() -> None:
    """Row i is matched with column i + offset, as on a rank of several."""
    scores, _ = Problem(7, 40, 4, CASES["inner"][0]).scores("triton")
    terms = replace(scores._kernel.terms, offset=30)
    ours, dense = TritonKernel(terms), DenseKernel(terms)
    for dim in (0, 1, None):
        value, exact = ours.logsumexp(dim, False), dense.logsumexp(dim, False)
        assert_close(value, exact, rtol=1e-5, atol=1e-5)
        ours_in, exact_in = (
            torch.autograd.grad(reduced.sum(), (terms.x, terms.y), retain_graph=True) for reduced in (value, exact)
        )
        assert_close(ours_in, exact_in, rtol=1e-4, atol=1e-5)


def test_results_are_the_same_to_the_last_bit() -> None:
    def run() -> tuple[Tensor, ...]:
        scores, inputs = Problem(37, 50, 4, CASES["inner"][0]).scores("triton")
        reduced = weighted()(scores)
        return (reduced.detach(), *torch.autograd.grad(reduced, tuple(inputs.values())))

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


def test_a_second_derivative_is_refused() -> None:
    for reduce in (weighted(dims=(0, 1)), weighted(dims=(None,))):
        scores, inputs = Problem(5, 5, 4, CASES["inner"][0]).scores("triton")
        (gradient,) = torch.autograd.grad(reduce(scores), inputs["u"], create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            gradient.sum().backward()


def test_without_gradients_nothing_is_kept() -> None:
    with torch.no_grad():
        scores, _ = Problem(5, 5, 4, CASES["l2"][0]).scores("triton")
    assert not scores.logsumexp(0).requires_grad
    assert not scores.logsumexp().requires_grad


@pytest.mark.parametrize(("name", "dtype"), [("log-cauchy", torch.float32), ("inner", torch.float64)])
def test_links_and_double_precision_are_left_to_the_tiles(name: str, dtype: torch.dtype) -> None:
    problem = Problem(20, 20, 4, CASES[name][0], dtype=dtype)
    scores, _ = problem.scores("triton")
    assert isinstance(scores._kernel, TiledKernel)
    problem.compare(weighted(), value=1e-6, gradient=2e-5)


def test_other_reductions_are_the_tiles() -> None:
    problem = Problem(20, 20, 4, CASES["inner"][0])
    for reduce in (lambda s: s.mean(torch.tanh, dim=0), lambda s: s.topk(3).values, lambda s: s.mean(diagonal=False)):
        problem.compare(reduce, value=1e-6, gradient=2e-5)


@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU tiles are larger than these matrices")
def test_these_matrices_have_several_tiles() -> None:
    tile = interpreted_tile(65)
    assert max(n for n, _, _ in SHAPES) > tile.height
    assert max(m for _, m, _ in SHAPES) > 2 * tile.width
    assert max(d for _, _, d in SHAPES) > max(tile.depth, tile.slice)
