"""Re-gauging: making a one-sided fit right in the other direction.

A loss that fits v|u only determines the score up to s → s + a(u), one that fits u|v only up to s → s + b(v). The
conditional it did not fit is then arbitrary. Subtracting the log-normaliser of the conditional that *was* fitted,

    s(u, v) ← s(u, v) − log E_{v'~μ_v} e^{s(u, v')}        (after a v|u fit),

turns the score into the log density ratio itself, and the other conditional into the one that Bayes' rule gives.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Side = Literal["u", "v"]


class Gauge(nn.Module):
    """The embedded bank over which a re-gauge takes its expectation.

    Parameters
    ----------
    over
        Which variable the expectation runs over: ``"v"`` after a fit of v|u, ``"u"`` after a fit of u|v.
    bank
        Embeddings of that variable, shape (m, d).
    log_weights
        Log-probabilities of the bank's atoms, shape (m,).
    """

    bank: Tensor
    log_weights: Tensor

    def __init__(self, over: Side, bank: Float[Tensor, "m d"], log_weights: Float[Tensor, " m"]) -> None:
        super().__init__()
        if over not in ("u", "v"):
            raise ValueError(f"over must be 'u' or 'v', got {over!r}")
        self.over = over
        self.register_buffer("bank", bank)
        self.register_buffer("log_weights", log_weights)

    @classmethod
    def empty(cls, over: Side, size: int, width: int) -> "Gauge":
        """Return a gauge to load saved embeddings into."""
        return cls(over, torch.zeros(size, width), torch.zeros(size))

    def extra_repr(self) -> str:
        return f"over={self.over!r}, atoms={len(self.bank)}"
