"""Fit the objectives of Baptista, Stuart & Tran (2025), §6.2, and measure what each learned."""

import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

import probcl as pcl
from applications.family import ALIGNMENTS, make_loss
from applications.seeding import seeded
from probcl.datasets import Pairs, Split

N_CLASSES = 10
LABELS = torch.arange(N_CLASSES)
FEW, MANY = 16, 1000


@dataclass(frozen=True)
class Config:
    """How to fit; read from a TOML file beside this module."""

    encoder: str
    encoder_arguments: dict[str, Any]
    shifted: bool
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    seeds: tuple[int, ...]

    @classmethod
    def read(cls, path: Path, **overrides: Any) -> "Config":
        settings = tomllib.loads(path.read_text()) | {k: v for k, v in overrides.items() if v is not None}
        settings["seeds"] = tuple(settings["seeds"])
        return cls(**settings)


class Objective(NamedTuple):
    """A loss, the variable over which the fitted score is to be normalised in a re-gauge, if any, and an alignment."""

    name: str
    loss: pcl.Loss
    over: Literal["u", "v"] | None
    alignment: str = "inner"


OBJECTIVES = (
    Objective("two-sided", pcl.ConditionalLoss(1, 1), over="v"),
    Objective("label|image", pcl.ConditionalLoss(0, 2), over="v"),
    Objective("image|label", pcl.ConditionalLoss(2, 0), over="u"),
)


def by_name(loss: str, alignment: str) -> Objective:
    """Return the objective of these names; the kernel on labels of the losses that need one is their equality."""
    return Objective(loss, make_loss(loss, kernel_v=same_label), over=None, alignment=alignment)


def same_label(labels: Tensor) -> Tensor:
    """Return a kernel on labels, one for equal ones and else zero, of shape (n, n)."""
    return (labels[:, None] == labels).float()


class Fitted(NamedTuple):
    """One objective's model, as fitted or re-gauged."""

    objective: str
    regauged: bool
    model: pcl.BimodalModel

    @property
    def title(self) -> str:
        return f"{self.objective}, re-gauged" if self.regauged else self.objective


def fit_objective(objective: Objective, data: Split, config: Config, seed: int) -> Iterator[Fitted]:
    """Fit one objective and yield its model before and after the re-gauge."""
    with seeded(seed):
        encoder = getattr(pcl.encoders, config.encoder)(N_CLASSES, **config.encoder_arguments)
    model = pcl.BimodalModel(encoder, pcl.encoders.Label(N_CLASSES), alignment=ALIGNMENTS[objective.alignment]())
    pcl.fit(
        model,
        with_shifts(data.train) if config.shifted else data.train,
        loss=objective.loss,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        optimizer="adamw",
        weight_decay=config.weight_decay,
        schedule="cosine",
        validation=data.validation,
        seed=seed,
    )
    yield Fitted(objective.name, False, model)
    if objective.over is None:
        return
    prior = label_prior(data.train.v) if objective.over == "v" else pcl.EmpiricalPrior(data.train.u)
    yield Fitted(objective.name, True, model.regauged(objective.over, prior))


def with_shifts(pairs: Pairs) -> Pairs:
    """Return the pairs and, beside them, each image moved by one pixel in the four directions."""
    height, width = pairs.u.shape[-2:]
    framed = pad(pairs.u, (1, 1, 1, 1))
    offsets = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    moved = [framed[..., row : row + height, column : column + width] for row, column in offsets]
    return Pairs(torch.cat(moved), pairs.v.repeat(len(offsets)))


def label_prior(labels: Tensor) -> pcl.EmpiricalPrior:
    """Return the ten labels with their frequencies among these."""
    return pcl.EmpiricalPrior(LABELS, weights=labels.bincount(minlength=N_CLASSES).double())


def label_given_image(
    model: pcl.BimodalModel, prior: pcl.EmpiricalPrior, images: Tensor
) -> pcl.conditional.EmpiricalConditional:
    """Return the conditionals of the label given each image."""
    return _undisturbed(model.v_given_u, prior).condition(images)


def image_given_label(model: pcl.BimodalModel, images: Tensor) -> pcl.conditional.EmpiricalConditional:
    """Return the conditionals on these images given each label, a batch of ten."""
    return _undisturbed(model.u_given_v, pcl.EmpiricalPrior(images)).condition(LABELS)


def _undisturbed(conditional: Any, prior: pcl.EmpiricalPrior) -> pcl.conditional.Conditional:
    # A one-sided fit warns that its other conditional is arbitrary; showing just that is what this application is for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pcl.ProbclWarning)
        return conditional(prior)


def measure(fitted: Fitted, data: Split, seed: int) -> dict[str, str | float]:
    """Return one row of the table: how well each conditional of a model does on the test set."""
    model, test = fitted.model, data.test
    row: dict[str, str | float] = {"objective": fitted.objective, "re-gauge": "yes" if fitted.regauged else "no"}

    labels = label_given_image(model, label_prior(data.train.v), test.u)
    row["accuracy"] = pcl.diagnostics.accuracy(labels.probs, test.v)
    row["NLL"] = pcl.diagnostics.negative_log_likelihood(labels.logits, test.v)
    row["ECE"] = pcl.diagnostics.expected_calibration_error(labels.probs, test.v)

    to_label = pcl.retrieval.Library(model, v=LABELS)
    to_image = pcl.retrieval.Library(model, u=test.u)
    for k in (1, 5):
        row[f"label R@{k}"] = pcl.diagnostics.recall_at_k(to_label, test.u, k, query_labels=test.v, item_labels=LABELS)
        row[f"image R@{k}"] = pcl.diagnostics.recall_at_k(to_image, LABELS, k, query_labels=LABELS, item_labels=test.v)

    conditional = image_given_label(model, test.u)
    row["ESS"] = float(conditional.ess().mean())
    for count in (FEW, MANY):
        draws = pcl.generation.resample(conditional, count, seed=seed)
        row[f"purity of {count}"] = float((test.v[draws.indices] == LABELS).float().mean())
        row[f"distinct of {count}"] = float(draws.distinct.float().mean())
    return row
