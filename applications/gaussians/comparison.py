"""The whole family of losses on one Gaussian: what each learns of the conditionals, by theory and by training."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import probcl as pcl
from applications.family import ALIGNMENTS, EXCLUDED, LOSSES, VARIANTS, make_loss
from applications.gaussians import experiment_illustration
from applications.gaussians.constant import PlusConstant
from applications.gaussians.experiment_illustration import stratified_pairs
from applications.gaussians.learned import learned_law
from applications.gaussians.population import minimiser
from applications.seeding import seeded
from applications.tables import Row
from probcl.gaussian import TiltedGaussian
from probcl.losses import GaussianKernel, Identifies

# Those whose score is quadratic in u and v, so that conditionals are Gaussian.
QUADRATIC = ("inner", "l2", "potentials")
# With these the limit of many pairs depends on their number, is no exponential of the score, or is not worked out here.
WITHOUT_POPULATION = ("sigmoid", "spectral", "sum-of-losses", *EXCLUDED)
# It leaves u|v, which the table is of, open; it is the mirror of "u-given-v".
OPEN = ("v-given-u",)
NO_MINIMUM, NO_CONDITIONAL, UNKNOWN = "no minimum", "no conditional", "unknown"


@dataclass(frozen=True)
class Config(experiment_illustration.Config):
    """How to fit; the table [comparison] of the configuration file."""

    @property
    def kernel(self) -> GaussianKernel:
        """The kernel of the MMD losses: its bandwidth is the median distance of two independent u."""
        median_of_normal = math.sqrt(2) * torch.special.ndtri(torch.tensor(0.75, dtype=torch.float64)).item()
        return GaussianKernel(median_of_normal * math.sqrt(self.covariance[0][0]))


class Objective(NamedTuple):
    """A loss and an alignment, and whether the score has a constant of its own."""

    loss: str
    alignment: str
    constant: bool

    @property
    def title(self) -> str:
        return f"{self.loss}, constant" if self.constant else self.loss


class Learned(NamedTuple):
    """The conditional of u given v that a score implies."""

    slope: float
    variance: float


def objectives(losses: Sequence[str], alignments: Sequence[str]) -> Iterator[Objective]:
    """List every combination; with and without a constant for f-MICL, which alone can learn one."""
    for loss in losses:
        for constant in (False, True) if loss.startswith("f-micl") else (False,):
            for alignment in alignments:
                yield Objective(loss, alignment, constant)


def sharpening(loss: pcl.Loss) -> float | None:
    """Return the factor that makes the score of this loss a log density ratio, or None if no factor does.

    It is 1 − q for RINCE, whose best scores have e^s ∝ r^{1/(1−q)} at given normalisers.
    """
    if loss.identifies is not Identifies.TRANSFORM:
        return 1.0
    return 1 - loss.q if isinstance(loss, pcl.RINCELoss) and loss.q < 1 else None


def in_population(objective: Objective, config: Config) -> Learned | str:
    """Return what infinitely many pairs would teach."""
    if objective.loss in WITHOUT_POPULATION:
        return UNKNOWN
    loss = make_loss(objective.loss, config.kernel, config.kernel)
    found = minimiser(loss, objective.alignment, config.C, constant=objective.constant)
    if found is None:
        return NO_MINIMUM
    matrices = (part.detach().reshape(1, 1) for part in (found.a, found.b, found.c))
    return _learned(loss, *matrices, C=config.C)


def in_training(objective: Objective, pairs: tuple[Tensor, Tensor], config: Config) -> Learned | str:
    """Return what `probcl.fit` learns of a sample."""
    loss = make_loss(objective.loss, config.kernel, config.kernel)
    model = _model(objective, config.seed)
    pcl.fit(model, pairs, loss.double(), optimizer="lbfgs", epochs=config.epochs, seed=config.seed, device="cpu")
    A, law = learned_law(model, config.C, n_u=1)
    root_u, root_v = law.whitening.inverse_root_u, law.whitening.inverse_root_v
    return _learned(loss, A, root_u @ law.whitened_B @ root_u, root_v @ law.whitened_C @ root_v, C=config.C)


def _model(objective: Objective, seed: int) -> pcl.BimodalModel:
    alignment = ALIGNMENTS[objective.alignment]()
    width = 2 if objective.alignment == "potentials" else 1
    with seeded(seed):
        encoders = pcl.encoders.Linear(1, width), pcl.encoders.Linear(1, width)
    with torch.no_grad():
        for encoder in encoders:  # both slopes positive, and no score so large that a loss starts in its tails
            encoder.weight.copy_(0.3 + 0.2 * encoder.weight.abs())
    return pcl.BimodalModel(*encoders, alignment=PlusConstant(alignment) if objective.constant else alignment).double()


def _learned(loss: pcl.Loss, A: Tensor, B: Tensor, C_: Tensor, *, C: Tensor) -> Learned | str:
    factor = sharpening(loss)
    if factor is None:
        return NO_CONDITIONAL
    law: TiltedGaussian = pcl.gaussian.learned_law(C, 1, factor * A, factor * B, factor * C_)
    return Learned(law.mean_map_u_given_v.item(), law.cov_u_given_v.item())


def compare(losses: Sequence[str], alignments: Sequence[str], config: Config) -> list[Row]:
    """Return the rows of the table: the truth, then theory and training for each loss, a column pair an alignment."""
    pairs = stratified_pairs(config.C, config.n_pairs, config.seed)
    C = config.C
    truth = Learned((C[0, 1] / C[1, 1]).item(), (C[0, 0] - C[0, 1] ** 2 / C[1, 1]).item())
    rows: list[Row] = [{"loss": "truth", "from": ""} | _cells(dict.fromkeys(alignments, truth))]
    titles = dict.fromkeys((objective.loss, objective.constant) for objective in objectives(losses, alignments))
    for loss, constant in titles:
        family = {name: Objective(loss, name, constant) for name in alignments}
        theory = {name: in_population(objective, config) for name, objective in family.items()}
        found = {
            name: "" if value == NO_MINIMUM else in_training(family[name], pairs, config)
            for name, value in theory.items()
        }
        title = family[alignments[0]].title
        rows.append({"loss": title, "from": "population"} | _cells(theory))
        rows.append({"loss": "", "from": "training"} | _cells(found))
    return rows


def _cells(found: dict[str, Learned | str]) -> dict[str, str | float]:
    cells: dict[str, str | float] = {}
    for name, value in found.items():
        slope, variance = value if isinstance(value, Learned) else (value, value)
        cells |= {f"{name}: slope": slope, f"{name}: var u|v": variance}
    return cells


def names() -> tuple[str, ...]:
    """Return the losses of a comparison: those of which a theory is told here, and that determine u|v if any does."""
    return tuple(name for name in LOSSES if name not in WITHOUT_POPULATION + OPEN + VARIANTS)
