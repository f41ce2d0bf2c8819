import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import DIVERGENCES
from scipy.optimize import minimize_scalar
from small_models import normal
from torch import Tensor
from torch.testing import assert_close

from probcl.divergences import KL, Pearson, Tsallis, as_divergence

every_divergence = pytest.mark.parametrize("name", DIVERGENCES)
names, logs = st.sampled_from(list(DIVERGENCES)), st.floats(-4, 4)

# f(u) as printed in LOSSES.md c, of u itself
TEXTBOOK = {
    "kl": lambda u: u * np.log(u),
    "js": lambda u: -(u + 1) * np.log((1 + u) / 2) + u * np.log(u),
    "pearson": lambda u: (u - 1) ** 2,
    "squared-hellinger": lambda u: (np.sqrt(u) - 1) ** 2,
    "tsallis 0.5": lambda u: (u**0.5 - 1) / -0.5,
    "tsallis 1.5": lambda u: (u**1.5 - 1) / 0.5,
    "tsallis 3": lambda u: (u**3 - 1) / 2,
    "vincze-le-cam": lambda u: (u - 1) ** 2 / (u + 1),
    "reverse-kl": lambda u: -np.log(u),
    "neyman": lambda u: (1 - u) ** 2 / u,
}


def at(c: float) -> Tensor:
    return torch.tensor(c, dtype=torch.float64)


@given(names, logs)
def test_f_is_the_printed_function(name: str, c: float) -> None:
    assert float(DIVERGENCES[name].f(at(c))) == pytest.approx(TEXTBOOK[name](math.exp(c)), rel=1e-10, abs=1e-12)


@given(names, logs)
def test_fenchel_young_holds_with_equality(name: str, c: float) -> None:
    divergence, u = DIVERGENCES[name], math.exp(c)
    derivative, value = float(divergence.derivative(at(c))), TEXTBOOK[name](u)
    assert float(divergence.conjugate(at(c))) == pytest.approx(u * derivative - value, rel=1e-10, abs=1e-10)


@given(names, logs)
def test_the_derivative_is_that_of_f(name: str, c: float) -> None:
    divergence, point = DIVERGENCES[name], at(c).requires_grad_()
    (in_c,) = torch.autograd.grad(divergence.f(point), point)
    assert float(divergence.derivative(at(c))) == pytest.approx(float(in_c) / math.exp(c), rel=1e-9, abs=1e-11)


