"""Conditionals on banks too large for their logits to be stored."""

import pickle

import pytest
import torch
from conditional_cases import chi_square, labels, vectors
from small_models import linear_model, normal, seeded

import probcl as pcl
from probcl.conditional import empirical
from probcl.kernels.dense import DenseKernel
from probcl.kernels.tiled import TiledKernel

CASES = [(make, distinct, weighted) for make in (vectors, labels) for distinct in (True, False) for weighted in (0, 1)]
every_case = pytest.mark.parametrize(("make", "distinct", "weighted"), CASES)


@pytest.fixture
def nothing_kept(monkeypatch):
    monkeypatch.setattr(empirical, "_KEPT", 0)
    monkeypatch.setattr(empirical, "_ENTRIES_AT_A_TIME", 50)


def summary(d):
    found = [d.log_prob(d.enumerate_support()), d.log_prob(d.atoms[:3]), d.mode, d.entropy(), d.ess()]
    return [*found, d.log_normalizer, *([d.mean, d.variance] if d.atoms.is_floating_point() else [])]


@every_case
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_what_is_not_kept_is_the_same_as_what_is(make, distinct, weighted, shape, monkeypatch):
    kept = summary(make(0.5, distinct, bool(weighted)).expand(shape))
    monkeypatch.setattr(empirical, "_KEPT", 0)
    monkeypatch.setattr(empirical, "_ENTRIES_AT_A_TIME", 50)
    for got, expected in zip(summary(make(0.5, distinct, bool(weighted)).expand(shape)), kept, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@every_case
@pytest.mark.usefixtures("nothing_kept")
def test_draws_have_the_probabilities_of_the_logits(make, distinct, weighted):
    d = make(0.3, distinct, bool(weighted))
    index = d.sample_index((20_000,), generator=seeded())
    for b in range(3):
        assert chi_square(index[:, b], d.probs[b]) > 1e-3


@pytest.mark.parametrize("kept", [0, 2**20])
def test_draws_of_an_expanded_conditional_are_independent_and_in_its_order(kept, monkeypatch):
    monkeypatch.setattr(empirical, "_KEPT", kept)
    d = vectors(0.3).expand((2, 3)).expand((4, 2, 3))
    index = d.sample_index((5000,), generator=seeded())
    assert index.shape == (5000, 4, 2, 3)
    for b in range(3):
        assert chi_square(index[..., b].flatten(), d.probs[0, 0, b]) > 1e-3
    assert not torch.equal(index[:, 0, 0], index[:, 1, 0])
    single = linear_model(2, 3, 4).u_given_v(pcl.EmpiricalPrior(normal(9, 2))).condition(normal(1, 3)).expand((6,))
    assert single.sample((7,)).shape == (7, 6, 2)
    assert chi_square(single.sample_index((3000,), generator=seeded()).flatten(), single.probs[0]) > 1e-3


@pytest.mark.usefixtures("nothing_kept")
def test_without_logits_no_matrix_is_made_of_a_large_bank(monkeypatch):
    made = []
    for kernel in (DenseKernel, TiledKernel):
        whole = kernel.matrix
        monkeypatch.setattr(kernel, "matrix", lambda self, whole=whole: made.append(self) or whole(self))
    monkeypatch.setattr(DenseKernel, "_matrix", property(lambda _: pytest.fail("a matrix was made")))
    bank, v = normal(20_000, 2, seed=1), normal(7, 3, seed=2)
    d = linear_model(2, 3, 2).u_given_v(pcl.EmpiricalPrior(bank)).condition(v)
    assert all(part.isfinite().all() for part in (d.mode, d.mean, d.variance, d.log_normalizer, d.entropy(), d.ess()))
    assert d.sample((3,)).shape == (3, 7, 2)
    assert d.log_prob(bank[:7]).isfinite().all()
    assert d.log_ratio(v[:, :2]).isfinite().all()
    assert made == []


@pytest.mark.usefixtures("nothing_kept")
def test_they_pickle_before_and_after_they_are_used():
    d = vectors(0.5, distinct=False)
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(d))
        torch.testing.assert_close(copy.entropy(), d.entropy(), rtol=0, atol=0)
