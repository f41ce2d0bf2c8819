import pytest
import torch
from small_models import linear_model, normal, reference_scores, table_model

import probcl as pcl
from probcl.retrieval import Library

ALIGNMENTS = [pcl.InnerProduct(), pcl.Cosine(), pcl.L2()]
U, V = normal(60, 5, seed=1), normal(9, 4, seed=2)


@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)
@pytest.mark.parametrize("with_prior", [False, True])
def test_it_finds_the_largest_scores_plus_log_prior_both_ways(alignment, with_prior):
    model = linear_model(5, 4, 3, alignment, temperature=0.2)
    scores = reference_scores(model, U, V)
    phi_u, phi_v = (normal(60, seed=3), normal(9, seed=4)) if with_prior else (None, None)
    by_v = Library(model, u=U, log_prior=phi_u).topk(V, k=7)
    expected = (scores + (phi_u[:, None] if with_prior else 0)).T.topk(7)
    torch.testing.assert_close(by_v.values, expected.values)
    assert torch.equal(by_v.indices, expected.indices)
    by_u = Library(model, v=V, log_prior=phi_v).topk(U, k=9)
    expected = (scores + (phi_v if with_prior else 0)).topk(9)
    torch.testing.assert_close(by_u.values, expected.values)
    assert torch.equal(by_u.indices, expected.indices)


def test_the_best_match_is_the_mode_of_the_conditional_on_the_library():
    model = linear_model(5, 4, 3, temperature=0.2)
    best = Library(model, u=U).topk(V, k=1).indices[:, 0]
    assert torch.equal(model.u_given_v(pcl.EmpiricalPrior(U)).condition(V).mode, U[best])


def test_with_the_logarithm_of_prior_weights_the_best_match_is_the_most_probable_item():
    model, weights = linear_model(5, 4, 3), normal(60, seed=5).exp()
    best = Library(model, u=U, log_prior=weights.log()).topk(V, k=1).indices[:, 0]
    assert torch.equal(model.u_given_v(pcl.EmpiricalPrior(U, weights)).condition(V).logits.argmax(1), best)
    assert not torch.equal(Library(model, u=U).topk(V, k=1).indices[:, 0], best)


def test_a_prior_of_minus_infinity_excludes_an_item():
    model = linear_model(5, 4, 3)
    best = int(Library(model, u=U).topk(V[:1], k=1).indices)
    excluded = torch.zeros(60).index_fill(0, torch.tensor([best]), -torch.inf)
    found = Library(model, u=U, log_prior=excluded).topk(V[:1], k=60)
    assert int(found.indices[0, -1]) == best
    assert found.values[0, -1] == -torch.inf


def test_scores_are_in_the_gauge_of_the_model():
    model = table_model(normal(6, 4)).regauged("v", pcl.EmpiricalPrior(torch.arange(4)))
    u, v = torch.arange(6), torch.arange(4)
    expected = normal(6, 4) - (normal(6, 4).logsumexp(1, keepdim=True) - torch.tensor(4.0).double().log())
    torch.testing.assert_close(Library(model, u=u).topk(v, k=6).values, expected.T.sort(descending=True).values)
    torch.testing.assert_close(Library(model, v=v).topk(u, k=4).values, expected.sort(descending=True).values)


def test_the_library_is_embedded_once_in_evaluation_mode_and_without_gradients():
    model, calls = linear_model(5, 4, 3), []
    model.encoder_u = torch.nn.Sequential(model.encoder_u, torch.nn.Dropout(0.5))
    model.encoder_u.register_forward_hook(lambda module, *_: calls.append(module.training))
    library = Library(model, u=U)
    found = [library.topk(V, k=3) for _ in range(3)]
    assert calls == [False]
    assert torch.equal(found[0].values, found[2].values)
    assert not found[0].values.requires_grad
    assert model.encoder_u.training


def test_length_and_repr_say_what_the_library_holds():
    model = linear_model(5, 4, 3)
    assert len(Library(model, u=U)) == 60
    assert repr(Library(model, u=U)) == "Library(60 items of u, width 3)"
    assert repr(Library(model, v=V, log_prior=torch.zeros(9))) == "Library(9 items of v, width 3, with log_prior)"


def test_five_items_are_found_unless_told_otherwise():
    found = Library(linear_model(5, 4, 3), u=U).topk(V)
    assert found.values.shape == found.indices.shape == (9, 5)


MODEL = linear_model(5, 4, 3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Library("model", u=U), TypeError, r"^model must be a BimodalModel, got"),
        (lambda: Library(MODEL), ValueError, r"either u or v, got neither"),
        (lambda: Library(MODEL, u=U, v=V), ValueError, r"either u or v, got both"),
        (lambda: Library(MODEL, u=[[1.0]]), TypeError, r"^u must be a torch.Tensor"),
        (lambda: Library(MODEL, u=U[:0]), ValueError, r"^u must have at least one"),
        (lambda: Library(MODEL, v=V * torch.nan), ValueError, r"^v must be finite"),
        (lambda: Library(MODEL, u=U, batch_size=0), ValueError, r"^batch_size must be at least 1"),
        (lambda: Library(MODEL, u=U, log_prior=[0.0] * 60), TypeError, r"^log_prior must be a torch.Tensor"),
        (lambda: Library(MODEL, u=U, log_prior=torch.zeros(9)), ValueError, r"^log_prior must have shape \(60,\)"),
        (lambda: Library(MODEL, u=U, log_prior=torch.full((60,), torch.nan)), ValueError, r"^log_prior must be fin"),
        (lambda: Library(linear_model(5, 4, 3, pcl.Cosine()), u=0 * U), ValueError, r"zero vector, got one in row 0"),
        (lambda: Library(MODEL, u=U).topk(V, k=61), ValueError, r"^k must be at most the 60 items .* got 61"),
        (lambda: Library(MODEL, u=U).topk(V, k=0), ValueError, r"^k must be at least 1"),
        (lambda: Library(MODEL, u=U).topk(V, k=2.0), TypeError, r"^k must be an integer"),
        (lambda: Library(MODEL, u=U).topk(V[:0]), ValueError, r"^queries must have at least one"),
        (lambda: Library(MODEL, u=U).topk(V / 0), ValueError, r"^queries must be finite"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
