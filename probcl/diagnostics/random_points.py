"""Tests of accuracy with random points: coverage of balls, which needs draws but no density."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from probcl.checks import describe, require_count
from probcl.diagnostics.calibration import DEFAULT_SAMPLES
from probcl.diagnostics.credible_regions import Coverage, curve_levels
from probcl.diagnostics.draws import Posterior, Truth, as_real, as_samples, as_truth, by_component, seeded
from probcl.diagnostics.held_out import spread
from probcl.diagnostics.uniformity import rank_values
from probcl.plotting import PALETTE

# Distances to the references that are computed at once.
_ENTRIES_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class TARP(Coverage):
    """Expected coverage of TARP regions, with bootstrap confidence limits.

    Attributes
    ----------
    levels, lower, upper
        95% bootstrap limits of the expected coverage at these levels, each of shape (L,).

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import tarp
    >>> rng = torch.Generator().manual_seed(0)
    >>> result = tarp(torch.randn(100, 500, 2, generator=rng), torch.randn(500, 2, generator=rng), seed=0)
    >>> result.levels.shape == result.lower.shape == result.upper.shape
    True
    >>> result.excess.abs() < 0.05
    tensor([True])
    """

    levels: Float[Tensor, " L"]
    lower: Float[Tensor, " L"]
    upper: Float[Tensor, " L"]

    quantity = "posterior probability nearer to the reference than the truth"

    @property
    def excess(self) -> Float[Tensor, " D"]:
        """¼ − mean |value − ½|: positive for a posterior too wide, negative for one too sure or biased.

        The TARP curve of a posterior of the wrong width is S-shaped: the area under it shows nothing. This is so
        for references drawn without regard to the posterior, the default. Those at its centre give a curve of another
        shape: read that, and the p-value.
        """
        return 0.25 - (self.values - 0.5).abs().mean(0)

    def _draw_curve(self, ax: Axes) -> None:
        super()._draw_curve(ax)
        ax.fill_between(self.levels, self.lower, self.upper, color=PALETTE[0], alpha=0.3, linewidth=0)


def tarp(
    posterior: Posterior,
    truth: Truth,
    *,
    references: Truth | None = None,
    normalize: bool = True,
    num_samples: int = DEFAULT_SAMPLES,
    num_bootstrap: int = 200,
    seed: int | None = None,
) -> TARP:
    r"""Test accuracy with random points: the expected coverage of balls, from draws alone.

    The regions are balls around a reference point r. For each pair the posterior probability nearer to r than the truth
    is, f = P(‖u' − r‖ < ‖u − r‖ | v), and f is uniform for *every* choice of r(v) if and only if the posterior is right
    (Lemos, Coogan, Hezaveh & Perreault-Levasseur 2023, *Sampling-based accuracy testing of posterior estimators for
    general inference*).

    With references that know nothing of v, as by default, a posterior that returns the prior passes; give `references`
    that depend on v (a fixed function of it, or the posterior mean of a rough fit) to see that too.

    Parameters
    ----------
    posterior, truth
        As in `coverage`; no density is needed.
    references
        One r for each pair, shape ``(B, *event_shape)``, chosen without a look at the truth. By default uniform over
        the box that the true values span.
    normalize
        Whether distances are Euclidean after each component is divided by the standard deviation of its true values.
    num_samples
        How many draws to take of a distribution.
    num_bootstrap
        How many times the pairs are resampled for the confidence limits.
    seed
        Makes all that is random reproducible without touching torch's global generator.

    Raises
    ------
    TypeError, ValueError
        As `coverage` does.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import tarp
    >>> rng = torch.Generator().manual_seed(0)
    >>> truth, draws = torch.randn(500, 2, generator=rng), torch.randn(100, 500, 2, generator=rng)
    >>> for width in (1.0, 0.5):
    ...     print(width, bool(tarp(width * draws, truth, seed=0).p_value > 0.01))
    1.0 True
    0.5 False
    """
    u = as_truth(truth)
    require_count("num_bootstrap", num_bootstrap, 2)
    with seeded(seed):
        samples = as_samples(posterior, u, num_samples)
        r = _uniform_over_box(u) if references is None else _as_references(references, u)
        scale = spread(u) if normalize else torch.ones_like(u[0])
        values = rank_values(_distances(samples, r, scale), _distances(u[None], r, scale)[0])[:, None]
        lower, upper = _bootstrap_limits(values[:, 0], num_bootstrap)
    return TARP(values, "tarp", curve_levels(), lower, upper)


def _as_references(references: Truth, truth: Float[Tensor, "B *event"]) -> Float[Tensor, "B *event"]:
    values = as_real("references", references)
    if values.shape != truth.shape:
        raise ValueError(f"references must have the truth's shape {tuple(truth.shape)}, got {describe(values)}")
    return values


def _uniform_over_box(truth: Float[Tensor, "B *event"]) -> Float[Tensor, "B *event"]:
    low, high = truth.amin(0), truth.amax(0)
    return low + (high - low) * torch.rand_like(truth)


def _distances(
    points: Float[Tensor, "S B *event"], references: Float[Tensor, "B *event"], scale: Float[Tensor, "*event"]
) -> Float[Tensor, "S B"]:
    rows = max(1, _ENTRIES_AT_ONCE // references.numel())
    distances = [by_component((chunk - references) / scale, 2).norm(dim=-1) for chunk in points.split(rows)]
    return torch.cat(distances)


def _bootstrap_limits(
    values: Float[Tensor, " B"], num_bootstrap: int
) -> tuple[Float[Tensor, " L"], Float[Tensor, " L"]]:
    """95% limits of the ECDF on the levels, from resampled pairs."""
    levels = curve_levels()
    curves = [
        torch.searchsorted(values[torch.randint(len(values), (len(values),))].sort().values, levels, right=True)
        for _ in range(num_bootstrap)
    ]
    fractions = torch.stack(curves).double() / len(values)
    lower, upper = fractions.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return lower, upper
