"""Simulators whose posteriors are known exactly: two tasks of the benchmark of simulation-based inference."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from pyro.distributions import Independent, Uniform
from torch import Tensor

from probcl.checks import describe, require_count
from probcl.datasets.pairs import Pairs

# Proposals in a round for each draw that is wanted; most are accepted unless x is near the edge of what can be.
_PROPOSALS_AT_ONCE = 4
_MOST_ROUNDS = 1000


class Simulator(ABC):
    """Parameters θ with a uniform prior on a square, and data x simulated from them: pairs u = θ, v = x.

    Attributes
    ----------
    half_width
        The prior is uniform on (−half_width, half_width)².

    Examples
    --------
    >>> import torch
    >>> from probcl.datasets import Simulator
    >>> class Shift(Simulator):
    ...     half_width = 1.0
    ...
    ...     def _simulate(self, theta, generator):
    ...         return theta + 0.1 * torch.randn(theta.shape, generator=generator)
    ...
    ...     def log_likelihood(self, theta, x):
    ...         return torch.distributions.Normal(theta, 0.1).log_prob(x).sum(-1)
    ...
    ...     def _propose(self, x, n, generator):
    ...         return x + 0.1 * torch.randn(n, 2, generator=generator)
    >>> theta, x = Shift().sample(1000, seed=0)
    >>> theta.shape, (x - theta).std().round(decimals=1), Shift().posterior(x[0], 500).shape
    (torch.Size([1000, 2]), tensor(0.1000), torch.Size([500, 2]))
    """

    half_width: ClassVar[float]

    @property
    def prior(self) -> Independent:
        """The law of the parameters."""
        bound = torch.full((2,), self.half_width)
        return Independent(Uniform(-bound, bound), 1)

    def sample(self, n: int, seed: int = 0) -> Pairs:
        """Draw `n` pairs: parameters `u` from the prior and data `v` simulated from them, float32 of shape (n, 2).

        Raises
        ------
        TypeError, ValueError
            If `n` is not a positive integer, or `seed` not an integer from 0 on.
        """
        require_count("n", n)
        generator = _generator(seed)
        theta = self.half_width * (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1)
        return Pairs(theta.float(), self._simulate(theta, generator).float())

    def posterior(self, x: Float[Tensor, "*batch 2"], n: int, seed: int = 0) -> Float[Tensor, "n *batch 2"]:
        """Draw `n` parameters from the exact posterior of each x, by rejection of proposals outside of the prior.

        Raises
        ------
        TypeError, ValueError
            If `n` is not a positive integer, `seed` not an integer from 0 on, or x not of shape (..., 2).
        RuntimeError
            If next to no proposal is accepted, as for an x that the simulator would not produce.
        """
        require_count("n", n)
        if x.shape[-1:] != (2,):
            raise ValueError(f"x must have shape (..., 2), got {describe(x)}")
        generator = _generator(seed)
        draws = [self._posterior_of(one, n, generator) for one in x.double().reshape(-1, 2)]
        return torch.stack(draws, 1).reshape(n, *x.shape).to(x.dtype)

    def _posterior_of(self, x: Float[Tensor, " 2"], n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        accepted: list[Tensor] = []
        for _ in range(_MOST_ROUNDS):
            theta = self._propose(x, _PROPOSALS_AT_ONCE * n, generator)
            accepted.append(theta[(theta.abs() < self.half_width).all(1)])
            if sum(map(len, accepted)) >= n:
                return torch.cat(accepted)[:n]
        raise RuntimeError(f"x must be data that the simulator can produce, got {x.tolist()}")

    @abstractmethod
    def log_likelihood(
        self, theta: Float[Tensor, "*#batch 2"], x: Float[Tensor, "*#batch 2"]
    ) -> Float[Tensor, "*batch"]:
        """Log-density of x given θ, −inf where it cannot be; the arguments are broadcast."""

    @abstractmethod
    def _simulate(self, theta: Float[Tensor, "n 2"], generator: torch.Generator) -> Float[Tensor, "n 2"]: ...

    @abstractmethod
    def _propose(self, x: Float[Tensor, " 2"], n: int, generator: torch.Generator) -> Float[Tensor, "m 2"]:
        """Draw from the posterior that a prior without bounds would give."""


class TwoMoons(Simulator):
    """Two moons: a crescent of data for every θ, and two crescents of θ, mirror images, for every x.

    With a ~ U(−π/2, π/2) and r ~ N(0.1, 0.01²), x = (r cos a + ¼, r sin a) + (−|θ₁ + θ₂|, −θ₁ + θ₂) / √2
    (Greenberg, Nonnenmacher & Macke 2019; task T.8 of Lueckmann et al. 2021). The prior is uniform on (−1, 1)².

    Examples
    --------
    >>> import probcl as pcl
    >>> theta, x = pcl.datasets.TwoMoons().sample(1000, seed=0)
    >>> pcl.datasets.TwoMoons().posterior(x[0], 500).shape
    torch.Size([500, 2])
    """

    half_width = 1.0
    _radius, _deviation, _offset = 0.1, 0.01, 0.25

    def log_likelihood(
        self, theta: Float[Tensor, "*#batch 2"], x: Float[Tensor, "*#batch 2"]
    ) -> Float[Tensor, "*batch"]:
        along, across = (x - self._place(theta)).unbind(-1)
        along = along - self._offset
        radius = (along.square() + across.square()).sqrt()
        normal = -0.5 * ((radius - self._radius) / self._deviation).square()
        constant = math.log(self._deviation * math.sqrt(2 * math.pi) * math.pi)
        return torch.where(along > 0, normal - radius.log() - constant, -torch.inf)

    def _simulate(self, theta: Float[Tensor, "n 2"], generator: torch.Generator) -> Float[Tensor, "n 2"]:
        return self._place(theta) + self._crescent(len(theta), generator)

    def _propose(self, x: Float[Tensor, " 2"], n: int, generator: torch.Generator) -> Float[Tensor, "m 2"]:
        place = x - self._crescent(n, generator)
        place = place[place[:, 0] <= 0]
        # θ ↦ place is two to one and has the same Jacobian everywhere, so that both signs are equally probable.
        sign = 1 - 2 * torch.randint(2, (len(place),), generator=generator)
        total, difference = -sign * place[:, 0], place[:, 1]
        return torch.stack([total - difference, total + difference], 1) / 2**0.5

    def _crescent(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        angle = math.pi * (torch.rand(n, generator=generator, dtype=torch.float64) - 0.5)
        radius = self._radius + self._deviation * torch.randn(n, generator=generator, dtype=torch.float64)
        return torch.stack([radius * angle.cos() + self._offset, radius * angle.sin()], 1)

    @staticmethod
    def _place(theta: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Where the crescent of θ is."""
        return torch.stack([-theta.sum(-1).abs(), theta[..., 1] - theta[..., 0]], -1) / 2**0.5


