"""The torus flow of Baptista, Stuart & Tran: stream functions and the trajectories they cause."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from probcl.checks import require_count, require_positive
from probcl.datasets.pairs import Pairs

_HIGHEST = 3
_MODES = 2 * _HIGHEST + 1
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class TorusFlow:
    r"""Pairs of potentials and trajectories on the unit torus.

    .. math:: ψ(x, t) = \mathrm{Re} \sum_{|k_1|, |k_2| ≤ 3} ψ_k e^{iω_k t} e^{2πi k·x}, \qquad \dot x = (−∂_2 ψ, ∂_1 ψ).

    The 49 complex coefficients ψ_k are independent, circular and Gaussian, with variance proportional to
    (1 + |k|²)^{−decay} and such that a component of the velocity has the standard deviation `speed`. The frequencies
    ω_k ~ N(0, frequency²) belong to the world and are the same in all pairs; without them k and −k could not be told
    apart. The coefficient of k = 0 moves nothing: no trajectory informs on it.

    The source gives neither the law of ψ_k, nor the wave vectors, nor the law of ω_k; these are choices.

    Parameters
    ----------
    speed : float
        In sides of the torus for a unit of time.
    decay, frequency : float
    duration : float
        Length of a trajectory.
    n_times : int
        Positions recorded after the start, equally far apart; each is a step of the Runge-Kutta method.
    starts : tuple of pairs of float
        Where trajectories start; each pair has a trajectory from every start.
    noise : float
        Standard deviation of independent Gaussian errors of the recorded positions.
    seed : int
        Of the frequencies.

    References
    ----------
    Baptista, Stuart & Tran (arXiv 2505.24134v1), §6.3.

    Examples
    --------
    >>> from probcl.datasets.ocean import TorusFlow
    >>> u, v = TorusFlow(n_times=10).sample(5, seed=0)
    >>> u.shape, v.shape  # coefficients of the potential, positions of one drifter
    (torch.Size([5, 98]), torch.Size([5, 1, 10, 2]))
    """

    speed: float = 1.0
    decay: float = 2.0
    frequency: float = 10.0
    duration: float = 0.1
    n_times: int = 1000
    starts: tuple[tuple[float, float], ...] = ((0.75, 0.75),)
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("speed", "duration"):
            require_positive(name, getattr(self, name))
        for name in ("decay", "frequency", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        require_count("n_times", self.n_times)
        require_count("seed", self.seed, minimum=0)
        if not self.starts or any(len(start) != 2 for start in self.starts):
            raise ValueError(f"starts must be one or more pairs of numbers, got {self.starts}")

    @cached_property
    def frequencies(self) -> Float[Tensor, "7 7"]:
        """ω_k, with k₁ = −3..3 along the first dimension."""
        return self.frequency * torch.randn(_MODES, _MODES, generator=_seeded(self.seed), dtype=torch.float64)

    @cached_property
    def deviations(self) -> Float[Tensor, "7 7"]:
        """Standard deviation of the real, and of the imaginary, part of ψ_k."""
        k = _wavenumbers()
        square = k[:, None] ** 2 + k**2
        shape = (1 + square) ** (-self.decay / 2)
        return self.speed * shape / (shape.square() * square * (2 * math.pi) ** 2 / 2).sum().sqrt()

    def sample(self, n: int, seed: int = 0) -> Pairs:
        """Draw pairs: potentials `u` of shape (n, 98), trajectories `v` of shape (n, starts, n_times, 2), float32.

        u has the real parts of the 49 coefficients and then the imaginary parts, in units of their standard
        deviations, so that u ~ N(0, I). Trajectories are not wrapped around the torus.

        Raises
        ------
        TypeError, ValueError
            If `n` is not a positive integer, or `seed` not an integer from 0 on.
        """
        generator = _seeded(require_count("seed", seed, minimum=0))
        u = torch.randn(require_count("n", n), 2 * _MODES**2, generator=generator, dtype=torch.float64)
        v = torch.cat([self.trajectories(part).float() for part in u.split(_PAIRS_AT_ONCE)])
        if self.noise:
            v = v + self.noise * torch.randn(v.shape, generator=generator)
        return Pairs(u.float(), v)

    def trajectories(self, u: Float[Tensor, "n 98"]) -> Float[Tensor, "n starts n_times 2"]:
        """Carry points from the starts by the classical fourth-order Runge-Kutta method, without noise."""
        u = u.double()
        x = torch.tensor(self.starts, dtype=torch.float64, device=u.device).expand(len(u), -1, -1)
        dt, path = self.duration / self.n_times, []
        for step in range(self.n_times):
            t = step * dt
            first = self.velocity(u, x, t)
            second = self.velocity(u, x + dt / 2 * first, t + dt / 2)
            third = self.velocity(u, x + dt / 2 * second, t + dt / 2)
            x = x + dt / 6 * (first + 2 * second + 2 * third + self.velocity(u, x + dt * third, t + dt))
            path.append(x)
        return torch.stack(path, 2)

    def velocity(
        self, u: Float[Tensor, "n 98"], x: Float[Tensor, "n points 2"], t: float
    ) -> Float[Tensor, "n points 2"]:
        """Evaluate J∇ψ at points of the torus, (n, points, 2), at one time."""
        coefficients = self._coefficients(u, t)
        k = _wavenumbers().to(u)
        first, second = torch.exp(2j * math.pi * x[..., None] * k).unbind(-2)
        slope_1 = self._sum(2j * math.pi * k * first, coefficients, second)
        slope_2 = self._sum(first, coefficients, 2j * math.pi * k * second)
        return torch.stack([-slope_2, slope_1], -1)

    def stream_function(
        self, u: Float[Tensor, "n 98"], x: Float[Tensor, "n points 2"], t: float
    ) -> Float[Tensor, "n points"]:
        """Evaluate ψ at points of the torus, (n, points, 2), at one time."""
        first, second = torch.exp(2j * math.pi * x[..., None] * _wavenumbers().to(u)).unbind(-2)
        return self._sum(first, self._coefficients(u, t), second)

    def _coefficients(self, u: Float[Tensor, "n 98"], t: float) -> Complex[Tensor, "n 7 7"]:
        real, imaginary = u.unflatten(-1, (2, _MODES, _MODES)).unbind(1)
        turn = torch.exp(1j * t * self.frequencies).to(u.device)
        return torch.complex(real, imaginary) * self.deviations.to(u.device) * turn

    @staticmethod
    def _sum(
        first: Complex[Tensor, "n points 7"],
        coefficients: Complex[Tensor, "n 7 7"],
        second: Complex[Tensor, "n points 7"],
    ) -> Float[Tensor, "n points"]:
        return ((first @ coefficients) * second).sum(-1).real


def _wavenumbers() -> Float[Tensor, " 7"]:
    return torch.arange(-_HIGHEST, _HIGHEST + 1, dtype=torch.float64)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
