"""Losses that compare laws by maximum mean discrepancy, the kernel distance of their samples.

They need what the scores do not hold: how alike the u are to one another, and the v. Kernels of the *embeddings* would
let the encoders lower the loss by making all embeddings alike. So the pairs themselves are handed over, in
``loss.given(u, v)``, which returns a loss of the scores like any other; `probcl.fit` does that for every batch.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probcl.checks import require_weights
from probcl.losses.base import Identifies, Loss, identified_by_conditionals, require_pairs
from probcl.losses.grams import GaussianKernel
from probcl.scores import Scores

DataKernel = Callable[[Tensor], Tensor]


class Pairs(NamedTuple):
    """The pairs of a batch, or of this rank's share of it."""

    u: Shaped[Tensor, "n *u_event"]
    v: Shaped[Tensor, "n *v_event"]


class Grams(NamedTuple):
    """Kernel matrices of a batch, k_u(u_i, u_j) and k_v(v_i, v_j)."""

    u: Float[Tensor, "n n"]
    v: Float[Tensor, "n n"]


class MMDLoss(Loss):
    """Base class: keeps the two kernels, and the pairs of a batch.

    Parameters
    ----------
    kernel_u, kernel_v
        Positive definite kernels on u and on v, functions from n values to an (n, n) matrix such as `GaussianKernel`
        (the default), `LaplaceKernel` and `EnergyKernel`.
    """

    pairs: Pairs | None = None

    def __init__(self, kernel_u: DataKernel | None = None, kernel_v: DataKernel | None = None) -> None:
        super().__init__()
        self.kernel_u = GaussianKernel() if kernel_u is None else kernel_u
        self.kernel_v = GaussianKernel() if kernel_v is None else kernel_v

    def given(self, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "n *v_event"]) -> Loss:
        bound = copy.copy(self)
        bound.pairs = Pairs(u, v)
        return bound

    def grams_of(self, scores: Scores) -> Grams:
        """Return the kernel matrices, in the type of the scores, of the pairs of all ranks.

        Raises
        ------
        ValueError
            If the loss has not been given the pairs, or as many as there are scores.
        """
        require_pairs(scores)
        if self.pairs is None:
            raise ValueError(f"{type(self).__name__} needs the pairs themselves: loss.given(u, v)(scores)")
        for part, own in zip(self.pairs, (scores.u, scores.v), strict=True):
            if len(part) != len(own):
                raise ValueError(f"the loss must be given the {len(own)} pairs of the scores, got {len(part)}")
        with torch.no_grad():
            gram_u = self.kernel_u(scores.gather(self.pairs.u))
            gram_v = self.kernel_v(scores.gather(self.pairs.v))
        like = scores.diagonal()
        return Grams(gram_u.to(like), gram_v.to(like))

    def extra_repr(self) -> str:
        return f"kernel_u={self.kernel_u!r}, kernel_v={self.kernel_v!r}"


