import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from small_models import linear_model, normal, reference_scores, table_model
from torch.nn.functional import normalize

import probcl as pcl
from probcl.classification import Classifier, fine_tune, zero_shot
from probcl.losses import Identifies

ALIGNMENTS = [pcl.InnerProduct(), pcl.Cosine(), pcl.L2()]
CLASSES = 4
LABELS = normal(CLASSES, 3, seed=1)
QUERIES = normal(50, 5, seed=2)


def examples(n: int = 120, classes: int = CLASSES):
    """Overlapping classes in R⁵."""
    y = torch.arange(n) % classes
    return normal(n, 5, seed=3) + 1.5 * normal(classes, 5, seed=4)[y], y


@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)
def test_zero_shot_is_the_softmax_of_scores_plus_log_prior(alignment):
    model = linear_model(5, 3, 6, alignment, temperature=0.3)
    scores = reference_scores(model, QUERIES, LABELS)
    torch.testing.assert_close(zero_shot(model, LABELS)(QUERIES), scores.softmax(1))
    prior = torch.tensor([1.0, 5.0, 0.0, 2.0], dtype=torch.float64)
    classifier = zero_shot(model, labels=LABELS, prior=prior)
    torch.testing.assert_close(classifier(QUERIES), (scores + prior.log()).softmax(1))
    assert (classifier(QUERIES)[:, 2] == 0).all()
    assert torch.equal(classifier.predict(QUERIES), (scores + prior.log()).argmax(1))


def test_zero_shot_probabilities_are_those_of_the_conditional():
    model, prior = linear_model(5, 3, 6, temperature=0.01, dtype=torch.float32), torch.tensor([1.0, 5.0, 2.0, 2.0])
    d = model.v_given_u(pcl.EmpiricalPrior(LABELS.float(), prior)).condition(QUERIES.float())
    torch.testing.assert_close(zero_shot(model, LABELS.float(), prior).log_prob(QUERIES.float()), d.logits)


def test_zero_shot_of_a_regauged_model_is_right_where_the_fitted_one_was_not():
    # A perfect fit of u|v knows log r + b(v); p(v|u) = r p(v) needs log r.
    joint = normal(6, CLASSES, seed=5).exp()
    joint = joint / joint.sum()
    p_u, p_v = joint.sum(1), joint.sum(0)
    model = table_model((joint / p_u[:, None] / p_v).log() + 3 * normal(1, CLASSES, seed=6))
    model.identifies = Identifies.RATIO_UP_TO_V
    labels, truth = torch.arange(CLASSES), joint / p_u[:, None]
    regauged = model.regauged("u", pcl.EmpiricalPrior(torch.arange(6), p_u))
    torch.testing.assert_close(zero_shot(regauged, labels, p_v)(torch.arange(6)), truth)
    with pytest.warns(pcl.ProbclWarning, match=r"v\|u is not what this model was fitted for"):
        classifier = zero_shot(model, labels, p_v)
    assert (classifier(torch.arange(6)) - truth).abs().max() > 0.1


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("ridge", [1e-1, 1e-4])
@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)
def test_fine_tuning_is_the_logistic_regression_of_scikit_learn(alignment, ridge, classes):
    model = linear_model(5, 3, 6, alignment, temperature=0.07)
    u, y = examples(30 * classes, classes)
    x, query = (model.encoder_u(points).detach() for points in (u, QUERIES))
    if isinstance(alignment, pcl.Cosine):
        x, query = normalize(x), normalize(query)
    variance = float((x - x.mean(0)).square().sum(1).mean())
    # With two classes scikit-learn has one vector of weights, w₁ − w₂, where the softmax has two.
    c = (2 if classes == 2 else 1) / (ridge * len(u) * variance)
    peer = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(x.numpy(), y.numpy())
    probs = fine_tune(model, u, y, ridge=ridge)(QUERIES)
    torch.testing.assert_close(probs, torch.from_numpy(peer.predict_proba(query.numpy())), rtol=0, atol=1e-4)


