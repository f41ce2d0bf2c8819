"""The spectral contrastive loss."""

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.losses.base import Identifies, Loss, require_pairs
from probcl.scores import Scores


class SpectralLoss(Loss):
    r"""Low-rank approximation of the density ratio in least squares (HaoChen et al. 2021, arXiv 2106.04156).

    .. math:: L = -2 E_μ s + E_{μ_u ⊗ μ_v} s^2

    with the means over i = j and over i ≠ j.

    The minimiser is s = r, the density ratio dμ/(dμ_u dμ_v) itself and not its logarithm; with inner products of d
    columns, its best approximation of rank d. So a model fitted with it has no conditionals of the form e^s μ_u. In
    the population −L − 1 is a lower bound of Pearson's χ² of μ from μ_u ⊗ μ_v: it is f-MICL's form for "pearson" with
    s in place of e^s.

    Parameters
    ----------
    diagonal
        Whether the matched pairs count among those that do not match.

    Examples
    --------
    >>> import torch
    >>> from probcl import Scores, SpectralLoss
    >>> SpectralLoss()(Scores(torch.eye(3), torch.eye(3)))  # −2 · 1 + 0
    tensor(-2.)
    """

    def __init__(self, *, diagonal: bool = False) -> None:
        super().__init__()
        self.diagonal = diagonal

    @property
    def identifies(self) -> Identifies:
        return Identifies.TRANSFORM

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        return scores.mean(torch.square, diagonal=self.diagonal) - 2 * scores.diagonal().mean()

    def extra_repr(self) -> str:
        return "diagonal=True" if self.diagonal else ""
