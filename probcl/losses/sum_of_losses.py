"""One loss under several alignments, added up."""

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from probcl.alignment import Alignment, require_alignment
from probcl.checks import require_positive, require_weight
from probcl.losses.base import Identifies, Loss, require_loss, require_pairs
from probcl.scores import Scores


class SumOfLosses(Loss):
    r"""Σ_k w_k L(s_k): a loss under several alignments, each with its own temperature, added up.

    With Laplace and Gaussian kernels it is what the *public code* of Kernel-InfoNCE does for its mixtures (Tan et al.
    2024, arXiv 2303.15103), λ L_γ + (1 − λ) L_2. The paper itself adds the kernels, not the losses: see
    `probcl.SumMixture` and `probcl.ConcatMixture`.

    Only the embeddings of the given scores count, not their alignment and temperature. No one density ratio makes all
    terms minimal, so no conditional of the fitted model is determined.

    Parameters
    ----------
    loss
        Any loss.
    alignments
        One for each term.
    temperatures
        τ_k > 0, one for each term.
    weights
        w_k ≥ 0, one for each term and not all zero; by default they are equal and sum to one.

    Raises
    ------
    ValueError
        If alignments, temperatures and weights are not equally many, or there is none; if a temperature is not
        positive, a weight negative, or all weights are zero.
    TypeError
        If `loss` is no `Loss`, or an alignment no `Alignment`.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> loss = pcl.losses.SumOfLosses(pcl.ConditionalLoss(), [pcl.Laplace(), pcl.Power(2)], [0.5, 0.5], [0.3, 0.7])
    >>> loss(pcl.Scores(torch.eye(3), torch.eye(3)))
    tensor(-1.0399)
    """

    def __init__(
        self,
        loss: Loss,
        alignments: Sequence[Alignment],
        temperatures: Sequence[float],
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        count = len(alignments)
        weights = [1 / max(count, 1)] * count if weights is None else weights
        if not count or len(temperatures) != count or len(weights) != count:
            raise ValueError(
                f"alignments, temperatures and weights must be equally many, and one at least, got {count}, "
                f"{len(temperatures)} and {len(weights)}"
            )
        for temperature in temperatures:
            require_positive("temperatures", temperature)
        self.loss = require_loss("loss", loss)
        self.alignments: Sequence[Alignment] = nn.ModuleList(  # type: ignore[assignment]
            require_alignment("alignments", alignment) for alignment in alignments
        )
        self.temperatures = tuple(float(temperature) for temperature in temperatures)
        self.weights = tuple(require_weight("weights", weight) for weight in weights)
        if sum(self.weights) == 0:
            raise ValueError("weights must not all be zero")

    @property
    def identifies(self) -> Identifies:
        return Identifies.TRANSFORM

    def given(self, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "n *v_event"]) -> Loss:
        loss = self.loss.given(u, v)
        if loss is self.loss:  # it looks at no data
            return self
        return SumOfLosses(loss, list(self.alignments), self.temperatures, self.weights)

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        total = scores.diagonal().new_zeros(())
        for alignment, temperature, weight in zip(self.alignments, self.temperatures, self.weights, strict=True):
            total = total + weight * self.loss(scores.under(alignment, temperature))
        return total

    def extra_repr(self) -> str:
        return f"temperatures={self.temperatures}, weights={self.weights}"