def test_fine_tuned_scores_are_those_of_learned_label_embeddings_and_log_priors():
    model = linear_model(5, 3, 6, temperature=0.07)
    u, y = examples()
    classifier = fine_tune(model, u, y)
    scores = pcl.Scores(
        model.embed_u(QUERIES), classifier.class_embeddings, temperature=0.07, bias_v=classifier.log_prior
    )
    torch.testing.assert_close(classifier.log_prob(QUERIES), scores.matrix().log_softmax(1))


def test_under_l2_the_same_label_embeddings_with_other_log_priors_give_the_same_probabilities():
    model = linear_model(5, 3, 6, pcl.L2(), temperature=0.5)
    classifier = fine_tune(model, *examples())
    g = classifier.class_embeddings
    prior = classifier.log_prior + g.square().sum(1) / 2 / 0.5
    scores = pcl.Scores(model.embed_u(QUERIES), g, pcl.L2(), 0.5, bias_v=prior)
    torch.testing.assert_close(classifier.log_prob(QUERIES), scores.matrix().log_softmax(1))


def test_with_potentials_the_same_label_embeddings_give_the_same_probabilities():
    model = linear_model(5, 3, 6, pcl.WithPotentials(potential_dim=2), temperature=0.5)
    classifier = fine_tune(model, *examples())
    g = torch.cat([classifier.class_embeddings, torch.zeros(CLASSES, 2)], 1)
    scores = pcl.Scores(model.embed_u(QUERIES), g, model.alignment, 0.5, bias_v=classifier.log_prior)
    torch.testing.assert_close(classifier.log_prob(QUERIES), scores.matrix().log_softmax(1))


@pytest.mark.parametrize("alignment", [pcl.InnerProduct(), pcl.Cosine(), pcl.WithPotentials(pcl.L2())], ids=repr)
def test_fine_tuning_minimises_the_penalised_one_sided_loss(alignment):
    model, ridge = linear_model(5, 3, 6, alignment, temperature=0.07), 1e-3
    u, y = examples()
    tuned = fine_tune(model, u, y, ridge=ridge)
    x = tuned.model.embed_u(u)
    variance = (x - x.mean(0)).square().sum(1).mean()
    g, f = (part.clone().requires_grad_() for part in (tuned.class_embeddings, tuned.log_prior))
    nll = -(x @ g.T / 0.07 + f).log_softmax(1)[torch.arange(len(y)), y].mean()
    objective = nll + ridge / 2 * variance * (g / 0.07).square().sum()
    gradients = torch.autograd.grad(objective, (g, f))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-6


def test_fine_tuning_does_not_depend_on_the_scale_of_embeddings_or_on_temperature():
    u, y = examples()
    one, other = linear_model(5, 3, 6, temperature=0.07), linear_model(5, 3, 6, temperature=3.0)
    other.encoder_u.weight.data *= 1000
    torch.testing.assert_close(fine_tune(one, u, y)(QUERIES), fine_tune(other, u, y)(QUERIES), rtol=0, atol=1e-6)


def test_log_priors_of_uninformative_embeddings_are_the_class_frequencies():
    model = linear_model(5, 3, 6)
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    classifier = fine_tune(model, torch.ones(6, 5, dtype=torch.float64), y)
    torch.testing.assert_close(classifier(QUERIES[:1]), torch.tensor([[1 / 2, 1 / 3, 1 / 6]]).double())


def test_fine_tuning_of_a_regauged_model_is_that_of_the_original():
    model = table_model(normal(6, 4))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    regauged = model.regauged("v", pcl.EmpiricalPrior(torch.arange(4)))
    tuned = [fine_tune(one, torch.arange(6), y)(torch.arange(6)) for one in (model, regauged)]
    assert torch.equal(*tuned)


def test_fine_tuning_leaves_the_model_and_the_global_generator_alone():
    model, before = linear_model(5, 3, 6), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    classifier = fine_tune(model, *examples())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not classifier(QUERIES).requires_grad


