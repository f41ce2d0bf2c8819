import re

import pytest
import torch
from library_cases import PHI, U, V, brute_force, library_model
from small_models import normal, seeded

import probcl as pcl
from probcl.retrieval import Library

pytest.importorskip("faiss")
SEARCHABLE = [pcl.InnerProduct(), pcl.Cosine(), pcl.L2(), pcl.WithPotentials(), pcl.WithPotentials(pcl.L2())]
every_searchable = pytest.mark.parametrize("alignment", SEARCHABLE, ids=repr)


def clustered(count, seed):
    centres = normal(50, 16, seed=1).float()
    which = torch.randint(50, (count,), generator=seeded(seed))
    return centres[which] + 0.3 * normal(count, 16, seed=seed).float()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("weighted", [False, True])
@every_searchable
def test_nearly_all_of_the_best_are_found_in_clustered_data(alignment, kind, weighted):
    model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment, temperature=0.5)
    phi = normal(4000, seed=4).float() if weighted else None
    index = Library(model, u=clustered(4000, 2), log_prior=phi).index(kind)
    assert 0.9 <= index.recall_at_k(clustered(100, 3), k=10) <= 1


@pytest.mark.parametrize("side", ["u", "v"])
@every_searchable
def test_an_index_that_searches_all_cells_finds_what_the_library_does(alignment, side):
    model = library_model(alignment)
    items, given, scores = (U, V, brute_force(model)) if side == "u" else (V, U, brute_force(model).T)
    library = Library(model, **{side: items}, log_prior=PHI[: len(items)])
    found, expected = library.index(nlist=2, nprobe=2).topk(given, 7), (scores + PHI[: len(items), None]).T.topk(7)
    torch.testing.assert_close(found.values, expected.values)
    assert torch.equal(found.indices, expected.indices)


def test_a_learned_temperature_and_a_gauge_are_taken_into_account():
    model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), pcl.L2(), 0.3, learn_temperature=True)
    library = Library(model.regauged("v", pcl.EmpiricalPrior(normal(30, 4).float())), u=normal(60, 4, seed=2).float())
    assert library.index(nlist=2, nprobe=2).recall_at_k(normal(9, 4, seed=3).float(), 5) == 1


def test_what_is_missing_has_no_id_and_no_value():
    found = Library(library_model(), u=U).index(nlist=10, nprobe=1).topk(V, k=50)
    missing = found.indices == -1
    assert missing.any()
    assert torch.equal(missing, found.values.isneginf())


def test_an_approximation_may_take_its_head_from_an_index():
    library = Library(library_model(), u=U)
    found = library.approximate(V, 5, 20, index=library.index(nlist=2, nprobe=2), generator=seeded())
    torch.testing.assert_close(found.log_normalizer, library.approximate(V, 5, 20, generator=seeded()).log_normalizer)
    with pytest.raises(ValueError, match=r"^index must be one of this library's"):
        Library(library_model(), u=U).approximate(V, index=library.index(nlist=2))


def test_an_index_of_what_has_changed_is_refused():
    library = Library(library_model(), u=U)
    index = library.index(nlist=2)
    library.add(U)
    with pytest.raises(ValueError, match=r"has changed since the index was built: build it anew"):
        index.topk(V)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Library(library_model(pcl.Laplace()), u=U).index(), "an index is for InnerProduct, Cosine, L2"),
        (lambda: Library(library_model(), u=U).index(nlist=61), "nlist must be at most the 60 items"),
        (lambda: Library(library_model(), u=U).index(nlist=2).topk(V, 61), "k must be at most the 60 items"),
        (lambda: Library(library_model(), u=U, log_prior=PHI - torch.inf).index(), "log_prior leaves no item"),
    ],
)
def test_what_cannot_be_indexed_is_said(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()
