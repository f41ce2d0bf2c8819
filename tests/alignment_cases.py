"""Alignments beside their definitions, for every test that runs over all of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from probcl import (
    L2,
    Alignment,
    ConcatMixture,
    Cosine,
    FGaussian,
    InnerProduct,
    Laplace,
    Power,
    SumMixture,
    WithPotentials,
)
from probcl.alignment import Factors

Definition = Callable[[Tensor, Tensor], Tensor]


class LogCauchy(Alignment):
    """−log(1 + |x − y|²), as a user would write it: a distance in `factorize` and a curve in `link`."""

    def factorize(self, x: Tensor, y: Tensor) -> Factors:
        return L2().factorize(x, y)

    def link(self, product: Tensor) -> Tensor:
        return -torch.log1p(-2 * product)


def inner(x: Tensor, y: Tensor) -> Tensor:
    return x.dot(y)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return x.dot(y) / (x.dot(x).sqrt() * y.dot(y).sqrt())


def l2(x: Tensor, y: Tensor) -> Tensor:
    return -(x - y).dot(x - y) / 2


def log_cauchy(x: Tensor, y: Tensor) -> Tensor:
    return -torch.log(1 + (x - y).dot(x - y))


def power(gamma: float) -> Definition:
    return lambda x, y: -((x - y).dot(x - y) ** (gamma / 2))


def sum_mixture(tau_2: float, tau_1: float) -> Definition:
    def definition(x: Tensor, y: Tensor) -> Tensor:
        distance = (x - y).dot(x - y).sqrt()
        # The logarithm of the sum, by the larger of the two: their exponentials may be zero.
        a, b = -(distance**2) / tau_2, -distance / tau_1
        return torch.maximum(a, b) + torch.log1p(torch.exp(-(a - b).abs()))

    return definition


def concat_mixture(tau_2: float, tau_1: float, width: int) -> Definition:
    def definition(x: Tensor, y: Tensor) -> Tensor:
        distances = [(a - b).dot(a - b) ** 0.5 for a, b in ((x[:-width], y[:-width]), (x[-width:], y[-width:]))]
        a, b = -(distances[0] ** 2) / tau_2, -distances[1] / tau_1
        return torch.maximum(a, b) + torch.log1p(torch.exp(-(a - b).abs()))

    return definition


def f_gaussian(mu: float, sigma: float) -> Definition:
    return lambda x, y: torch.tensor(mu).log() + (cosine(x, y) - 1) / sigma**2


def with_potentials(base: Definition, width: int) -> Definition:
    def definition(x: Tensor, y: Tensor) -> Tensor:
        k_x, k_y = x[-width:], y[-width:]
        return base(x[:-width], y[:-width]) - (k_x.dot(k_x) + k_y.dot(k_y)) / 2

    return definition


# name: (alignment, definition for one pair of vectors); all take embeddings of width WIDTH
WIDTH = 4
CASES: dict[str, tuple[Alignment, Definition]] = {
    "inner": (InnerProduct(), inner),
    "cosine": (Cosine(), cosine),
    "l2": (L2(), l2),
    "log-cauchy": (LogCauchy(), log_cauchy),
    "laplace": (Laplace(), power(1)),
    "power 2": (Power(2), power(2)),
    "power 0.5": (Power(0.5), power(0.5)),
    "sum": (SumMixture(0.5, 2.0), sum_mixture(0.5, 2.0)),
    "learned sum": (SumMixture(0.25, 0.5, learnable=True), sum_mixture(0.25, 0.5)),
    "concat": (ConcatMixture(0.5, 2.0), concat_mixture(0.5, 2.0, 2)),
    "learned concat": (ConcatMixture(0.25, 0.5, laplace_dim=1, learnable=True), concat_mixture(0.25, 0.5, 1)),
    "f-gaussian": (FGaussian(), f_gaussian(1.0, 0.5**0.5)),
    "learned f-gaussian": (FGaussian(2.0, 0.5, learnable=True), f_gaussian(2.0, 0.5)),
    "potentials": (WithPotentials(), with_potentials(inner, 2)),
    "potentials of cosine": (WithPotentials(Cosine()), with_potentials(cosine, 2)),
    "potentials of l2": (WithPotentials(L2(), potential_dim=1), with_potentials(l2, 1)),
    "potentials of log-cauchy": (WithPotentials(LogCauchy(), 3), with_potentials(log_cauchy, 3)),
    "potentials of laplace": (WithPotentials(Laplace(), 1), with_potentials(power(1), 1)),
    "potentials of concat": (
        WithPotentials(ConcatMixture(0.5, 2.0), 2),
        with_potentials(concat_mixture(0.5, 2.0, 1), 2),
    ),
    "potentials of f-gaussian": (WithPotentials(FGaussian(), 1), with_potentials(f_gaussian(1.0, 0.5**0.5), 1)),
    "potentials of potentials": (
        WithPotentials(WithPotentials(L2(), 1), 2),
        with_potentials(with_potentials(l2, 1), 2),
    ),
}
OF_ANY_WIDTH = ["inner", "cosine", "l2", "log-cauchy", "laplace", "power 2", "power 0.5", "sum", "f-gaussian"]


def brute_force(definition: Definition, x: Tensor, y: Tensor) -> Tensor:
    """The n × m matrix by a double loop over the definition; differentiable."""
    return torch.stack([torch.stack([definition(x_i, y_j) for y_j in y]) for x_i in x])
