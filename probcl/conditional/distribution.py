"""What the distributions share that a conditional gives: their interface, and the log-ratio to the prior."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Shaped
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from probcl.checks import describe, require_tensor
from probcl.samplers import Draws

if TYPE_CHECKING:
    from probcl.conditional.base import Conditional

# Draws behind moments and normalisers, made once for each distribution: their relative error is about 2%.
FROZEN_DRAWS = 2000
FROZEN_SEED = 0


class TiltedDistribution(TorchDistribution):
    """A prior tilted by e^s for each of a batch of conditions: the base of all learned conditionals.

    Attributes
    ----------
    conditional
        Where it comes from.
    given
        Embeddings of the conditions, shape (*batch_shape, d).

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0))
    >>> d = nu.condition(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    >>> d.batch_shape, d.event_shape, d.sample((100,)).shape
    (torch.Size([2]), torch.Size([2]), torch.Size([100, 2, 2]))
    >>> d.log_normalizer  # log E e^s = ½ |v|²
    tensor([0.5000, 4.5000], dtype=torch.float64)
    """

    def __init__(self, conditional: "Conditional", given: Float[Tensor, "*batch d"]) -> None:
        self.conditional, self.given = conditional, given
        self.prior: Any = conditional.prior
        super().__init__(given.shape[:-1], self.prior.event_shape, validate_args=False)

    @property
    def log_normalizer(self) -> Float[Tensor, "*batch"]:
        """Log of Z(v) = E_{u'~prior} e^{s(u', v)}, shape batch_shape."""
        raise NotImplementedError

    @property
    def log_normalizer_se(self) -> Float[Tensor, "*batch"]:
        """Standard error of `log_normalizer`, shape batch_shape, which `log_prob` and `log_ratio` inherit."""
        raise NotImplementedError

    def draw(self, num_samples: int, *, seed: int | None = None) -> Draws:
        """Draw the prior's latent variables (u itself, for a distribution or a bank), with diagnostics.

        `Draws` has one axis for all conditions, B = ``batch_shape.numel()``.
        """
        raise NotImplementedError

    @property
    def diagnosis(self) -> Draws:
        """Draws of a fixed seed with their diagnostics."""
        raise NotImplementedError

    def ess(self) -> Float[Tensor, "*batch"]:
        """Effective number of draws, or of atoms, behind the moments, shape batch_shape; ∞ in closed form."""
        raise NotImplementedError

    def unnormalized_log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density plus log Z(v): log prior(u) + s(u, v)."""
        raise NotImplementedError

    def rsample(self, sample_shape: Iterable[int] = ()) -> Float[Tensor, "*shape"]:
        raise NotImplementedError(f"{type(self).__name__} has no differentiable draws; use sample")

    def entropy(self) -> Float[Tensor, "*batch"]:
        raise NotImplementedError(
            f"the entropy of {type(self).__name__} has no closed form; -d.log_prob(d.sample((n,))).mean(0) estimates it"
        )

    def cdf(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        raise NotImplementedError(f"{type(self).__name__} has no distribution function; use shares of draws")

    def icdf(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        raise NotImplementedError(f"{type(self).__name__} has no quantile function; use quantiles of draws")

    def enumerate_support(self, expand: bool = True) -> Shaped[Tensor, "*shape"]:
        raise NotImplementedError(f"the values of {type(self).__name__} are continuous and cannot be enumerated")

    def expand(self, batch_shape: Iterable[int], _instance: Any = None) -> "TiltedDistribution":
        """Return this distribution with a larger batch shape, its tensors expanded and not copied."""
        batch_shape = torch.Size(batch_shape)
        new: TiltedDistribution = self._get_checked_instance(type(self), _instance)
        new.conditional, new.prior = self.conditional, self.prior
        new.given = self.given.expand(*batch_shape, -1)
        self._expand_into(new, batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        return new

    def _expand_into(self, new: Any, batch_shape: torch.Size) -> None:
        """Give an expanded copy what else it needs."""
        raise NotImplementedError

    def log_ratio(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log of dν(·|v)/dμ at values (*sample_shape, *batch_shape, *event_shape), in or out of a bank.

        Differentiable in the values, where these are real.
        """
        scores = self._scores_at(value)
        return (scores - self.log_normalizer.to(scores.device)).to(self.given.dtype)

    def _scores_at(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Return s(value, v), in float64."""
        shape = self._batch_of(value)
        return self.conditional.matched_scores(value.expand(*shape, *self.event_shape), self.given.expand(*shape, -1))

    def _batch_of(self, value: Shaped[Tensor, "*shape"]) -> torch.Size:
        """Return the batch shape that values and conditions have together; raise if there is none, or for NaN."""
        event_dim = len(self.event_shape)
        if require_tensor("values", value).shape[value.ndim - event_dim :] != self.event_shape:
            raise ValueError(f"values must end in the event shape {tuple(self.event_shape)}, got {describe(value)}")
        if value.is_floating_point() and value.isnan().any():
            raise ValueError(f"values must not be NaN, got {int(value.isnan().sum())} of {value.numel()}")
        try:
            batch: torch.Size = torch.broadcast_shapes(value.shape[: value.ndim - event_dim], self.batch_shape)
            return batch
        except RuntimeError as error:
            shape = ", ".join(map(str, ("*sample_shape", *self.batch_shape, *self.event_shape)))
            raise ValueError(
                f"values must have shape ({shape}), or axes of length one for the conditions, got {describe(value)}"
            ) from error

    def pyro_model(self) -> Float[Tensor, "*shape"]:
        """Run this conditional as a Pyro model, as `Conditional.pyro_model` does: ``NUTS(d.pyro_model)``."""
        return self.conditional.run_given(self.given)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}, "
            f"prior={self.prior!r})"
        )
