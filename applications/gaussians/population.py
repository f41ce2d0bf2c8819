"""Population losses of a quadratic score under a bivariate Gaussian, by the trapezoidal rule, and their minimisers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

import probcl as pcl
from probcl.losses import ConditionalMMDLoss, JointMMDLoss

F64 = torch.float64
# Reach of the grid in standard deviations, and the longer one that a minimiser must not feel; points in either.
REACHES, POINTS = (9.0, 14.0), 281
# Largest change of a parameter from one reach to the other.
TOLERANCE = 1e-3
# What a line search is told of a score whose loss has overflowed; infinity would spoil its interpolation.
TOO_HIGH = 1e10
BOUND, FLAT = 8.0, 1e-5
STARTS = ((0.5, 0.5), (1.0, 0.7), (0.3, 1.5))


class Quadratic(NamedTuple):
    """The score k + a uv − ½b u² − ½c v²."""

    a: Tensor
    b: Tensor
    c: Tensor
    k: Tensor


def quadratic(alignment: str, parameters: Tensor) -> Quadratic:
    """Return the score of encoders u ↦ gu and v ↦ hv, with potentials (κ_u u)² and (κ_v v)², and a constant, last."""
    g, h, *potentials, k = parameters
    zero = torch.zeros((), dtype=F64)
    match alignment:
        case "inner":
            return Quadratic(g * h, zero, zero, k)
        case "l2":
            return Quadratic(g * h, g**2, h**2, k)
        case _:
            return Quadratic(g * h, potentials[0] ** 2, potentials[1] ** 2, k)


@dataclass(frozen=True)
class Law:
    """A bivariate Gaussian on a grid: points and weights of the marginals, and of the joint law."""

    u: Tensor
    v: Tensor
    of_u: Tensor
    of_v: Tensor
    joint: Tensor

    @classmethod
    def on_grid(cls, C: Tensor, reach: float) -> "Law":
        """Cover this many standard deviations on either side."""
        t = torch.linspace(-reach, reach, POINTS, dtype=F64)
        u, v = t * C[0, 0].sqrt(), t * C[1, 1].sqrt()
        single = torch.softmax(-0.5 * t**2, 0)
        w = torch.stack(torch.meshgrid(u, v, indexing="ij"), -1)
        joint = torch.softmax((-0.5 * (w @ torch.linalg.inv(C) * w).sum(-1)).flatten(), 0)
        return cls(u, v, single, single, joint.reshape(POINTS, POINTS))

    def scores(self, q: Quadratic) -> Tensor:
        """Return the score on the grid."""
        u, v = self.u[:, None], self.v[None]
        return q.k + q.a * u * v - 0.5 * q.b * u**2 - 0.5 * q.c * v**2

    @property
    def log_u(self) -> Tensor:
        """Log-weights of u, as a column."""
        return self.of_u.log()[:, None]

    @property
    def log_v(self) -> Tensor:
        """Log-weights of v, as a row."""
        return self.of_v.log()[None]


def population_loss(loss: pcl.Loss, law: Law, s: Tensor) -> Tensor:
    """Return the limit of a loss for infinitely many pairs."""
    match loss:
        case pcl.ConditionalLoss():
            of_u, of_v = (s + law.log_u).logsumexp(0), (s + law.log_v).logsumexp(1)
            normalisers = loss.lambda_u * (law.of_v * of_u).sum() + loss.lambda_v * (law.of_u * of_v).sum()
            return 0.5 * (normalisers - (loss.lambda_u + loss.lambda_v) * (law.joint * s).sum())
        case pcl.JointLoss():
            return (s + law.log_u + law.log_v).flatten().logsumexp(0) - (law.joint * s).sum()
        case pcl.FMICLLoss():
            unmatched = (law.of_u[:, None] * law.of_v * loss.divergence.conjugate(s)).sum()
            return loss.alpha * unmatched - (law.joint * loss.divergence.derivative(s)).sum()
        case pcl.RINCELoss():
            return _rince(loss.q, law, s)
        case ConditionalMMDLoss():
            return _conditional_mmd(loss, law, s)
        case JointMMDLoss():
            return _joint_mmd(loss, law, s)
    raise TypeError(f"no population value is known here for {loss}")


def _rince(q: float, law: Law, s: Tensor) -> Tensor:
    of_u, of_v = (s + law.log_u).logsumexp(0), (s + law.log_v).logsumexp(1)
    if q == 0:
        return population_loss(pcl.ConditionalLoss(), law, s)
    candidates = 0.5 * ((law.of_v * (q * of_u).exp()).sum() + (law.of_u * (q * of_v).exp()).sum())
    return (candidates - ((q * s).exp() * law.joint).sum()) / q


def _conditional_mmd(loss: ConditionalMMDLoss, law: Law, s: Tensor) -> Tensor:
    u_given_v, v_given_u = (s + law.log_u).softmax(0), (s + law.log_v).softmax(1)
    of_u, of_v = loss.kernel_u(law.u[:, None]) @ u_given_v, v_given_u @ loss.kernel_v(law.v[:, None])
    first = (law.of_v * (0.5 * u_given_v * of_u).sum(0)).sum() - (law.joint * of_u).sum()
    second = (law.of_u * (0.5 * v_given_u * of_v).sum(1)).sum() - (law.joint * of_v).sum()
    return 0.5 * (loss.lambda_u * first + loss.lambda_v * second)


def _joint_mmd(loss: JointMMDLoss, law: Law, s: Tensor) -> Tensor:
    weights = (s + law.log_u + law.log_v).flatten().softmax(0).reshape(s.shape)
    smoothed = loss.kernel_u(law.u[:, None]) @ weights @ loss.kernel_v(law.v[:, None])
    return ((weights - 2 * law.joint) * smoothed).sum()


def minimiser(loss: pcl.Loss, alignment: str, C: Tensor, *, constant: bool) -> Quadratic | None:
    """Return the score of least population loss, or None if there is none.

    There is none if the minimum over the grid moves when the grid grows: the loss then falls without end in the tails.
    """
    found = [on_grid(loss, alignment, Law.on_grid(C, reach), constant) for reach in REACHES]
    short, long = found
    if short is None or long is None:
        return None
    change = max(float((one - other).abs()) for one, other in zip(short, long, strict=True))
    return long if change < TOLERANCE else None


def on_grid(loss: pcl.Loss, alignment: str, law: Law, constant: bool) -> Quadratic | None:
    """Return the minimiser on a grid, or None if the loss is still falling at the bounds."""

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(x).requires_grad_()
        value = population_loss(loss, law, law.scores(_with(alignment, parameters, constant)))
        if not torch.isfinite(value):
            return TOO_HIGH, np.zeros_like(x)
        (gradient,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), gradient.numpy()

    results = [_minimised(objective, _start(alignment, start, constant)) for start in STARTS]
    best = min(results, key=lambda result: float(result.fun))
    inside = np.abs(best.x).max() < BOUND and np.abs(best.jac).max() < FLAT
    return _with(alignment, torch.from_numpy(best.x), constant) if inside and best.fun < TOO_HIGH else None


def _start(alignment: str, start: tuple[float, float], constant: bool) -> list[float]:
    return [*start, *([0.4, 0.6] if alignment == "potentials" else []), *([0.1] if constant else [])]


def _with(alignment: str, parameters: Tensor, constant: bool) -> Quadratic:
    fixed = parameters if constant else torch.cat([parameters, parameters.new_zeros(1)])
    return quadratic(alignment, fixed)


def _minimised(objective: Callable[[np.ndarray], tuple[float, np.ndarray]], start: list[float]) -> OptimizeResult:
    return minimize(
        objective,
        np.array(start),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-BOUND, BOUND)] * len(start),
        options={"gtol": 1e-9, "ftol": 1e-15, "maxiter": 500},
    )
