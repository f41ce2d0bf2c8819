"""Gaussian mixtures with one covariance, and pairs of draws of the same component."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.datasets import Pairs


@dataclass(frozen=True)
class Mixture:
    """Equal parts of N(μ_k, Σ), with mean zero.

    Parameters
    ----------
    means
        μ_k, shape (K, d), that add up to zero.
    root
        The symmetric root of Σ, shape (d, d).
    """

    means: Float[Tensor, "K d"]
    root: Float[Tensor, "d d"]

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.means)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Σ, the covariance of every component."""
        return self.root @ self.root

    def sample(self, components: Int[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Draw a point of each of these components."""
        noise = torch.randn(len(components), len(self.root), generator=generator)
        return self.means[components] + noise @ self.root

    def fisher_subspace(self) -> Float[Tensor, "d r"]:
        """Return an orthonormal basis of S_F = span{Σ⁻¹ μ_k}, of as many columns as that has dimensions."""
        directions = torch.linalg.solve(self.covariance.double(), self.means.double().mT)
        left, singular, _ = torch.linalg.svd(directions, full_matrices=False)
        return left[:, singular > 1e-6 * singular[0]]


def draw_mixture(
    dim: int, groups: Sequence[int], noisy: int, deviation: float, distance: float, generator: torch.Generator
) -> Mixture:
    """Draw means and a covariance.

    Parameters
    ----------
    dim
        d.
    groups
        For each component the number of its mean: components of one group are the same. ``range(K)`` for K means.
    noisy, deviation
        Σ has this standard deviation along so many directions and 1 along the rest, all rotated at random.
    distance
        Mahalanobis distance of the means from the origin before they are centred; their directions are uniform.
    """
    rotation, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
    deviations = torch.ones(dim)
    deviations[:noisy] = deviation
    root = rotation * deviations @ rotation.mT
    directions = torch.randn(max(groups) + 1, dim, generator=generator)
    lengths = torch.linalg.solve(root, directions, left=False).norm(dim=1, keepdim=True)
    means = (distance * directions / lengths)[list(groups)]
    return Mixture(means - means.mean(0), root)


def pairs_of_one(mixture: Mixture, n: int, kept: float, generator: torch.Generator) -> Pairs:
    """Draw points and, for each, another of its component; with probability 1 − `kept`, of a fresh one."""
    first = _components(mixture, n, generator)
    keeps = torch.rand(n, generator=generator) < kept
    second = torch.where(keeps, first, _components(mixture, n, generator))
    return Pairs(mixture.sample(first, generator), mixture.sample(second, generator))


def pairs_of_two(one: Mixture, other: Mixture, n: int, generator: torch.Generator) -> Pairs:
    """Draw a component, and a point of it in either modality."""
    components = _components(one, n, generator)
    return Pairs(one.sample(components, generator), other.sample(components, generator))


def labelled(mixture: Mixture, n: int, generator: torch.Generator) -> Pairs:
    """Draw points and their components."""
    components = _components(mixture, n, generator)
    return Pairs(mixture.sample(components, generator), components)


def even_points(mixture: Mixture, per_component: int, seed: int) -> Float[Tensor, "n d"]:
    """Return points spread evenly over the mixture, in float64: each component's mean and covariance are exact."""
    dim = len(mixture.root)
    uniform = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed).draw(per_component, dtype=torch.float64)
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-1 + 1e-9, 1 - 1e-9))
    normal = normal - normal.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(normal.mT @ normal / per_component), normal.mT, upper=False
    )
    return (mixture.means.double()[:, None] + white.mT @ mixture.root.double()).flatten(0, 1)


def _components(mixture: Mixture, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(mixture.n_components, (n,), generator=generator)
