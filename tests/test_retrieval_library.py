import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from library_cases import ALIGNMENTS, PHI, U, V, brute_force, library_model, shards_of
from small_models import normal, table_model

import probcl as pcl
from probcl.retrieval import Library, queries

every_alignment = pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)


@pytest.fixture
def short_shards(monkeypatch):
    shards_of(monkeypatch, 7)


def assert_finds(library, given, scores, k=20):
    """The library holds the items along the first axis of scores; −inf for those that are not in it."""
    expected = scores.T.topk(k)
    found = library.topk(given, k)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-10, atol=1e-10)
    possible = expected.values > -torch.inf
    assert torch.equal(found.indices[possible], expected.indices[possible])
    torch.testing.assert_close(library.log_normalizer(given), scores.logsumexp(0), rtol=1e-10, atol=1e-10)


@every_alignment
@pytest.mark.parametrize("phi", [None, PHI], ids=["uniform", "weighted"])
@pytest.mark.usefixtures("short_shards")
def test_top_k_and_log_normalizer_are_those_of_all_scores(alignment, phi):
    model = library_model(alignment)
    assert_finds(Library(model, u=U, log_prior=phi), V, brute_force(model, phi=phi))


@every_alignment
@pytest.mark.usefixtures("short_shards")
def test_the_other_way_round_they_are_too(alignment):
    model, phi = library_model(alignment), normal(9, seed=5)
    assert_finds(Library(model, v=V, log_prior=phi), U, brute_force(model).T + phi[:, None], k=9)


@pytest.mark.parametrize("over", ["u", "v"])
@pytest.mark.parametrize("side", ["u", "v"])
@pytest.mark.parametrize("phi", [None, PHI], ids=["uniform", "weighted"])
@pytest.mark.usefixtures("short_shards")
def test_scores_are_in_the_gauge_of_the_model_after_items_come_and_go_too(over, side, phi):
    model = library_model(pcl.L2())
    bank = normal(40, 5 if over == "u" else 3, seed=8)
    gauged = model.regauged(over, pcl.EmpiricalPrior(bank))
    of_bank = brute_force(model, u=bank) if over == "u" else brute_force(model, v=bank)
    raw = brute_force(model)
    scores = raw - of_bank.logsumexp(0 if over == "u" else 1, keepdim=True) + torch.tensor(40.0).double().log()
    items, given, scores = (U, V, scores) if side == "u" else (V, U, scores.T)
    phi = None if phi is None else phi[: len(items)]
    scores = scores if phi is None else scores + phi[:, None]
    library = Library(gauged, **{side: items[:5]}, log_prior=None if phi is None else phi[:5])
    library.topk(given, 1)
    library.add(items[5:], log_prior=None if phi is None else phi[5:])
    assert_finds(library, given, scores, k=7)
    library.remove(torch.tensor([0, 3]))
    scores[[0, 3]] = -torch.inf
    assert_finds(library, given, scores, k=7)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 70),
    batch_size=st.integers(1, 70),
    k=st.integers(1, 60),
    weighted=st.booleans(),
    one=st.booleans(),
)
def test_what_is_found_does_not_depend_on_shards_batches_or_the_number_of_queries(rows, batch_size, k, weighted, one):
    model, phi, given = library_model(), PHI.clamp(min=-5) if weighted else None, V[:1] if one else V
    with pytest.MonkeyPatch.context() as patch:
        shards_of(patch, rows)
        library = Library(model, u=U, log_prior=phi, batch_size=batch_size)
        assert [len(shard) for shard in library.collection] == [min(rows, 60 - first) for first in range(0, 60, rows)]
        assert_finds(library, given, brute_force(model, v=given, phi=phi), k)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 20),
    changes=st.lists(st.one_of(st.integers(1, 15), st.sets(st.integers(0, 40), min_size=1)), max_size=6),
)
def test_after_any_changes_it_is_the_library_of_what_is_left(rows, changes):
    model = library_model()
    with pytest.MonkeyPatch.context() as patch:
        shards_of(patch, rows)
        library, known = Library(model, u=U[:5], log_prior=PHI[:5]), list(range(5))
        ever = 5
        for change in changes:
            if isinstance(change, int):
                count = min(change, 60 - ever)
                if count:
                    ids = library.add(U[ever : ever + count], log_prior=PHI[ever : ever + count])
                    assert ids.tolist() == list(range(ever, ever + count))
                    known, ever = known + ids.tolist(), ever + count
            elif (gone := sorted(change & set(known))) and len(gone) < len(known):
                library.remove(torch.tensor(gone))
                known = sorted(set(known) - set(gone))
        assert library.ids.tolist() == known
        assert len(library) == len(known)
        scores = torch.full((60, 9), -torch.inf, dtype=torch.float64)
        scores[known] = brute_force(model, phi=PHI)[known]
        assert_finds(library, V, scores, k=len(known))


