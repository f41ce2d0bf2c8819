"""f-mutual information: how far the joint law is from the product of its marginals, by any f-divergence."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from torch import Tensor

from probcl.checks import describe, require_embeddings
from probcl.diagnostics.f_gaussian import fit_f_gaussian
from probcl.diagnostics.held_out import embed_pairs, in_batches, require_matched
from probcl.diagnostics.intervals import MeanOfTerms
from probcl.divergences import Divergence, as_divergence
from probcl.errors import ProbclWarning
from probcl.losses import Identifies, require_pairs
from probcl.model import BimodalModel
from probcl.scores import Scores

# The bound of a critic scatters about zero for independent pairs; only what lies further below is warned of.
_BELOW_ZERO = 0.999
_BATCH_SIZE = 2048


@dataclass(frozen=True, eq=False, repr=False)
class FMutualInformation(MeanOfTerms):
    """A lower bound of D_f(μ ‖ μ_u ⊗ μ_v), estimated on pairs that the critic was not fitted to.

    `value` is the bound, in the units of f (nats for "kl"), and ``interval(confidence=.95)`` its normal confidence
    limits, of which the lower bounds the quantity itself.

    Attributes
    ----------
    divergence
        f.
    terms
        What each pair contributes: its own critic, less its share of the unmatched pairs it takes part in, shape (n,).
        Their mean is the value, and they are its Hoeffding projections.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import f_mutual_information
    >>> rng = torch.Generator().manual_seed(0)
    >>> u = torch.randn(500, 3, generator=rng)
    >>> bound = f_mutual_information(u, u + torch.randn(500, 3, generator=rng), "kl")
    >>> low, high = bound.interval(confidence=0.95)
    >>> 0 < low < bound.value < high
    True
    """

    divergence: Divergence
    terms: Float[Tensor, " n"]

    @property
    def standard_error(self) -> float:
        """Of the value, from the spread of the projections."""
        return float(self.terms.std()) / math.sqrt(len(self.terms))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the histogram of the pairs' terms, and their mean with its 95% limits."""
        ax = self._draw(ax)
        ax.legend(frameon=False, fontsize=8)
        ax.set(xlabel=f"term of a pair ({self.divergence.name})", ylabel="pairs")
        return ax

    def __repr__(self) -> str:
        return f"FMutualInformation({self.divergence}, I_f ≥ {self.value:.3f} ± {self.standard_error:.3f})"


def f_mutual_information(
    u: Shaped[Tensor, "n *u_event"],
    v: Shaped[Tensor, "n *v_event"],
    divergence: Divergence | str = "kl",
    *,
    critic: BimodalModel | None = None,
    batch_size: int = _BATCH_SIZE,
) -> FMutualInformation:
    r"""Lower bound of the f-mutual information D_f(μ ‖ μ_u ⊗ μ_v), with a confidence interval.

    .. math:: I_f ≥ E_μ f'(e^s) - E_{μ_u ⊗ μ_v} f^*(f'(e^s))

    for every s, with equality at the log density ratio (Lu et al. 2023, arXiv 2402.10150, eq. 3). The second
    expectation is a mean over the n(n − 1) unmatched pairs of a batch: a U-statistic. Its standard error is that of
    its Hoeffding projection, the mean of ψ_i = f'(e^{s_ii}) − r_i − c_i + m, where r_i and c_i are the means of row
    and column i and m is the mean of all: the spread of the ψ_i over √n, a little too large for small batches. The
    interval takes normal quantiles. Both need f*(f'(e^s)) to have a finite variance under μ_u ⊗ μ_v; for "pearson"
    heavy-tailed ratios do not, such as those of Gaussian pairs of correlation above 1/3.

    Parameters
    ----------
    u, v
        Pairs. For the f-Gaussian, vectors whose direction matters and not their length.
    divergence
        A `probcl.divergences.Divergence` or the name of one.
    critic
        A model whose scores are s, fitted to *other* pairs by `FMICLLoss` with any divergence and α = 1. A score
        that is known up to a constant only, as `ConditionalLoss` leaves it, makes a poor bound. By default s is the
        f-Gaussian log μ − |u − v|²/2σ² of the pairs at unit length, with μ and σ fitted by `fit_f_gaussian` to each
        half of the pairs, and taken for the other.
    batch_size
        Pairs are unmatched with one another within batches of about this size, for the sake of memory.

    Raises
    ------
    ValueError
        If there are not as many u as v, fewer than four, or no divergence is of this name; if no f-Gaussian is best for
        the pairs (see `fit_f_gaussian`); if the critic's scores are so large that a term overflows.
    TypeError
        If the critic is no `BimodalModel`.

    Warns
    -----
    ProbclWarning
        If the critic was fitted by a loss that determines no log density ratio, or if its bound is significantly below
        zero, the bound of the score zero.

    Examples
    --------
    >>> import torch
    >>> from probcl import f_mutual_information
    >>> u = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    >>> v = u + torch.randn(2000, 3, generator=torch.Generator().manual_seed(1))
    >>> f_mutual_information(u, v, "js")
    FMutualInformation(JensenShannon(), I_f ≥ 0.322 ± 0.012)
    """
    if critic is None:
        scores = _cross_fitted(u, v, divergence, batch_size)
    else:
        batches = in_batches(*embed_pairs(_require_critic(critic), u, v), batch_size)
        with torch.no_grad():
            scores = [critic.scores_of_embeddings(z_u, z_v) for z_u, z_v in batches]
    found = f_mutual_information_of_scores(scores, divergence)
    if critic is not None and found.interval(_BELOW_ZERO)[1] < 0:
        warnings.warn(
            f"{found} is below the trivial bound, zero: the critic is no log density ratio of these pairs",
            ProbclWarning,
            stacklevel=2,
        )
    return found


