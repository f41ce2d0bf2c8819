"""The reference that knows the flow: Gauss-Newton to the mode, and the Laplace approximation there."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.datasets.ocean import TorusFlow

ITERATIONS = 8
_AT_ONCE = 64


class Laplace(NamedTuple):
    """Normal laws of the potential, N(mean, (factor factorᵀ)⁻¹)."""

    mean: Float[Tensor, "n 98"]
    factor: Float[Tensor, "n 98 98"]

    def draw(self, count: int, seed: int) -> Float[Tensor, "S n 98"]:
        """Draw potentials."""
        noise = torch.randn(*self.mean.T.shape, count, generator=torch.Generator().manual_seed(seed)).double()
        columns = torch.linalg.solve_triangular(self.factor.mT, noise.movedim(0, 1), upper=True)
        return (self.mean + columns.movedim(2, 0)).float()

    def log_ratio(self, u: Float[Tensor, "n 98"]) -> Float[Tensor, " n"]:
        """Log-density of the law less that of N(0, I), at one potential each."""
        u = u.double()
        whitened = torch.einsum("nij,ni->nj", self.factor, u - self.mean)
        log_determinant = self.factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return log_determinant - 0.5 * whitened.square().sum(1) + 0.5 * u.square().sum(1)


def laplace(flow: TorusFlow, v: Float[Tensor, "n starts times 2"], start: Float[Tensor, "n 98"]) -> Laplace:
    """Approximate the posterior of potentials given noisy trajectories, starting from a first guess."""
    parts = [
        _laplace(flow, *part) for part in zip(v.double().split(_AT_ONCE), start.double().split(_AT_ONCE), strict=True)
    ]
    return Laplace(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _laplace(flow: TorusFlow, v: Float[Tensor, "n starts times 2"], u: Float[Tensor, "n 98"]) -> Laplace:
    """Minimise ½|u|² + |v − F(u)|²/2σ² by Levenberg-Marquardt steps, each potential with its own damping."""
    identity = torch.eye(u.shape[1]).double()
    damping = torch.ones(len(u)).double()
    cost, gradient, precision = _expand(flow, v, u)
    for _ in range(ITERATIONS):
        step = torch.linalg.solve(precision + damping[:, None, None] * identity, gradient)
        tried = _expand(flow, v, u - step)
        better = tried[0] < cost
        u = torch.where(better[:, None], u - step, u)
        cost, gradient, precision = (
            torch.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
            for new, old in zip(tried, (cost, gradient, precision), strict=True)
        )
        damping = torch.where(better, damping / 10, damping * 10)
    return Laplace(u, torch.linalg.cholesky(precision))


def _expand(
    flow: TorusFlow, v: Float[Tensor, "n starts times 2"], u: Float[Tensor, "n 98"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 98"], Float[Tensor, "n 98 98"]]:
    """Return the negative log-posterior, its gradient, and the Gauss-Newton approximation of its Hessian."""
    path, slope = trajectories_and_slopes(flow, u)
    residual, slope = ((path - v) / flow.noise).flatten(1), (slope / flow.noise).flatten(1, 3)
    cost = 0.5 * (u.square().sum(1) + residual.square().sum(1))
    gradient = u + torch.einsum("nrk,nr->nk", slope, residual)
    return cost, gradient, torch.eye(u.shape[1]).double() + slope.mT @ slope


def trajectories_and_slopes(
    flow: TorusFlow, u: Float[Tensor, "n 98"]
) -> tuple[Float[Tensor, "n starts times 2"], Float[Tensor, "n starts times 2 98"]]:
    """Return noise-free trajectories and their derivatives in u, by the tangent of the Runge-Kutta method."""
    x = torch.tensor(flow.starts, dtype=torch.float64).expand(len(u), -1, -1)
    slope = torch.zeros(*x.shape, u.shape[1], dtype=torch.float64)
    dt, path, slopes = flow.duration / flow.n_times, [], []
    for step in range(flow.n_times):
        t, k = step * dt, (torch.zeros_like(x), torch.zeros_like(slope))
        sum_x, sum_slope = torch.zeros_like(x), torch.zeros_like(slope)
        for lag, weight in ((0.0, 1.0), (0.5, 2.0), (0.5, 2.0), (1.0, 1.0)):
            k = _tangent(flow, u, x + lag * dt * k[0], slope + lag * dt * k[1], t + lag * dt)
            sum_x, sum_slope = sum_x + weight * k[0], sum_slope + weight * k[1]
        x, slope = x + dt / 6 * sum_x, slope + dt / 6 * sum_slope
        path.append(x)
        slopes.append(slope)
    return torch.stack(path, 2), torch.stack(slopes, 2)


def _tangent(
    flow: TorusFlow,
    u: Float[Tensor, "n 98"],
    x: Float[Tensor, "n starts 2"],
    slope: Float[Tensor, "n starts 2 98"],
    t: float,
) -> tuple[Float[Tensor, "n starts 2"], Float[Tensor, "n starts 2 98"]]:
    """Return the velocity J∇ψ at points and the rate of change of their derivatives in u."""
    k = torch.cartesian_prod(*2 * [torch.arange(-3.0, 4.0)]).double()
    phase = 2 * math.pi * x @ k.mT + t * flow.frequencies.flatten()
    waves = torch.cat([phase.cos(), -phase.sin()], -1) * flow.deviations.flatten().repeat(2)
    turned = torch.cat([-phase.sin(), -phase.cos()], -1) * flow.deviations.flatten().repeat(2)
    across = 2 * math.pi * torch.stack([-k[:, 1], k[:, 0]]).repeat(1, 2)
    basis = turned[..., None, :] * across
    amplitudes = -(waves * u[:, None])
    gradient = torch.einsum("nsk,ik,jk->nsij", amplitudes, across, 2 * math.pi * k.mT.repeat(1, 2))
    return torch.einsum("nsik,nk->nsi", basis, u), gradient @ slope + basis
