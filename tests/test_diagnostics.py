import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from matplotlib.figure import Figure
from scipy.special import softmax
from scipy.stats import binomtest, hypergeom
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, top_k_accuracy_score
from small_models import linear_model, normal, reference_scores, seeded, table_model
from torch import Tensor

from probcl.diagnostics import accuracy, expected_calibration_error, negative_log_likelihood, recall, recall_at_k
from probcl.retrieval import Library

# Confidences .9 (right), .8 (wrong), .6 (right), .6 (wrong), .5 (right): by hand below.
PROBS = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.6, 0.4, 0.0], [0.3, 0.5, 0.2]])
LABELS = torch.tensor([0, 2, 2, 1, 1])


def random_predictions(batch: int, classes: int, sharpness: float = 1.0) -> tuple[Tensor, Tensor]:
    log_probs = (sharpness * normal(batch, classes, seed=1)).log_softmax(1)
    return log_probs, (normal(batch, classes, seed=2) + log_probs).argmax(1)


@pytest.mark.parametrize("k", [1, 3, 10, 39])
def test_recall_of_matched_pairs_is_the_top_k_accuracy_of_the_scores(k):
    model = linear_model(5, 4, 3)
    u, v = normal(40, 5, seed=1), normal(40, 4, seed=2)
    scores, pairs = reference_scores(model, u, v).numpy(), np.arange(40)
    by_v, by_u = recall_at_k(Library(model, u=u), v, k), recall_at_k(Library(model, v=v), u, k)
    assert by_v == pytest.approx(top_k_accuracy_score(pairs, scores.T, k=k))
    assert by_u == pytest.approx(top_k_accuracy_score(pairs, scores, k=k))


def test_recall_by_label_counts_a_query_with_any_relevant_item_among_the_first_k():
    # Rows are items of labels 0, 0, 1, 2; columns are queries of labels 0, 1, 2, 7.
    scores = torch.tensor([[4.0, 1, 4, 0], [1, 2, 3, 1], [3, 4, 2, 2], [2, 3, 1, 3]])
    library, queries = Library(table_model(scores), u=torch.arange(4)), torch.arange(4)
    labels = {"query_labels": torch.tensor([0, 1, 2, 7]), "item_labels": torch.tensor([0, 0, 1, 2])}
    assert [recall_at_k(library, queries, k, **labels) for k in (1, 2, 3, 4)] == [0.5, 0.5, 0.5, 0.75]


def test_recall_at_every_k_is_recall_at_each_with_exact_limits():
    model, (u, v) = linear_model(5, 4, 3), (normal(40, 5, seed=1), normal(40, 4, seed=2))
    result = recall(Library(model, u=u), v, 39)
    assert result.values.tolist() == [recall_at_k(Library(model, u=u), v, k) for k in range(1, 40)]
    assert result.at(7) == float(result.values[6])
    low, high = result.interval(0.9)
    expected = binomtest(int(result.found[:, 6].sum()), 40).proportion_ci(0.9)
    assert (float(low[6]), float(high[6])) == pytest.approx((expected.low, expected.high))


def test_recall_by_chance_is_the_hypergeometric_probability_of_a_relevant_item():
    library = Library(table_model(normal(6, 3)), u=torch.arange(6))
    items, queries = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 7])
    chance = recall(library, torch.arange(3), 6, query_labels=queries, item_labels=items).chance
    for k in range(1, 7):
        expected = [1 - hypergeom.pmf(0, 6, relevant, k) for relevant in (3, 2, 0)]
        assert float(chance[k - 1]) == pytest.approx(np.mean(expected))


def test_the_figure_of_recall_has_both_curves_and_its_report_the_usual_k():
    result = recall(Library(table_model(10 * torch.eye(8)), u=torch.arange(8)), torch.arange(8), 5)
    ax = result.plot(Figure().subplots())
    assert [line.get_ydata().tolist() for line in ax.lines] == [[k / 8 for k in range(1, 6)], [1.0] * 5]
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert repr(result) == "Recall(R@1 1.000, R@5 1.000, 8 queries)"


def test_accuracy_is_right_by_hand():
    assert accuracy(PROBS, LABELS) == accuracy(PROBS.log(), LABELS) == 3 / 5


def test_negative_log_likelihood_is_that_of_scikit_learn():
    log_probs, labels = random_predictions(200, 6)
    expected = log_loss(labels.numpy(), log_probs.exp().numpy(), labels=range(6))
    assert negative_log_likelihood(log_probs, labels) == pytest.approx(expected, rel=1e-12)


def test_negative_log_likelihood_does_not_hide_confident_mistakes():
    log_probs = torch.tensor([[-1000.0, 0.0], [0.0, -torch.inf]])
    assert negative_log_likelihood(log_probs, torch.tensor([0, 0])) == 500
    assert negative_log_likelihood(log_probs, torch.tensor([0, 1])) == math.inf


