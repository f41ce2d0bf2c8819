"""Tilted laws whose truth is known: closed forms, and densities on a grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyro.distributions as dist
import torch
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from small_models import seeded
from torch import Tensor
from torch.distributions import Distribution

from probcl.samplers import Draws, Target

F64 = torch.float64


@dataclass(frozen=True)
class Latent:
    """A prior, as far as samplers are concerned."""

    latent: Distribution


def standard_normal(dim: int, dtype: torch.dtype = F64) -> Distribution:
    return dist.Normal(torch.zeros(dim, dtype=dtype), 1.0).to_event(1)


def target_of(latent: Distribution, score: Callable[[Tensor, Tensor], Tensor], context: Tensor, **settings) -> Target:
    """The target of a score s(z, v) that broadcasts, with v_b = context[b]."""

    def shared(z: Tensor) -> Tensor:
        return score(z[:, None].expand(-1, len(context), *latent.event_shape), context)

    return Target(Latent(latent), lambda z: score(z, context), shared, len(context), context, **settings)


@dataclass(frozen=True)
class LinearGaussian:
    """N(0, I) tilted by bᵀz − ½ zᵀΛz: the law N((I+Λ)⁻¹b, (I+Λ)⁻¹) of evidence |I+Λ|^{-½} e^{½ bᵀ(I+Λ)⁻¹b}."""

    b: Tensor  # (B, D)
    precision: Tensor  # Λ, (B, D, D)

    @classmethod
    def random(cls, batch: int, dim: int, strength: float, seed: int, dtype: torch.dtype = F64) -> "LinearGaussian":
        generator = seeded(seed)
        A = strength * torch.randn(batch, dim, dim, generator=generator, dtype=dtype) / dim**0.5
        return cls(strength * torch.randn(batch, dim, generator=generator, dtype=dtype), A @ A.mT)

    @property
    def target(self) -> Target:
        b, precision = self.b, self.precision

        def score(z: Tensor, _: Tensor) -> Tensor:
            return (z * b).sum(-1) - 0.5 * (z * (precision @ z[..., None])[..., 0]).sum(-1)

        return target_of(standard_normal(b.shape[1], b.dtype), score, b)

    @property
    def covariance(self) -> Tensor:
        return torch.linalg.inv(torch.eye(self.b.shape[1]).to(self.b) + self.precision)

    @property
    def mean(self) -> Tensor:
        return (self.covariance @ self.b[..., None])[..., 0]

    @property
    def log_evidence(self) -> Tensor:
        return 0.5 * (self.b * self.mean).sum(-1) + 0.5 * torch.logdet(self.covariance)

    def whitened(self, z: Tensor) -> Tensor:
        """L⁻¹(z − mean) with LLᵀ the covariance: standard normal if the draws are right."""
        factor = torch.linalg.cholesky(self.covariance)
        return torch.linalg.solve_triangular(factor, (z - self.mean)[..., None], upper=False)[..., 0]


def eight_sigma(log_scale: float = -3.0) -> LinearGaussian:
    """Two conditions in one dimension: a mild tilt, and one that puts all the mass eight prior deviations out."""
    precision = torch.tensor([0.5, torch.tensor(-2 * log_scale).exp()], dtype=F64)
    return LinearGaussian(torch.stack([precision[:1], 8 * (1 + precision[1:])]), precision[:, None, None])


class OnGrid:
    """A tilted law on the plane, tabulated on a square grid: evidence, moments, exact draws."""

    def __init__(self, target: Target, half_width: float, points: int = 601) -> None:
        self.cell = 2 * half_width / points
        axis = (torch.arange(points, dtype=F64) + 0.5) * self.cell - half_width
        self.z = torch.cartesian_prod(axis, axis)
        log_density = target.prior.latent.log_prob(self.z)[:, None] + target.log_tilt_shared(self.z)
        self.log_evidence = log_density.logsumexp(0) + 2 * torch.tensor(self.cell, dtype=F64).log()
        self.probabilities = log_density.softmax(0)

    @property
    def mean(self) -> Tensor:
        return self.probabilities.mT @ self.z

    @property
    def deviation(self) -> Tensor:
        return (self.probabilities.mT @ self.z.square() - self.mean.square()).sqrt()

    def sample(self, count: int, seed: int) -> Tensor:
        """Draws (count, B, 2): a cell by its probability, and a place in it."""
        generator = seeded(seed)
        cells = torch.multinomial(self.probabilities.mT, count, replacement=True, generator=generator).mT
        jitter = torch.rand(*cells.shape, 2, generator=generator, dtype=F64) - 0.5
        return self.z[cells] + self.cell * jitter


def banana(levels: tuple[float, ...] = (0.0, 1.0)) -> Target:
    """N(0, I) on the plane given a noisy look at z₂ − z₁²: a curved ridge."""

    def score(z: Tensor, v: Tensor) -> Tensor:
        return -0.5 * ((z[..., 1] - z[..., 0].square() + v[:, 0]) / 0.3).square()

    return target_of(standard_normal(2), score, torch.tensor(levels, dtype=F64)[:, None])


def two_moons(places: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.3, -0.2))) -> Target:
    """A box prior and crescents in mirror image, after the two moons of Greenberg, Nonnenmacher & Macke (2019)."""

    def score(z: Tensor, v: Tensor) -> Tensor:
        along = v[:, 0] + (z[..., 0] + z[..., 1]).abs() / 2**0.5
        across = v[:, 1] + (z[..., 0] - z[..., 1]) / 2**0.5
        radius = (along.square() + across.square() + 1e-12).sqrt()
        return -0.5 * ((radius - 0.6) / 0.08).square() + 3 * along

    box = dist.Uniform(-torch.ones(2, dtype=F64), torch.ones(2, dtype=F64)).to_event(1)
    return target_of(box, score, torch.tensor(places, dtype=F64))


def two_modes(apart: tuple[float, ...] = (1.5, 2.5), width: float = 0.4) -> Target:
    """Two bumps of weights .7 and .3 on the plane, ±apart along the diagonal."""

    def score(z: Tensor, v: Tensor) -> Tensor:
        bumps = [
            torch.tensor(weight, dtype=F64).log() - 0.5 * ((z - sign * v) / width).square().sum(-1)
            for weight, sign in [(0.7, 1.0), (0.3, -1.0)]
        ]
        return torch.logaddexp(*bumps)

    prior = dist.Normal(torch.zeros(2, dtype=F64), 2.0).to_event(1)
    return target_of(prior, score, torch.tensor(apart, dtype=F64)[:, None].expand(-1, 2) / 2**0.5)


def evidence_errors(draws: Draws, exact: Tensor) -> Tensor:
    """How many standard errors the evidence is off."""
    assert draws.log_evidence is not None
    assert draws.log_evidence_se is not None
    # The floor is for untilted laws, whose evidence is exactly one.
    return (draws.log_evidence - exact).abs() / (draws.log_evidence_se + 1e-9)


def c2st(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Cross-validated accuracy of a network that tells two samples apart: .5 if it cannot (Lopez-Paz & Oquab 2017)."""
    features = StandardScaler().fit_transform(torch.cat([x, y]).numpy())
    labels = np.repeat([0, 1], [len(x), len(y)])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    network = MLPClassifier((32, 32), early_stopping=True, max_iter=300, random_state=seed)
    return float(cross_val_score(network, features, labels, cv=folds).mean())
