"""SigLIP's loss: every pair a yes or no of its own."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from probcl.checks import require_number
from probcl.losses.base import Identifies, Loss, require_pairs
from probcl.scores import Scores


class SigmoidLoss(Loss):
    r"""Logistic regression of matched against unmatched pairs (Zhai et al. 2023, arXiv 2303.15343, SigLIP).

    .. math:: L = E_μ \log(1 + e^{-(s + b)}) + (n - 1)\, E_{μ_u ⊗ μ_v} \log(1 + e^{s + b})

    with the means over i = j and over i ≠ j: a sum over all n² pairs, over n, as in the paper.

    The minimiser is s = log r − b − log(n − 1), r = dμ/(dμ_u dμ_v): the log density ratio, and its constant too since
    b is known. At n = 2 and b = 0 the population value 2 log 2 − L is a lower bound of twice the Jensen-Shannon
    divergence of μ from μ_u ⊗ μ_v; for larger batches, of a skewed one. It bounds no mutual information.

    Parameters
    ----------
    bias
        b, to start with. The paper's −10 goes with its temperature of 0.1 and batches of thousands; −log(n − 1) makes
        the untrained score zero right on average.
    learnable
        Whether b is learned.

    Examples
    --------
    >>> import torch
    >>> from probcl import Cosine, Scores, SigmoidLoss
    >>> scores = Scores(torch.eye(3), torch.eye(3), alignment=Cosine(), temperature=0.1)
    >>> SigmoidLoss(bias=-5.0, learnable=False)(scores)
    tensor(0.0201)
    """

    def __init__(self, bias: float = -10.0, learnable: bool = True) -> None:
        super().__init__()
        bias = require_number("bias", bias)
        if not math.isfinite(bias):
            raise ValueError(f"bias must be finite, got {bias}")
        self.bias = nn.Parameter(torch.tensor(bias), requires_grad=learnable)

    @property
    def identifies(self) -> Identifies:
        return Identifies.RATIO

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        negatives, of_pairs = scores.count(1, diagonal=False), scores.diagonal()
        # A bias of the rows, not a term of the function, so that tiles can give it its gradient.
        logits = scores.shifted(bias_u=self.bias.to(of_pairs).expand(len(scores.u)))
        return softplus(-logits.diagonal()).mean() + negatives * logits.mean(softplus, diagonal=False)

    def extra_repr(self) -> str:
        return f"bias={float(self.bias.detach()):.4g}" + ("" if self.bias.requires_grad else ", learnable=False")
