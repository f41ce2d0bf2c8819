"""A Pyro or torch distribution as a prior."""

from typing import cast

import torch
from jaxtyping import Float
from pyro import distributions as dist
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from probcl.priors.base import Prior
from probcl.priors.gaussian import GaussianPrior
from probcl.priors.support import support_of

_NORMAL = (torch.distributions.Normal, dist.Normal)
_LOW_RANK = (torch.distributions.LowRankMultivariateNormal, dist.LowRankMultivariateNormal)
_MULTIVARIATE = (torch.distributions.MultivariateNormal, dist.MultivariateNormal)


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

    Examples
    --------
    >>> import torch
    >>> from probcl.priors import DistributionPrior
    >>> prior = DistributionPrior(torch.distributions.Uniform(torch.zeros(3), torch.ones(3)))
    >>> prior.log_prob(torch.tensor([[0.1, 0.5, 0.9]]))
    tensor([0.])
    >>> prior.sample((100,)).shape
    torch.Size([100, 3])
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


def as_gaussian(prior: object) -> GaussianPrior | None:
    """Return a prior as a `GaussianPrior` if it is a normal law of u, independent components included; None if not.

    Examples
    --------
    >>> import torch
    >>> from probcl.priors import as_gaussian, as_prior
    >>> as_gaussian(as_prior(torch.distributions.Normal(torch.zeros(2), torch.tensor([1.0, 2.0])))).covariance
    tensor([[1., 0.],
            [0., 4.]])
    >>> as_gaussian(as_prior(torch.distributions.Gamma(torch.ones(2), 1.0))) is None
    True
    """
    if isinstance(prior, GaussianPrior):
        return prior
    if not isinstance(prior, DistributionPrior):
        return None
    law: Distribution = prior.latent
    while isinstance(law, torch.distributions.Independent):
        law = law.base_dist
    # By their own types: a subclass may have another density.
    if type(law) in _NORMAL:
        return GaussianPrior.from_scale(prior.latent.mean, law.stddev.flatten().diag())
    if type(law) in _LOW_RANK and not law.batch_shape:
        return GaussianPrior.from_scale(law.mean, law.cov_factor, law.cov_diag)  # type: ignore[attr-defined]
    if type(law) in _LOW_RANK + _MULTIVARIATE:
        factors = law.scale_tril.flatten(0, -3) if law.batch_shape else law.scale_tril[None]  # type: ignore[attr-defined]
        return GaussianPrior.from_scale(prior.latent.mean, torch.block_diag(*factors))
    return None


def _as_event(distribution: Distribution) -> Distribution:
    """Return a Pyro distribution without batch axes."""
    if distribution.batch_shape or not hasattr(distribution, "to_event"):
        return Independent(distribution, len(distribution.batch_shape))
    return distribution
