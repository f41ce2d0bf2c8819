"""Two-sample test: whether a classifier can tell draws from a reference."""

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from scipy.stats import binom
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from probcl.checks import describe, require_count
from probcl.diagnostics.draws import as_real, by_component, seeded
from probcl.diagnostics.figures import axes_or_new
from probcl.plotting import PALETTE

# As in sbi-benchmark (Lueckmann et al. 2021).
_UNITS_A_DIMENSION = 10
_MAX_UNITS = 200
_MAX_ITERATIONS = 1000
# Training is stopped early, as in sbi, since what overfits finds less. But a tenth of fewer points than this is too few
# to tell when to stop, and patience, in epochs of a few steps, ends before a network has learned anything.
_STOPPED_EARLY_FROM = 2000
_PATIENCE = 50


@dataclass(frozen=True, eq=False, repr=False)
class C2ST:
    """How well held-out points are told apart.

    Attributes
    ----------
    probability_x, probability_y
        For each point of x and of y, the probability of being from y that a classifier gives it which has not seen it,
        shape (n,).

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import c2st
    >>> rng = torch.Generator().manual_seed(0)
    >>> result = c2st(torch.randn(200, 2, generator=rng), 3 + torch.randn(200, 2, generator=rng), seed=0)
    >>> result.accuracy > 0.9, result.p_value < 0.01, result.probability_x.shape
    (True, True, torch.Size([200]))
    """

    probability_x: Float[Tensor, " n"]
    probability_y: Float[Tensor, " n"]

    @property
    def _correct(self) -> int:
        return int((self.probability_x < 0.5).sum() + (self.probability_y >= 0.5).sum())

    @property
    def accuracy(self) -> float:
        """Accuracy on held-out points in [½, 1]: ½ if the laws cannot be told apart (what is below by chance too)."""
        return max(0.5, self._correct / (2 * len(self.probability_x)))

    @property
    def standard_error(self) -> float:
        """Binomial standard error of the accuracy, for independent points and the classifiers as they are."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / (2 * len(self.probability_x)))

    @property
    def p_value(self) -> float:
        """P-value of the hypothesis that the laws are equal: of so many right answers by guessing."""
        return float(binom.sf(self._correct - 1, 2 * len(self.probability_x), 0.5))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the histograms of the classifier's probabilities; they coincide if the laws cannot be told apart."""
        ax = axes_or_new(ax)
        for values, name, color in [(self.probability_x, "x", PALETTE[0]), (self.probability_y, "y", PALETTE[1])]:
            ax.hist(values.numpy(), bins=30, range=(0, 1), density=True, color=color, alpha=0.5, label=name)
        ax.axvline(0.5, color="0.5", linewidth=1)
        ax.legend(frameon=False, fontsize=8)
        ax.set_title(f"accuracy {self.accuracy:.3f} ± {self.standard_error:.3f}", fontsize=9)
        ax.set(xlabel="probability of being from y", ylabel="density", xlim=(0, 1))
        return ax

    def __repr__(self) -> str:
        return f"C2ST(accuracy = {self.accuracy:.3f} ± {self.standard_error:.3f}, p = {self.p_value:.2g})"


def c2st(
    x: Real[Tensor, "n *event"] | Real[np.ndarray, "n *event"],
    y: Real[Tensor, "n *event"] | Real[np.ndarray, "n *event"],
    *,
    classifier: Literal["mlp", "boosting"] | BaseEstimator = "mlp",
    folds: int = 5,
    seed: int | None = None,
) -> C2ST:
    """Classifier two-sample test: the cross-validated accuracy in telling x from y (Lopez-Paz & Oquab 2017).

    The best possible accuracy is ½ + ½ TV(x, y) with the total variation distance TV, so that the accuracy found is,
    but for chance, a lower bound of it: a poor classifier finds no difference. Compare it at equal numbers of points,
    since more points show smaller differences.

    Parameters
    ----------
    x, y
        As many points of each law, shape ``(n, *event_shape)``: draws of one posterior, for one v, or of pairs (u, v).
    classifier
        ``"mlp"``: standardised points and a perceptron of two hidden layers of 10 D units (200 at most), as in
        sbi-benchmark (Lueckmann et al. 2021), trained to the end on fewer than 1,000 points of each law and stopped
        early on more; ``"boosting"``: gradient-boosted trees, faster on many points and better where the difference is
        along the axes; or a scikit-learn classifier with ``predict_proba``.
    folds
        Of the stratified cross-validation.
    seed
        Makes the folds and the classifier reproducible, without touching torch's global generator.

    Raises
    ------
    TypeError
        If x or y is not an array of real numbers.
    ValueError
        If they have different shapes, a value is not finite, or there are fewer points than folds.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import c2st
    >>> rng = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(200, 2, generator=rng), torch.randn(200, 2, generator=rng)
    >>> c2st(x, y, seed=0).p_value > 0.01, c2st(x, y + 1, seed=0).p_value > 0.01
    (True, False)
    """
    first, second = as_real("x", x), as_real("y", y)
    if first.ndim == 0 or first.shape != second.shape:
        raise ValueError(f"x and y must have the same shape (n, *event), got {describe(first)} and {describe(second)}")
    if len(first) < require_count("folds", folds, 2):
        raise ValueError(f"x and y must have at least as many points as folds, got {len(first)} for {folds} folds")
    points = by_component(torch.cat([first, second]), 1).numpy()
    is_y = np.repeat([0, 1], len(first))
    with seeded(seed):
        random_state = int(torch.randint(2**31 - 1, ()))
    with warnings.catch_warnings():
        if not isinstance(classifier, BaseEstimator):  # whose number of iterations is no concern of the caller's
            warnings.simplefilter("ignore", ConvergenceWarning)
        probabilities = cross_val_predict(
            _classifier(classifier, len(points), points.shape[1], random_state),
            points,
            is_y,
            cv=StratifiedKFold(folds, shuffle=True, random_state=random_state),
            method="predict_proba",
        )
    of_y = torch.from_numpy(probabilities[:, 1]).double()
    return C2ST(of_y[: len(first)], of_y[len(first) :])


def _classifier(choice: str | BaseEstimator, count: int, dimensions: int, random_state: int) -> BaseEstimator:
    if not isinstance(choice, str):
        return choice
    if choice == "boosting":
        return HistGradientBoostingClassifier(early_stopping=True, random_state=random_state)
    if choice != "mlp":
        raise ValueError(f"classifier must be 'mlp', 'boosting' or a scikit-learn classifier, got {choice!r}")
    units = min(_UNITS_A_DIMENSION * dimensions, _MAX_UNITS)
    options: dict[str, Any] = {"max_iter": _MAX_ITERATIONS, "random_state": random_state}
    if count >= _STOPPED_EARLY_FROM:
        options |= {"early_stopping": True, "n_iter_no_change": _PATIENCE}
    return make_pipeline(StandardScaler(), MLPClassifier((units, units), **options))
