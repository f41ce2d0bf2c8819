r"""f-divergences, D_f(μ‖ν) = E_ν f(dμ/dν), as f-MICL needs them (Lu et al. 2023, arXiv 2402.10150, table 1).

From samples they are estimated through the variational form D_f = max_t E_μ t − E_ν f\*(t), whose optimum is t = f′(u)
at the density ratio u. So a divergence here is three functions, of c = log u and not of u: scores are logarithms, and
softplus and expm1 keep the digits that u − 1 or 1/u would lose.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from probcl.checks import describe, require_positive

# Above its threshold torch's softplus(x) returns x; its default costs float64 half of its digits.
_SOFTPLUS_LINEAR_ABOVE = 50


class Divergence:
    """Base class: a convex f with f(1) = 0, by its values at u = e^c.

    Attributes
    ----------
    name
        What `as_divergence` finds it by.
    critic_range
        Open interval of the values of f′, which is where f* is finite.
    growth
        (p, q): the functions of `variational` grow at most like e^{−pc} for c → −∞ and like e^{qc} for c → ∞; zero
        means not exponentially.
    excluded
        Why f-MICL's theory does not cover it; empty if it does.
    """

    name: ClassVar[str]
    excluded: ClassVar[str] = ""
    critic_range: tuple[float, float]
    growth: tuple[float, float]

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return f(u)."""
        raise NotImplementedError

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return f′(u), the optimal critic."""
        raise NotImplementedError

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return f*(f′(u)) = u f′(u) − f(u), simplified."""
        raise NotImplementedError


@dataclass(frozen=True)
class KL(Divergence):
    """f(u) = u log u: the Kullback-Leibler divergence, and the mutual information."""

    name = "kl"
    critic_range = (-math.inf, math.inf)
    growth = (0, 1)

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return c * c.exp()

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return c + 1

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return c.exp()


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """f(u) = u log u − (u + 1) log((1 + u)/2): twice the Jensen-Shannon divergence."""

    name = "js"
    critic_range = (-math.inf, math.log(2))
    growth = (0, 0)

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return c.exp() * _log_two_sigmoid(c) + _log_two_sigmoid(-c)

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _log_two_sigmoid(c)

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -_log_two_sigmoid(-c)


@dataclass(frozen=True)
class Pearson(Divergence):
    """f(u) = (u − 1)²: Pearson's χ²."""

    name = "pearson"
    critic_range = (-2.0, math.inf)
    growth = (0, 2)

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _expm1(c).square()

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return 2 * _expm1(c)

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _expm1(2 * c)


@dataclass(frozen=True)
class SquaredHellinger(Divergence):
    """f(u) = (√u − 1)²."""

    name = "squared-hellinger"
    critic_range = (-math.inf, 1.0)
    growth = (0.5, 0.5)

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _expm1(c / 2).square()

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -_expm1(-c / 2)

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _expm1(c / 2)


@dataclass(frozen=True)
class Tsallis(Divergence):
    """f(u) = (u^α − 1)/(α − 1), α > 0 and not 1. The paper's u^α/(α − 1) has f(1) ≠ 0 and is no divergence.

    Attributes
    ----------
    critic_range
        (0, ∞) for α > 1, else (−∞, 0).
    growth
        f*(f′(u)) grows like u^α, and f′(u) like u^{α−1}.

    Raises
    ------
    ValueError
        If α is not positive, or is one; `KL` is the limit there.
    """

    alpha: float
    name = "tsallis"

    def __post_init__(self) -> None:
        require_positive("alpha", self.alpha)
        if self.alpha == 1:
            raise ValueError("alpha must not be 1, where the limit is KL(), got 1")

    @property
    def critic_range(self) -> tuple[float, float]:  # type: ignore[override]
        return (0.0, math.inf) if self.alpha > 1 else (-math.inf, 0.0)

    @property
    def growth(self) -> tuple[float, float]:  # type: ignore[override]
        return max(0.0, 1 - self.alpha), self.alpha

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _expm1(self.alpha * c) / (self.alpha - 1)

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.alpha / (self.alpha - 1) * ((self.alpha - 1) * c).exp()

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return (self.alpha * c).exp() + 1 / (self.alpha - 1)


