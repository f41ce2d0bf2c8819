"""Whether a learned score is a log density ratio."""

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from scipy.stats import norm
from torch import Tensor

from probcl.checks import describe, require_tensor
from probcl.diagnostics.figures import axes_or_new
from probcl.errors import ProbclWarning
from probcl.gauge import Side
from probcl.losses import Identifies
from probcl.model import BimodalModel, require_model
from probcl.plotting import PALETTE
from probcl.samplers.base import MIN_ESS
from probcl.samplers.weights import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_se,
    pareto_smoothed,
    weights_pass,
)

# A score that hardly varies has a standard error of zero, and a residual of rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class NormalizerCheck:
    """The logarithm of E e^s for each condition, which a log density ratio has at zero.

    Attributes
    ----------
    log_normalizer
        log E e^s for each condition, shape (B,).
    constant
        What all of them may have in common: their mean, or 0 where none is allowed.
    residual, standard_error
        `log_normalizer` less `constant`, and the Monte-Carlo standard error of that, shape (B,).
    ess
        Effective number of bank items behind each estimate, shape (B,).
    trusted
        Whether the tail of e^s over the bank is light enough for the estimate, shape (B,): its Pareto k̂ is in order
        and `ess` at least 100. If not, the bank may miss what the mean of e^s hangs on, unknown to the standard error.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import normalizer_check_of_scores
    >>> u = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))
    >>> v = torch.tensor([[-0.5, 0.0, 0.5]])
    >>> check = normalizer_check_of_scores(u * v - v**2 / 2)  # log dN(v, 1) / dN(0, 1)
    >>> check.residual.abs() < 3 * check.standard_error.clamp(min=1e-6), check.trusted
    (tensor([True, True, True]), tensor([True, True, True]))
    """

    log_normalizer: Float[Tensor, " B"]
    constant: float
    residual: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]
    ess: Float[Tensor, " B"]
    trusted: Bool[Tensor, " B"]

    @property
    def p_value(self) -> float:
        """P-value of all trusted residuals being zero (Bonferroni, since they share the bank); 1 if none is trusted."""
        z = (self.residual / self.standard_error.clamp(min=_ROUNDING))[self.trusted].abs()
        return min(1.0, len(z) * float(2 * norm.sf(float(z.max())))) if len(z) else 1.0

    @property
    def error(self) -> float:
        """Root mean square of the trusted residuals beyond their standard errors, in nats; NaN if none is trusted."""
        excess = self.residual.square() - self.standard_error.square()
        return math.sqrt(max(0.0, float(excess[self.trusted].mean()))) if self.trusted.any() else math.nan

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the residuals in ascending order with two standard errors, those that are not trusted in grey."""
        ax = axes_or_new(ax)
        order = self.residual.argsort()
        position = torch.arange(len(order))
        for chosen, color, name in [(self.trusted, PALETTE[0], None), (~self.trusted, "0.7", "heavy tail")]:
            which = chosen[order]
            if which.any():
                bars = 2 * self.standard_error[order][which]
                ax.errorbar(
                    position[which], self.residual[order][which], bars, fmt=".", color=color, label=name, linewidth=0.8
                )
        ax.axhline(0, color="0.5", linewidth=1)
        if not self.trusted.all():
            ax.legend(frameon=False, fontsize=8)
        ax.set(xlabel="conditions, in ascending order", ylabel="log E exp(s), less what is allowed [nats]")
        return ax

    def __repr__(self) -> str:
        return (
            f"NormalizerCheck(error {self.error:.3f} nats, p = {self.p_value:.2g}, "
            f"{int(self.trusted.sum())} of {len(self.trusted)} conditions trusted)"
        )


def normalizer_check(
    model: BimodalModel,
    u: Shaped[Tensor, "M *u_event"],
    v: Shaped[Tensor, "B *v_event"],
    *,
    over: Side = "u",
    constant: bool | None = None,
) -> NormalizerCheck:
    r"""Whether a learned score is a log density ratio: E_{u ~ μ_u} e^{s(u, v)} = 1 for every v.

    The log density ratio r(u, v) = log dμ / (dμ_u dμ_v) has E_u e^r = 1 for each v and E_v e^r = 1 for each u, so that
    either side is a test that needs no truth. What a loss leaves open must be allowed for (`Loss.identifies`): a
    two-sided or joint loss a constant; a one-sided one a whole function, so that nothing can be said before
    `BimodalModel.regauged`, which makes its own side hold by construction: the *other* side is then the test. Passing
    is necessary only: s = 0 passes.

    Parameters
    ----------
    model
        The fitted model.
    u, v
        Held-out values of either modality, from the marginals μ_u and μ_v the model was fitted to; not pairs, in any
        number.
    over
        Which of them the expectation runs over, ``"u"`` for one estimate for each v. It should have thousands.
    constant
        Whether a constant is allowed. By default it is if the model's loss leaves one open, and the model is not
        re-gauged.

    Raises
    ------
    TypeError
        If `model` is not a `BimodalModel`.
    ValueError
        If the model's loss leaves open a function of v or of u or determines no log density ratio, or there is a single
        condition and a constant allowed.

    Warns
    -----
    ProbclWarning
        If the bank is too small for more than half of the conditions: scores of several nats need banks of many
        thousands.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> rng = torch.Generator().manual_seed(0)
    >>> u, v = torch.randn(5000, 1, generator=rng), 0.5 * torch.randn(20, 1, generator=rng)
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())  # ⟨u, v⟩ lacks −½ v²
    >>> check = pcl.diagnostics.normalizer_check(model, u, v, over="u", constant=False)
    >>> check.p_value < 0.01
    True
    """
    require_model(model)
    if over not in ("u", "v"):
        raise ValueError(f"over must be 'u' or 'v', got {over!r}")
    if model.identifies in (Identifies.RATIO_UP_TO_V, Identifies.RATIO_UP_TO_U):
        fitted = "u" if model.identifies is Identifies.RATIO_UP_TO_V else "v"
        raise ValueError(
            f"model must determine its normaliser, but its loss leaves it open ({model.identifies.value}); "
            f"check model.regauged(over={fitted!r}, prior=...)"
        )
    if model.identifies is Identifies.TRANSFORM:
        raise ValueError(f"model must be of a log density ratio, but its loss determines {model.identifies.value}")
    if constant is None:
        constant = model.identifies is Identifies.RATIO and model.gauge is None
    with torch.no_grad():
        scores = model.scores_of_embeddings(model.embed_u(u).double(), model.embed_v(v).double()).matrix()
    return normalizer_check_of_scores(scores if over == "u" else scores.mT, constant=constant)


def normalizer_check_of_scores(log_ratio: Float[Tensor, "M B"], *, constant: bool = False) -> NormalizerCheck:
    """Whether the mean of e^s over a bank is one for each condition.

    Parameters
    ----------
    log_ratio
        s(u_i, v_b) of M independent draws u_i of μ_u and B conditions, shape (M, B).
    constant
        Whether all columns may have a constant in common.

    Raises
    ------
    ValueError
        If the scores are not a matrix, NaN or +inf, −inf for a whole column, or a constant is allowed to one column.

    Warns
    -----
    ProbclWarning
        As `normalizer_check` does.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import normalizer_check_of_scores
    >>> u = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))
    >>> v = torch.tensor([[-0.5, 0.0, 0.5]])
    >>> for log_ratio in (u * v - v**2 / 2, u * v):
    ...     print(normalizer_check_of_scores(log_ratio).p_value > 0.01)
    True
    False
    """
    scores = require_tensor("log_ratio", log_ratio).detach().to("cpu", torch.float64)
    if scores.ndim != 2 or len(scores) < 2 or (scores.isnan() | (scores == torch.inf)).any():
        raise ValueError(f"log_ratio must be (M, B), M ≥ 2, without NaN or +inf, got {describe(scores)}")
    if scores.isneginf().all(0).any():
        lost = int(scores.isneginf().all(0).sum())
        raise ValueError(f"log_ratio must not be −inf for a whole column, got {lost} of {scores.shape[1]} columns so")
    if constant and scores.shape[1] < 2:
        raise ValueError("constant=True needs at least two conditions to tell a constant by, got one")
    log_normalizer = log_mean_exp(scores)
    _, k_hat = pareto_smoothed(scores)
    ess = effective_sample_size(scores)
    trusted = weights_pass(k_hat, ess, len(scores)) & (ess >= MIN_ESS)
    if 2 * trusted.sum() < len(trusted):
        warnings.warn(
            f"the bank of {len(scores)} is too small for most of these scores: only {int(trusted.sum())} of "
            f"{len(trusted)} means of exp(s) can be trusted",
            ProbclWarning,
            stacklevel=2,
        )
    if not constant:
        common, standard_error = 0.0, log_mean_exp_se(scores)
    else:
        kept = trusted if trusted.any() else torch.ones_like(trusted)
        common, standard_error = float(log_normalizer[kept].mean()), _contrast_se(scores - log_normalizer, kept)
    return NormalizerCheck(log_normalizer, common, log_normalizer - common, standard_error, ess, trusted)


def _contrast_se(log_weights: Float[Tensor, "M B"], kept: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return standard errors of log normalisers less their mean; their errors are correlated through the bank."""
    weights = log_weights.exp()
    influence = weights - weights[:, kept].mean(1, keepdim=True)
    return influence.std(0) / math.sqrt(len(weights))
