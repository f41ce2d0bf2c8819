"""RINCE: InfoNCE that forgives wrong pairs."""

import math
import warnings
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_number, require_positive, require_weights
from probcl.errors import ProbclWarning
from probcl.losses.base import Identifies, Loss, identified_by_conditionals, require_pairs
from probcl.losses.continuation import continued, largest_exponent
from probcl.scores import Scores

# (λn)^q from which two towers run to opposite poles: 3.2 (q = ½) and 2.6 (q = 1) did, in LOSSES.md's digits.
_COLLAPSE = 2.0


class RINCELoss(Loss):
    r"""Robust InfoNCE (Chuang et al. 2022, CVPR, arXiv 2201.04309), the mean of its two directions.

    .. math:: L = -\frac{e^{q s^+}}{q} + \frac{(λ \sum_j e^{s_j})^q}{q}

    for a pair s⁺ among n candidates s_j, itself included. It is computed from l = log λ + log Σ_j e^{s_j} as
    e^{q s⁺} expm1(q (l − s⁺))/q, of which q = 0 is the limit: InfoNCE + log λ. For q = 1 and λ = 1/n it is
    symmetric: shuffling a fraction η of the pairs multiplies its expectation by 1 − η and moves no minimum.

    For q = 0 it determines what `ConditionalLoss` does. For q > 0 it does not determine the log density ratio. For
    0 < q < 1 one direction has, among all scores with a given E_{v'} e^{s(u, v')}, its minimum at
    e^s ∝ r^{1/(1−q)}, r = dμ/(dμ_u dμ_v): conditionals of such scores are too sharp, and 1 − q times the score is the
    log ratio up to a function of u. For q = 1 the score only has to be largest where r is. So the model claims no
    conditional (`Identifies.TRANSFORM`). −L is no bound of the mutual information; for λ = 1/n,
    −E L ≤ Lip(e^{qs})/q · (1 − λ) W₁, the Wasserstein distance of matched from unmatched pairs (for q = 1 the paper's
    bound).

    For q > 0 and λ < 1 it has no lower bound: a matched score that grows without the others lowers it for ever, as
    inner products do whose embeddings grow. Use an alignment that is bounded, such as `probcl.Cosine`.

    Exponentials that would overflow are continued by their tangents (`probcl.losses.continuation`).

    Parameters
    ----------
    q
        From 0 (InfoNCE) to 1 (most robust, and hardest to train).
    lam
        λ, a number above zero or "1/n" for one over the number of candidates. What the paper calls λ has to shrink as
        the batch grows.
    lambda_u, lambda_v
        Weights of the direction with candidates among the u and of the one with candidates among the v.

    Warns
    -----
    ProbclWarning
        On use, if (λn)^q > 2. The loss of n equal scores is ((λn)^q − 1) e^{qs}/q + const, which all scores lower by
        falling together.

    Examples
    --------
    >>> import torch
    >>> from probcl import Cosine, RINCELoss, Scores
    >>> scores = Scores(torch.eye(3), torch.eye(3), alignment=Cosine(), temperature=0.5)
    >>> RINCELoss(q=0.0)(scores), RINCELoss(q=1.0)(scores)
    (tensor(-0.8591), tensor(-4.2594))
    """

    def __init__(
        self, q: float = 0.5, lam: float | Literal["1/n"] = "1/n", *, lambda_u: float = 1.0, lambda_v: float = 1.0
    ) -> None:
        super().__init__()
        self.q, self.lam = _require_q(q), _require_lam(lam)
        self.lambda_u, self.lambda_v = require_weights(lambda_u, lambda_v)

    @property
    def identifies(self) -> Identifies:
        return Identifies.TRANSFORM if self.q else identified_by_conditionals(self.lambda_u, self.lambda_v)

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        count = scores.count(1)
        lam = 1 / count if self.lam == "1/n" else float(self.lam)
        self._warn_of_collapse(lam * count)
        loss = scores.diagonal().new_zeros(())
        if self.lambda_u:
            loss = loss + self.lambda_u / 2 * self._direction(scores, 0, math.log(lam))
        if self.lambda_v:
            loss = loss + self.lambda_v / 2 * self._direction(scores, 1, math.log(lam))
        return loss

    def _direction(self, scores: Scores, dim: Literal[0, 1], log_lam: float) -> Float[Tensor, ""]:
        if self.q == 0:
            return scores.diagonal_nll(dim).mean() + log_lam
        matched, q = scores.diagonal(), self.q
        # l − s⁺ as in `Scores.diagonal_nll`, but not by softplus, whose gradient takes a product that overflows here.
        others = scores.logsumexp(dim, diagonal=False) - matched
        margin = torch.logaddexp(others, torch.zeros_like(others)) + log_lam
        larger, limit = matched + margin.relu(), largest_exponent(matched.dtype) / q
        # The larger exponential times a difference from one, so that nothing cancels where both are small ...
        rising, falling = torch.expm1(-q * margin.clamp(min=0)), torch.expm1(q * margin.clamp(max=0))
        exact = (q * larger.clamp(max=limit)).exp() * torch.where(margin > 0, -rising, falling)
        # ... or the difference of their tangents, where it would overflow.
        tangent = continued(lambda x: (q * x).exp(), (0, q), matched.dtype)
        return (torch.where(larger < limit, exact, tangent(matched + margin) - tangent(matched)) / q).mean()

    def _warn_of_collapse(self, candidates: float) -> None:
        if candidates**self.q > _COLLAPSE:
            warnings.warn(
                f"lam times the number of candidates is {candidates:.3g}; at q = {self.q:g} the loss falls when all "
                'scores do, and embeddings run to opposite poles. Use lam="1/n", or a smaller lam or q',
                ProbclWarning,
                stacklevel=3,
            )

    def extra_repr(self) -> str:
        weights = f", lambda_u={self.lambda_u:g}, lambda_v={self.lambda_v:g}"
        return f"q={self.q:g}, lam={self.lam!r}" + ("" if self.lambda_u == self.lambda_v == 1 else weights)


def _require_q(value: object) -> float:
    q = require_number("q", value)
    if not 0 <= q <= 1:
        raise ValueError(f"q must lie between 0 and 1, got {q}")
    return q


def _require_lam(value: float | str) -> float | str:
    if isinstance(value, str):
        if value != "1/n":
            raise ValueError(f"lam must be a positive number or '1/n', got {value!r}")
        return value
    require_positive("lam", value)
    return float(value)
