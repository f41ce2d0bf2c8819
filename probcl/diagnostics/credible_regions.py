"""Expected coverage: how often the truth lies in the posterior's credible regions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from scipy.stats import beta
from torch import Tensor
from torch.distributions import Distribution

from probcl.checks import describe, require_count, require_fraction, require_logarithms, require_tensor
from probcl.diagnostics.calibration import DEFAULT_SAMPLES
from probcl.diagnostics.draws import (
    Posterior,
    Truth,
    as_samples,
    as_truth,
    by_component,
    require_conditioned,
    seeded,
)
from probcl.diagnostics.figures import axes_or_new, draw_curves
from probcl.diagnostics.uniformity import Uniformity, ecdf_band, rank_values

_CURVE_POINTS = 101


@dataclass(frozen=True, eq=False, repr=False)
class Coverage(Uniformity):
    """For each pair the credibility of the smallest credible region that holds the truth.

    The expected coverage at level α is the fraction of `values` of at most α, and α itself if the posterior is right.
    Components are there only where the regions are one-dimensional; a region in all of u counts as one.

    Attributes
    ----------
    region
        What the regions are: ``"hpd"``, ``"central"`` or ``"tarp"``.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import coverage
    >>> rng = torch.Generator().manual_seed(0)
    >>> u, draws = torch.randn(500, 1, generator=rng), 2 * torch.randn(200, 500, 1, generator=rng)
    >>> too_wide = coverage(draws, u, region="central", seed=0)
    >>> too_wide.at(0.5) > 0.7, too_wide.excess > 0.1
    (tensor([True]), tensor([True]))
    """

    region: str

    quantity = "credibility of the smallest region with the truth"

    def at(self, levels: Float[Tensor, " L"] | float) -> Float[Tensor, "*L D"]:
        """Return the expected coverage at credibility levels, shape (L, D), or (D,) for a single level."""
        level = torch.as_tensor(levels, dtype=self.values.dtype)
        return (self.values <= level[..., None, None]).double().mean(-2)

    def interval(self, level: float, confidence: float = 0.95) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Return Clopper-Pearson confidence limits of the expected coverage at one level, each of shape (D,)."""
        low, high = clopper_pearson((self.values <= level).sum(0).numpy(), len(self.values), confidence)
        return torch.from_numpy(low), torch.from_numpy(high)

    @property
    def excess(self) -> Float[Tensor, " D"]:
        """∫ (coverage(α) − α) dα = ½ − mean of `values`: positive for a posterior too wide, negative for one too sure.

        Its standard error is 1 / √(12 B) if the posterior is right.
        """
        return 0.5 - self.values.mean(0)

    def plot(
        self,
        ax: Axes | None = None,
        kind: Literal["coverage", "histogram", "ecdf"] = "coverage",
        component: int | None = None,
    ) -> Axes:
        """Draw the expected coverage of all components against the level, or the plots of `Uniformity`.

        The grey region holds the whole curve of a posterior that is right with a probability of 95%. Above the
        diagonal the posterior is too wide, below it too sure.
        """
        if kind != "coverage":
            return super().plot(ax, kind, component)
        ax = axes_or_new(ax)
        points, low, high = ecdf_band(len(self.values))
        ax.fill_between(points, low, high, color="0.88")
        self._draw_curve(ax)
        ax.plot([0, 1], [0, 1], color="0.5", linewidth=1)
        ax.set(xlabel="credibility level", ylabel="expected coverage", xlim=(0, 1), ylim=(0, 1))
        return ax

    def _draw_curve(self, ax: Axes) -> None:
        levels = curve_levels()
        draw_curves(ax, levels.numpy(), self.at(levels).numpy())


def hpd_coverage(
    log_prob_samples: Float[Tensor, "S B"], log_prob_truth: Float[Tensor, " B"], *, seed: int | None = None
) -> Coverage:
    r"""Compute the expected coverage of highest-density regions from log-densities alone.

    The smallest region of highest density with the truth in it has as its credibility the posterior probability of what
    is denser than the truth, which the rank of the truth's density among those of S draws estimates (Hermans et al.
    2022, *A trust crisis in simulation-based inference?*; by draws as in Deistler, Gonçalves & Macke 2022). Densities
    may be unnormalised, each v by a factor of its own.

    Like every rank statistic of a single function of u it has a blind spot: errors that leave the law of the density
    at the truth as it is, for instance a prior returned for every v.

    Parameters
    ----------
    log_prob_samples
        Log-densities of the draws under the posterior they were drawn from, shape (S, B).
    log_prob_truth
        Log-density of each truth under that posterior, shape (B,); −inf where it has none.
    seed
        Makes ties reproducible.

    Raises
    ------
    ValueError
        If shapes do not fit or a log-density is NaN or +inf.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import hpd_coverage
    >>> rng = torch.Generator().manual_seed(0)
    >>> law = torch.distributions.Normal(0.0, 1.0)
    >>> draws, truth = torch.randn(200, 500, generator=rng), torch.randn(500, generator=rng)
    >>> hpd_coverage(law.log_prob(draws), law.log_prob(truth), seed=0).at(0.5).round(decimals=1)
    tensor([0.5000], dtype=torch.float64)
    """
    samples = _log_densities("log_prob_samples", log_prob_samples)
    truth = _log_densities("log_prob_truth", log_prob_truth)
    if truth.ndim != 1 or samples.ndim != 2 or samples.shape[1:] != truth.shape:
        raise ValueError(f"log_prob_samples must be (S, B) beside (B,), got {describe(samples)} and {describe(truth)}")
    with seeded(seed):
        return Coverage(1 - rank_values(samples, truth)[:, None], "hpd")


