"""Alignments that are functions of the distance |x − y|: the log-kernels of Kernel-InfoNCE and of f-MICL.

Each is a link on the one matrix product of `probcl.L2`, −½|x − y|², so that every reduction carries them out as it does
the others. A distance of zero has no direction: there the gradient is zero, and nothing is divided by it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probcl.alignment import L2, Alignment, Factors, Potentials, split_columns, unit
from probcl.checks import require_count, require_positive
from probcl.serialization import register

_L2 = L2()


class DistanceAlignment(Alignment):
    """Base class: subclasses define `link`, a function of −½|x − y|²."""

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        return _L2.factorize(x, y)

    def matched(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return self.link(_L2.matched(x, y))


@register
class Laplace(DistanceAlignment):
    """−|x − y|, the logarithm of the Laplace kernel (Tan et al. 2024, arXiv 2303.15103, Kernel-InfoNCE with γ = 1).

    Examples
    --------
    >>> import torch
    >>> from probcl import Laplace
    >>> Laplace()(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[-5.]])
    """

    def link(self, product: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -distance_power(product, 1.0)

    def slope(self, product: Float[Tensor, "*products"]) -> Float[Tensor, "*products"]:
        return _slope_of_power(product, 1.0)


@register
class Power(DistanceAlignment):
    """−|x − y|^γ: Gaussian for γ = 2, Laplace for 1, "exponential" for ½ (Tan et al. 2024, arXiv 2303.15103).

    exp(−|x − y|^γ / τ) is a positive definite kernel for γ ≤ 2. On embeddings of unit length γ = 2 at τ is `Cosine` at
    τ/2 up to a constant.

    Parameters
    ----------
    gamma
        The exponent γ > 0.

    Examples
    --------
    >>> import torch
    >>> from probcl import Power
    >>> Power(gamma=0.5)(torch.tensor([[0.0]]), torch.tensor([[4.0], [9.0]]))
    tensor([[-2., -3.]])
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        require_positive("gamma", gamma)
        self.gamma = float(gamma)

    def link(self, product: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -distance_power(product, self.gamma)

    def slope(self, product: Float[Tensor, "*products"]) -> Float[Tensor, "*products"]:
        return _slope_of_power(product, self.gamma)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma:g}"


