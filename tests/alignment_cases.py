"""Alignments beside their definitions, for every test that runs over all of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from probcl import L2, Alignment, Cosine, InnerProduct, WithPotentials
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
    "potentials": (WithPotentials(), with_potentials(inner, 2)),
    "potentials of cosine": (WithPotentials(Cosine()), with_potentials(cosine, 2)),
    "potentials of l2": (WithPotentials(L2(), potential_dim=1), with_potentials(l2, 1)),
    "potentials of log-cauchy": (WithPotentials(LogCauchy(), 3), with_potentials(log_cauchy, 3)),
    "potentials of potentials": (
        WithPotentials(WithPotentials(L2(), 1), 2),
        with_potentials(with_potentials(l2, 1), 2),
    ),
}
OF_ANY_WIDTH = ["inner", "cosine", "l2", "log-cauchy"]


def brute_force(definition: Definition, x: Tensor, y: Tensor) -> Tensor:
    """The n × m matrix by a double loop over the definition; differentiable."""
    return torch.stack([torch.stack([definition(x_i, y_j) for y_j in y]) for x_i in x])