def test_calibration_error_is_right_by_hand():
    # Tenths (.8, .9], (.7, .8], (.5, .6] and (.4, .5], in which the confidences of PROBS lie on the edges.
    probs = PROBS.double().round(decimals=2)
    assert expected_calibration_error(probs, LABELS, bins=10) == pytest.approx((0.1 + 0.8 + 0.2 + 0.5) / 5)
    assert expected_calibration_error(probs, LABELS, bins=1) == pytest.approx(abs(3.4 - 3) / 5)
    assert expected_calibration_error(probs, LABELS, bins=2) == pytest.approx((0.5 + abs(2.9 - 2)) / 5)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    probs = torch.tensor([[0.5, 0.5], [0.625, 0.375], [0.75, 0.25]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    # Quarters (.25, .5] and (.5, .75], the second with .625 wrong and .75 right.
    assert expected_calibration_error(probs, labels, bins=4) == pytest.approx((0.5 + abs(1.375 - 1)) / 3)


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_error_is_the_weighted_gap_of_scikit_learns_reliability_curve(bins):
    log_probs, labels = random_predictions(500, 4, sharpness=2)
    confidence, predicted = log_probs.exp().max(1)
    right = (predicted == labels).numpy()
    edges = np.linspace(0, 1, bins + 1)
    frequency, mean = calibration_curve(right, confidence.numpy(), n_bins=bins, strategy="uniform")
    counts = np.histogram(confidence.numpy(), edges)[0]
    expected = (counts[counts > 0] * np.abs(frequency - mean)).sum() / 500
    assert expected_calibration_error(log_probs.exp(), labels, bins) == pytest.approx(expected, rel=1e-9)


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharpened_ones_are_not():
    log_probs = (2 * normal(50_000, 5, seed=1)).log_softmax(1)
    labels = torch.multinomial(log_probs.exp(), 1, generator=seeded())[:, 0]
    assert expected_calibration_error(log_probs.exp(), labels) < 0.01
    assert expected_calibration_error((3 * log_probs).softmax(1), labels) > 0.1


@settings(max_examples=50)
@given(
    npst.arrays(float, st.tuples(st.integers(1, 20), st.integers(2, 5)), elements=st.floats(-9, 9)), st.integers(1, 9)
)
def test_calibration_error_is_at_least_the_gap_of_mean_confidence_and_accuracy(logits, bins):
    probs = torch.from_numpy(softmax(logits, axis=1))
    labels = torch.arange(len(probs)) % probs.shape[1]
    ece = expected_calibration_error(probs, labels, bins)
    gap = abs(float(probs.amax(1).mean()) - accuracy(probs, labels))
    assert gap - 1e-12 <= ece <= 1
    assert expected_calibration_error(probs, labels, bins=1) == pytest.approx(gap, abs=1e-12)


MODEL = linear_model(5, 4, 3)
LIBRARY, V = Library(MODEL, u=normal(6, 5)), normal(6, 4)
SIX = torch.arange(6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: recall_at_k(LIBRARY, V[:5]), ValueError, r"got 5 queries and 6 items"),
        (lambda: recall_at_k(LIBRARY, V, 7), ValueError, r"^k must be at most the 6 items"),
        (lambda: recall(LIBRARY, V, 3).at(4), ValueError, r"^k must be at most 3, .* got 4"),
        (lambda: recall("library", V), TypeError, r"^library must be a probcl.retrieval.Library, got 'library'"),
        (
            lambda: recall_at_k(LIBRARY, V, query_labels=SIX),
            ValueError,
            r"^query_labels and item_labels must both be given",
        ),
        (
            lambda: recall_at_k(LIBRARY, V, query_labels=SIX, item_labels=SIX[:5]),
            ValueError,
            r"^item_labels must have shape \(6,\)",
        ),
        (lambda: accuracy([[1.0]], LABELS), TypeError, r"^probs must be a torch.Tensor"),
        (lambda: accuracy(PROBS[0], LABELS), ValueError, r"^probs must be a non-empty \(B, K\) matrix"),
        (lambda: accuracy(PROBS[:0], LABELS[:0]), ValueError, r"^probs must be a non-empty"),
        (lambda: accuracy(PROBS * math.nan, LABELS), ValueError, r"^probs must be .* without NaN"),
        (lambda: accuracy(PROBS, LABELS.float()), TypeError, r"^labels must be integers"),
        (lambda: accuracy(PROBS, LABELS[:4]), ValueError, r"^labels must have shape \(5,\)"),
        (lambda: accuracy(PROBS, LABELS + 1), ValueError, r"^labels must lie in 0 … 2, got 1 to 3"),
        (lambda: negative_log_likelihood(PROBS, LABELS), ValueError, r"^rows of exp\(log_probs\) must"),
        (lambda: expected_calibration_error(PROBS.log(), LABELS), ValueError, r"^rows of probs must"),
        (lambda: expected_calibration_error(2 * PROBS, LABELS), ValueError, r"^rows of probs must .* off by 1"),
        (lambda: expected_calibration_error(PROBS, LABELS, bins=0), ValueError, r"^bins must be at least 1"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
