"""Supports of priors as `torch.distributions.biject_to` and Pyro's inference need them."""

from collections.abc import Iterable
from copy import copy
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, constraints


def support_of(distribution: Distribution) -> constraints.Constraint:
    """Return the support of a continuous law, as one that maps to the reals also for mixtures.

    Raises
    ------
    TypeError
        If the law is discrete, says nothing of its support, or is a mixture whose components do not share theirs.
    """
    if isinstance(distribution, MixtureSameFamily):
        return _shared(distribution)
    if isinstance(distribution, torch.distributions.Independent):
        return constraints.independent(support_of(distribution.base_dist), distribution.reinterpreted_batch_ndims)
    try:
        support = distribution.support
    except NotImplementedError:
        support = None
    if support is None or constraints.is_dependent(support):
        raise TypeError(f"the law must know its support, got {distribution!r}; give the class a support")
    if support.is_discrete:
        raise TypeError(f"the law must be continuous, got {distribution!r} on {support!r}")
    return support


def _shared(mixture: MixtureSameFamily) -> constraints.Constraint:
    """Return the support that the components of a mixture have in common, without their axis."""
    components = mixture.component_distribution
    support = _without_axis(support_of(components), -1 - len(components.event_shape))
    if support is None:
        raise TypeError(
            f"the components of a mixture must share one support, got {components!r} on {components.support!r}; use "
            "ImportanceResampling, which needs no map to the reals"
        )
    return support


def _without_axis(support: constraints.Constraint, axis: int) -> constraints.Constraint | None:
    """Drop an axis along which the bounds of a support do not vary; None if they do."""
    if isinstance(support, constraints.independent):
        base = _without_axis(support.base_constraint, axis)
        return None if base is None else constraints.independent(base, support.reinterpreted_batch_ndims)
    result = copy(support)
    for name, bound in vars(support).items():
        if isinstance(bound, Tensor) and bound.ndim >= -axis:
            first = bound.select(axis, 0)
            if not bool((bound == first.unsqueeze(axis)).all()):
                return None
            setattr(result, name, first)
    return result


class WithSupport(TorchDistribution):
    """A law with a support that `biject_to` knows, for Pyro, which looks there for the map to the reals."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, law: Distribution) -> None:
        self.law = law
        super().__init__(law.batch_shape, law.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return support_of(self.law)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.law.has_rsample

    def sample(self, sample_shape: Iterable[int] = ()) -> Float[Tensor, "*shape"]:
        return self.law.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Iterable[int] = ()) -> Float[Tensor, "*shape"]:
        return self.law.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        return self.law.log_prob(value)

    def expand(self, batch_shape: Iterable[int], _instance: Any = None) -> "WithSupport":
        return WithSupport(self.law.expand(torch.Size(batch_shape)))
