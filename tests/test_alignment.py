import copy
import json

import pytest
import torch
from alignment_cases import CASES, OF_ANY_WIDTH, WIDTH, brute_force, l2, with_potentials
from hypothesis import given
from hypothesis import strategies as st
from small_models import normal
from torch.testing import assert_close

from probcl import L2, Alignment, Cosine, InnerProduct, Scores, WithPotentials
from probcl.serialization import from_config, to_config

every_alignment = pytest.mark.parametrize("name", CASES)


class TestEveryAlignment:
    """What any alignment must do; a new one inherits these by entering `alignment_cases.CASES`."""

    @every_alignment
    @pytest.mark.parametrize(("n", "m"), [(5, 3), (3, 5), (1, 4), (4, 1), (1, 1)])
    def test_all_pairs_are_the_definition(self, name: str, n: int, m: int) -> None:
        alignment, definition = CASES[name]
        x, y = normal(n, WIDTH), normal(m, WIDTH, seed=1)
        assert_close(alignment(x, y), brute_force(definition, x, y), rtol=1e-12, atol=1e-12)

    @every_alignment
    def test_matched_is_the_diagonal_and_the_definition(self, name: str) -> None:
        alignment, definition = CASES[name]
        x, y = normal(6, WIDTH), normal(6, WIDTH, seed=1)
        matched = alignment.matched(x, y)
        assert_close(matched, alignment(x, y).diagonal(), rtol=1e-12, atol=1e-12)
        assert_close(matched, brute_force(definition, x, y).diagonal(), rtol=1e-12, atol=1e-12)

    @given(st.sampled_from(OF_ANY_WIDTH), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.floats(1e-3, 1e3))
    def test_any_shape_and_scale(self, name: str, n: int, m: int, d: int, scale: float) -> None:
        alignment, definition = CASES[name]
        x, y = scale * normal(n, d), scale * normal(m, d, seed=1)
        expected = brute_force(definition, x, y)
        assert_close(alignment(x, y), expected, rtol=1e-10, atol=1e-12 * max(1.0, float(expected.abs().max())))

    @every_alignment
    def test_gradients(self, name: str) -> None:
        alignment, _ = CASES[name]
        x, y = normal(3, WIDTH).requires_grad_(), normal(2, WIDTH, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(alignment, (x, y))
        assert torch.autograd.gradcheck(alignment.matched, (x[:2], y))

    @every_alignment
    def test_is_symmetric(self, name: str) -> None:
        alignment, _ = CASES[name]
        x, y = normal(4, WIDTH), normal(3, WIDTH, seed=1)
        assert_close(alignment(x, y), alignment(y, x).mT, rtol=1e-12, atol=1e-12)

    @every_alignment
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_keeps_the_dtype(self, name: str, dtype: torch.dtype) -> None:
        alignment, definition = CASES[name]
        x, y = normal(4, WIDTH, dtype=dtype), normal(4, WIDTH, seed=1, dtype=dtype)
        expected = brute_force(definition, x.double(), y.double())
        tolerance = 80 * torch.finfo(dtype).eps
        assert_close(alignment(x, y), expected.to(dtype), rtol=tolerance, atol=tolerance)
        assert alignment.matched(x, y).dtype == dtype

    @every_alignment
    def test_copies_and_state_dicts_change_nothing(self, name: str) -> None:
        alignment, _ = CASES[name]
        x, y = normal(3, WIDTH), normal(3, WIDTH, seed=1)
        twin = copy.deepcopy(alignment)
        twin.load_state_dict(alignment.state_dict())
        assert torch.equal(twin(x, y), alignment(x, y))

    @pytest.mark.parametrize("name", [name for name in CASES if "log-cauchy" not in name])
    def test_is_rebuilt_from_its_configuration(self, name: str) -> None:
        alignment, _ = CASES[name]
        rebuilt = from_config(json.loads(json.dumps(to_config(alignment))), "alignment")
        x, y = normal(3, WIDTH), normal(3, WIDTH, seed=1)
        assert repr(rebuilt) == repr(alignment)
        assert torch.equal(rebuilt(x, y), alignment(x, y))


class TestL2:
    def test_a_common_offset_costs_no_digits_in_float32(self) -> None:
        x, y = (normal(20, 8) + 1e4).float(), (normal(30, 8, seed=1) + 1e4).float()
        expected = L2()(x.double(), y.double())
        assert_close(L2()(x, y).double(), expected, rtol=1e-5, atol=1e-5)
        naive = x @ y.mT - x.square().sum(-1)[:, None] / 2 - y.square().sum(-1) / 2
        assert (naive.double() - expected).abs().max() > 1

    def test_is_never_positive_and_zero_for_equal_vectors(self) -> None:
        x = 1e3 * normal(50, 16, dtype=torch.float32)
        assert L2()(x, x).max() <= 0
        assert L2().matched(x, x).eq(0).all()

    def test_is_the_negative_half_of_torchs_squared_distance(self) -> None:
        x, y = normal(7, 3), normal(5, 3, seed=1)
        assert_close(L2()(x, y), -torch.cdist(x, y).square() / 2)


class TestCosine:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
    def test_does_not_depend_on_the_norms(self, scale: float, dtype: torch.dtype) -> None:
        x, y = normal(6, 5, dtype=dtype), normal(6, 5, seed=1, dtype=dtype)
        assert_close(Cosine()(scale * x, y / scale), Cosine()(x, y), rtol=1e-6, atol=1e-6)
        assert_close(Cosine().matched(scale * x, y / scale), Cosine().matched(x, y), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_gradients_of_tiny_and_huge_vectors_scale_inversely(self, scale: float) -> None:
        x, y = normal(6, 5, dtype=torch.float32), normal(6, 5, seed=1, dtype=torch.float32)
        at_one, scaled = x.clone().requires_grad_(), (scale * x).requires_grad_()
        Cosine()(at_one, y).sum().backward()
        Cosine()(scaled, y).sum().backward()
        assert_close(scaled.grad * scale, at_one.grad, rtol=1e-4, atol=1e-5)

    @given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 1000))
    def test_lies_between_minus_one_and_one(self, n: int, d: int, seed: int) -> None:
        x = normal(n, d, seed=seed)
        assert Cosine()(x, x).abs().max() <= 1 + 1e-15 * d
        assert_close(Cosine().matched(x, -3 * x), -torch.ones(n, dtype=x.dtype))

    @pytest.mark.parametrize(("side", "which"), [("x", "first"), ("y", "second")])
    def test_refuses_a_zero_vector_and_names_its_row(self, side: str, which: str) -> None:
        embeddings = {"x": normal(4, 3), "y": normal(4, 3, seed=1)}
        embeddings[side][2] = 0
        for use in (Cosine(), Cosine().matched, lambda x, y: Scores(x, y, Cosine())):
            with pytest.raises(ValueError, match=f"zero vector, got one in row 2 of the {which} embeddings"):
                use(embeddings["x"], embeddings["y"])


