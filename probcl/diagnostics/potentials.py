"""Potentials that are linear in the embeddings, to be fitted on top of a trained alignment."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probcl.alignment import Alignment, Factors, OnBase, Potentials, require_alignment, sum_present
from probcl.checks import require_count
from probcl.serialization import register


@register
class LinearPotentials(OnBase):
    """A base alignment plus a linear function of each embedding: base(x, y) + ⟨w_u, x⟩ + ⟨w_v, y⟩.

    What is added changes how probable an item is whatever it is matched with, as a shift of its prior does. A constant
    would change nothing that is ever learned, so there is none. The weights start at zero.

    Parameters
    ----------
    base
        The alignment.
    width
        Of the embeddings.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> alignment = pcl.diagnostics.LinearPotentials(pcl.Cosine(), width=2)
    >>> alignment(torch.eye(2), torch.eye(2)).detach()  # the weights start at zero
    tensor([[1., 0.],
            [0., 1.]])
    """

    def __init__(self, base: Alignment, width: int) -> None:
        super().__init__()
        self.base = require_alignment("base", base)
        self.weight_u = nn.Parameter(torch.zeros(require_count("width", width)))
        self.weight_v = nn.Parameter(torch.zeros(width))

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        return self.base.factorize(x, y)

    def potentials(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Potentials:
        row, column = self.base.potentials(x, y)
        return Potentials(sum_present(row, x @ self.weight_u.to(x)), sum_present(column, y @ self.weight_v.to(y)))

    def matched(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return self.base.matched(x, y) + x @ self.weight_u.to(x) + y @ self.weight_v.to(y)
