import math

import pytest
import torch
from conditional_cases import chi_square
from library_cases import ALIGNMENTS, PHI, U, V, brute_force, library_model, shards_of
from small_models import normal, seeded

import probcl as pcl
from probcl.retrieval import Library, streaming

REPEATS = 600
every_alignment = pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)


def assert_draws_follow(draws, scores):
    """Draws (S, B) of ids 0 … N−1, and scores (N, B)."""
    for b in range(scores.shape[1]):
        assert chi_square(draws[:, b], scores[:, b].softmax(0)) > 1e-3


@every_alignment
def test_draws_have_the_probabilities_of_the_softmax_over_all_shards(alignment, monkeypatch):
    shards_of(monkeypatch, 7)
    model = library_model(alignment)
    draws = Library(model, u=U, log_prior=PHI).sample(V[:3], 20_000, generator=seeded())
    assert draws.shape == (20_000, 3)
    assert_draws_follow(draws, brute_force(model, v=V[:3], phi=PHI))


@pytest.mark.parametrize("temperature", [3.0, 0.5, 0.05])
@pytest.mark.parametrize("blocks", [2048, 3, 1])
def test_draws_from_blocks_of_any_width_do_too(temperature, blocks, monkeypatch):
    shards_of(monkeypatch, 1100)
    monkeypatch.setattr(streaming, "_BLOCKS", blocks)
    model, items = library_model(temperature=temperature), normal(2900, 5, seed=9)
    phi = normal(2900, seed=3).masked_fill(torch.arange(2900) < 1200, -torch.inf)
    draws = Library(model, u=items, log_prior=phi).sample(V[:2], 20_000, generator=seeded())
    assert int(draws.min()) >= 1200
    assert_draws_follow(draws, brute_force(model, items, V[:2], phi))


def test_draws_of_v_given_u_in_a_gauge_do_too(monkeypatch):
    shards_of(monkeypatch, 4)
    model = library_model(pcl.L2())
    bank = normal(40, 3, seed=8)
    gauged = model.regauged("u", pcl.EmpiricalPrior(U))
    scores = (brute_force(model, v=bank) - brute_force(model, v=bank).logsumexp(0)).T
    draws = Library(gauged, v=bank).sample(U[:3], 20_000, generator=seeded())
    assert_draws_follow(draws, scores[:, :3])


def test_many_queries_are_answered_a_few_at_a_time(monkeypatch):
    shards_of(monkeypatch, 25)
    monkeypatch.setattr(streaming, "_QUERIES_AT_A_TIME", 4)
    draws = Library(library_model(), u=U).sample(V, 20_000, generator=seeded())
    assert_draws_follow(draws, brute_force(library_model()))


def test_draws_are_those_of_their_generator_and_leave_the_global_one_alone():
    library, before = Library(library_model(), u=U), torch.get_rng_state()
    first, second = (library.sample(V, 50, generator=seeded(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, library.sample(V, 50, generator=seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_ids_and_never_of_what_was_removed():
    model, gone = library_model(), torch.arange(0, 60, 2)
    library = Library(model, u=U)
    library.remove(gone)
    scores = brute_force(model)
    scores[gone] = -torch.inf
    assert_draws_follow(library.sample(V, 5000, generator=seeded()), scores)


def test_a_log_prior_that_excludes_everything_leaves_nothing_to_draw():
    library = Library(library_model(), u=U, log_prior=torch.full((60,), -torch.inf))
    assert library.log_normalizer(V).isneginf().all()
    for draw in (library.sample, library.approximate):
        with pytest.raises(ValueError, match=r"^log_prior leaves no"):
            draw(V, 10)


@pytest.mark.parametrize("temperature", [1.0, 0.01, 0.001])
def test_log_normalizers_in_single_precision_keep_their_digits(temperature, monkeypatch):
    shards_of(monkeypatch, 700, torch.float32)
    model, items = library_model(temperature=temperature, dtype=torch.float32), normal(5000, 5, seed=9).float()
    found = Library(model, u=items).log_normalizer(V.float())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, brute_force(model, items, V.float()).logsumexp(0), rtol=2e-6, atol=0)


def repeated(library, k, tail, count, index=None):
    generator = seeded()
    found = [library.approximate(V, k, tail, index=index, generator=generator) for _ in range(count)]
    exact = library.log_normalizer(V)
    ratio = torch.stack([(one.log_normalizer - exact).exp() for one in found])
    return ratio, torch.stack([one.standard_error for one in found])


@pytest.mark.parametrize(("alignment", "k"), [(pcl.InnerProduct(), 8), (pcl.L2(), 1)], ids=repr)
def test_the_approximate_normaliser_is_unbiased_and_its_standard_error_right(alignment, k):
    library = Library(library_model(alignment, temperature=2.0), u=U, log_prior=PHI)
    ratio, standard_error = repeated(library, k, 30, REPEATS)
    deviation = ratio.std(0)
    assert deviation.min() > 1e-4
    assert ((ratio.mean(0) - 1).abs() < 4 * deviation / math.sqrt(REPEATS)).all()
    # The estimate is relative to Ẑ, and so times Ẑ / Z comparable with the deviation of Ẑ / Z.
    estimated = (standard_error * ratio).square().mean(0).sqrt()
    torch.testing.assert_close(estimated, deviation, rtol=0.15, atol=0)


def test_the_normaliser_is_unbiased_whatever_the_head_is():
    class Worst:
        def __init__(self, library):
            self.library = library

        def search(self, queries, k):
            values, ids = self.library.search(queries, 60)
            # As an index that missed one, too.
            return pcl.scores.TopK(values[:, -k:].index_fill(1, torch.tensor([0]), -torch.inf), missed(ids[:, -k:]))

    def missed(ids):
        return ids.index_fill(1, torch.tensor([0]), -1)

    library = Library(library_model(temperature=2.0), u=U)
    ratio, _ = repeated(library, 5, 30, REPEATS, Worst(library))
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / math.sqrt(REPEATS)).all()


def test_a_head_of_everything_is_exact():
    library = Library(library_model(), u=U, log_prior=PHI)
    found = library.approximate(V, k=60, tail=5, generator=seeded())
    torch.testing.assert_close(found.log_normalizer, library.log_normalizer(V))
    assert (found.standard_error == 0).all()
    assert_draws_follow(found.sample(5000, generator=seeded()), brute_force(library_model(), phi=PHI))


def test_approximate_draws_have_the_weights_of_the_terms():
    model = library_model(temperature=1.0)
    found = Library(model, u=U).approximate(V, k=5, tail=40, generator=seeded())
    assert found.ids.shape == found.log_weights.shape == (9, 45)
    terms = torch.zeros(60, 9, dtype=torch.float64).scatter_add_(0, found.ids.T, found.log_weights.T.exp())
    assert_draws_follow(found.sample(5000, generator=seeded()), terms.log())
    assert torch.equal(found.log_weights.logsumexp(1), found.log_normalizer)
    # A head item has its own weight and no more, however often the tail drew it.
    scores = brute_force(model)
    torch.testing.assert_close(terms.gather(0, found.ids[:, :5].T), scores.gather(0, found.ids[:, :5].T).exp())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"k": 61}, r"^k must be at most the 60 items"), ({"k": 2, "tail": 1}, r"^tail must be at least 2, got 1")],
)
def test_what_cannot_be_approximated_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        Library(library_model(), u=U).approximate(V, **arguments)


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_draws_is_positive(number):
    with pytest.raises(ValueError, match=r"^num_samples must be at least 1"):
        Library(library_model(), u=U).sample(V, number)
