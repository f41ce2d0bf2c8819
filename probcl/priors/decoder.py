"""A learned generative model as a prior."""

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution

from probcl.checks import describe
from probcl.frozen import frozen
from probcl.priors.base import Prior
from probcl.priors.distribution import DistributionPrior


class DecoderPrior(Prior):
    """The law of decoder(z) for z from a latent prior, the prior of a VAE or of any other generator.

    It has no density in u that is known; the samplers work on z, where the tilted density is.

    Parameters
    ----------
    decoder
        Maps latent variables (n, *latent_event) to values (n, *event_shape); used in evaluation mode.
    latent
        Law of z, as for `DistributionPrior`.

    Raises
    ------
    TypeError
        If `decoder` is not a module.
    ValueError
        If it does not map a batch to a batch, or `latent` is not a prior.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 5))
    >>> prior = pcl.DecoderPrior(decoder, torch.distributions.Normal(torch.zeros(2), 1.0))
    >>> prior.sample((100,)).shape
    torch.Size([100, 5])
    """

    def __init__(self, decoder: nn.Module, latent: Distribution) -> None:
        if not isinstance(decoder, nn.Module):
            raise TypeError(f"decoder must be a torch.nn.Module, got {describe(decoder)}")
        self.decoder = decoder
        self.latent: TorchDistribution = DistributionPrior(latent).latent
        with torch.no_grad(), torch.random.fork_rng(devices=[]), frozen(decoder):
            z = self.latent.sample((2,))
            decoded = decoder(z)
        self._dtype = z.dtype
        if decoded.shape[:1] != (2,):
            raise ValueError(f"decoder must map (n, *latent) to (n, *event), got {tuple(decoded.shape)} for n = 2")
        self.event_shape = decoded.shape[1:]

    def decode(self, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*out"]:
        batch = z.shape[: z.ndim - len(self.latent.event_shape)]
        with frozen(self.decoder):
            # Samplers that follow gradients work in float64.
            decoded = self.decoder(z.to(self._dtype).reshape(-1, *self.latent.event_shape))
        out: Tensor = decoded.reshape(*batch, *self.event_shape)
        return out

    def log_prob(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        raise NotImplementedError("the law of a decoder's output has no density that is known; use log_ratio")

    def __repr__(self) -> str:
        return f"DecoderPrior({type(self.decoder).__name__}, latent={self.latent!r})"
