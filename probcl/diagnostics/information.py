"""Mutual information: how much of the dependence of u and v a learned score has found."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from torch import Tensor

from probcl.diagnostics.held_out import embed_pairs, in_batches, own_direction
from probcl.diagnostics.intervals import MeanOfTerms
from probcl.kernels.base import Dim
from probcl.losses import ConditionalLoss
from probcl.model import BimodalModel, require_model
from probcl.scores import Scores


@dataclass(frozen=True, eq=False, repr=False)
class MutualInformation(MeanOfTerms):
    """A lower bound of the mutual information I(u; v), estimated on held-out pairs.

    `value` is the bound in nats, and ``interval(confidence=.95)`` its normal confidence limits, of which the lower
    bounds the quantity itself.

    Attributes
    ----------
    terms
        Log-ratio of each pair, normalised over the other pairs of its batch, in nats, shape (n,).
    influences
        What each pair adds to the error of the estimate, shape (n,): mean zero.
    ceiling
        Logarithm of the number of pairs in a batch, which no such estimate exceeds.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> rng = torch.Generator().manual_seed(0)
    >>> u = torch.randn(1000, 1, generator=rng)
    >>> v = u + 0.5 * torch.randn(1000, 1, generator=rng)
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2(), temperature=0.25)
    >>> bound = pcl.diagnostics.mutual_information(model, u, v, loss=pcl.ConditionalLoss(2, 0))
    >>> low, high = bound.interval()
    >>> low < 0.805 < high, round(bound.ceiling, 2)
    (True, 6.91)
    """

    terms: Float[Tensor, " n"]
    influences: Float[Tensor, " n"]
    ceiling: float

    @property
    def standard_error(self) -> float:
        """Of the value, by the infinitesimal jackknife: pairs are also the candidates of one another."""
        return float(self.influences.std()) / math.sqrt(len(self.influences))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the histogram of the pairs' terms, their mean with its 95% limits, and the ceiling."""
        ax = self._draw(ax, " nats")
        ax.axvline(self.ceiling, color="0.5", linestyle="--", label=f"ceiling {self.ceiling:.2f}")
        ax.legend(frameon=False, fontsize=8)
        ax.set(xlabel="log-ratio of a pair [nats]", ylabel="pairs")
        return ax

    def __repr__(self) -> str:
        return f"MutualInformation(I ≥ {self.value:.3f} ± {self.standard_error:.3f}, ceiling {self.ceiling:.2f} nats)"


def mutual_information(
    model: BimodalModel,
    u: Shaped[Tensor, "n *u_event"],
    v: Shaped[Tensor, "n *v_event"],
    *,
    loss: ConditionalLoss | None = None,
    batch_size: int = 2048,
) -> MutualInformation:
    r"""Lower bound of I(u; v) by the learned score, on pairs that it was not fitted to.

    .. math:: I(u; v) ≥ E\Big[\tfrac{λ_u}{2} \log \frac{e^{s(u_i,v_i)}}{\frac1n \sum_k e^{s(u_k,v_i)}}
              + \tfrac{λ_v}{2} \log \frac{e^{s(u_i,v_i)}}{\frac1n \sum_k e^{s(u_i,v_k)}}\Big]

    for λ_u + λ_v = 2, the negative of `ConditionalLoss`: true in expectation for every score and every n (van den Oord
    et al. 2018; Poole et al. 2019). In the limit of large n its gap is the divergence of the learned
    conditionals from the true ones (Baptista, Stuart & Tran 2025, §2). The bound of `JointLoss` is never tighter.

    Parameters
    ----------
    model
        The fitted model.
    u, v
        Held-out pairs, as many of each.
    loss
        Whose weights to take, with λ_u + λ_v = 2. By default the directions that the model's own loss determines.
    batch_size
        Pairs are candidates for one another within batches of about this size, for the sake of memory.

    Raises
    ------
    TypeError
        If `model` is not a `BimodalModel`.
    ValueError
        If there are not as many u as v, fewer than two, or the weights do not add up to 2.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> rng = torch.Generator().manual_seed(0)
    >>> u = torch.randn(1000, 1, generator=rng)
    >>> v = u + 0.5 * torch.randn(1000, 1, generator=rng)
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2(), temperature=0.25)
    >>> pcl.diagnostics.mutual_information(model, u, v, loss=pcl.ConditionalLoss(2, 0))  # the truth is ½ log 5 = 0.805
    MutualInformation(I ≥ 0.838 ± 0.029, ceiling 6.91 nats)
    """
    require_model(model)
    loss = own_direction(model) if loss is None else loss
    if loss.lambda_u + loss.lambda_v != 2:
        raise ValueError(f"loss must have lambda_u + lambda_v = 2 to bound the mutual information, got {loss!r}")
    batches = in_batches(*embed_pairs(model, u, v), batch_size)
    with torch.no_grad():
        parts = [_terms_and_influences(model.scores_of_embeddings(z_u, z_v), loss) for z_u, z_v in batches]
    terms, influences = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return MutualInformation(terms, influences, math.log(min(len(z_u) for z_u, _ in batches)))


def _terms_and_influences(scores: Scores, loss: ConditionalLoss) -> tuple[Tensor, Tensor]:
    count = len(scores.u)
    terms = scores.diagonal().new_zeros(count)
    as_candidate = torch.zeros_like(terms)
    directions: tuple[tuple[float, Dim, Dim], ...] = ((loss.lambda_u / 2, 0, 1), (loss.lambda_v / 2, 1, 0))
    for weight, dim, other in directions:
        if weight:
            terms = terms + weight * (math.log(count) - scores.diagonal_nll(dim))
            # How often a pair is mistaken for the others: one on average.
            mass = scores.normalized(dim).weighted_sum(terms.new_ones(count, 1), dim=other)[:, 0]
            as_candidate = as_candidate + weight * (mass - 1)
    return terms, terms - terms.mean() - as_candidate
