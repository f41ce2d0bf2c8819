"""A Pyro model as a prior."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger, block_messengers
from pyro.poutine.runtime import _DIM_ALLOCATOR
from torch import Tensor
from torch.distributions import biject_to, constraints

from probcl.checks import describe
from probcl.priors.base import Prior
from probcl.priors.support import support_of

Nodes = dict[str, Any]
"""The sample sites of a run, as a Pyro trace holds them."""


class ModelPrior(Prior):
    """The law of one site of a Pyro model: a hierarchical prior, or a simulator of u written in Pyro.

    The latent variable z joins all latent sites of the model, unconstrained, in one vector; u is the value of `site`
    when the model runs with them. Many draws run at once, in a plate to the left of the model's own.

    Parameters
    ----------
    model
        A function without arguments, with `pyro.sample` statements. It must be vectorised, as for Pyro's parallel
        inference: ``with pyro.plate``, and indices from the right. Which sites it has must not depend on their values.
    site
        Name of the sample or `pyro.deterministic` site that is u.

    Raises
    ------
    ValueError
        If there is no such site, the model has observed or discrete sites, or subsamples, or none of its sites are
        latent, or several draws at once are not what they are one by one.

    Examples
    --------
    >>> import pyro, torch, probcl as pcl
    >>> from pyro.distributions import HalfNormal, Normal
    >>> def model():
    ...     scale = pyro.sample("scale", HalfNormal(1.0))
    ...     with pyro.plate("components", 3):
    ...         return pyro.sample("u", Normal(0.0, scale))
    >>> prior = pcl.ModelPrior(model, site="u")
    >>> prior.sample((100,)).shape, prior.latent.event_shape  # z is the scale and u
    (torch.Size([100, 3]), torch.Size([4]))
    """

    def __init__(self, model: Callable[[], Any], site: str) -> None:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            nodes = _nodes(model)
            if site not in nodes:
                raise ValueError(f"site must be one of the model's {sorted(nodes)}, got {site!r}")
            self.model, self.site = model, site
            self.event_shape = nodes[site]["value"].shape
            self.latent: _ModelLatent = _ModelLatent(model, nodes)
            self._require_vectorised()
        # Of a site of its own: the support of one among several may depend on the others' values.
        self._support = support_of(nodes[site]["fn"]) if self._is_all else constraints.real
        self._support = constraints.independent(self._support, len(self.event_shape) - self._support.event_dim)

    def _require_vectorised(self) -> None:
        # A number of draws that no axis of u has, so that an axis cannot be taken for that of the draws.
        z = self.latent.sample((max(self.event_shape, default=0) + 2,))
        one_by_one = torch.cat([self.decode(row[None]) for row in z])
        if not torch.allclose(self.decode(z), one_by_one, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"the model must be vectorised: {self.site!r} for several draws at once differs from one by one"
            )

    @property
    def _is_all(self) -> bool:
        """Whether u is all that the model draws."""
        return list(self.latent.sites) == [self.site]

    @property
    def support(self) -> constraints.Constraint:
        return self._support

    def decode(self, z: Float[Tensor, "*batch k"]) -> Float[Tensor, "*out"]:
        flat = z.reshape(-1, z.shape[-1])
        value = self.latent.run(flat)[0][self.site]["value"]
        if value.shape[:1] != flat.shape[:1] or value[0].numel() != self.event_shape.numel():
            raise ValueError(
                f"the model must be vectorised: {self.site!r} has shape {tuple(value.shape)} for {len(flat)} draws of "
                f"{tuple(self.event_shape)} at once"
            )
        decoded: Tensor = value.reshape(*z.shape[:-1], *self.event_shape)
        return decoded

    def log_prob(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        if not self._is_all:
            others = sorted(self.latent.sites.keys() - {self.site})
            raise NotImplementedError(f"the density of {self.site!r} with {others} integrated out is not known")
        return self.latent.log_prob_of_site(u)

    def log_density(self, z: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        """Log-density at z of the values of all latent sites, in their own spaces and not in the unconstrained one."""
        nodes, _ = self.latent.run(z.reshape(-1, z.shape[-1]))
        return self.latent.log_prob_of_sites(nodes, z[..., 0].numel()).reshape(z.shape[:-1])

    def __repr__(self) -> str:
        return f"ModelPrior({getattr(self.model, '__name__', self.model)}, site={self.site!r})"


class _Site(NamedTuple):
    """A latent site of a single run: shapes of its value and of that unconstrained, and how many axes are plates."""

    shape: torch.Size
    free_shape: torch.Size
    batch_dim: int


class _ModelLatent(TorchDistribution):
    """The joint law of a model's latent sites, unconstrained and joined."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(self, model: Callable[[], Any], nodes: Nodes) -> None:
        self.model = model
        self.sites = {name: _latent_site(name, node) for name, node in nodes.items() if not _is_deterministic(node)}
        if not self.sites:
            raise ValueError("the model must have a latent site, got none: it draws nothing")
        self.nesting = max(len(node["fn"].batch_shape) for node in nodes.values())
        size = sum(site.free_shape.numel() for site in self.sites.values())
        super().__init__(torch.Size(), torch.Size([size]), validate_args=False)

    def run(self, z: Float[Tensor, "n k"]) -> tuple[Nodes, Float[Tensor, " n"]]:
        """Run the model with given latent variables; return its sites, and the log-Jacobian of constraining them."""
        values = _Constrain(self._split(z))
        nodes = self._run(values, len(z))
        return nodes, torch.stack([x.reshape(len(z), -1).sum(1) for x in values.log_jacobians]).sum(0)

    def _run(self, handler: Messenger, count: int) -> Nodes:
        with _alone(), pyro.plate("probcl_draws", count, dim=-1 - self.nesting), handler:
            return _nodes(self.model)

    def sample(self, sample_shape: Iterable[int] = ()) -> Float[Tensor, "*shape"]:
        sample_shape = torch.Size(sample_shape)
        count = sample_shape.numel()
        with torch.no_grad():
            nodes = self._run(Messenger(), count)
            free = [biject_to(support_of(nodes[name]["fn"])).inv(nodes[name]["value"]) for name in self.sites]
        return torch.cat([x.reshape(count, -1) for x in free], dim=1).reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        nodes, log_jacobian = self.run(value.reshape(-1, value.shape[-1]))
        return (self.log_prob_of_sites(nodes, len(log_jacobian)) + log_jacobian).reshape(value.shape[:-1])

    def log_prob_of_sites(self, nodes: Nodes, count: int) -> Float[Tensor, " n"]:
        """Joint log-density of the latent sites of `count` draws, at their values."""
        return torch.stack([self._site_density(nodes[name], count) for name in self.sites]).sum(0)

    def log_prob_of_site(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density of the only site at values in its own space."""
        ((name, site),) = self.sites.items()
        batch = u.shape[: u.ndim - len(site.shape)]
        value = u.reshape(-1, *self._outside(site), *site.shape)
        nodes = self._run(poutine.condition(data={name: value}), len(value))
        return self._site_density(nodes[name], len(value)).reshape(batch)

    def _site_density(self, node: dict[str, Any], count: int) -> Float[Tensor, " n"]:
        density = node["fn"].log_prob(node["value"])
        # Sites outside of the model's plates keep axes of length one there.
        densities: Tensor = density.expand(count, *density.shape[1:]).reshape(count, -1).sum(1)
        return densities

    def _split(self, z: Float[Tensor, "n k"]) -> dict[str, Tensor]:
        """Return the unconstrained value of each site, with axes of length one for the plates it is not in."""
        parts = z.split([site.free_shape.numel() for site in self.sites.values()], dim=1)
        return {
            name: part.reshape(len(z), *self._outside(site), *site.free_shape)
            for part, (name, site) in zip(parts, self.sites.items(), strict=True)
        }

    def _outside(self, site: _Site) -> list[int]:
        return [1] * (self.nesting - site.batch_dim)


class _Constrain(Messenger):
    """Gives latent sites their values by the bijections to their supports, which may depend on earlier sites."""

    def __init__(self, free: dict[str, Tensor]) -> None:
        super().__init__()
        self.free = free
        self.log_jacobians: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.free:
            free, transform = self.free[msg["name"]], biject_to(support_of(msg["fn"]))
            msg["value"] = transform(free)
            self.log_jacobians.append(transform.log_abs_det_jacobian(free, msg["value"]))


@contextmanager
def _alone() -> Iterator[None]:
    """Hide the handlers and the plates of a Pyro program within which a model runs as if there were none."""
    taken, _DIM_ALLOCATOR._stack = _DIM_ALLOCATOR._stack, []
    try:
        with block_messengers(lambda messenger: True):
            yield
    finally:
        _DIM_ALLOCATOR._stack = taken


def _nodes(model: Callable[[], Any]) -> Nodes:
    nodes = {name: node for name, node in poutine.trace(model).get_trace().nodes.items() if node["type"] == "sample"}
    for name in [name for name, node in nodes.items() if poutine.util.site_is_subsample(node)]:
        plate: Any = nodes.pop(name)
        if len(plate["value"]) < plate["fn"].size:
            raise ValueError(f"a prior's plates must not subsample, got {name!r}")
    return nodes


def _is_deterministic(node: dict[str, Any]) -> bool:
    deterministic: bool = node["infer"].get("_deterministic", False)
    return deterministic


def _latent_site(name: str, node: dict[str, Any]) -> _Site:
    if node["is_observed"]:
        raise ValueError(f"a prior must not have observed sites, got {name!r}; condition with u_given_v instead")
    fn, shape = node["fn"], node["value"].shape
    if fn.support is None or fn.support.is_discrete:
        raise ValueError(f"a prior's latent sites must be continuous, got {name!r}, {describe(node['value'])}")
    return _Site(shape, biject_to(support_of(fn)).inverse_shape(shape), len(shape) - fn.event_dim)