def coverage(
    posterior: Posterior,
    truth: Truth,
    *,
    region: Literal["hpd", "central"] = "hpd",
    log_prob: Callable[[Tensor], Tensor] | None = None,
    num_samples: int = DEFAULT_SAMPLES,
    seed: int | None = None,
) -> Coverage:
    """Compute the expected coverage of a posterior's credible regions.

    Parameters
    ----------
    posterior
        Draws, shape ``(S, B, *event_shape)``, or a distribution with ``batch_shape`` (B,).
    truth
        The u that belong to the B conditions, shape ``(B, *event_shape)``; pairs from the joint law.
    region
        ``"hpd"`` for highest-density regions (`hpd_coverage`), which need a density; ``"central"`` for the central
        interval of each component, between the (1 ± α)/2 quantiles.
    log_prob
        Log-density under the posterior, from ``(..., B, *event_shape)`` to (..., B); a distribution's own by default,
        its ``unnormalized_log_prob`` if it has one. It may lack any factor that depends on v alone.
    num_samples
        How many draws to take of a distribution.
    seed
        Makes ties, and draws of a distribution, reproducible without touching torch's global generator.

    Returns
    -------
    Coverage
        With one component for ``"hpd"``, and those of u for ``"central"``.

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers (or a distribution).
    ValueError
        If shapes do not fit, a value is not finite, or ``"hpd"`` is asked for without a density.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import coverage
    >>> rng = torch.Generator().manual_seed(0)
    >>> v = torch.randn(500, 2, generator=rng)
    >>> u = v + torch.randn(500, 2, generator=rng)
    >>> posterior = torch.distributions.Independent(torch.distributions.Normal(v, 1.0), 1)
    >>> coverage(posterior, u, region="hpd", num_samples=200, seed=0).at(0.9).round(decimals=1)
    tensor([0.9000], dtype=torch.float64)
    """
    if region not in ("hpd", "central"):
        raise ValueError(f"region must be 'hpd' or 'central', got {region!r}")
    u = as_truth(truth)
    if region == "central":
        with seeded(seed):
            values = rank_values(as_samples(posterior, u, num_samples), u)
        return Coverage(by_component(2 * values - 1, 1).abs(), "central")
    require_conditioned(posterior)
    if log_prob is None and isinstance(posterior, Distribution):
        # Ranks for one v need no normaliser, which a sampler may not estimate or only with an error.
        log_prob = getattr(posterior, "unnormalized_log_prob", posterior.log_prob)
    if log_prob is None:
        raise ValueError("region='hpd' needs log_prob where the posterior is given as draws; or use region='central'")
    with seeded(seed):
        # Not through float64: a density on atoms knows its own values only to the bit.
        if isinstance(posterior, Distribution):
            posterior = posterior.sample(torch.Size([require_count("num_samples", num_samples)]))
        as_samples(posterior, u, num_samples)
        return hpd_coverage(log_prob(torch.as_tensor(posterior)), log_prob(torch.as_tensor(truth)))


def clopper_pearson(
    successes: np.ndarray, trials: int | np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Exact confidence limits of probabilities, from counts (Clopper & Pearson 1934)."""
    tail = (1 - require_fraction("confidence", confidence)) / 2
    # The limits at counts of zero and of all, where the beta distribution degenerates and SciPy returns NaN.
    low = np.nan_to_num(beta.ppf(tail, successes, trials - successes + 1), nan=0.0)
    high = np.nan_to_num(beta.ppf(1 - tail, successes + 1, trials - successes), nan=1.0)
    return low, high


def curve_levels() -> Float[Tensor, " L"]:
    """Return the credibility levels at which curves are drawn."""
    return torch.linspace(0, 1, _CURVE_POINTS, dtype=torch.float64)


def _log_densities(name: str, values: Tensor) -> Float[Tensor, "*shape"]:
    return require_logarithms(name, require_tensor(name, values).detach().to("cpu", torch.float64))