class _Mixture(DistanceAlignment):
    """The logarithm of a sum of a Gaussian and a Laplace kernel, with a temperature for each."""

    def __init__(self, tau_2: float, tau_1: float, learnable: bool) -> None:
        super().__init__()
        require_positive("tau_2", tau_2)
        require_positive("tau_1", tau_1)
        logs = torch.tensor([math.log(tau_2), math.log(tau_1)])
        self.learnable = learnable
        self.fixed = (float(tau_2), float(tau_1))
        if learnable:
            self.log_temperatures = nn.Parameter(logs)

    def _log_sum(self, gaussian: Float[Tensor, "*shape"], laplace: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return log(e^{2 p / τ₂} + e^{−(−2 q)^½ / τ₁}) for p, q = −½|·|²."""
        tau_2, tau_1 = self.log_temperatures.exp().to(gaussian) if self.learnable else self.fixed
        return torch.logaddexp(2 * gaussian / tau_2, -distance_power(laplace, 1.0) / tau_1)

    def _slopes(self, gaussian: Float[Tensor, "*shape"], laplace: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Return the derivatives of `_log_sum` in p and in q, for temperatures that are not learned."""
        tau_2, tau_1 = self.fixed
        of_gaussian = torch.sigmoid(2 * gaussian / tau_2 + distance_power(laplace, 1.0) / tau_1)
        of_laplace = _slope_of_power(laplace, 1.0).mul_((1 - of_gaussian) / tau_1)
        return of_gaussian * (2 / tau_2), of_laplace

    def extra_repr(self) -> str:
        tau_2, tau_1 = self.log_temperatures.detach().exp().tolist() if self.learnable else self.fixed
        return f"tau_2={tau_2:.4g}, tau_1={tau_1:.4g}" + (", learnable=True" if self.learnable else "")


@register
class SumMixture(_Mixture):
    """log(e^{−|x−y|²/τ₂} + e^{−|x−y|/τ₁}): the sum of a Gaussian and a Laplace kernel.

    It is the "simple sum" of Kernel-InfoNCE (Tan et al. 2024, arXiv 2303.15103).

    The components have temperatures of their own, so use it with a temperature of one in `Scores`: any other raises the
    sum to a power.

    The public code of the paper adds the *losses* of the two kernels instead: `probcl.SumOfLosses`.

    Parameters
    ----------
    tau_2, tau_1
        Temperatures of the Gaussian and of the Laplace component.
    learnable
        Whether they are learned, through their logarithms.

    Examples
    --------
    >>> import torch
    >>> from probcl import SumMixture
    >>> kernel = SumMixture(tau_2=0.5, tau_1=0.5)
    >>> kernel(torch.tensor([[0.0]]), torch.tensor([[1.0]])).exp()  # 2 e⁻²
    tensor([[0.2707]])
    >>> SumMixture(learnable=True)
    SumMixture(tau_2=0.2, tau_1=0.2, learnable=True)
    """

    def __init__(self, tau_2: float = 0.2, tau_1: float = 0.2, learnable: bool = False) -> None:
        super().__init__(tau_2, tau_1, learnable)

    def link(self, product: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self._log_sum(product, product)

    def slope(self, product: Float[Tensor, "*products"]) -> Float[Tensor, "*products"] | None:
        return None if self.learnable else torch.add(*self._slopes(product, product))


@register
class ConcatMixture(_Mixture):
    """log(e^{−|x₁−y₁|²/τ₂} + e^{−|x₂−y₂|/τ₁}): a Gaussian kernel of some features plus a Laplace kernel of the rest.

    It is the "concatenation sum" of Kernel-InfoNCE (Tan et al. 2024, arXiv 2303.15103). Use it with a temperature of
    one in `Scores`, as `SumMixture`. Two matrix products, one for each part, of columns that hold the squares too.

    Parameters
    ----------
    tau_2, tau_1
        Temperatures of the Gaussian and of the Laplace component.
    laplace_dim
        How many trailing columns belong to the Laplace kernel. By default half of the columns.
    learnable
        Whether the temperatures are learned, through their logarithms.

    Raises
    ------
    ValueError
        On use, if the embeddings are too narrow, or have an odd width and no `laplace_dim` was given.

    Examples
    --------
    >>> import torch
    >>> from probcl import ConcatMixture
    >>> x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    >>> ConcatMixture(tau_2=1.0, tau_1=1.0)(x, y).exp()  # e^{−1²} + e^{−2}
    tensor([[0.5032]])
    """

    def __init__(
        self, tau_2: float = 0.2, tau_1: float = 0.2, laplace_dim: int | None = None, learnable: bool = False
    ) -> None:
        super().__init__(tau_2, tau_1, learnable)
        self.laplace_dim = None if laplace_dim is None else require_count("laplace_dim", laplace_dim)

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        parts = [_augmented(a, b) for a, b in zip(self._split(x), self._split(y), strict=True)]
        of_x, of_y = zip(*parts, strict=True)
        widths = tuple(part.shape[1] for part in of_x)
        return Factors(torch.cat(of_x, 1), torch.cat(of_y, 1), ceiling=0.0, widths=widths)

    def link(self, product: Float[Tensor, "2 *shape"]) -> Float[Tensor, "*shape"]:
        return self._log_sum(product[0], product[1])

    def slope(self, product: Float[Tensor, "2 *shape"]) -> Float[Tensor, "2 *shape"] | None:
        return None if self.learnable else torch.stack(self._slopes(product[0], product[1]))

    def matched(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        (x_2, x_1), (y_2, y_1) = self._split(x), self._split(y)
        return self._log_sum(_L2.matched(x_2, y_2), _L2.matched(x_1, y_1))

    def _split(self, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        return split_columns(x, self.laplace_dim, "ConcatMixture", "laplace_dim")

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.laplace_dim is None else f", laplace_dim={self.laplace_dim}")


@register
class FGaussian(Alignment):
    """log μ − |x − y|²/2σ² of embeddings brought to unit length: the logarithm of f-MICL's Gaussian G.

    f-MICL (Lu et al. 2023, arXiv 2402.10150) calls f′(G), G = μ e^{−|x−y|²/2σ²}, the similarity. Here f′ belongs to
    `probcl.FMICLLoss`, which takes every score for the logarithm of a density ratio. So the score keeps the meaning
    that it has everywhere in this package, and f-MICL works with any alignment, this alignment with any loss.

    If one of a pair is uniform on the sphere and the other von Mises-Fisher about it with concentration 1/σ², this *is*
    the log density ratio, for the right μ.

    Parameters
    ----------
    mu, sigma
        μ and σ; by default 1 and 1/√2, as in the paper.
    learnable
        Whether they are learned, through their logarithms.

    Raises
    ------
    ValueError
        On use, if an embedding is the zero vector.

    Examples
    --------
    >>> import torch
    >>> from probcl import FGaussian
    >>> FGaussian()(torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
    tensor([[ 0.0000, -2.0000]])
    >>> FGaussian(mu=2.0)
    FGaussian(mu=2, sigma=0.7071)
    """

    def __init__(self, mu: float = 1.0, sigma: float = math.sqrt(0.5), learnable: bool = False) -> None:
        super().__init__()
        require_positive("mu", mu)
        require_positive("sigma", sigma)
        self.learnable = learnable
        self.fixed = (math.log(mu), float(sigma))
        if learnable:
            self.log_mu = nn.Parameter(torch.tensor(math.log(mu)))
            self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)))

    def factorize(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Factors:
        return _L2.factorize(*self._scaled(x, y))

    def potentials(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Potentials:
        return Potentials(row=x.new_zeros(len(x)) + self._log_mu_sigma()[0])

    def matched(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return _L2.matched(*self._scaled(x, y)) + self._log_mu_sigma()[0]

    def _scaled(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor]:
        sigma = self._log_mu_sigma()[1]
        return unit(x, "first", "FGaussian") / sigma, unit(y, "second", "FGaussian") / sigma

    def _log_mu_sigma(self) -> tuple[float | Tensor, float | Tensor]:
        return (self.log_mu, self.log_sigma.exp()) if self.learnable else self.fixed

    def extra_repr(self) -> str:
        log_mu, sigma = (float(torch.as_tensor(value).detach()) for value in self._log_mu_sigma())
        return f"mu={math.exp(log_mu):.4g}, sigma={sigma:.4g}" + (", learnable=True" if self.learnable else "")


def _augmented(x: Float[Tensor, "n k"], y: Float[Tensor, "m k"]) -> tuple[Tensor, Tensor]:
    """Return x' and y' with ⟨x'_i, y'_j⟩ = −½|x_i − y_j|²."""
    x, y, row, column, _, _ = _L2.factorize(x, y)
    assert row is not None
    assert column is not None
    return (
        torch.cat([x, row[:, None], torch.ones_like(x[:, :1])], 1),
        torch.cat([y, torch.ones_like(y[:, :1]), column[:, None]], 1),
    )


def distance_power(product: Float[Tensor, "*shape"], gamma: float) -> Float[Tensor, "*shape"]:
    """Return |x − y|^γ from −½|x − y|²; zero, and of gradient zero, where the distance is zero or all but."""
    square = -2 * product
    if gamma >= 1 and not (torch.is_grad_enabled() and product.requires_grad):
        return square.sqrt_() if gamma == 1 else square.pow_(gamma / 2)  # next to nothing by itself
    apart = square > _next_to_nothing(product.dtype)
    safe = torch.where(apart, square, 1.0)
    power = safe.sqrt() if gamma == 1 else safe ** (gamma / 2)
    return torch.where(apart, power, 0.0)


def _slope_of_power(product: Float[Tensor, "*shape"], gamma: float) -> Float[Tensor, "*shape"]:
    """Return the derivative of −|x − y|^γ in −½|x − y|², γ |x − y|^(γ − 2), and zero where the distance is zero."""
    square = -2 * product
    apart = square > _next_to_nothing(product.dtype)
    slope = square.rsqrt_() if gamma == 1 else square.pow_(gamma / 2 - 1).mul_(gamma)
    return slope.masked_fill_(apart.logical_not_(), 0.0)


def _next_to_nothing(dtype: torch.dtype) -> float:
    """Return a square far below any rounding of a product, and far enough above zero for powers in the gradient."""
    limits = torch.finfo(dtype)
    return float(min(limits.tiny**0.5, limits.eps**2))