class ConditionalMMDLoss(MMDLoss):
    r"""Kernel score of the two conditionals (Baptista, Stuart & Tran 2025, Appendix B), the mean of both directions.

    .. math:: L_{u|v} = \tfrac12 E[k(u, u') ρ(u|v) ρ(u'|v)] - E_{(v, u) ∼ μ, u'}[k(u, u') ρ(u'|v)]

    with u, u' ~ μ_u in the first term, ρ(u|v) = e^s / E_{u'} e^{s(u', v)}, and batch means for the expectations, the
    matched pair included (version 1 of the paper prints the opposite signs).

    L_{u|v} is ½ E_v MMD²(ν(·|v), μ(·|v)) plus what does not depend on the scores, so a characteristic kernel identifies
    what `ConditionalLoss` does: the log density ratio, for one direction up to a function of the condition. With
    `EnergyKernel` it is the energy score of the conditional, less a constant. Its value bounds no divergence by itself:
    the constant is unknown.

    Stores n × n matrices, and takes O(n³) operations for a batch of n pairs, whatever the method of the scores, and on
    every rank.

    Parameters
    ----------
    lambda_u, lambda_v
        Weights of u|v and of v|u, as in `ConditionalLoss`.
    kernel_u, kernel_v
        Kernels on the data; see `MMDLoss`.

    Raises
    ------
    ValueError
        On use without the pairs: see `MMDLoss.grams_of`.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> u = torch.tensor([[0.0], [1.0], [2.0]])
    >>> loss = pcl.ConditionalMMDLoss(kernel_u=pcl.losses.EnergyKernel())
    >>> for temperature in (1.0, 0.1):
    ...     print(round(float(loss.given(u, u)(pcl.Scores(u, u, alignment=pcl.L2(), temperature=temperature))), 4))
    -0.6282
    -0.75
    """

    def __init__(
        self,
        lambda_u: float = 1.0,
        lambda_v: float = 1.0,
        *,
        kernel_u: DataKernel | None = None,
        kernel_v: DataKernel | None = None,
    ) -> None:
        super().__init__(kernel_u, kernel_v)
        self.lambda_u, self.lambda_v = require_weights(lambda_u, lambda_v)

    @property
    def identifies(self) -> Identifies:
        return identified_by_conditionals(self.lambda_u, self.lambda_v)

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        grams = self.grams_of(scores)
        matrix, loss = scores.matrix(), scores.diagonal().new_zeros(())
        if self.lambda_u:
            loss = loss + self.lambda_u / 2 * _kernel_score(matrix.softmax(dim=0), grams.u)
        if self.lambda_v:
            loss = loss + self.lambda_v / 2 * _kernel_score(matrix.softmax(dim=1).mT, grams.v)
        return loss

    def extra_repr(self) -> str:
        return f"lambda_u={self.lambda_u:g}, lambda_v={self.lambda_v:g}, {super().extra_repr()}"


class JointMMDLoss(MMDLoss):
    r"""Squared maximum mean discrepancy of the joint laws (Baptista, Stuart & Tran 2025, Appendix B).

    .. math:: L = E_{y, y' ∼ ν} k(y, y') - 2 E_{x ∼ μ, y ∼ ν} k(x, y), \quad k = k_u k_v

    with ν the batch's n × n pairs (u_i, v_j) weighted by e^{s_ij} / Σ e^s. L is MMD²(ν, μ) less E_{x,x'∼μ} k(x, x'),
    which does not depend on the scores, so kernels whose product is characteristic identify the log density ratio up to
    a constant. On a batch L + E_{x,x'∼μ} k(x, x') is the MMD² itself; it bounds no other divergence. With
    `EnergyKernel` it is not the energy distance of the pairs (u, v), but the sum of those of the marginals and of one
    of the kind of distance covariance.

    Stores n × n matrices, and takes O(n³) operations for a batch of n pairs, whatever the method of the scores, and on
    every rank.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> u = torch.tensor([[0.0], [1.0], [2.0]])
    >>> loss, k = pcl.JointMMDLoss(), pcl.losses.GaussianKernel()
    >>> value = loss.given(u, u)(pcl.Scores(u, u, alignment=pcl.L2(), temperature=0.1))
    >>> round(float(value + (k(u) * k(u)).mean()), 4)  # the squared discrepancy, 0 where all is matched
    0.0
    >>> loss(pcl.Scores(u, u))
    Traceback (most recent call last):
        ...
    ValueError: JointMMDLoss needs the pairs themselves: loss.given(u, v)(scores)
    """

    @property
    def identifies(self) -> Identifies:
        return Identifies.RATIO

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        grams = self.grams_of(scores)
        weights = (scores.matrix() - scores.logsumexp()).exp()
        smoothed = grams.u @ weights @ grams.v
        return (weights * smoothed).sum() - 2 * smoothed.diagonal().mean()


def _kernel_score(weights: Float[Tensor, "n m"], gram: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Return the mean over j of ½ w_jᵀ K w_j − (K w_j)_j, for laws w_j on the same n points."""
    smoothed = gram @ weights
    return (0.5 * (weights * smoothed).sum(0) - smoothed.diagonal()).mean()
