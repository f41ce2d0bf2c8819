"""Numbers that are uniform if the posterior is right, and exact tests of whether they are."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from scipy.stats import binom, chisquare, poisson
from torch import Tensor

from probcl.checks import describe, require_count
from probcl.diagnostics.figures import axes_or_new, draw_curves, draw_histogram

# Points at which the empirical distribution function is compared with the uniform one.
_MAX_POINTS = 100
_MAX_BINS = 20
_PAIRS_A_BIN = 10
_BAND_LEVEL = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class Uniformity:
    """Numbers in [0, 1], one for each of B pairs and D components, that are uniform if the posterior is right.

    Attributes
    ----------
    values
        Shape (B, D); independent along the first axis.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import Uniformity
    >>> rng = torch.Generator().manual_seed(0)
    >>> Uniformity(torch.rand(500, 2, generator=rng, dtype=torch.float64)).p_value > 0.01
    True
    >>> Uniformity(torch.rand(500, 2, generator=rng, dtype=torch.float64) ** 2).p_value > 0.01
    False
    """

    values: Float[Tensor, "B D"]

    quantity: ClassVar[str] = "value"

    @cached_property
    def p_values(self) -> Float[Tensor, " D"]:
        """P-values of the simultaneous ECDF test of each component, see `ecdf_p_value`."""
        return self.values.new_tensor([ecdf_p_value(column) for column in self.values.unbind(1)])

    @cached_property
    def chi_square_p_values(self) -> Float[Tensor, " D"]:
        """P-values of Pearson's χ² test on the histogram of each component."""
        return self.values.new_tensor([chi_square_p_value(column) for column in self.values.unbind(1)])

    @property
    def p_value(self) -> float:
        """P-value of the ECDF tests of all components at once (Bonferroni, valid whatever their dependence)."""
        return min(1.0, len(self.p_values) * float(self.p_values.min()))

    @property
    def worst(self) -> int:
        """The component with the smallest p-value."""
        return int(self.p_values.argmin())

    def plot(
        self,
        ax: Axes | None = None,
        kind: Literal["histogram", "ecdf"] = "histogram",
        component: int | None = None,
    ) -> Axes:
        """Draw the values of one component, by default the `worst`, against what uniform values would do.

        The grey region holds all bars, or the whole curve, of uniform values with a probability of 95%.

        Parameters
        ----------
        ax
            Where to draw; a new figure if not given.
        kind
            ``"histogram"`` for counts, ``"ecdf"`` for the empirical distribution function less the uniform one.
        component
            Which of the D components.
        """
        if kind not in ("histogram", "ecdf"):
            raise ValueError(f"kind must be 'histogram' or 'ecdf', got {kind!r}")
        ax = axes_or_new(ax)
        values = self.values[:, self.worst if component is None else component].numpy()
        ax.set_xlabel(self.quantity)
        ax.set_xlim(0, 1)
        return _draw_histogram(ax, values) if kind == "histogram" else _draw_ecdf_difference(ax, values)

    def __repr__(self) -> str:
        pairs, components = self.values.shape
        return f"{type(self).__name__}({pairs} pairs, {components} components, p = {self.p_value:.2g})"


def rank_values(samples: Float[Tensor, "S B *event"], truth: Float[Tensor, "B *event"]) -> Float[Tensor, "B *event"]:
    """Return (R + w) / (S + 1) for the rank R of each truth among its draws, ties broken at random, and w ~ U(0, 1).

    If truth and draws are exchangeable, R is uniform on 0, …, S and the result on (0, 1), exactly and for every S.
    """
    below, tied = (samples < truth).sum(0), (samples == truth).sum(0)
    return (below + (tied + 1) * torch.rand_like(truth)) / (len(samples) + 1)


def chi_square_p_value(values: Float[Tensor, " B"]) -> float:
    """P-value of Pearson's χ² test of uniformity, on B/10 bins of equal width, two to twenty of them."""
    counts = np.histogram(values.numpy(), _bins(len(values)), (0, 1))[0]
    return float(chisquare(counts).pvalue)