class GaussianMixture(Simulator):
    """Gaussian mixture: x ~ ½ N(θ, I) + ½ N(θ, 0.01 I), a broad and a narrow bump with one centre.

    Task T.7 of Lueckmann et al. (2021, *Benchmarking simulation-based inference*). The prior is uniform on (−10, 10)².

    Examples
    --------
    >>> import probcl as pcl
    >>> world = pcl.datasets.GaussianMixture()
    >>> theta, x = world.sample(1000, seed=0)
    >>> world.posterior(x[0], 500).std(0).round()
    tensor([1., 1.])
    """

    half_width = 10.0
    _deviations = (1.0, 0.1)

    def log_likelihood(
        self, theta: Float[Tensor, "*#batch 2"], x: Float[Tensor, "*#batch 2"]
    ) -> Float[Tensor, "*batch"]:
        square = (x - theta).square().sum(-1)
        broad, narrow = (-0.5 * square / s**2 - math.log(4 * math.pi * s**2) for s in self._deviations)
        return torch.logaddexp(broad, narrow)

    def _simulate(self, theta: Float[Tensor, "n 2"], generator: torch.Generator) -> Float[Tensor, "n 2"]:
        is_broad = torch.rand(len(theta), 1, generator=generator) < 0.5
        broad, narrow = self._deviations
        noise = torch.randn(len(theta), 2, generator=generator, dtype=torch.float64)
        return theta + torch.where(is_broad, broad, narrow) * noise

    def _propose(self, x: Float[Tensor, " 2"], n: int, generator: torch.Generator) -> Float[Tensor, "m 2"]:
        return self._simulate(x.expand(n, 2), generator)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(require_count("seed", seed, minimum=0))
