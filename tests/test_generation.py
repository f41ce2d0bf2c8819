import pytest
import torch
from conditional_cases import chi_square, labels, vectors
from small_models import seeded, table_model

import probcl as pcl
from probcl.generation import resample


@pytest.mark.parametrize("make", [vectors, labels])
def test_draws_are_items_of_the_bank_with_the_probabilities_of_the_conditional(make):
    d = make(0.5, distinct=False, weighted=True)
    drawn = resample(d, 20_000, seed=0)
    assert drawn.values.shape == (20_000, 3, *d.event_shape)
    assert torch.equal(drawn.values, d.atoms[drawn.indices])
    for b in range(3):
        assert chi_square(drawn.indices[:, b], d.probs[b]) > 1e-3


def test_a_seed_repeats_the_draws_and_leaves_the_global_generator_alone():
    d, before = vectors(0.5), torch.get_rng_state()
    first, second, other = (resample(d, 50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.indices, second.indices)
    assert not torch.equal(first.indices, other.indices)
    assert torch.equal(resample(d, 50, generator=seeded(1)).indices, first.indices)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_the_global_generator_decides():
    d = vectors(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first, second = resample(d, 50), resample(d, 50)
        torch.manual_seed(5)
        assert torch.equal(resample(d, 50).indices, first.indices)
    assert not torch.equal(first.indices, second.indices)


def test_distinct_counts_values_and_not_positions():
    drawn = resample(vectors(1.0, distinct=False), 200, seed=0)
    for b in range(3):
        assert int(drawn.distinct[b]) == len(drawn.values[:, b].unique(dim=0))
        assert int(drawn.distinct[b]) < len(drawn.indices[:, b].unique())
    assert resample(vectors(1.0), 1, seed=0).distinct.tolist() == [1, 1, 1]


def test_effective_sample_size_is_one_for_a_collapsed_and_n_for_an_even_conditional():
    scores = torch.tensor([[0.0, 1e4], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    d = table_model(scores).u_given_v(pcl.EmpiricalPrior(torch.arange(4))).condition(torch.arange(2))
    drawn = resample(d, 100, seed=0)
    torch.testing.assert_close(drawn.ess, torch.tensor([4.0, 1.0], dtype=torch.float64))
    assert drawn.distinct.tolist() == [4, 1]


def test_one_condition_without_an_axis_gives_draws_without_one():
    model = table_model(torch.zeros(4, 2, dtype=torch.float64))
    d = model.u_given_v(pcl.EmpiricalPrior(torch.arange(4))).condition(torch.tensor(1))
    drawn = resample(d, 9, seed=0)
    assert (drawn.values.shape, drawn.indices.shape, drawn.ess.shape, drawn.distinct.shape) == ((9,), (9,), (), ())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda d: resample(d.conditional, 5),
            TypeError,
            r"^conditional must be an EmpiricalConditional.* Conditional$",
        ),
        (lambda d: resample(d, 0), ValueError, r"^num_samples must be at least 1"),
        (lambda d: resample(d, 2.5), TypeError, r"^num_samples must be an integer"),
        (
            lambda d: resample(d, 5, seed=1, generator=seeded()),
            ValueError,
            r"^seed and generator must not both be given, got seed=1",
        ),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(vectors(1.0))
