"""The optimum of one canonical pair for each alignment and loss: the table of ``docs/gaussian.md`` by rows.

Both variates are whitened: variance one, correlation σ. The score is s = g h u v − ½ k_u² u² − ½ k_v² v².
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from probcl.gaussian.arguments import float64_array
from probcl.gaussian.canonical import pair_information


@dataclass(frozen=True, eq=False)
class PairOptimum:
    """What the optimal score does to canonical pairs of correlation σ.

    Attributes
    ----------
    g, h
        Gains of the encoders of u and v.
    k_u, k_v
        Gains of the potentials: zero for the inner product, g and h for L2, since
        −½(gu − hv)² = gh uv − ½g²u² − ½h²v².
    gain
        Nats by which the pair lowers the loss at ½(λ_u + λ_v) = 1; at most its mutual information.

    Examples
    --------
    >>> import torch
    >>> from probcl.gaussian import pair_optimum
    >>> pair = pair_optimum(torch.tensor([0.6], dtype=torch.float64), "inner", "conditional")
    >>> pair.a, pair.slope_u_given_v, pair.var_u_given_v
    (tensor([0.6000], dtype=torch.float64), tensor([0.6000], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """

    g: Float[Tensor, " k"]
    h: Float[Tensor, " k"]
    k_u: Float[Tensor, " k"]
    k_v: Float[Tensor, " k"]
    gain: Float[Tensor, " k"]

    @property
    def a(self) -> Float[Tensor, " k"]:
        """Coefficient of uv in the score."""
        return self.g * self.h

    @property
    def slope_u_given_v(self) -> Float[Tensor, " k"]:
        """E_ν[u|v] / v; the truth is σ."""
        return self.a * self.var_u_given_v

    @property
    def slope_v_given_u(self) -> Float[Tensor, " k"]:
        """E_ν[v|u] / u; the truth is σ."""
        return self.a * self.var_v_given_u

    @property
    def var_u_given_v(self) -> Float[Tensor, " k"]:
        """Variance of ν(u|v); the truth is 1 − σ²."""
        return 1 / (1 + self.k_u**2)

    @property
    def var_v_given_u(self) -> Float[Tensor, " k"]:
        """Variance of ν(v|u); the truth is 1 − σ²."""
        return 1 / (1 + self.k_v**2)


def inner_conditional(sigma: Tensor) -> PairOptimum:
    """Inner product, conditional loss of any weights (BST Thm 5.1): a = σ."""
    return _inner(sigma, gain=0.5 * sigma**2)


def inner_joint(sigma: Tensor) -> PairOptimum:
    """Inner product, joint loss (BST Thm 5.6): a = h(σ) = (√(1 + 4σ²) − 1)/(2σ), where h/(1 − h²) = σ."""
    h = 2 * sigma / (1 + torch.sqrt(1 + 4 * sigma**2))
    return _inner(h, gain=sigma * h + 0.5 * torch.log1p(-(h**2)))


def l2_u_given_v(sigma: Tensor) -> PairOptimum:
    """L2, u|v only (BST Thm 5.3; every rank *new*): g = σ/√(1 − σ²), h = 1/√(1 − σ²)."""
    h = torch.rsqrt(1 - sigma**2)
    return _l2(sigma * h, h, gain=pair_information(sigma))


def l2_v_given_u(sigma: Tensor) -> PairOptimum:
    """L2, v|u only: the mirror of `l2_u_given_v`."""
    g = torch.rsqrt(1 - sigma**2)
    return _l2(g, sigma * g, gain=pair_information(sigma))


def l2_two_sided(sigma: Tensor) -> PairOptimum:
    """L2, conditional loss of equal weights (*new*): g = h = √t, t = 1/x − 1, x = (√(9 − 8σ) − 1)/2."""
    slope = 4 * sigma / (3 + torch.sqrt(9 - 8 * sigma))  # 1 − x without its cancellation at small σ
    root = torch.sqrt(slope / (1 - slope))
    return _l2(root, root, gain=-0.5 * (torch.log1p(-slope) + (1 - slope) * slope))


def l2_joint(sigma: Tensor) -> PairOptimum:
    """L2, joint loss (*new*): g = h = √(σ / (2(1 − σ)))."""
    root = torch.sqrt(sigma / (2 * (1 - sigma)))
    return _l2(root, root, gain=-0.5 * (sigma + torch.log1p(-sigma)))


def potentials(sigma: Tensor) -> PairOptimum:
    """Inner product with potentials, any loss (*new*): a = σ/(1 − σ²), k² = σ²/(1 − σ²); exact."""
    root = torch.sqrt(sigma / (1 - sigma**2))
    k = sigma * torch.rsqrt(1 - sigma**2)
    return PairOptimum(root, root, k, k, gain=pair_information(sigma))


def _inner(a: Tensor, gain: Tensor) -> PairOptimum:
    zero = torch.zeros_like(a)
    return PairOptimum(a.sqrt(), a.sqrt(), zero, zero, gain)


def _l2(g: Tensor, h: Tensor, gain: Tensor) -> PairOptimum:
    return PairOptimum(g, h, g, h, gain)


TABLE: dict[str, dict[str, Callable[[Tensor], PairOptimum]]] = {
    "inner": {
        "conditional": inner_conditional,
        "u|v": inner_conditional,
        "v|u": inner_conditional,
        "joint": inner_joint,
    },
    "l2": {"conditional": l2_two_sided, "u|v": l2_u_given_v, "v|u": l2_v_given_u, "joint": l2_joint},
    "potentials": {"conditional": potentials, "u|v": potentials, "v|u": potentials, "joint": potentials},
}


def row(alignment: str, loss: str) -> Callable[[Tensor], PairOptimum]:
    """Return the table's function for an alignment and a loss; `ValueError` names the choices."""
    if alignment not in TABLE:
        raise ValueError(f"alignment must be one of {', '.join(map(repr, TABLE))}, got {alignment!r}")
    if loss not in TABLE[alignment]:
        raise ValueError(f"loss must be one of {', '.join(map(repr, TABLE[alignment]))}, got {loss!r}")
    return TABLE[alignment][loss]


def pair_optimum(correlations: Float[Tensor, " k"], alignment: str = "inner", loss: str = "conditional") -> PairOptimum:
    """Optimal gains, pair by pair, for canonical correlations σ.

    Parameters
    ----------
    correlations
        Each in [0, 1).
    alignment
        "inner", "l2" or "potentials".
    loss
        "conditional" (weights (1, 1)), "u|v" (weights (2, 0)), "v|u" (weights (0, 2)) or "joint".

    Raises
    ------
    ValueError
        If a correlation is outside [0, 1), or the alignment or loss is not one of these.

    Examples
    --------
    >>> import torch
    >>> from probcl.gaussian import pair_optimum
    >>> sigma = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    >>> pair_optimum(sigma, "inner", "joint").a
    tensor([0.2770, 0.4684, 0.5884], dtype=torch.float64)
    >>> pair_optimum(sigma, "l2", "u|v").var_u_given_v  # 1 − σ²
    tensor([0.9100, 0.6400, 0.1900], dtype=torch.float64)
    """
    optimal = row(alignment, loss)
    sigma = float64_array("correlations", correlations, ndim=1)
    if bool(((sigma < 0) | (sigma >= 1)).any()):
        raise ValueError(f"correlations must be in [0, 1), got values from {sigma.min():.6g} to {sigma.max():.6g}")
    return optimal(sigma)


def crossover(loss: str = "joint") -> float:
    """Find the correlation at which the inner product and L2 are equally good; below, the inner product wins.

    Parameters
    ----------
    loss
        "joint" (0.597) or "conditional", the two-sided loss (0.519). The one-sided losses have none: L2 is
        exact there for every σ > 0.

    Raises
    ------
    ValueError
        If the loss is neither.

    Examples
    --------
    >>> from probcl.gaussian import crossover
    >>> round(crossover("joint"), 4), round(crossover("conditional"), 4)
    (0.5966, 0.5185)
    """
    if loss not in ("joint", "conditional"):
        raise ValueError(f"loss must be 'joint' or 'conditional' (only they have a crossover), got {loss!r}")

    def advantage_of_l2(sigma: float) -> float:
        at = torch.tensor([sigma], dtype=torch.float64)
        return float(row("l2", loss)(at).gain - row("inner", loss)(at).gain)

    return float(brentq(advantage_of_l2, 0.1, 0.99, xtol=1e-14))
