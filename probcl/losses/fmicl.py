"""f-MICL: contrastive learning by the variational form of any f-divergence."""

import warnings

from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_positive
from probcl.divergences import Divergence, as_divergence
from probcl.errors import ProbclWarning
from probcl.losses.base import Identifies, Loss, require_pairs
from probcl.losses.continuation import continued
from probcl.scores import Scores


class FMICLLoss(Loss):
    r"""Negative variational form of an f-divergence (Lu et al. 2023, arXiv 2402.10150, f-MICL).

    .. math:: -L = E_μ f'(e^s) - α\, E_{μ_u ⊗ μ_v} f^*(f'(e^s))

    with the means over i = j and over i ≠ j for the expectations. The score s is the logarithm of what the paper calls
    G, so f-MICL proper is this loss with `probcl.FGaussian`; with any other alignment it is as well defined.

    The minimiser is s = log r − log α, r = dμ/(dμ_u dμ_v), for every divergence: the density ratio with its constant,
    which likelihoods leave open. For α = 1 the population value −L is a lower bound of the f-mutual information
    D_f(μ‖μ_u ⊗ μ_v), with equality there; with a fixed scale, such as μ = 1 and α = 40, it is a loss and estimates
    nothing.

    Exponentials that would overflow are continued by their tangents (`probcl.losses.continuation`).

    Parameters
    ----------
    divergence
        A `probcl.divergences.Divergence`, or the name of one: "kl", "js", "pearson", "squared-hellinger",
        "vincze-le-cam", "reverse-kl", "neyman".
    alpha
        α > 0, the weight of the pairs that do not match. The paper's choice for images is 40.
    diagonal
        Whether the matched pairs count among those that do not match, as `ConditionalLoss` has them.

    Warns
    -----
    ProbclWarning
        For a divergence that the theory of the paper excludes.

    Examples
    --------
    >>> import torch
    >>> from probcl import FGaussian, FMICLLoss, Scores
    >>> z = torch.eye(3)
    >>> FMICLLoss("pearson", alpha=40)(Scores(z, z, alignment=FGaussian()))
    tensor(-39.2674)
    """

    def __init__(self, divergence: Divergence | str = "kl", alpha: float = 1.0, *, diagonal: bool = False) -> None:
        super().__init__()
        self.divergence = as_divergence(divergence)
        require_positive("alpha", alpha)
        self.alpha, self.diagonal = float(alpha), diagonal
        if self.divergence.excluded:
            warnings.warn(
                f"{self.divergence} is outside the theory of f-MICL: {self.divergence.excluded}",
                ProbclWarning,
                stacklevel=2,
            )

    @property
    def identifies(self) -> Identifies:
        return Identifies.RATIO

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        of_pairs, growth = scores.diagonal(), self.divergence.growth
        critic = continued(self.divergence.derivative, growth, of_pairs.dtype)
        conjugate = continued(self.divergence.conjugate, growth, of_pairs.dtype)
        return self.alpha * scores.mean(conjugate, diagonal=self.diagonal) - critic(of_pairs).mean()

    def extra_repr(self) -> str:
        return f"{self.divergence}, alpha={self.alpha:g}" + (", diagonal=True" if self.diagonal else "")
