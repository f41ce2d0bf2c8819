"""Proper scores: one number for sharpness and calibration together, smallest for the right posterior."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from probcl.diagnostics.calibration import DEFAULT_SAMPLES
from probcl.diagnostics.draws import Posterior, Truth, as_samples, as_truth, by_component, seeded
from probcl.diagnostics.figures import axes_or_new, draw_histogram
from probcl.plotting import PALETTE

# Distances between draws that are held at once.
_ENTRIES_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """A negatively oriented score of each pair: smaller is better.

    Attributes
    ----------
    name
        Of the score.
    values
        In the units of u, shape ``(B, *event_shape)`` or (B,). A fair score may be below zero.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import crps
    >>> rng = torch.Generator().manual_seed(0)
    >>> score = crps(torch.randn(100, 500, 2, generator=rng), torch.randn(500, 2, generator=rng))
    >>> score.values.shape, score.mean.round(decimals=1), score.standard_error.shape
    (torch.Size([500, 2]), tensor([0.6000, 0.6000], dtype=torch.float64), torch.Size([2]))
    """

    name: str
    values: Float[Tensor, "B ..."]

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        """Mean over the pairs."""
        return self.values.mean(0)

    @property
    def standard_error(self) -> Float[Tensor, "*event"]:
        """Standard error of the mean, for independent pairs."""
        return self.values.std(0) / math.sqrt(len(self.values))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the mean of each component with two standard errors; the histogram of the pairs if there is only one."""
        ax = axes_or_new(ax)
        mean, error = by_component(self.mean, 0), by_component(self.standard_error, 0)
        if len(mean) > 1:
            ax.errorbar(range(len(mean)), mean, 2 * error, fmt="o", color=PALETTE[0], capsize=2, markersize=4)
            ax.set(xlabel="component", ylabel=f"mean {self.name}")
            return ax
        draw_histogram(ax, self.values.flatten().numpy())
        ax.axvline(float(mean), color=PALETTE[1], label=f"mean {float(mean):.3g} ± {float(error):.1g}")
        ax.legend(frameon=False, fontsize=8)
        ax.set(xlabel=self.name, ylabel="pairs")
        return ax

    def __repr__(self) -> str:
        shape = tuple(self.values.shape)
        return f"Score({self.name} of shape {shape}, overall mean {float(self.values.mean()):.4g})"


def crps(
    posterior: Posterior,
    truth: Truth,
    *,
    fair: bool = False,
    num_samples: int = DEFAULT_SAMPLES,
    seed: int | None = None,
) -> Score:
    r"""Continuous ranked probability score of each component.

    .. math:: \mathrm{CRPS} = \frac1S \sum_s |u_s - u| - \frac{1}{2 S^2} \sum_{s,t} |u_s - u_t|

    computed from the sorted draws in O(S log S) (Gneiting & Raftery 2007, eqs. 20-21). It is that of the empirical
    law of the draws, and rewards more of them. The fair score has S (S − 1) for S² and its expectation is that of the
    law they were drawn from, whatever S (Ferro 2014): with it, posteriors with unequal numbers of draws compare.

    Parameters
    ----------
    posterior
        Draws, shape ``(S, B, *event_shape)``, or a distribution with ``batch_shape`` (B,).
    truth
        What came about, shape ``(B, *event_shape)``.
    fair
        Whether to use the unbiased form, which needs S ≥ 2.
    num_samples
        How many draws to take of a distribution.
    seed
        Makes draws of a distribution reproducible without touching torch's global generator.

    Returns
    -------
    Score
        Of shape ``(B, *event_shape)``, in the units of u.

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers (or a distribution).
    ValueError
        If shapes do not fit, a value is not finite, or a single draw is to be scored fairly.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import crps
    >>> draws, truth = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0])  # two draws for one pair
    >>> crps(draws, truth).values, crps(draws, truth, fair=True).values
    (tensor([0.2500], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    u, samples = _arguments(posterior, truth, fair, num_samples, seed)
    count = len(samples)
    # Relative to the truth, so that a common offset costs no digits.
    deviations = (samples - u).sort(0).values
    rank_weights = torch.arange(1 - count, count, 2, dtype=u.dtype)
    spread = torch.einsum("s,s...->...", rank_weights, deviations) / (count * (count - fair))
    return Score("fair CRPS" if fair else "CRPS", deviations.abs().mean(0) - spread)


def energy_score(
    posterior: Posterior,
    truth: Truth,
    *,
    fair: bool = False,
    num_samples: int = DEFAULT_SAMPLES,
    seed: int | None = None,
) -> Score:
    r"""Energy score, the CRPS of vectors.

    .. math:: \mathrm{ES} = \frac1S \sum_s \|u_s - u\| - \frac{1}{2 S^2} \sum_{s,t} \|u_s - u_t\|

    in O(S² D) (Gneiting & Raftery 2007, eq. 22 with β = 1). It is proper for the joint law of the components, yet not
    very sensitive to their dependence; scale components of different units first.

    Parameters
    ----------
    posterior, truth, num_samples, seed
        As in `crps`.
    fair
        Whether to have S (S − 1) for S², as in `crps`.

    Returns
    -------
    Score
        Of shape (B,).

    Raises
    ------
    TypeError, ValueError
        As `crps` does.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import energy_score
    >>> draws, truth = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]]), torch.zeros(1, 2)
    >>> energy_score(draws, truth).values  # (0 + 5) / 2 − (5 + 5) / 8
    tensor([1.2500], dtype=torch.float64)
    """
    u, samples = _arguments(posterior, truth, fair, num_samples, seed)
    count = len(samples)
    deviations = by_component(samples - u, 2).movedim(0, 1)
    conditions = max(1, _ENTRIES_AT_ONCE // count**2)
    spread = torch.cat([_mean_distance(chunk) for chunk in deviations.split(conditions)])
    if fair:
        spread = spread * count / (count - 1)
    return Score("fair energy score" if fair else "energy score", deviations.norm(dim=-1).mean(1) - spread / 2)


def _arguments(
    posterior: Posterior, truth: Truth, fair: bool, num_samples: int, seed: int | None
) -> tuple[Float[Tensor, "B *event"], Float[Tensor, "S B *event"]]:
    u = as_truth(truth)
    with seeded(seed):
        samples = as_samples(posterior, u, num_samples)
    if fair and len(samples) < 2:
        raise ValueError("a fair score needs at least two draws of the posterior, got one")
    return u, samples


def _mean_distance(samples: Float[Tensor, "B S D"]) -> Float[Tensor, " B"]:
    """Mean of ‖u_s − u_t‖ over all S² pairs."""
    # Not by |x|² + |y|² − 2⟨x, y⟩, which leaves √ε where the distance is zero.
    return torch.cdist(samples, samples, compute_mode="donot_use_mm_for_euclid_dist").mean((1, 2))