def test_stopping_before_convergence_warns():
    with pytest.warns(pcl.ProbclWarning, match=r"gradient of .* after 3 iterations; raise max_iter"):
        fine_tune(linear_model(5, 3, 6), *examples(), max_iter=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", ["zero_shot", "fine_tune"])
def test_a_classifier_keeps_the_dtype_of_the_model_and_its_probabilities_sum_to_one(make, dtype):
    model = linear_model(5, 3, 6, temperature=0.001, dtype=dtype)
    u, y = examples()
    classifier = zero_shot(model, LABELS.to(dtype)) if make == "zero_shot" else fine_tune(model, u.to(dtype), y)
    probs = classifier(QUERIES.to(dtype))
    assert probs.dtype == dtype
    torch.testing.assert_close(probs.sum(1), torch.ones(50, dtype=dtype))
    torch.testing.assert_close(classifier.log_prob(QUERIES.to(dtype)).exp(), probs)
    assert torch.equal(classifier.predict(QUERIES.to(dtype)), probs.argmax(1))


@pytest.mark.parametrize("make", ["zero_shot", "fine_tune"])
def test_a_classifier_survives_a_safetensors_file(make, tmp_path):
    def build(seed: int) -> Classifier:
        model = linear_model(5, 3, 6)
        model.encoder_u.weight.data.copy_(normal(6, 5, seed=seed))
        return zero_shot(model, LABELS + seed) if make == "zero_shot" else fine_tune(model, *examples())

    saved, loaded = build(1), build(2)
    expected = saved(QUERIES)
    assert not torch.equal(loaded(QUERIES), expected)
    save_file(saved.state_dict(), tmp_path / "classifier")
    loaded.load_state_dict(load_file(tmp_path / "classifier"))
    assert torch.equal(loaded(QUERIES), expected)


class Bounded(pcl.Alignment):
    """An alignment that no class embedding enters linearly."""

    def factorize(self, x, y):
        return pcl.InnerProduct().factorize(x, y)

    def link(self, product):
        return product.tanh()


U, Y = examples()
MODEL = linear_model(5, 3, 6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: zero_shot("model", LABELS), TypeError, r"^model must be a BimodalModel, got 'model'"),
        (lambda: fine_tune("model", U, Y), TypeError, r"^model must be a BimodalModel, got 'model'"),
        (lambda: zero_shot(MODEL, [0, 1]), TypeError, r"^labels and prior.* values must be a torch.Tensor"),
        (lambda: zero_shot(MODEL, LABELS[:0]), ValueError, r"^labels.* at least one atom"),
        (
            lambda: zero_shot(MODEL, LABELS, torch.ones(3)),
            ValueError,
            r"^labels and prior.* weights must have shape \(4,\)",
        ),
        (lambda: zero_shot(MODEL, LABELS)([1.0]), TypeError, r"^u must be a torch.Tensor"),
        (lambda: zero_shot(MODEL, LABELS)(QUERIES / 0), ValueError, r"^u must be finite"),
        (lambda: fine_tune(MODEL, [1.0], Y), TypeError, r"^u_few must be a torch.Tensor"),
        (lambda: fine_tune(MODEL, U * torch.nan, Y), ValueError, r"^u_few must be finite"),
        (lambda: fine_tune(MODEL, U, Y.tolist()), TypeError, r"^y_few must be a torch.Tensor"),
        (lambda: fine_tune(MODEL, U, Y.double()), TypeError, r"^y_few must be integers"),
        (lambda: fine_tune(MODEL, U, Y[:-1]), ValueError, r"^y_few must have shape \(120,\)"),
        (lambda: fine_tune(MODEL, U, Y[:, None]), ValueError, r"^y_few must have shape \(120,\)"),
        (lambda: fine_tune(MODEL, U, Y - 1), ValueError, r"^y_few must hold classes 0 … K−1, got \[-1, 0, 1, 2\]"),
        (lambda: fine_tune(MODEL, U[:0], Y[:0]), ValueError, r"^y_few must hold classes"),
        (lambda: fine_tune(MODEL, U, 2 * Y), ValueError, r"^y_few must .* of each, got \[0, 2, 4, 6\]"),
        (lambda: fine_tune(MODEL, U, 0 * Y), ValueError, r"^y_few must hold at least two classes"),
        (lambda: fine_tune(MODEL, U, Y, ridge=0.0), ValueError, r"^ridge must be finite and positive"),
        (lambda: fine_tune(MODEL, U, Y, max_iter=0), ValueError, r"^max_iter must be at least 1"),
        (lambda: fine_tune(linear_model(5, 3, 6, Bounded()), U, Y), TypeError, r"linear in free label.* Bounded\(\)"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
