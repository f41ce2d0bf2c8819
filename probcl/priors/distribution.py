"""A Pyro or torch distribution as a prior."""

from typing import cast

from jaxtyping import Float
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from probcl.priors.base import Prior
from probcl.priors.support import support_of


class DistributionPrior(Prior):
    """Any distribution of real values, as a prior: its latent variable is u itself.

    Parameters
    ----------
    distribution
        Without batch axes, or with one, which becomes the event: ``Normal(zeros(3), 1.)`` is a law of vectors of
        length three.

    Raises
    ------
    ValueError
        If the distribution has more than one batch axis, has one in front of events, or is discrete.
    """

    def __init__(self, distribution: Distribution) -> None:
        if getattr(distribution.support, "is_discrete", False):
            raise ValueError(
                f"prior must be continuous, got {distribution!r}; use EmpiricalPrior for finitely many values"
            )
        if len(distribution.batch_shape) > 1 or (distribution.batch_shape and distribution.event_shape):
            raise ValueError(
                "prior must have no batch axes, or one and scalar events (see to_event), got batch_shape "
                f"{tuple(distribution.batch_shape)} and event_shape {tuple(distribution.event_shape)}"
            )
        self.latent = cast(TorchDistribution, _as_event(distribution))
        self.event_shape = self.latent.event_shape

    @property
    def support(self) -> constraints.Constraint:
        return support_of(self.latent)

    def decode(self, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return z

    def log_prob(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        return self.latent.log_prob(u)

    def __repr__(self) -> str:
        return f"DistributionPrior({self.latent!r})"


def _as_event(distribution: Distribution) -> Distribution:
    """Return a Pyro distribution without batch axes."""
    if distribution.batch_shape or not hasattr(distribution, "to_event"):
        return Independent(distribution, len(distribution.batch_shape))
    return distribution
