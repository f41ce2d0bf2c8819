"""Six objectives fitted to one Gaussian in two dimensions (Baptista, Stuart & Tran 2025, §5.4)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import probcl as pcl
from applications.gaussians.learned import learned_law
from applications.seeding import seeded
from probcl.gaussian import TiltedGaussian, optimum


@dataclass(frozen=True)
class Config:
    """How to fit; the table [illustration] of the configuration file."""

    covariance: list[list[float]]
    n_pairs: int
    epochs: int
    seed: int

    @property
    def C(self) -> Tensor:
        return torch.tensor(self.covariance, dtype=torch.float64)


class Objective(NamedTuple):
    """An alignment, a loss, the row of the oracle's table they belong to, and what they get right."""

    name: str
    alignment: pcl.Alignment
    loss: pcl.Loss
    row: tuple[str, str]
    recovers: str


OBJECTIVES = (
    Objective(
        "inner product, conditional",
        pcl.InnerProduct(),
        pcl.ConditionalLoss(),
        ("inner", "conditional"),
        "both conditional means",
    ),
    Objective("inner product, joint", pcl.InnerProduct(), pcl.JointLoss(), ("inner", "joint"), "the cross-covariance"),
    Objective("L2, u|v only", pcl.L2(), pcl.ConditionalLoss(2, 0), ("l2", "u|v"), "mean and variance of u|v"),
    Objective("L2, conditional", pcl.L2(), pcl.ConditionalLoss(), ("l2", "conditional"), "nothing exactly"),
    Objective("L2, joint", pcl.L2(), pcl.JointLoss(), ("l2", "joint"), "the variance of u − v"),
    Objective(
        "with potentials, conditional",
        pcl.WithPotentials(),
        pcl.ConditionalLoss(),
        ("potentials", "conditional"),
        "everything",
    ),
)


class Numbers(NamedTuple):
    """A law of (u, v) in the numbers of the table."""

    A: float
    slope: float
    var_u_given_v: float
    var_u: float
    var_v: float
    cov_uv: float

    @classmethod
    def of(cls, A: Tensor, law: TiltedGaussian) -> "Numbers":
        tensors = (A, law.mean_map_u_given_v, law.cov_u_given_v, law.cov_u, law.cov_v, law.cross_cov)
        return cls(*(tensor.item() for tensor in tensors))

    @classmethod
    def of_truth(cls, C: Tensor) -> "Numbers":
        best = optimum(C, 1, rank=1, alignment="potentials")
        return cls.of(best.A, best.law)

    @property
    def covariance(self) -> Tensor:
        return torch.tensor([[self.var_u, self.cov_uv], [self.cov_uv, self.var_v]], dtype=torch.float64)


class Learned(NamedTuple):
    """What training made of an objective, and what the theory says it should."""

    objective: Objective
    trained: Numbers
    closed_form: Numbers


def run(config: Config) -> list[Learned]:
    """Fit every objective to the same pairs."""
    pairs = stratified_pairs(config.C, config.n_pairs, config.seed)
    return [fit_objective(objective, pairs, config) for objective in OBJECTIVES]


def fit_objective(objective: Objective, pairs: tuple[Tensor, Tensor], config: Config) -> Learned:
    """Fit linear encoders of one dimension, all pairs at once."""
    width = 2 if isinstance(objective.alignment, pcl.WithPotentials) else 1
    with seeded(config.seed):
        encoders = pcl.encoders.Linear(1, width), pcl.encoders.Linear(1, width)
    model = pcl.BimodalModel(*encoders, alignment=objective.alignment).double()
    pcl.fit(model, pairs, objective.loss, optimizer="lbfgs", epochs=config.epochs, seed=config.seed)
    best = optimum(config.C, 1, 1, *objective.row)
    return Learned(
        objective, Numbers.of(*learned_law(model, config.C, n_u=1)), closed_form=Numbers.of(best.A, best.law)
    )


def stratified_pairs(C: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return pairs spread evenly over N(0, C): a scrambled Sobol' sequence, with mean zero and covariance C exactly.

    Independent draws would show their own scatter. To get the covariance under the first objective, 1.8, right to two
    decimals takes a few million of them.
    """
    uniform = torch.quasirandom.SobolEngine(len(C), scramble=True, seed=seed).draw(n, dtype=torch.float64)
    normal = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
    normal = normal - normal.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(normal.T @ normal / n).T, normal, upper=True, left=False
    )
    w = white @ torch.linalg.cholesky(C).T
    return w[:, :1], w[:, 1:]


def table(learned: list[Learned], config: Config) -> list[dict[str, str | float]]:
    """Return the rows of the table: trained and closed form for each objective, and the truth."""
    rows: list[dict[str, str | float]] = []
    for objective, trained, closed_form in learned:
        rows.append({"model": objective.name, "from": "training", **_columns(trained)})
        rows.append({"model": "", "from": "closed form", **_columns(closed_form)})
    return [*rows, {"model": "truth", "from": "", **_columns(Numbers.of_truth(config.C))}]


def _columns(numbers: Numbers) -> dict[str, float]:
    names = ("A", "slope of u on v", "var u|v", "var u", "var v", "cov(u, v)")
    return dict(zip(names, numbers, strict=True))
