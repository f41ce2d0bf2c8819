"""f-mutual information: how far the joint law is from the product of its marginals, by any f-divergence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from scipy.stats import norm
from torch import Tensor

from probcl.checks import describe, require_count, require_embeddings
from probcl.diagnostics.figures import axes_or_new, draw_histogram
from probcl.diagnostics.held_out import EmbeddedPairs, embed_pairs, in_batches
from probcl.distance import FGaussian
from probcl.divergences import KL, Divergence, as_divergence
from probcl.losses import require_pairs
from probcl.model import BimodalModel
from probcl.plotting import PALETTE
from probcl.scores import Scores

_CONFIDENCE = 0.95
_BATCH_SIZE = 2048
# A fit of two numbers needs no larger products, and takes many steps.
_FIT_BATCH_SIZE = 256
_FIT_STEPS = 200


@dataclass(frozen=True, eq=False, repr=False)
class FMutualInformation:
    """A lower bound of D_f(μ ‖ μ_u ⊗ μ_v), estimated on pairs that the critic was not fitted to.

    Attributes
    ----------
    divergence
        f.
    terms
        What each pair contributes: its own critic, less its share of the unmatched pairs it takes part in, shape (n,).
        Their mean is the value, and they are its Hoeffding projections.
    """

    divergence: Divergence
    terms: Float[Tensor, " n"]

    @property
    def value(self) -> float:
        """The bound, in the units of f; nats for "kl"."""
        return float(self.terms.mean())

    @property
    def standard_error(self) -> float:
        """Of the value, from the spread of the projections."""
        return float(self.terms.std()) / math.sqrt(len(self.terms))

    def interval(self, confidence: float = _CONFIDENCE) -> tuple[float, float]:
        """Return normal confidence limits of the bound's expectation; the lower one bounds D_f itself."""
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
        half_width = float(norm.ppf((1 + confidence) / 2)) * self.standard_error
        return self.value - half_width, self.value + half_width

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the histogram of the pairs' terms, and their mean with its 95% limits."""
        ax = axes_or_new(ax)
        draw_histogram(ax, self.terms.numpy())
        ax.axvspan(*self.interval(), color=PALETTE[1], alpha=0.3, linewidth=0)
        ax.axvline(self.value, color=PALETTE[1], label=f"{self.value:.3f} ± {self.standard_error:.3f}")
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
        If there are not as many u as v, fewer than four, or no divergence is of this name.
    TypeError
        If the critic is no `BimodalModel`.

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
        return f_mutual_information_of_scores(_cross_fitted(u, v, divergence, batch_size), divergence)
    if not isinstance(critic, BimodalModel):
        raise TypeError(f"critic must be a BimodalModel, got {describe(critic)}")
    batches = in_batches(*embed_pairs(critic, u, v), batch_size)
    with torch.no_grad():
        scores = [critic.scores_of_embeddings(z_u, z_v) for z_u, z_v in batches]
    return f_mutual_information_of_scores(scores, divergence)


def f_mutual_information_of_scores(
    scores: Scores | Sequence[Scores], divergence: Divergence | str = "kl"
) -> FMutualInformation:
    """As `f_mutual_information`, of the scores of matched pairs: one batch, or several that share no pair.

    Raises
    ------
    ValueError
        If a batch has not as many u as v, or a single pair, or there is none.
    TypeError
        If they are not `Scores`.
    """
    batches, divergence = [scores] if isinstance(scores, Scores) else list(scores), as_divergence(divergence)
    if not batches:
        raise ValueError("scores must hold at least one batch, got none")
    for batch in batches:
        require_pairs(batch)
    with torch.no_grad():
        return FMutualInformation(divergence, torch.cat([_terms(batch, divergence) for batch in batches]).double())


def fit_f_gaussian(
    u: Float[Tensor, "n d"],
    v: Float[Tensor, "n d"],
    divergence: Divergence | str = "kl",
    *,
    batch_size: int = _FIT_BATCH_SIZE,
) -> FGaussian:
    """Return the f-Gaussian log μ − |u − v|²/2σ² with the μ and σ of the largest bound of the f-mutual information.

    It is found by L-BFGS, for "kl" first: there the bound is concave in log μ and 1/σ², and has one maximum.

    Parameters
    ----------
    u, v
        Pairs of embeddings, of any length but zero.
    divergence
        A `probcl.divergences.Divergence` or the name of one.
    batch_size
        Pairs are unmatched with one another within batches of about this size.

    Raises
    ------
    ValueError
        If there are not as many u as v, fewer than two, or an embedding is zero.
    """
    divergence = as_divergence(divergence)
    u, v = require_embeddings("u", u), require_embeddings("v", v)
    if len(u) != len(v) or len(u) < 2:
        raise ValueError(f"u and v must be pairs, at least two of them, got {len(u)} u and {len(v)} v")
    batches = in_batches(u.detach().double(), v.detach().double(), require_count("batch_size", batch_size, 2))
    kernel = FGaussian(learnable=True).double()
    for each in (KL(), divergence):
        _maximise(kernel, _bound(kernel, batches, each))
    log_mu, log_sigma = (float(value.detach()) for value in (kernel.log_mu, kernel.log_sigma))
    return FGaussian(math.exp(log_mu), math.exp(log_sigma))


def _terms(scores: Scores, divergence: Divergence) -> Float[Tensor, " n"]:
    """Return the Hoeffding projections of the bound: their mean is the bound itself."""
    rows, columns = (scores.mean(divergence.conjugate, dim, diagonal=False) for dim in (1, 0))
    return divergence.derivative(scores.diagonal()) - rows - columns + rows.mean()


def _cross_fitted(u: Tensor, v: Tensor, divergence: Divergence | str, batch_size: int) -> list[Scores]:
    u, v = (require_embeddings(name, z).detach().double() for name, z in (("u", u), ("v", v)))
    if len(u) != len(v) or len(u) < 4:
        raise ValueError(f"u and v must be pairs, at least four of them, got {len(u)} u and {len(v)} v")
    halves = list(zip((u[::2], u[1::2]), (v[::2], v[1::2]), strict=True))
    kernels = [fit_f_gaussian(*half, divergence) for half in reversed(halves)]
    return [
        Scores(x, y, kernel)
        for half, kernel in zip(halves, kernels, strict=True)
        for x, y in in_batches(*half, batch_size)
    ]


def _bound(kernel: FGaussian, batches: EmbeddedPairs, divergence: Divergence) -> Callable[[], Float[Tensor, ""]]:
    total = sum(len(u) for u, _ in batches)

    def bound() -> Float[Tensor, ""]:
        value = torch.zeros((), dtype=torch.float64)
        for u, v in batches:
            scores = Scores(u, v, kernel, method="dense")
            unmatched = scores.mean(divergence.conjugate, diagonal=False)
            value = value + len(u) / total * (divergence.derivative(scores.diagonal()).mean() - unmatched)
        return value

    return bound


def _maximise(kernel: FGaussian, bound: Callable[[], Float[Tensor, ""]]) -> None:
    optimizer = torch.optim.LBFGS(
        kernel.parameters(), max_iter=_FIT_STEPS, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Float[Tensor, ""]:
        optimizer.zero_grad()
        loss = -bound()
        loss.backward()
        return loss

    optimizer.step(closure)