@given(names, st.floats(-3, 3))
def test_the_conjugate_is_the_supremum(name: str, c: float) -> None:
    divergence = DIVERGENCES[name]
    t = float(divergence.derivative(at(c)))
    best = minimize_scalar(
        lambda x: TEXTBOOK[name](math.exp(x)) - t * math.exp(x),
        bounds=(-6, 6),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert float(divergence.conjugate(at(c))) == pytest.approx(-best.fun, rel=1e-8, abs=1e-8)


@given(names, st.lists(logs, min_size=2, max_size=6), st.integers(0, 1000))
def test_the_variational_form_is_a_lower_bound_with_equality_at_the_ratio(
    name: str, points: list[float], seed: int
) -> None:
    divergence = DIVERGENCES[name]
    u = torch.tensor(points, dtype=torch.float64).exp()
    q = normal(len(points), seed=seed).softmax(0)
    u = u / (q @ u)
    exact = float(q @ divergence.f(u.log()))
    guess = normal(len(points), seed=seed + 1)

    def bound(c: Tensor) -> float:
        return float((q * u) @ divergence.derivative(c) - q @ divergence.conjugate(c))

    assert bound(u.log()) == pytest.approx(exact, rel=1e-10, abs=1e-10)
    assert bound(guess) <= exact + 1e-10


@every_divergence
def test_f_vanishes_at_one_and_is_convex(name: str) -> None:
    divergence = DIVERGENCES[name]
    assert float(divergence.f(at(0.0))) == pytest.approx(0, abs=1e-15)
    assert (divergence.derivative(torch.linspace(-5, 5, 200, dtype=torch.float64)).diff() > 0).all()


@every_divergence
def test_critics_fill_the_range_and_stay_inside(name: str) -> None:
    divergence = DIVERGENCES[name]
    low, high = divergence.critic_range
    ends = divergence.derivative(torch.tensor([-40.0, 40.0], dtype=torch.float64)).tolist()
    inner = divergence.derivative(torch.linspace(-15, 15, 50, dtype=torch.float64))
    assert low < inner.min()
    assert inner.max() < high
    for end, limit in zip(ends, (low, high), strict=True):
        assert abs(end) > 35 if math.isinf(limit) else end == pytest.approx(limit, abs=1e-6)


@every_divergence
def test_growth_bounds_the_functions_far_out(name: str) -> None:
    divergence = DIVERGENCES[name]
    p, q = divergence.growth
    for fn in (divergence.derivative, divergence.conjugate):
        for c, rate in ((-60.0, p), (60.0, q)):
            assert abs(float(fn(at(c)))) <= 200 * math.exp(rate * 60)


@every_divergence
def test_gradients(name: str) -> None:
    divergence, c = DIVERGENCES[name], (2 * normal(6)).requires_grad_()
    for fn in (divergence.f, divergence.derivative, divergence.conjugate):
        assert torch.autograd.gradcheck(fn, c)


@every_divergence
def test_single_precision_keeps_its_digits_near_one(name: str) -> None:
    """u = 1 + 1e-5 has lost half of its digits; c = 1e-5 has not."""
    divergence, c = DIVERGENCES[name], torch.tensor([-1e-5, 1e-5])
    exact = divergence.derivative(c.double()) - divergence.derivative(at(0.0))
    got = divergence.derivative(c).double() - divergence.derivative(at(0.0))
    if float(divergence.derivative(at(0.0))) == 0:
        assert_close(got, exact, rtol=1e-6, atol=0)
    assert_close(divergence.conjugate(c).double(), divergence.conjugate(c.double()), rtol=1e-6, atol=1e-6)


@every_divergence
@pytest.mark.parametrize("of", ["derivative", "conjugate", "f"])
def test_single_precision_keeps_the_digits_of_each_gradient(name: str, of: str) -> None:
    """The derivative of expm1 as autograd takes it, expm1 + 1, has none left at c = −20, nor has that of tanh at 20."""
    fn = getattr(DIVERGENCES[name], of)
    slopes = []
    for dtype in (torch.float32, torch.float64):
        c = torch.linspace(-30, 30, 1201).to(dtype).requires_grad_()
        slopes.append(torch.autograd.grad(fn(c).sum(), c)[0].double())
    slopes = [slope[slopes[1].abs() < 1e38] for slope in slopes]
    if of == "f":  # its slope changes sign at one, and is a difference there
        assert_close(slopes[0], slopes[1], rtol=2e-5, atol=1e-6)
    else:
        assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("c", [-200.0, 200.0])
@every_divergence
def test_the_branch_that_is_not_taken_leaves_no_nan_in_the_gradient(name: str, c: float) -> None:
    divergence, point = DIVERGENCES[name], torch.tensor(c, dtype=torch.float64, requires_grad=True)
    for fn in (divergence.derivative, divergence.conjugate):
        assert not torch.autograd.grad(fn(point), point)[0].isnan()


def test_tsallis_tends_to_kl_and_is_pearson_at_two() -> None:
    c = normal(8)
    # In either case what is added is a multiple of u − 1, whose expectation vanishes.
    assert_close(Tsallis(1 + 1e-6).f(c), KL().f(c) + 1e6 * torch.expm1(c), rtol=1e-4, atol=1e-4)
    assert_close(Tsallis(2).f(c), Pearson().f(c) + 2 * torch.expm1(c))


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if "tsallis" not in name])
def test_is_found_by_its_name(name: str) -> None:
    assert as_divergence(name) == DIVERGENCES[name]
    assert as_divergence(DIVERGENCES[name]) is DIVERGENCES[name]


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"divergence must be Tsallis\(alpha\) or one of .*, got 'tsallis'"):
        as_divergence("tsallis")
    with pytest.raises(TypeError, match="divergence must be a Divergence or the name of one, got 3 of type int"):
        as_divergence(3)
    with pytest.raises(ValueError, match="alpha must not be 1"):
        Tsallis(1)
    with pytest.raises(ValueError, match="alpha must be finite and positive, got -1"):
        Tsallis(-1)
