import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import binomtest, norm
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from small_models import normal

from probcl.diagnostics import C2ST, c2st


@pytest.mark.filterwarnings("error")  # such as that the network of 1,000 points has not converged
@pytest.mark.parametrize("classifier", ["mlp", LogisticRegression()])
def test_equal_laws_cannot_be_told_apart(classifier):
    result = c2st(normal(500, 2), normal(500, 2, seed=1), classifier=classifier, seed=0)
    assert result.accuracy < 0.5 + 3 * 0.5 / math.sqrt(1000)
    assert result.p_value > 0.01


@pytest.mark.parametrize(("shift", "classifier"), [(1.0, "mlp"), (2.5, "boosting"), (1.0, LogisticRegression())])
def test_shifted_gaussians_are_told_apart_as_well_as_bayes_rule_does(shift, classifier):
    x, y = normal(1000, 2), normal(1000, 2, seed=1)
    y[:, 0] += shift
    result = c2st(x, y, classifier=classifier, seed=0)
    bayes = norm.cdf(shift / 2)
    assert bayes - 0.04 < result.accuracy < bayes + 3 * result.standard_error
    assert result.p_value < 1e-10


@pytest.mark.parametrize("count", [25, 200])
def test_a_few_points_far_apart_are_told_apart(count):
    # Training stopped early would end before the network has learned anything.
    result = c2st(normal(count, 1), normal(count, 1, seed=1) + 3, seed=0)
    assert result.accuracy == pytest.approx(norm.cdf(1.5), abs=3 * 0.25 / math.sqrt(2 * count))


def test_a_difference_of_shape_alone_is_seen():
    x, y = normal(500, 2), normal(500, 2, seed=1)
    y[:, 1] = 0.95 * y[:, 0] + math.sqrt(1 - 0.95**2) * y[:, 1]
    assert c2st(x, y, seed=0).accuracy > 0.7
    assert c2st(x, y, classifier=LogisticRegression(), seed=0).accuracy < 0.55


def test_a_classifier_that_remembers_gains_nothing_from_it():
    x = normal(200, 2)
    memory = KNeighborsClassifier(1)
    assert c2st(x, normal(200, 2, seed=1), classifier=memory, seed=0).accuracy < 0.58


def test_accuracy_error_and_p_value_are_those_of_the_counts():
    result = C2ST(torch.tensor([0.1, 0.2, 0.6]), torch.tensor([0.9, 0.5, 0.4]))
    assert result.accuracy == 4 / 6
    assert result.standard_error == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 6))
    assert result.p_value == pytest.approx(binomtest(4, 6, alternative="greater").pvalue)


def test_accuracy_below_one_half_by_chance_is_one_half():
    result = C2ST(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2]))
    assert result.accuracy == 0.5
    assert result.p_value == 1


def test_a_seed_makes_it_reproducible_and_leaves_the_generators_alone():
    x, y = normal(60, 2), normal(60, 2, seed=1)
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (c2st(x, y, seed=4) for _ in range(2))
    assert torch.equal(first.probability_x, second.probability_x)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_events_of_any_shape_and_arrays_are_taken():
    x, y = normal(50, 2, 3), normal(50, 2, 3, seed=1)
    same = c2st(x.reshape(50, 6).numpy(), y.reshape(50, 6).numpy(), classifier="boosting", seed=0)
    assert torch.equal(c2st(x, y, classifier="boosting", seed=0).probability_y, same.probability_y)


def test_the_plot_is_labelled():
    ax = C2ST(torch.rand(20), torch.rand(20)).plot(Figure().subplots())
    assert ax.get_xlabel() == "probability of being from y"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: c2st(normal(9, 2), normal(8, 2)), ValueError, r"^x and y must have the same shape"),
        (lambda: c2st(normal(9, 2), normal(9, 2), folds=1), ValueError, r"^folds must be at least 2"),
        (lambda: c2st(normal(4, 2), normal(4, 2)), ValueError, r"^x and y must have at least as many points as folds"),
        (lambda: c2st(normal(9), normal(9), classifier="svm"), ValueError, r"^classifier must be 'mlp', 'boosting'"),
        (lambda: c2st([1.0], normal(9)), TypeError, r"^x must be a torch.Tensor or a NumPy array"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
