"""Positive definite kernels on the data themselves, as the matrices that maximum mean discrepancies are made of."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probcl.checks import require_positive


@dataclass(frozen=True)
class GaussianKernel:
    """k(x, x') = exp(−|x − x'|²/2b²).

    Parameters
    ----------
    bandwidth
        b > 0; by default the median distance in each batch. `median_distance` of all data makes it the same in all.

    Examples
    --------
    >>> import torch
    >>> from probcl.losses import GaussianKernel
    >>> GaussianKernel(bandwidth=1.0)(torch.tensor([0.0, 1.0, 2.0]))
    tensor([[1.0000, 0.6065, 0.1353],
            [0.6065, 1.0000, 0.6065],
            [0.1353, 0.6065, 1.0000]])
    """

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        _check_bandwidth(self.bandwidth)

    def __call__(self, x: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n n"]:
        """Return k(x_i, x_j)."""
        distances = _distances(x)
        return (-0.5 * (distances / _bandwidth(self.bandwidth, distances)).square()).exp()


@dataclass(frozen=True)
class LaplaceKernel:
    """k(x, x') = exp(−|x − x'|/b).

    Parameters
    ----------
    bandwidth
        b > 0; by default the median distance in each batch.

    Examples
    --------
    >>> import torch
    >>> from probcl.losses import LaplaceKernel
    >>> LaplaceKernel(bandwidth=1.0)(torch.tensor([0.0, 1.0, 2.0]))
    tensor([[1.0000, 0.3679, 0.1353],
            [0.3679, 1.0000, 0.3679],
            [0.1353, 0.3679, 1.0000]])
    """

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        _check_bandwidth(self.bandwidth)

    def __call__(self, x: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n n"]:
        """Return k(x_i, x_j)."""
        distances = _distances(x)
        return (-distances / _bandwidth(self.bandwidth, distances)).exp()


@dataclass(frozen=True)
class EnergyKernel:
    """k(x, x') = |x − m| + |x' − m| − |x − x'| + c, whose MMD² is the energy distance whatever m and c are.

    Half of that MMD², between a law and a point, is the energy score; in one dimension the CRPS. m is the mean of the
    batch and c the mean of |x − m|: without it the product of two such kernels would be blind to the marginals. It has
    no bandwidth.

    Examples
    --------
    >>> import torch
    >>> from probcl.losses import EnergyKernel
    >>> k = EnergyKernel()(torch.tensor([0.0, 1.0, 2.0]))
    >>> k.diagonal() + k.diagonal()[0] - 2 * k[0]  # twice the distances from the first point
    tensor([0., 2., 4.])
    """

    def __call__(self, x: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n n"]:
        """Return k(x_i, x_j)."""
        flat = _flat(x)
        norms = (flat - flat.mean(0)).norm(dim=1)
        gram: Tensor = norms[:, None] + norms - _distances(x) + norms.mean()
        return gram


def median_distance(x: Shaped[Tensor, "n *event"]) -> float:
    """Return the median of |x_i − x_j| over i ≠ j, the usual bandwidth; one if most of the points are the same.

    Takes n² memory: a few thousand points are plenty.

    Examples
    --------
    >>> import torch
    >>> from probcl.losses import GaussianKernel, median_distance
    >>> x = torch.tensor([0.0, 1.0, 3.0])
    >>> GaussianKernel(bandwidth=median_distance(x))
    GaussianKernel(bandwidth=2.0)
    """
    return _bandwidth(None, _distances(x))


def _bandwidth(given: float | None, distances: Float[Tensor, "n n"]) -> float:
    if given is not None:
        return given
    count = len(distances)
    apart = distances[torch.triu(torch.ones_like(distances, dtype=torch.bool), diagonal=1)]
    return (float(apart.median()) if count > 1 else 0.0) or 1.0


def _distances(x: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n n"]:
    flat = _flat(x)
    # Not by way of a matrix product, which gives equal points a distance.
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")


def _flat(x: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n k"]:
    rows = x.detach().reshape(len(x), -1)
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _check_bandwidth(bandwidth: float | None) -> None:
    if bandwidth is not None:
        require_positive("bandwidth", bandwidth)
