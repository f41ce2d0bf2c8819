"""Local coverage: whether a posterior that is right on average is right for every v."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from matplotlib.axes import Axes
from scipy.stats import chi2
from torch import Tensor

from probcl.checks import describe, require_count, require_fraction
from probcl.diagnostics.credible_regions import Coverage, clopper_pearson
from probcl.diagnostics.draws import as_real
from probcl.diagnostics.figures import axes_or_new
from probcl.diagnostics.uniformity import require_unit_interval
from probcl.plotting import PALETTE

# Pearson's rule for a χ² approximation: this many expected in the rarer of the two cells of every bin.
_EXPECTED_A_CELL = 5
_MAX_BINS = 10


@dataclass(frozen=True, eq=False)
class LocalCoverage:
    """Coverage of one credibility level in bins of a covariate.

    Attributes
    ----------
    level
        The nominal coverage.
    edges
        Of the bins, shape (bins + 1,), in the covariate's units.
    centers
        Mean of the covariate in each bin, shape (bins,).
    counts
        Pairs in each bin, shape (bins,).
    coverage, lower, upper
        Coverage in each bin and its 95% Clopper-Pearson limits, shape (bins,).
    p_value
        Of the hypothesis that the coverage is `level` in every bin: χ² with as many degrees of freedom as bins.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import local_coverage
    >>> rng = torch.Generator().manual_seed(0)
    >>> credibility, v = torch.rand(1000, generator=rng), torch.rand(1000, generator=rng)
    >>> local = local_coverage(credibility, v, level=0.9, bins=4)
    >>> local.coverage.shape, local.counts, local.p_value > 0.01
    (torch.Size([4]), tensor([250, 250, 250, 250]), True)
    """

    level: float
    edges: Float[Tensor, " edges"]
    centers: Float[Tensor, " bins"]
    counts: Int[Tensor, " bins"]
    coverage: Float[Tensor, " bins"]
    lower: Float[Tensor, " bins"]
    upper: Float[Tensor, " bins"]
    p_value: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the coverage of each bin with its limits against the covariate; the line is the nominal level."""
        ax = axes_or_new(ax)
        ax.axhline(self.level, color="0.5", linewidth=1)
        spread = torch.stack([self.coverage - self.lower, self.upper - self.coverage]).clamp(min=0)
        ax.errorbar(self.centers, self.coverage, spread, fmt="o", color=PALETTE[0], capsize=2, markersize=4)
        ax.set(xlabel="covariate of v", ylabel=f"coverage of {100 * self.level:g}% regions")
        return ax


def local_coverage(
    calibration: Coverage | Float[Tensor, " B"],
    covariate: Real[Tensor, " B"] | Real[np.ndarray, " B"],
    *,
    level: float = 0.9,
    bins: int | None = None,
    component: int | None = None,
) -> LocalCoverage:
    r"""Coverage as a function of v: the pairs are binned by a covariate w(v), and coverage is counted in each bin.

    Calibration on average does not exclude a posterior that is too wide for some v and too narrow for others; a right
    posterior has P(u ∈ region | w(v)) = level for every w (Zhao, Dalmasso, Izbicki & Lee 2021, *Diagnostics for
    conditional density models and Bayesian inference algorithms*, whose local test this is, with quantile bins as the
    regression). Only errors that vary with the *chosen* w show; try several, for instance each component of v, its
    norm, the posterior's own spread, and mind that the more are tried the more fail by chance.

    Parameters
    ----------
    calibration
        What `coverage` or `tarp` returned, or credibilities in [0, 1] of the smallest regions that hold the truth,
        shape (B,).
    covariate
        w(v), one number for each pair, shape (B,).
    level
        The credibility level.
    bins
        Bins of equal numbers of pairs; by default up to 10, as long as 5 misses (and 5 hits) are expected in each.
        Equal values of the covariate are never parted, so there may be fewer.
    component
        Which component, if there are several.

    Raises
    ------
    TypeError
        If `covariate` is not an array of real numbers.
    ValueError
        If shapes do not fit, values are outside [0, 1], `level` is not between 0 and 1, or there is more than one
        component and none was chosen.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import coverage, local_coverage
    >>> rng = torch.Generator().manual_seed(0)
    >>> v = torch.rand(2000, generator=rng)
    >>> u, draws = (0.5 + v) * torch.randn(2000, generator=rng), torch.randn(200, 2000, generator=rng)  # blind to v
    >>> local_coverage(coverage(draws, u, region="central", seed=0), v, level=0.9, bins=3).coverage.round(decimals=1)
    tensor([1.0000, 0.9000, 0.8000], dtype=torch.float64)
    """
    values, w = _one_component(calibration, component), as_real("covariate", covariate).contiguous()
    if w.shape != values.shape:
        raise ValueError(f"covariate must have shape ({len(values)},), one number for each pair, got {describe(w)}")
    require_fraction("level", level)
    if bins is None:
        rarer = round(len(values) * min(level, 1 - level))
        bins = min(_MAX_BINS, max(1, rarer // _EXPECTED_A_CELL))
    edges = _edges(w, require_count("bins", bins))
    place = torch.bucketize(w, edges[1:-1], right=True)
    counts, covered = place.bincount(), place.bincount((values <= level).double())
    low, high = clopper_pearson(covered.numpy(), counts.numpy(), 0.95)
    expected = counts.double() * level
    statistic = ((covered - expected).square() / (expected * (1 - level))).sum()
    return LocalCoverage(
        level,
        edges,
        place.bincount(w) / counts,
        counts,
        covered / counts,
        torch.from_numpy(low),
        torch.from_numpy(high),
        float(chi2.sf(float(statistic), len(counts))),
    )


def _edges(covariate: Float[Tensor, " B"], bins: int) -> Float[Tensor, " edges"]:
    """Return edges at values of the covariate, each the smallest in its bin, the last apart."""
    ordered = covariate.sort().values
    starts = ordered[torch.arange(bins) * len(ordered) // bins].unique()
    return torch.cat([starts, ordered[-1:]])


def _one_component(calibration: Coverage | Tensor, component: int | None) -> Float[Tensor, " B"]:
    if not isinstance(calibration, Coverage):
        values = as_real("calibration", calibration)
        if values.ndim != 1:
            raise ValueError(f"calibration must be a Coverage or credibilities of shape (B,), got {describe(values)}")
        return require_unit_interval("calibration", values)
    components = calibration.values.shape[1]
    if component is None and components > 1:
        raise ValueError(f"component must be chosen, from 0 to {components - 1}, got None")
    return calibration.values[:, component or 0]