@pytest.mark.parametrize("side", ["u", "v"])
def test_the_scores_of_no_more_than_a_shard_are_ever_made(side, monkeypatch):
    made = []

    class Recorded(pcl.Scores):
        def __init__(self, u, v, *arguments, **options):
            made.append(len(u if side == "u" else v))
            super().__init__(u, v, *arguments, **options)

    model = table_model(normal(200, 200, seed=4)).double()
    monkeypatch.setattr("probcl.retrieval.shards.SHARD_BYTES", 16 * 200 * 8)
    monkeypatch.setattr(queries, "Scores", Recorded)
    library, given = Library(model, **{side: torch.arange(200)}), torch.arange(200)
    for use in (
        lambda: library.topk(given, 5),
        lambda: library.log_normalizer(given),
        lambda: library.sample(given, 3),
    ):
        made.clear()
        use()
        assert max(made) == 16
        assert len(made) >= 13
    made.clear()
    library.approximate(given, k=5, tail=30)
    assert max(made) == 30


def test_items_come_as_tensors_arrays_mapped_files_or_batches(tmp_path):
    model = library_model()
    np.save(tmp_path / "u.npy", U.numpy())
    mapped = np.load(tmp_path / "u.npy", mmap_mode="r")
    expected = Library(model, u=U, log_prior=PHI).topk(V)
    for items in (U.numpy(), mapped, list(U.split(13)), (part.numpy() for part in U.split(59))):
        found = Library(model, u=items, log_prior=PHI, batch_size=17).topk(V)
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.values, expected.values)


def test_items_without_a_log_prior_have_one_of_zero_beside_those_with():
    model = library_model()
    library = Library(model, u=U[:20])
    assert library.log_prior is None
    library.add(U[20:], log_prior=PHI[20:])
    phi = PHI.clone()
    phi[:20] = 0
    assert torch.equal(library.log_prior, phi)
    assert_finds(library, V, brute_force(model, phi=phi))


def test_half_precision_is_kept_and_scored_in_single_with_all_digits_of_the_log_prior():
    model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    items, given = normal(50, 8, seed=1).bfloat16(), normal(4, 8, seed=2).bfloat16()
    phi = 1000 + normal(50, seed=3).float()
    library = Library(model, u=items, log_prior=phi)
    assert library.embeddings.dtype == torch.bfloat16
    expected = (given.double() @ items.double().T + phi.double()).topk(6)
    found = library.topk(given, 6)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.values.double(), expected.values, rtol=1e-6, atol=0)


def test_embeddings_ids_and_log_prior_can_be_looked_at():
    model = library_model()
    library = Library(model, u=U, log_prior=PHI)
    library.remove(torch.tensor([1, 1, 59]))
    left = torch.tensor([0, *range(2, 59)])
    assert torch.equal(library.ids, left)
    assert torch.equal(library.log_prior, PHI[left])
    torch.testing.assert_close(library.embeddings, model.embed_u(U[left]))


@pytest.mark.parametrize("bad", [U * torch.nan, U[:0], [U[:3], U[3:6] * torch.inf], [U[:3], "text"], 5, iter(())])
@pytest.mark.usefixtures("unchecked", "short_shards")
def test_a_library_to_which_nothing_could_be_added_is_as_it_was(bad):
    model = library_model()
    library = Library(model, u=U)
    before = library.topk(V)
    with pytest.raises((ValueError, TypeError), match=r"^u must "):
        library.add(bad)
    assert len(library) == 60
    assert torch.equal(library.topk(V).values, before.values)
    assert library.add(U[:1]).tolist() == [60]


@pytest.mark.parametrize(("count", "message"), [(50, r"\(60 or more,\)"), (61, r"\(60,\)")])
def test_a_log_prior_of_another_length_than_all_batches_is_refused(count, message):
    with pytest.raises(ValueError, match=r"^log_prior must have shape " + message):
        Library(library_model(), u=iter(U.split(30)), log_prior=torch.zeros(count))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.tensor([3, 60]), ValueError, "ids must be of items in the library, 60 is of none"),
        (torch.arange(60), ValueError, "ids must leave at least one item in the library, got all of them"),
        (torch.ones(60, dtype=torch.bool), TypeError, "ids must be integers, got a torch.bool tensor of shape (60,)"),
        ([1], TypeError, "ids must be a torch.Tensor"),
    ],
)
def test_what_cannot_be_removed_is_said(ids, error, message):
    library = Library(library_model(), u=U)
    with pytest.raises(error, match="^" + re.escape(message)):
        library.remove(ids)
    assert len(library) == 60


def test_items_of_an_encoder_that_was_trained_on_do_not_mix_with_those_from_before():
    model = library_model()
    library = Library(model, u=U)
    with torch.no_grad():
        model.encoder_u.weight.mul_(1.1)
    with pytest.raises(pcl.CheckpointError, match=r"embedded by another encoder_u, or by other weights"):
        library.add(U)


def test_scores_that_overflow_are_refused():
    model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    library = Library(model, u=torch.full((3, 4), 1e15))
    with pytest.raises(ValueError, match=r"must have scores that torch.float32 can hold"):
        library.topk(torch.full((2, 4), 1e30), k=1)


def test_without_faiss_an_index_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=re.escape('pip install "probcl[faiss]"')):
        Library(library_model(), u=U).index()
