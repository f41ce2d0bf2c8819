"""The temperature τ of a model: fixed, or learned through its logarithm."""

import math

import torch
from torch import Tensor, nn

from probcl.checks import require_positive


class Temperature(nn.Module):
    """τ > 0, a plain number, or learned through log τ so that no step of an optimiser makes it negative.

    Raises
    ------
    ValueError
        If `value` is not finite and positive.
    """

    def __init__(self, value: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        require_positive("temperature", value)
        self.learnable = learnable
        if learnable:
            self.log_value = nn.Parameter(torch.tensor(math.log(value)))
        else:
            self.fixed_value = float(value)

    def forward(self) -> float | Tensor:
        """Return τ, a tensor of one element if it is learned."""
        return self.log_value.exp() if self.learnable else self.fixed_value

    @property
    def value(self) -> float:
        """τ as a plain number."""
        return float(self.log_value.detach().exp()) if self.learnable else self.fixed_value

    def extra_repr(self) -> str:
        return f"{self.value:.4g}" + (", learnable" if self.learnable else "")
