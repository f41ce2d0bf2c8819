"""Markov-chain moves for tempered SMC, in unconstrained coordinates and for all particles of all conditions at once.

Particles come as x of shape (S, B, D). Each condition adapts its own step size, and both moves precondition with the
mean and covariance of its particles.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_count, require_positive
from probcl.samplers.unconstrained import Unconstrained


def finite(log_tilt: Float[Tensor, "S B"]) -> Float[Tensor, "S B"]:
    """Replace −∞ by the most negative number, whose product with β = 0 is not NaN."""
    return log_tilt.clamp(min=torch.finfo(log_tilt.dtype).min)


@dataclass(frozen=True)
class Particles:
    """Positions and the two terms of their log-density, log μ + β s."""

    x: Float[Tensor, "S B D"]
    log_prior: Float[Tensor, "S B"]
    log_tilt: Float[Tensor, "S B"]

    def log_density(self, beta: Float[Tensor, " B"]) -> Float[Tensor, "S B"]:
        """Log-density at inverse temperatures β, −∞ where the prior or the score is."""
        return self.log_prior + beta * finite(self.log_tilt)

    def where(self, accept: Tensor, other: "Particles") -> "Particles":
        """Take these particles where `accept`, and the other ones elsewhere."""
        return Particles(
            torch.where(accept[..., None], self.x, other.x),
            torch.where(accept, self.log_prior, other.log_prior),
            torch.where(accept, self.log_tilt, other.log_tilt),
        )


@dataclass(frozen=True)
class Geometry:
    """Mean and Cholesky factor of the covariance of the particles of each condition."""

    mean: Float[Tensor, "B D"]
    factor: Float[Tensor, "B D D"]

    @classmethod
    def of(cls, x: Float[Tensor, "S B D"]) -> "Geometry":
        """Estimate from particles, shrinking correlations when there are few of them."""
        count, _, dim = x.shape
        mean = x.mean(0)
        centred = (x - mean).movedim(0, 1).double()
        covariance = centred.mT @ centred / count
        variance = covariance.diagonal(dim1=-2, dim2=-1)
        floor = torch.finfo(x.dtype).eps * (1 + mean.double().square())
        shrink = dim / (count + dim)
        shrunk = (1 - shrink) * covariance + torch.diag_embed(shrink * variance + floor)
        factor, failed = torch.linalg.cholesky_ex(shrunk)
        # Particles that run away, under a score that no prior tail holds, overflow their covariance.
        factor = torch.where(failed[:, None, None] > 0, torch.diag_embed((variance + floor).sqrt()), factor)
        return cls(mean, factor.nan_to_num().to(x.dtype))

    def whiten(self, x: Float[Tensor, "S B D"]) -> Float[Tensor, "S B D"]:
        """Return factor⁻¹ (x − mean)."""
        deviation = (x - self.mean).permute(1, 2, 0)
        white: Tensor = torch.linalg.solve_triangular(self.factor, deviation, upper=False).permute(2, 0, 1)
        return white

    def colour(self, white: Float[Tensor, "S B D"]) -> Float[Tensor, "S B D"]:
        """Return factor · white, a deviation from the mean."""
        return torch.einsum("bij,sbj->sbi", self.factor, white)


class Move(ABC):
    """A reversible Markov move with an adapted step size; immutable, its state is with the caller.

    Examples
    --------
    >>> from probcl.samplers import CrankNicolson, Hamiltonian, Move
    >>> [issubclass(move, Move) for move in (CrankNicolson, Hamiltonian)]
    [True, True]
    >>> CrankNicolson().acceptance, Hamiltonian().acceptance  # what the steps are adapted to
    (0.3, 0.75)
    """

    acceptance: ClassVar[float]
    """The acceptance rate that the step size is adapted to."""
    largest_step: ClassVar[float] = math.inf
    repeats: int
    """How many moves are made at each temperature."""

    @abstractmethod
    def first_step(self, dim: int) -> float:
        """Return the step size to begin with."""

    @abstractmethod
    def propose(
        self,
        law: Unconstrained,
        particles: Particles,
        beta: Float[Tensor, " B"],
        step: Float[Tensor, " B"],
        geometry: Geometry,
    ) -> tuple[Particles, Float[Tensor, "S B"]]:
        """Return proposals and the logarithms of their acceptance ratios."""

    def __call__(
        self,
        law: Unconstrained,
        particles: Particles,
        beta: Float[Tensor, " B"],
        step: Float[Tensor, " B"],
    ) -> tuple[Particles, Float[Tensor, " B"]]:
        """Move all particles `repeats` times at inverse temperatures β, and adapt the steps."""
        geometry = Geometry.of(particles.x)
        for _ in range(self.repeats):
            proposals, log_ratio = self.propose(law, particles, beta, step, geometry)
            probability = log_ratio.nan_to_num(-torch.inf).clamp(max=0).exp()
            particles = proposals.where(torch.rand_like(probability) < probability, particles)
            change = (2 * (probability.mean(0) - self.acceptance)).exp()
            step = (step * change.to(step.dtype)).clamp(max=self.largest_step)
        return particles, step


class CrankNicolson(Move):
    """Gradient-free autoregressive proposals around the particles' mean, reversible for a multivariate t law.

    x' = m + √(1−δ²)(x − m) + δ √γ L ξ, 1/γ ~ Gamma((D+ν)/2, rate (ν + |L⁻¹(x−m)|²)/2), is reversible for t_ν(m, LLᵀ)
    (Grumitt, Karamanis & Seljak 2024, arXiv 2407.20722, §3.2; Cotter et al. 2013 for pCN). At δ = 1 it draws afresh
    from that law, which is nearly the target where the target is nearly Gaussian.

    Parameters
    ----------
    repeats
        How many moves are made at each temperature.
    degrees_of_freedom
        ν.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> sampler = pcl.samplers.TemperedSMC(move=pcl.samplers.CrankNicolson(repeats=8))
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0), sampler=sampler)
    >>> nu.condition(torch.tensor([[3.0, 1.0]])).draw(1000, seed=0).z.mean(0).round()
    tensor([[3., 1.]])
    """

    acceptance = 0.3
    largest_step = 1.0

    def __init__(self, repeats: int = 12, degrees_of_freedom: float = 5.0) -> None:
        self.repeats = require_count("repeats", repeats)
        require_positive("degrees_of_freedom", degrees_of_freedom)
        self.degrees_of_freedom = degrees_of_freedom

    def first_step(self, dim: int) -> float:
        return min(1.0, 2.38 / math.sqrt(dim))

    def propose(
        self, law: Unconstrained, particles: Particles, beta: Tensor, step: Tensor, geometry: Geometry
    ) -> tuple[Particles, Tensor]:
        nu, dim = self.degrees_of_freedom, law.dim
        white = geometry.whiten(particles.x)
        rate = (nu + white.square().sum(-1)) / 2
        gamma = torch.distributions.Gamma(torch.full_like(rate, (dim + nu) / 2), rate, validate_args=False).sample()
        noise = torch.randn_like(white) * gamma.rsqrt()[..., None]
        white_new = (1 - step.square()).sqrt()[:, None] * white + step[:, None] * noise
        x = geometry.mean + geometry.colour(white_new)
        proposals = Particles(x, *law.log_terms(x))
        # log t_ν of the old position less that of the new.
        correction = (dim + nu) / 2 * (torch.log1p(white_new.square().sum(-1) / nu) - (rate * 2 / nu).log())
        return proposals, proposals.log_density(beta) - particles.log_density(beta) + correction

    def __repr__(self) -> str:
        return f"CrankNicolson(repeats={self.repeats}, degrees_of_freedom={self.degrees_of_freedom:g})"


class Hamiltonian(Move):
    """Leapfrog trajectories with the particles' covariance as inverse mass matrix (Neal 2011, §5).

    Needs the gradient of the score, and in return keeps its step size in high dimensions.

    Parameters
    ----------
    repeats
        How many trajectories are made at each temperature.
    leapfrogs
        How many steps make a trajectory.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> sampler = pcl.samplers.TemperedSMC(move=pcl.samplers.Hamiltonian(leapfrogs=4))
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0), sampler=sampler)
    >>> nu.condition(torch.tensor([[3.0, 1.0]])).draw(1000, seed=0).z.mean(0).round()
    tensor([[3., 1.]])
    """

    acceptance = 0.75

    def __init__(self, repeats: int = 3, leapfrogs: int = 8) -> None:
        self.repeats = require_count("repeats", repeats)
        self.leapfrogs = require_count("leapfrogs", leapfrogs)

    def first_step(self, dim: int) -> float:
        return 0.5 * math.pow(dim, -0.25)

    def propose(
        self, law: Unconstrained, particles: Particles, beta: Tensor, step: Tensor, geometry: Geometry
    ) -> tuple[Particles, Tensor]:
        # Jittered, so that no trajectory is a whole period of an oscillation.
        momentum = torch.randn_like(particles.x)
        epsilon = step[:, None] * torch.empty_like(momentum[..., :1]).uniform_(0.8, 1.2)
        kinetic = momentum.square().sum(-1) / 2
        x = particles.x
        _, slope = _terms_and_slope(law, x, beta, geometry)
        for _ in range(self.leapfrogs):
            momentum = momentum + epsilon / 2 * slope
            x = x + geometry.colour(epsilon * momentum)
            terms, slope = _terms_and_slope(law, x, beta, geometry)
            momentum = momentum + epsilon / 2 * slope
        proposals = Particles(x, *terms)
        change = kinetic - momentum.square().sum(-1) / 2
        return proposals, proposals.log_density(beta) - particles.log_density(beta) + change

    def __repr__(self) -> str:
        return f"Hamiltonian(repeats={self.repeats}, leapfrogs={self.leapfrogs})"


def _terms_and_slope(
    law: Unconstrained, x: Tensor, beta: Tensor, geometry: Geometry
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the terms of the log-density and its gradient in whitened coordinates."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        terms = law.log_terms(x)
        total = (terms[0] + beta * terms[1]).sum()
        (gradient,) = torch.autograd.grad(total, x)
    slope = torch.einsum("bij,sbi->sbj", geometry.factor, gradient.nan_to_num(0.0, 0.0, 0.0))
    return (terms[0].detach(), terms[1].detach()), slope