class TestWithPotentials:
    @pytest.mark.parametrize("base", [InnerProduct(), Cosine(), L2()])
    def test_is_the_base_when_the_potentials_vanish(self, base: Alignment) -> None:
        x, y = normal(4, 3), normal(5, 3, seed=1)
        padded = [torch.cat([z, torch.zeros(len(z), 2, dtype=z.dtype)], dim=1) for z in (x, y)]
        assert_close(WithPotentials(base, 2)(*padded), base(x, y))

    def test_matched_pairs_keep_the_digits_of_their_base(self) -> None:
        x = torch.cat([1e4 + 100 * normal(8, 3), 0.1 * normal(8, 1)], dim=1).float()
        y = x + 0.01 * normal(8, 4, seed=1, dtype=torch.float32)
        expected = brute_force(with_potentials(l2, 1), x.double(), y.double()).diagonal()
        assert_close(WithPotentials(L2(), 1).matched(x, y).double(), expected, rtol=1e-5, atol=1e-8)

    def test_an_odd_width_needs_potential_dim(self) -> None:
        with pytest.raises(ValueError, match="got 3 columns; give potential_dim"):
            WithPotentials()(normal(2, 3), normal(2, 3))

    def test_the_potential_leaves_something_to_align(self) -> None:
        with pytest.raises(ValueError, match="potential_dim must be below the embedding's width 3, got 3"):
            WithPotentials(potential_dim=3)(normal(2, 3), normal(2, 3))

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(("potential_dim", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
    def test_potential_dim_is_a_count(self, potential_dim: object, error: type[Exception]) -> None:
        with pytest.raises(error, match="potential_dim must be"):
            WithPotentials(potential_dim=potential_dim)

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("base", ["inner", L2])
    def test_the_base_is_an_alignment(self, base: object) -> None:
        with pytest.raises(TypeError, match=r"base must be an Alignment such as Cosine\(\), got"):
            WithPotentials(base)
