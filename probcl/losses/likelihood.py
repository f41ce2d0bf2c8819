"""The likelihoods of the two conditionals, and of the joint law."""

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_weights
from probcl.losses.base import Identifies, Loss, identified_by_conditionals, require_pairs
from probcl.scores import Scores


class ConditionalLoss(Loss):
    r"""Weighted sum of the negative log-likelihoods of the two conditionals (CLIP's loss and InfoNCE's).

    .. math::
        -L = \frac{λ_u + λ_v}{2} E_μ s - \frac{λ_u}{2} E_v \log E_{u'} e^{s(u', v)}
             - \frac{λ_v}{2} E_u \log E_{v'} e^{s(u, v')}

    with batch means for the expectations. For λ_u + λ_v = 2 the value −L is a lower bound of the mutual information
    I(u; v), and L + log N is CLIP's loss (Baptista, Stuart & Tran 2025, eqs. 11-12, Problem 3.4, Theorem 2.8).

    Parameters
    ----------
    lambda_u, lambda_v
        Weights of u|v and of v|u: (1, 1) is CLIP's two-sided loss, (2, 0) fits u|v only, (0, 2) fits v|u only.
    diagonal
        Whether the matched pair is among the candidates in the logarithm, as in CLIP. Left out, −L is no longer capped
        at log N, but is no bound of the mutual information either.

    Examples
    --------
    >>> import torch
    >>> from probcl import ConditionalLoss, Cosine, Scores
    >>> z = torch.eye(3)
    >>> ConditionalLoss()(Scores(z, z, alignment=Cosine(), temperature=0.07))
    tensor(-1.0986)
    """

    def __init__(self, lambda_u: float = 1.0, lambda_v: float = 1.0, *, diagonal: bool = True) -> None:
        super().__init__()
        self.lambda_u, self.lambda_v = require_weights(lambda_u, lambda_v)
        self.diagonal = diagonal

    @property
    def identifies(self) -> Identifies:
        return identified_by_conditionals(self.lambda_u, self.lambda_v)

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        loss = scores.diagonal().new_zeros(())
        if self.lambda_u:
            loss = loss + self.lambda_u / 2 * self._direction(scores, dim=0)
        if self.lambda_v:
            loss = loss + self.lambda_v / 2 * self._direction(scores, dim=1)
        return loss

    def _direction(self, scores: Scores, dim: Literal[0, 1]) -> Float[Tensor, ""]:
        if self.diagonal:
            return scores.diagonal_nll(dim).mean() - math.log(scores.count(dim))
        return (scores.logmeanexp(dim, diagonal=False) - scores.diagonal()).mean()

    def extra_repr(self) -> str:
        return f"lambda_u={self.lambda_u:g}, lambda_v={self.lambda_v:g}" + ("" if self.diagonal else ", diagonal=False")


class JointLoss(Loss):
    r"""Negative log-likelihood of the joint law, the Donsker-Varadhan bound.

    .. math:: -L = E_μ s - \log E_{μ_u ⊗ μ_v} e^s

    with batch means. In the population −L is a lower bound of I(u; v), and never a tighter one than that of
    `ConditionalLoss`, since L_cond ≤ L_joint for every score (Baptista, Stuart & Tran 2025, Theorem 3.10).

    Parameters
    ----------
    diagonal
        Whether the matched pairs are among the n × n pairs in the logarithm.

    Examples
    --------
    >>> import torch
    >>> from probcl import ConditionalLoss, JointLoss, Scores
    >>> scores = Scores(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [1.0], [2.0]]))
    >>> JointLoss()(scores), ConditionalLoss()(scores)  # never below the other
    (tensor(1.0677), tensor(0.2087))
    """

    def __init__(self, *, diagonal: bool = True) -> None:
        super().__init__()
        self.diagonal = diagonal

    @property
    def identifies(self) -> Identifies:
        return Identifies.RATIO

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        return scores.logmeanexp(diagonal=self.diagonal) - scores.diagonal().mean()

    def extra_repr(self) -> str:
        return "" if self.diagonal else "diagonal=False"
