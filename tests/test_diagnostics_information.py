import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from score_cases import INFORMATION, gaussian_model, gaussian_pairs
from small_models import linear_model, normal, table_model

import probcl as pcl
from probcl.diagnostics import mutual_information
from probcl.losses import Identifies


def test_the_bound_of_the_exact_ratio_is_the_mutual_information():
    result = mutual_information(gaussian_model(), *gaussian_pairs(2000))
    low, high = result.interval()
    assert low < INFORMATION < high
    assert high - low < 0.15
    assert result.ceiling == math.log(2000)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_bound_of_another_score_is_lower(temperature):
    result = mutual_information(gaussian_model(temperature), *gaussian_pairs(2000))
    assert result.interval(0.99)[1] < INFORMATION


@pytest.mark.parametrize("loss", [pcl.ConditionalLoss(), pcl.ConditionalLoss(2, 0), pcl.ConditionalLoss(0.5, 1.5)])
def test_the_bound_is_the_negative_loss(loss):
    model, (u, v) = linear_model(3, 4, 2), (normal(30, 3), normal(30, 4, seed=1))
    result = mutual_information(model, u, v, loss=loss)
    assert result.value == pytest.approx(-float(loss(model.scores(u, v)).detach()))
    batches = mutual_information(model, u, v, loss=loss, batch_size=10)
    expected = -np.mean([float(loss(model.scores(u[i : i + 10], v[i : i + 10])).detach()) for i in (0, 10, 20)])
    assert batches.value == pytest.approx(expected)
    assert batches.ceiling == math.log(10)


@pytest.mark.parametrize("settings", [{}, {"loss": pcl.ConditionalLoss(0, 2)}, {"batch_size": 50}])
def test_the_standard_error_is_that_of_many_held_out_sets(settings):
    model = gaussian_model()
    results = [mutual_information(model, *gaussian_pairs(200, seed), **settings) for seed in range(100)]
    spread = np.std([result.value for result in results])
    assert np.mean([result.standard_error for result in results]) == pytest.approx(spread, rel=0.25)


def test_in_expectation_the_bound_never_exceeds_the_truth_even_for_few_pairs():
    for temperature in (0.3, 1.0):
        model = gaussian_model(temperature)
        values = [mutual_information(model, *gaussian_pairs(8, seed)).value for seed in range(100)]
        assert np.mean(values) - 3 * np.std(values) / math.sqrt(100) < INFORMATION


def test_perfect_retrieval_reaches_the_ceiling():
    model = table_model(100 * torch.eye(12, dtype=torch.float64))
    result = mutual_information(model, torch.arange(12), torch.arange(12))
    assert result.value == pytest.approx(math.log(12))
    assert result.standard_error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("identifies", "loss"),
    [
        (None, pcl.ConditionalLoss()),
        (Identifies.RATIO, pcl.ConditionalLoss()),
        (Identifies.RATIO_UP_TO_V, pcl.ConditionalLoss(2, 0)),
        (Identifies.RATIO_UP_TO_U, pcl.ConditionalLoss(0, 2)),
    ],
)
def test_the_bound_is_taken_in_the_direction_that_was_fitted(identifies, loss):
    model, u, v = linear_model(3, 3, 2), normal(20, 3), normal(20, 3, seed=1)
    model.identifies = identifies
    assert mutual_information(model, u, v).value == mutual_information(model, u, v, loss=loss).value


def test_the_plot_is_labelled():
    result = mutual_information(gaussian_model(), *gaussian_pairs(50))
    assert "nats" in result.plot(Figure().subplots()).get_xlabel()
    assert "I ≥" in repr(result)


MODEL, (U, V) = gaussian_model(), gaussian_pairs(9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mutual_information(MODEL, U, V[:8]), r"^u and v must be pairs, at least 2 of them, got 9 u and 8 v"),
        (lambda: mutual_information(MODEL, U[:1], V[:1]), r"^u and v must be pairs"),
        (
            lambda: mutual_information(MODEL, U, V, loss=pcl.ConditionalLoss(1, 0)),
            r"^loss must have lambda_u \+ lambda_v",
        ),
        (lambda: mutual_information(MODEL, U, V, batch_size=1), r"^batch_size must be at least 2"),
        (lambda: mutual_information(MODEL, U, V).interval(1), r"^confidence must be between"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"^model must be a BimodalModel, got 'model' of type str"):
        mutual_information("model", U, V)