def f_mutual_information_of_scores(
    scores: Scores | Sequence[Scores], divergence: Divergence | str = "kl"
) -> FMutualInformation:
    """As `f_mutual_information`, of the scores of matched pairs: one batch, or several that share no pair.

    Raises
    ------
    ValueError
        If a batch has not as many u as v, or a single pair, or there is none; if a term is infinite or undefined.
    TypeError
        If they are not `Scores`.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.diagnostics import f_mutual_information_of_scores
    >>> rng = torch.Generator().manual_seed(0)
    >>> u = torch.randn(500, 3, generator=rng)
    >>> scores = pcl.Scores(u, u + torch.randn(500, 3, generator=rng), alignment=pcl.FGaussian(mu=2.0))
    >>> f_mutual_information_of_scores(scores, "js").value > 0
    True
    """
    batches, divergence = [scores] if isinstance(scores, Scores) else list(scores), as_divergence(divergence)
    if not batches:
        raise ValueError("scores must hold at least one batch, got none")
    for batch in batches:
        require_pairs(batch)
    with torch.no_grad():
        terms = torch.cat([_terms(batch, divergence) for batch in batches]).double()
    if not terms.isfinite().all():
        raise ValueError(
            f"scores must be such that f'(e^s) and f*(f'(e^s)) of {divergence} are finite, got "
            f"{int((~terms.isfinite()).sum())} NaN or infinite of {len(terms)} terms"
        )
    return FMutualInformation(divergence, terms)


def _terms(scores: Scores, divergence: Divergence) -> Float[Tensor, " n"]:
    """Return the Hoeffding projections of the bound: their mean is the bound itself."""
    rows, columns = (scores.mean(divergence.conjugate, dim, diagonal=False) for dim in (1, 0))
    return divergence.derivative(scores.diagonal()) - rows - columns + rows.mean()


def _require_critic(critic: object) -> BimodalModel:
    if not isinstance(critic, BimodalModel):
        raise TypeError(f"critic must be a BimodalModel, got {describe(critic)}")
    if critic.identifies is Identifies.TRANSFORM:
        warnings.warn(
            f"the critic's loss determines {critic.identifies.value}: it makes a poor bound, or none",
            ProbclWarning,
            stacklevel=3,
        )
    return critic


def _cross_fitted(u: Tensor, v: Tensor, divergence: Divergence | str, batch_size: int) -> list[Scores]:
    u, v = (require_embeddings(name, z).detach().double() for name, z in (("u", u), ("v", v)))
    require_matched(u, v, minimum=4)
    halves = list(zip((u[::2], u[1::2]), (v[::2], v[1::2]), strict=True))
    kernels = [fit_f_gaussian(*half, divergence) for half in reversed(halves)]
    return [
        Scores(x, y, kernel)
        for half, kernel in zip(halves, kernels, strict=True)
        for x, y in in_batches(*half, batch_size)
    ]
