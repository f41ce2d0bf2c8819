import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import normal

import probcl as pcl

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


def test_weights_are_uniform_by_default_and_normalised_otherwise():
    assert torch.allclose(pcl.EmpiricalPrior(torch.arange(4)).log_weights.exp(), torch.full((4,), 0.25))
    weighted = pcl.EmpiricalPrior(torch.arange(3), torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64))
    assert weighted.log_weights.exp().tolist() == pytest.approx([0.25, 0.0, 0.75], abs=1e-15)


def test_weights_are_normalised_where_their_sum_would_overflow():
    weights = torch.tensor([3e38, 3e38, 0.0])
    assert pcl.EmpiricalPrior(torch.arange(3), weights).log_weights.exp().tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_its_length_event_shape_and_repr_tell_what_it_holds():
    prior = pcl.EmpiricalPrior(normal(5, 2, 3))
    assert (len(prior), prior.event_shape) == (5, (2, 3))
    assert repr(prior) == "EmpiricalPrior(5 atoms of shape (2, 3))"


def test_distinct_atoms_carry_the_weights_of_their_repeats():
    prior = pcl.EmpiricalPrior(torch.tensor([4, 2, 4, 2, 9]), torch.tensor([1.0, 2.0, 3.0, 0.0, 2.0])).distinct()
    assert prior.values.tolist() == [4, 2, 9]
    assert prior.log_weights.exp().tolist() == pytest.approx([0.5, 0.25, 0.25])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_atom_is_found_where_it_first_occurs(dtype):
    values = (4 * normal(40)).to(dtype)
    prior = pcl.EmpiricalPrior(values)
    first = [int((values == value).nonzero()[0, 0]) for value in values]
    assert prior.find(values).tolist() == first
    assert prior.group.tolist() == first


def test_arrays_are_found_under_any_batch_shape():
    values = normal(30, 2, 3)
    prior = pcl.EmpiricalPrior(values)
    wanted = torch.tensor([[3, 0, 29], [7, 7, 1]])
    assert torch.equal(prior.find(values[wanted]), wanted)
    assert prior.find(values[4]).shape == ()
    assert int(prior.find(values[4])) == 4


def test_what_is_not_in_the_bank_is_at_minus_one():
    values = normal(30, 3)
    prior = pcl.EmpiricalPrior(values)
    nudged = values.clone()
    nudged[:, 1] = torch.nextafter(nudged[:, 1], torch.tensor(torch.inf, dtype=torch.float64))
    assert (prior.find(nudged) == -1).all()
    assert (prior.find(torch.full((2, 3), torch.nan)) == -1).all()


def test_no_values_are_found_nowhere():
    assert pcl.EmpiricalPrior(normal(4, 3)).find(torch.empty(0, 3)).shape == (0,)
    assert pcl.EmpiricalPrior(torch.arange(4)).find(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_negative_zero_is_zero():
    prior = pcl.EmpiricalPrior(torch.tensor([[1.0, 0.0], [1.0, -0.0], [-0.0, 1.0]]))
    assert prior.group.tolist() == [0, 0, 2]
    assert prior.find(torch.tensor([[1.0, -0.0], [0.0, 1.0]])).tolist() == [0, 2]


def test_values_are_compared_in_the_precision_of_the_bank():
    values = normal(10, 2, dtype=torch.float32)
    assert pcl.EmpiricalPrior(values).find(values.double()).tolist() == list(range(10))


def test_a_value_no_label_can_have_is_not_rounded_to_one():
    assert pcl.EmpiricalPrior(torch.arange(3)).find(torch.tensor([1.0, 1.7, torch.nan])).tolist() == [1, -1, -1]
    assert pcl.EmpiricalPrior(torch.arange(3, dtype=torch.int8)).find(torch.tensor([1, 257])).tolist() == [1, -1]
    assert pcl.EmpiricalPrior(torch.tensor([True, False])).find(torch.tensor([5, 0])).tolist() == [-1, 1]


@settings(max_examples=50)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.lists(st.integers(-5, 5), max_size=10))
def test_labels_are_found_as_a_list_finds_them(bank, queries):
    found = pcl.EmpiricalPrior(torch.tensor(bank)).find(torch.tensor(queries, dtype=torch.int64))
    assert found.tolist() == [bank.index(query) if query in bank else -1 for query in queries]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pcl.EmpiricalPrior([1.0, 2.0]), TypeError, r"^values must be a torch.Tensor"),
        (lambda: pcl.EmpiricalPrior(torch.empty(0, 3)), ValueError, r"^values must have at least one"),
        (lambda: pcl.EmpiricalPrior(torch.tensor(1.0)), ValueError, r"^values must have at least one"),
        (lambda: pcl.EmpiricalPrior(torch.empty(3, 0)), ValueError, r"^values must have at least one"),
        (lambda: pcl.EmpiricalPrior(torch.tensor([1.0, torch.nan])), ValueError, r"^values must be finite.* 1 NaN"),
        (lambda: pcl.EmpiricalPrior(torch.arange(3), [1, 1, 1]), TypeError, r"^weights must be a torch.Tensor"),
        (lambda: pcl.EmpiricalPrior(torch.arange(3), torch.ones(2)), ValueError, r"^weights must have shape \(3,\)"),
        (lambda: pcl.EmpiricalPrior(torch.arange(2), torch.tensor([1.0, -1])), ValueError, r"^weights must be non-neg"),
        (lambda: pcl.EmpiricalPrior(torch.arange(2), torch.zeros(2)), ValueError, r"^weights must be .* not all zero"),
        (lambda: pcl.EmpiricalPrior(torch.arange(1), torch.tensor([torch.inf])), ValueError, r"^weights must be fin"),
        (lambda: pcl.EmpiricalPrior(normal(3, 2)).find(normal(4, 3)), ValueError, r"event shape \(2,\).*\(4, 3\)"),
        (lambda: pcl.EmpiricalPrior(normal(3, 2)).find(normal(1)[0]), ValueError, r"event shape \(2,\)"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