def ecdf_p_value(values: Float[Tensor, " B"]) -> float:
    r"""P-value of the simultaneous test of the empirical distribution function on a grid z_i = i / K.

    The statistic is the smallest of the pointwise two-sided p-values of the counts B F̂(z_i) ~ Binomial(B, z_i); its
    distribution is computed exactly (Säilynoja, Bürkner & Vehtari 2022, *Graphical test for discrete
    uniformity and its applications*).
    """
    count, z = len(values), _grid(len(values))
    below = np.searchsorted(np.sort(values.numpy()), z, side="right")
    two_sided = 2 * np.minimum(binom.cdf(below, count, z), binom.sf(below - 1, count, z))
    return float(np.clip(1 - _probability_inside(count, float(two_sided.min())), 0, 1))


@lru_cache(maxsize=64)
def ecdf_band(count: int, level: float = _BAND_LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return grid points, and bounds within which a whole ECDF of uniform values stays with probability `level`.

    Parameters
    ----------
    count
        How many independent uniform values.
    level
        The probability that no grid point lies outside; the narrowest band of pointwise equal level that reaches it.

    Returns
    -------
    points, lower, upper
        Each from 0 to 1 and of the same length.
    """
    log_narrow, log_wide = 0.0, float(np.log((1 - level) / (2 * _MAX_POINTS)))
    for _ in range(40):
        middle = (log_narrow + log_wide) / 2
        if _probability_inside(count, float(np.exp(middle))) >= level:
            log_wide = middle
        else:
            log_narrow = middle
    lower, upper = _bounds(count, float(np.exp(log_wide)))
    framed = (np.concatenate([[0.0], part, [1.0]]) for part in (_grid(count), lower / count, upper / count))
    points, low, high = framed
    return points, low, high


def _grid(count: int) -> np.ndarray:
    """Interior grid points, as many as can tell the values apart."""
    points = min(require_count("the number of values", count, 2), _MAX_POINTS)
    return np.arange(1, points) / points


def _bounds(count: int, pointwise: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest counts below the grid points whose pointwise p-value is above this one."""
    # A hair above, so that a count whose p-value is this very number is left out.
    lower = np.maximum(binom.ppf(pointwise / 2 * (1 + 1e-9), count, _grid(count)), 0)
    return lower, count - lower[::-1]


def _probability_inside(count: int, pointwise: float) -> float:
    """Probability that the pointwise p-values of uniform values are above this one at all grid points.

    A Poisson process of rate `count` on [0, 1] that is known to have `count` points is a sample of uniform values, and
    its increments are independent: one convolution a step, cut to the band, gives the probability of never leaving it.
    """
    lower, upper = (bound.astype(int) for bound in _bounds(count, pointwise))
    if (lower > upper).any():
        return 0.0
    increments = poisson.pmf(np.arange(count + 1), count / (len(lower) + 1))
    start, state = 0, np.ones(1)
    for low, high in zip(lower, upper, strict=True):
        moved = np.convolve(state, increments[: high - start + 1])
        start, state = low, moved[low - start : high - start + 1]
    remaining = count - np.arange(start, start + len(state))
    return float(state @ increments[remaining] / poisson.pmf(count, count))


def _bins(count: int) -> int:
    return min(max(count // _PAIRS_A_BIN, 2), _MAX_BINS)


def _draw_histogram(ax: Axes, values: np.ndarray) -> Axes:
    bins = _bins(len(values))
    low, high = binom.interval(1 - (1 - _BAND_LEVEL) / bins, len(values), 1 / bins)
    ax.axhspan(low, high, color="0.88", zorder=0)
    ax.axhline(len(values) / bins, color="0.5", linewidth=1)
    draw_histogram(ax, values, bins, (0, 1))
    ax.set_ylabel("pairs")
    return ax


def _draw_ecdf_difference(ax: Axes, values: np.ndarray) -> Axes:
    points, low, high = ecdf_band(len(values))
    ecdf = np.searchsorted(np.sort(values), points, side="right") / len(values)
    ax.fill_between(points, low - points, high - points, color="0.88")
    ax.axhline(0, color="0.5", linewidth=1)
    draw_curves(ax, points, (ecdf - points)[:, None])
    ax.set_ylabel("ECDF − uniform")
    return ax


def require_unit_interval(name: str, values: Tensor) -> Tensor:
    """Return `values` if they lie in [0, 1]; raise `ValueError` otherwise."""
    if values.numel() == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name} must lie in [0, 1], got {describe(values)} outside it")
    return values