@dataclass(frozen=True)
class VinczeLeCam(Divergence):
    """f(u) = (u − 1)²/(u + 1), with f*(f′(u)) = 3 − 8/(u + 1) + 4/(u + 1)²; the paper prints 3 − 4/(u + 1)."""

    name = "vincze-le-cam"
    critic_range = (-3.0, 1.0)
    growth = (0, 0)

    # With t = 1/(u + 1): f′ = 1 − 4t² and f*∘f′ = 3 − 8t + 4t², which is −f′ at 1 − t, that is at −c.
    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _expm1(c) * _tanh_of_half(c)

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _vincze_le_cam(c)

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -_vincze_le_cam(-c)


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """f(u) = −log u: the Kullback-Leibler divergence of the product of the marginals from the joint law."""

    name = "reverse-kl"
    excluded = "f*(f′(G)) = log G − 1 is linear in the squared distance: no simplex, nor a uniform law, is its minimum"
    critic_range = (-math.inf, 0.0)
    growth = (1, 0)

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -c

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -(-c).exp()

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return c - 1


@dataclass(frozen=True)
class Neyman(Divergence):
    """f(u) = (1 − u)²/u: Neyman's χ², Pearson's with the laws exchanged."""

    name = "neyman"
    excluded = "f*(f′(G)) = 2 − 2/G is concave in the squared distance: no simplex, nor a uniform law, is its minimum"
    critic_range = (-math.inf, 1.0)
    growth = (2, 0)

    def f(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -_expm1(c) * _expm1(-c)

    def derivative(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -_expm1(-2 * c)

    def conjugate(self, c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -2 * _expm1(-c)


WITHOUT_PARAMETERS: dict[str, type[Divergence]] = {
    cls.name: cls for cls in (KL, JensenShannon, Pearson, SquaredHellinger, VinczeLeCam, ReverseKL, Neyman)
}


def as_divergence(value: Divergence | str) -> Divergence:
    """Return a divergence, which may be given by its name.

    Raises
    ------
    ValueError
        If there is none of that name that has no parameter.
    TypeError
        If it is neither a divergence nor a name.
    """
    if isinstance(value, Divergence):
        return value
    if not isinstance(value, str):
        raise TypeError(f"divergence must be a Divergence or the name of one, got {describe(value)}")
    if value not in WITHOUT_PARAMETERS:
        raise ValueError(f"divergence must be Tsallis(alpha) or one of {sorted(WITHOUT_PARAMETERS)}, got {value!r}")
    return WITHOUT_PARAMETERS[value]()


# Each of these is zero at c = 0, where one form keeps the digits of the value. Further out that form would lose those
# of the gradient: autograd takes expm1 + 1 and 1 − tanh² for derivatives. Both see a c at which they are finite.
def _expm1(c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return e^c − 1."""
    return torch.where(c > -1, torch.expm1(c.clamp(min=-1)), c.clamp(max=-1).exp() - 1)


def _tanh_of_half(c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return (e^c − 1)/(e^c + 1)."""
    far = c.sign() * (1 - 2 * torch.sigmoid(-c.abs()))
    return torch.where(c.abs() < 1, torch.tanh(c.clamp(-1, 1) / 2), far)


def _vincze_le_cam(c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return 1 − 4t², t = 1/(e^c + 1), which is −3 + 8s − 4s² of s = 1 − t."""
    s, t, near = torch.sigmoid(c), torch.sigmoid(-c), c.clamp(-1, 1)
    middle = torch.tanh(near / 2) * (1 + 2 * torch.sigmoid(-near))
    return torch.where(c.abs() < 1, middle, torch.where(c < 0, -3 + 8 * s - 4 * s.square(), 1 - 4 * t.square()))


def _log_two_sigmoid(c: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return log 2 − log(1 + e^{−c})."""
    near = torch.log1p(torch.tanh(c.clamp(-1, 1) / 2))
    return torch.where(c.abs() < 1, near, math.log(2) - softplus(-c, threshold=_SOFTPLUS_LINEAR_ABOVE))
