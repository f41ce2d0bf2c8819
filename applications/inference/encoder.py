"""An encoder for data that are noisy positions: sines and cosines of a perceptron."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

import probcl as pcl


@pcl.register
class WaveEncoder(nn.Module):
    r"""x ↦ (a sin φ, b cos φ), φ = frequency · MLP((x − mean) / deviation), with learned amplitudes a, b.

    The inner product of two such embeddings contains :math:`\sum_k a_k² \cos(φ_k(u) − ψ_k(v))`, a function of
    differences: what the score is when v is a function of u plus noise. Narrow noise takes high frequencies, which
    waves have from the start, where an MLP learns them late.

    Parameters
    ----------
    mean, deviation
        Of the data, by component: see `encoder`.
    n_waves
        The embedding is twice as wide.
    hidden
        Widths of the hidden layers.
    frequency
        How many times faster than the outputs of a fresh MLP the waves oscillate.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        deviation: Sequence[float],
        n_waves: int,
        hidden: Sequence[int],
        frequency: float,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))
        self.phase = pcl.encoders.MLP(len(mean), n_waves, hidden, activation="relu")
        self.amplitude = nn.Parameter(torch.full((2 * n_waves,), (2 / n_waves) ** 0.5))
        self.frequency = frequency

    def forward(self, x: Float[Tensor, "batch n"]) -> Float[Tensor, "batch d"]:
        """Return embeddings of shape (batch, 2 n_waves)."""
        phase = self.frequency * self.phase((x - self.mean) / self.deviation)
        return self.amplitude * torch.cat([phase.sin(), phase.cos()], 1)


def encoder(data: Float[Tensor, "n d"], n_waves: int, hidden: Sequence[int], frequency: float) -> WaveEncoder:
    """Return an encoder for data like these, which are standardised by their mean and standard deviation."""
    return WaveEncoder(data.mean(0).tolist(), data.std(0).tolist(), n_waves, hidden, frequency)
