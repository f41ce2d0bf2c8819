"""Confidence limits of an estimate that is nearly normal, and what estimates that are means of terms have in common."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from matplotlib.axes import Axes
from scipy.stats import norm
from torch import Tensor

from probcl.checks import require_fraction
from probcl.diagnostics.figures import axes_or_new, draw_histogram
from probcl.plotting import PALETTE

CONFIDENCE = 0.95


class MeanOfTerms(ABC):
    """A bound that is estimated by the mean of a term for each pair."""

    terms: Float[Tensor, " n"]

    @property
    @abstractmethod
    def standard_error(self) -> float:
        """Of the value."""

    @property
    def value(self) -> float:
        """The bound: in nats, or for an f-divergence in the units of f."""
        return float(self.terms.mean())

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return normal confidence limits of the bound's expectation; the lower one bounds the quantity itself."""
        return normal_interval(self.value, self.standard_error, confidence)

    def _draw(self, ax: Axes | None, unit: str = "") -> Axes:
        """Draw the histogram of the terms, and their mean with its 95% limits."""
        ax = axes_or_new(ax)
        draw_histogram(ax, self.terms.numpy())
        ax.axvspan(*self.interval(), color=PALETTE[1], alpha=0.3, linewidth=0)
        ax.axvline(self.value, color=PALETTE[1], label=f"{self.value:.3f} ± {self.standard_error:.3f}{unit}")
        return ax


def normal_interval(value: float, standard_error: float, confidence: float) -> tuple[float, float]:
    """Return the limits of the central interval of this confidence.

    Raises
    ------
    ValueError
        If the confidence does not lie between 0 and 1.
    """
    half_width = float(norm.ppf((1 + require_fraction("confidence", confidence)) / 2)) * standard_error
    return value - half_width, value + half_width
