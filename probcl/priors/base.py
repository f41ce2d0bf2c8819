"""What a continuous prior is: a law of latent variables and a map from them to u."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from probcl.checks import as_tensor_hint, describe

if TYPE_CHECKING:
    from probcl.priors.empirical import EmpiricalPrior


class Prior(ABC):
    """A law of u given as u = decode(z), z ~ latent: what the samplers of a tilted conditional work with.

    Attributes
    ----------
    latent
        The law of z, without batch axes.
    event_shape
        Shape of one u.

    Examples
    --------
    >>> import torch
    >>> from probcl.priors import Prior
    >>> class Circle(Prior):
    ...     def __init__(self):
    ...         self.latent = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1)
    ...         self.event_shape = torch.Size([2])
    ...
    ...     def decode(self, z):
    ...         return z / z.norm(dim=-1, keepdim=True)
    ...
    ...     def log_prob(self, u):
    ...         raise NotImplementedError("a circle has no density in the plane")
    >>> Circle().sample((100,)).norm(dim=1).allclose(torch.ones(100))
    True
    """

    latent: TorchDistribution
    event_shape: torch.Size

    @abstractmethod
    def decode(self, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*out"]:
        """Map latent variables (*batch, *latent_event) to values (*batch, *event_shape), differentiably."""

    @abstractmethod
    def log_prob(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density of u, shape (*batch, *event_shape); `NotImplementedError` if the law has none that is known."""

    def log_density(self, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density at z of whatever a mode is the most probable value of, up to a constant: of u, where it has one.

        Unlike ``latent.log_prob`` it does not change with the coordinates that z is written in.
        """
        return self.latent.log_prob(z)

    @property
    def support(self) -> constraints.Constraint:
        """Where u can be, all real arrays unless more is known."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, sample_shape: Iterable[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw values, shape (*sample_shape, *event_shape)."""
        with torch.no_grad():
            return self.decode(self.latent.sample(torch.Size(sample_shape)))


def as_prior(prior: object) -> "Prior | EmpiricalPrior":
    """Return a prior as it is, or a distribution wrapped as one.

    Raises
    ------
    TypeError
        If `prior` is neither.

    Examples
    --------
    >>> import torch
    >>> from probcl.priors import as_prior
    >>> as_prior(torch.distributions.Normal(torch.zeros(3), 1.0)).event_shape
    torch.Size([3])
    """
    from probcl.priors.distribution import DistributionPrior
    from probcl.priors.empirical import EmpiricalPrior

    if isinstance(prior, Prior | EmpiricalPrior):
        return prior
    if isinstance(prior, Distribution):
        return DistributionPrior(prior)
    raise TypeError(
        "prior must be an EmpiricalPrior, a GaussianPrior, a DecoderPrior, a ModelPrior or a distribution, "
        f"got {describe(prior)}{_hint(prior)}"
    )


def _hint(prior: object) -> str:
    """Return how to make a prior of an array, as the end of an error message."""
    if isinstance(prior, Tensor):
        return "; for a data bank use probcl.EmpiricalPrior(prior)"
    tensor = as_tensor_hint("prior", prior)
    return f"{tensor}, and probcl.EmpiricalPrior of that for a data bank" if tensor else ""
