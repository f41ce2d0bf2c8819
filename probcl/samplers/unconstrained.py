"""The tilted law in flat, unconstrained coordinates, where Markov-chain moves need no boundaries."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to

from probcl.priors.support import support_of
from probcl.samplers.base import Target


def unconstraining(latent: Distribution) -> Transform:
    """Return the bijection from unconstrained reals to the support of a law.

    Raises
    ------
    TypeError
        If there is none: the law is discrete, its support is unknown to `torch.distributions.biject_to`, or it is a
        mixture whose components have other supports.
    """
    try:
        transform: Transform = biject_to(support_of(latent))
        return transform
    except (NotImplementedError, TypeError) as error:
        raise TypeError(
            f"the prior's latent must have a continuous support that maps to the reals, got {latent}: {error}"
        ) from error


class Unconstrained:
    """A `Target` in coordinates x of shape (..., D), all real, with z = T(x).

    Attributes
    ----------
    dim
        D.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.latent = target.prior.latent
        self.transform = unconstraining(self.latent)
        self.event_shape = self.transform.inverse_shape(self.latent.event_shape)
        self.dim = self.event_shape.numel()

    def constrain(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch_and_event"]:
        """Return z = T(x)."""
        z: Tensor = self.transform(x.reshape(*x.shape[:-1], *self.event_shape))
        return z

    def unconstrain(self, z: Float[Tensor, "*batch_and_event"]) -> Float[Tensor, "*batch D"]:
        """Return x = T⁻¹(z)."""
        batch = z.shape[: z.ndim - len(self.latent.event_shape)]
        x: Tensor = self.transform.inv(z).reshape(*batch, self.dim)
        return x

    def log_prior(
        self, x: Float[Tensor, "*batch D"], z: Float[Tensor, "*batch_and_event"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Log-density of x under the prior, log μ(T(x)) + log |T'(x)|."""
        batch = x.shape[:-1]
        z = self.constrain(x) if z is None else z
        jacobian = self.transform.log_abs_det_jacobian(x.reshape(*batch, *self.event_shape), z)
        density: Tensor = self.latent.log_prob(z) + jacobian.reshape(*batch, -1).sum(-1)
        return density

    def log_terms(self, x: Float[Tensor, "S B D"]) -> tuple[Float[Tensor, "S B"], Float[Tensor, "S B"]]:
        """Log-prior of x and score of T(x) with each condition, in float64; −∞ where x is not finite or one is NaN."""
        # A diverged proposal is evaluated at a harmless place: distributions raise on NaN.
        finite = x.isfinite().all(-1)
        x = torch.where(finite[..., None], x, 0.0)
        z = self.constrain(x)
        terms = self.log_prior(x, z).double(), self.target.log_tilt(z).double()
        possible = finite & ~terms[0].isnan() & ~terms[1].isnan()
        log_prior, log_tilt = (term.masked_fill(~possible, -torch.inf) for term in terms)
        return log_prior, log_tilt
