"""A random field seen at noisy points and through its leading modes: the Gaussian process of THEORY §5."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_count, require_positive
from probcl.datasets.gaussian import gaussian_pairs
from probcl.datasets.pairs import Pairs
from probcl.gaussian import optimum


class ErrorFloors(NamedTuple):
    """Mean squared errors of conditional means of rank r, entry r for r = 0..min(n_u, n_v).

    Examples
    --------
    >>> import probcl as pcl
    >>> floors = pcl.datasets.GaussianProcessPairs().error_floors()
    >>> len(floors.u_given_v), float(floors.u_given_v[-1].round(decimals=6))  # of full rank: nothing is lost
    (6, 0.0)
    """

    u_given_v: Float[Tensor, " ranks"]
    v_given_u: Float[Tensor, " ranks"]


@dataclass(frozen=True)
class GaussianProcessPairs:
    """Pairs from a Gaussian process, and what is known exactly about their law.

    The field w ~ N(0, (−Δ + s)⁻²) on (0, 1), of mean zero and with Neumann conditions, is a sum over
    ψ_j(x) = √2 cos(jπx) with variances λ_j = (j²π² + s)⁻². Then u is w at the points k/(n_u − 1),
    k = 0..n_u − 1, plus independent noise; and v_j = λ_j^{-1/2} ⟨w, ψ_j⟩, so that v ~ N(0, I).

    The source's uniform points are taken to include both ends of the interval. That gives canonical correlations
    .9674 .8299 .5889 .3920 .2656; midpoints (k + ½)/12 would give .9648 .8193 .5779 .3833 .2614.

    Parameters
    ----------
    n_u, n_v : int
        Number of points, at least 2, and of modes in v.
    n_modes : int
        Number of modes in the field, at least `n_v`.
    noise : float
        Standard deviation of the noise on u.
    shift : float
        s above.

    Raises
    ------
    TypeError, ValueError
        If a count is not an integer or is too small, or `noise` or `shift` is not a positive number.

    References
    ----------
    Baptista, Stuart & Tran (arXiv 2505.24134v1), §6.1.

    Examples
    --------
    >>> import probcl as pcl
    >>> world = pcl.datasets.GaussianProcessPairs()
    >>> u, v = world.sample(100, seed=0)
    >>> u.shape, v.shape
    (torch.Size([100, 12]), torch.Size([100, 5]))
    >>> pcl.gaussian.canonical_correlations(world.covariance(), world.n_u).correlations
    tensor([0.9674, 0.8299, 0.5889, 0.3920, 0.2656], dtype=torch.float64)
    """

    n_u: int = 12
    n_v: int = 5
    n_modes: int = 1000
    noise: float = 0.05
    shift: float = 9.0

    def __post_init__(self) -> None:
        require_count("n_u", self.n_u, minimum=2)
        require_count("n_v", self.n_v)
        require_count("n_modes", self.n_modes, minimum=self.n_v)
        require_positive("noise", self.noise)
        require_positive("shift", self.shift)

    @property
    def points(self) -> Float[Tensor, " n_u"]:
        """Where u sees the field."""
        return torch.linspace(0, 1, self.n_u, dtype=torch.float64)

    @property
    def eigenvalues(self) -> Float[Tensor, " n_modes"]:
        """Variance λ_j of the field along ψ_j, j = 1..n_modes."""
        return ((self._frequencies * torch.pi) ** 2 + self.shift) ** -2

    def eigenfunctions(self, x: Float[Tensor, " n"]) -> Float[Tensor, "n n_modes"]:
        """Evaluate ψ_j(x), a row for each x and a column for each mode."""
        return 2**0.5 * torch.cos(torch.pi * x[:, None] * self._frequencies)

    def covariance(self) -> Float[Tensor, "n n"]:
        """Joint covariance of (u, v), n = n_u + n_v, in float64."""
        amplitudes = self.eigenfunctions(self.points) * self.eigenvalues.sqrt()
        C_uu = amplitudes @ amplitudes.mT + self.noise**2 * torch.eye(self.n_u, dtype=torch.float64)
        C_uv = amplitudes[:, : self.n_v]
        C_vv = torch.eye(self.n_v, dtype=torch.float64)
        return torch.cat([torch.cat([C_uu, C_uv], dim=1), torch.cat([C_uv.mT, C_vv], dim=1)])

    def sample(self, n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Pairs:
        """Draw `n` independent pairs, `u` of shape (n, n_u), `v` of shape (n, n_v); see `gaussian_pairs`."""
        return gaussian_pairs(self.covariance(), self.n_u, n, seed=seed, dtype=dtype)

    @property
    def mean_map_u_given_v(self) -> Float[Tensor, "n_u n_v"]:
        """M with E[u|v] = M v, C_uv C_vv^{-1}."""
        return self.covariance()[: self.n_u, self.n_u :]

    @property
    def mean_map_v_given_u(self) -> Float[Tensor, "n_v n_u"]:
        """M with E[v|u] = M u, C_vu C_uu^{-1}."""
        C = self.covariance()
        mean_map: Tensor = torch.linalg.solve(C[: self.n_u, : self.n_u], C[: self.n_u, self.n_u :]).mT
        return mean_map

    def error_floors(self) -> ErrorFloors:
        """E|E_r[u|v] − E[u|v]|² and E|E_r[v|u] − E[v|u]|², summed over components, for r = 0..min(n_u, n_v).

        E_r belongs to the optimum, at rank r, of every conditional loss with linear encoders and the inner
        product (Thm 5.1): it keeps the r leading canonical pairs. These are the errors left when training has
        converged. Canonical pairs weigh whitened errors, so for u given v the best map of rank r is another, though
        better by less than 2e-6 of the error with the default parameters.
        """
        C = self.covariance()
        laws = [optimum(C, self.n_u, rank).law for rank in range(min(self.n_u, self.n_v) + 1)]
        C_uu, C_vv = C[: self.n_u, : self.n_u], C[self.n_u :, self.n_u :]
        u_errors = [_mean_square(law.mean_map_u_given_v - self.mean_map_u_given_v, C_vv) for law in laws]
        v_errors = [_mean_square(law.mean_map_v_given_u - self.mean_map_v_given_u, C_uu) for law in laws]
        return ErrorFloors(torch.stack(u_errors), torch.stack(v_errors))

    @property
    def _frequencies(self) -> Float[Tensor, " n_modes"]:
        return torch.arange(1, self.n_modes + 1, dtype=torch.float64)


def _mean_square(M: Float[Tensor, "k n"], C: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """E|Mx|² for x ~ N(0, C)."""
    return ((M @ C) * M).sum()
