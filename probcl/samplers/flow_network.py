"""`ConditionalFlow`: a conditional normalizing flow on R^D, out of Pyro's conditional autoregressive transforms."""

import warnings
from typing import cast

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions import ConditionalTransformModule
from pyro.distributions.transforms import (
    Permute,
    conditional_affine_autoregressive,
    conditional_spline_autoregressive,
)
from torch import Tensor, nn
from torch.distributions import Transform, TransformedDistribution

# Splines bend inside ±_BOUND standard deviations, where the affine layer puts the data, and are the identity outside.
_BOUND = 5.0


class ConditionalFlow(nn.Module):
    """q(x | context): an affine autoregressive layer, then rational splines, each with the coordinates reversed.

    Masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017) with linear rational splines (Dolatabadi, Erfani &
    Leckie 2020). The density costs one pass of the networks, a draw costs D of them.

    Parameters
    ----------
    x, context
        Data that fix the widths and the scales of inputs and outputs, shapes (N, D) and (M, d).
    num_splines
        Spline layers.
    hidden
        Width of the two hidden layers of each network.
    """

    shift: Tensor
    scale: Tensor
    context_shift: Tensor
    context_scale: Tensor

    def __init__(
        self, x: Float[Tensor, "N D"], context: Float[Tensor, "M d"], num_splines: int = 2, hidden: int = 64
    ) -> None:
        super().__init__()
        self.dim, self.context_dim = x.shape[1], context.shape[1]
        widths = [max(hidden, self.dim)] * 2
        with warnings.catch_warnings():
            # Pyro advises against autoregression in one dimension, which here is a conditional affine map and a spline.
            warnings.filterwarnings("ignore", message="ConditionalAutoRegressiveNN input_dim = 1")
            layers = [conditional_affine_autoregressive(self.dim, self.context_dim, widths)]
            for _ in range(num_splines):
                layers.append(conditional_spline_autoregressive(self.dim, self.context_dim, widths, bound=_BOUND))
        self.layers = nn.ModuleList(layers)
        for name, data in [("", x), ("context_", context)]:
            spread = data.std(0, correction=0)
            self.register_buffer(f"{name}shift", data.mean(0))
            self.register_buffer(f"{name}scale", torch.where(spread > 0, spread, 1.0))
        self.to(x.device, x.dtype)

    def condition(self, context: Float[Tensor, "*batch d"]) -> TransformedDistribution:
        """Return the law of x given each context, a Pyro distribution."""
        standard = ((context - self.context_shift) / self.context_scale).to(self.shift.dtype)
        reverse = Permute(torch.arange(self.dim - 1, -1, -1, device=self.shift.device))
        # From data to noise, so that training, which needs the density, has the fast direction.
        standardise = dist.transforms.AffineTransform(-self.shift / self.scale, 1 / self.scale, event_dim=1)
        to_noise: list[Transform] = [standardise]
        for layer in cast(list[ConditionalTransformModule], list(self.layers)):
            to_noise += [layer.condition(standard), reverse]
        noise = dist.Normal(torch.zeros_like(self.shift), 1.0).expand([*context.shape[:-1], self.dim]).to_event(1)
        from_noise = [transform.inv for transform in reversed(to_noise)]
        law: TransformedDistribution = dist.TransformedDistribution(noise, from_noise)
        return law
