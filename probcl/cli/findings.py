"""What the diagnostics find about a model on held-out pairs: numbers, figures and what they mean."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from probcl import diagnostics
from probcl.classification import zero_shot
from probcl.cli.folder import ModelFolder, other
from probcl.conditional.empirical import EmpiricalConditional
from probcl.datasets import Pairs
from probcl.diagnostics.figures import draw_histogram
from probcl.encoders import Label
from probcl.errors import ProbclWarning
from probcl.gauge import Side
from probcl.model import BimodalModel
from probcl.plotting import PALETTE
from probcl.priors import EmpiricalPrior
from probcl.retrieval import Library

# Conditions whose posteriors are drawn: enough for tests that see what matters, and quick.
_CONDITIONS = 500
_DRAWS = 500
_MOST_RETRIEVED = 50
# Of more components a figure with a curve for each says nothing.
_MOST_COMPONENTS = 8
# Fewer effective atoms say little of a posterior.
_FEW_ATOMS = 10
_LEVEL = 0.9
_SIGNIFICANCE = 0.05
_BINS = 10

TRAINING = "training"
UNANSWERED = "Not answered"
"""How the remark begins that says why."""

Figure = tuple[str, Callable[[Axes], object]]


@dataclass
class Finding:
    """One question about a model, and what the pairs say to it.

    Attributes
    ----------
    name, question
        Its short name, and the question.
    numbers
        By name; NaN where there is none. `reading` says what those that are p-values mean.
    figures
        Captions, and functions that draw into axes.
    remarks
        What to bear in mind: how to read it, warnings, or why it could not be answered.
    """

    name: str
    question: str
    numbers: dict[str, float] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def reading(name: str, value: float) -> str:
    """Say what a p-value means; nothing of other numbers."""
    if not name.startswith("p-value") or math.isnan(value):
        return ""
    return "nothing against it" if value >= _SIGNIFICANCE else f"under {_SIGNIFICANCE:.0%}: the pairs speak against it"


@dataclass(frozen=True)
class Subject:
    """What is looked at: a model, held-out pairs, and what fixes the draws."""

    folder: ModelFolder
    pairs: Pairs
    seed: int

    @property
    def model(self) -> BimodalModel:
        """The model."""
        return self.folder.model

    def values(self, side: Side) -> Tensor:
        """Return the pairs' values of a modality."""
        return self.pairs.u if side == "u" else self.pairs.v

    @property
    def n_classes(self) -> int | None:
        """The number of classes if v are labels."""
        encoder = self.model.encoder_v
        return encoder.n_classes if isinstance(encoder, Label) else None


def questions(subject: Subject) -> list[Callable[[], Finding]]:
    """Return the questions that make sense for a model, to be asked one after another."""
    asked: list[Callable[[Subject], Finding]] = [_training] if subject.folder.history else []
    asked += [_information, partial(_retrieval, side="u")]
    asked += [partial(_retrieval, side="v")] if subject.n_classes is None else [_classification]
    asked += [partial(_calibration, side="u")]
    asked += [partial(_calibration, side="v")] if subject.n_classes is None else []
    asked += [partial(_normaliser, over="u"), partial(_normaliser, over="v")]
    return [partial(_answered, question, subject) for question in asked]


def _answered(question: Callable[[Subject], Finding], subject: Subject) -> Finding:
    """Ask a question, with the package's warnings among the remarks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finding = question(subject)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, ProbclWarning)]
    finding.remarks += dict.fromkeys(told)
    return finding


def _training(subject: Subject) -> Finding:
    history = subject.folder.history or {}
    finding = Finding(TRAINING, "Did the training settle?")
    curves = {name: history.get(key) or [] for name, key in (("training", "loss"), ("validation", "validation_loss"))}
    known = {name: curve for name, curve in curves.items() if curve and all(value is not None for value in curve)}
    finding.numbers = {f"last {name} loss": curve[-1] for name, curve in known.items()}
    finding.figures.append(("loss after each epoch", partial(_draw_training, known)))
    finding.remarks.append("A validation loss that rises while the training loss falls is overfitting.")
    return finding


def _information(subject: Subject) -> Finding:
    finding = Finding("information", "How much dependence between u and v has the score found?")
    with _explaining(finding):
        found = diagnostics.mutual_information(subject.model, *subject.pairs)
        finding.numbers = {"I(u; v) at least, nats": float(found.value), "standard error": float(found.standard_error)}
        finding.remarks.append("A lower bound of the mutual information; no estimate exceeds the log of the batch.")
    return finding


def _retrieval(subject: Subject, side: Side) -> Finding:
    given = other(side)
    finding = Finding(f"retrieval of {side}", f"Is the {side} that belongs to a {given} found among the first k?")
    items, queries = subject.values(side), subject.values(given)
    item_labels, query_labels = None, None
    if subject.n_classes is not None:
        item_labels, queries = queries, queries.unique()
        query_labels = queries
        finding.question = "Are the first k that are found for a class of that class?"
    with _explaining(finding):
        library = Library(subject.model, u=items) if side == "u" else Library(subject.model, v=items)
        top = min(_MOST_RETRIEVED, len(items))
        found = diagnostics.recall(library, queries, top, query_labels=query_labels, item_labels=item_labels)
        finding.numbers = {f"recall at {k}": found.at(k) for k in (1, 5, 10, 50) if k <= top}
        finding.figures.append(("recall at k, with its 95% limits", found.plot))
    return finding


def _classification(subject: Subject) -> Finding:
    finding = Finding("classification", "Are the probabilities of the classes right?")
    u, labels = subject.pairs
    counts = labels.bincount(minlength=subject.n_classes or 0)
    with _explaining(finding):
        classifier = zero_shot(subject.model, torch.arange(len(counts)), counts / counts.sum())
        log_probs = classifier.log_prob(u)
        finding.numbers = {
            "accuracy": diagnostics.accuracy(log_probs, labels),
            "negative log-likelihood, nats": diagnostics.negative_log_likelihood(log_probs, labels),
            "expected calibration error": diagnostics.expected_calibration_error(log_probs.exp(), labels),
        }
        finding.figures.append(("accuracy against confidence", partial(_draw_reliability, log_probs.exp(), labels)))
        finding.remarks.append("The classes have the frequencies of these pairs as their prior.")
    return finding


def _calibration(subject: Subject, side: Side) -> Finding:
    """Half of the pairs are the bank, the other half conditions with their truth."""
    given = other(side)
    finding = Finding(f"calibration of {side} given {given}", "Does the truth lie where the posterior says it does?")
    targets, conditions = subject.values(side), subject.values(given)
    half = len(targets) // 2
    bank, truth, context = targets[:half], targets[half:][:_CONDITIONS], conditions[half:][:_CONDITIONS]
    with _explaining(finding):
        conditional = subject.folder.conditional(side, EmpiricalPrior(bank))
        posterior = cast(EmpiricalConditional, conditional.condition(context))
        drawn = posterior.sample_index((_DRAWS,), generator=torch.Generator().manual_seed(subject.seed))
        # All atoms have one weight, so that their log-probabilities are their log-ratios up to a constant.
        of_draws = posterior.logits.mT.gather(0, drawn) + math.log(half)
        regions = diagnostics.hpd_coverage(of_draws, posterior.log_ratio(truth), seed=subject.seed)
        low, high = regions.interval(_LEVEL)
        finding.numbers = {
            f"coverage of {_LEVEL:.0%} regions": float(regions.at(_LEVEL)),
            "lower 95% limit": float(low),
            "upper 95% limit": float(high),
            "p-value of coverage": float(regions.p_value),
        }
        finding.figures.append(("expected coverage of the regions of highest density ratio", regions.plot))
        if truth[0].numel() <= _MOST_COMPONENTS:
            ranks = diagnostics.sbc(bank[drawn], truth, seed=subject.seed)
            finding.numbers["p-value of ranks (SBC)"] = float(ranks.p_value)
            finding.figures.append(
                (
                    "distribution of the ranks of the worst component, less the uniform one",
                    partial(ranks.plot, kind="ecdf"),
                )
            )
        ess = posterior.ess()
        finding.numbers |= {"median effective atoms": float(ess.median()), "least effective atoms": float(ess.min())}
        finding.figures.append((f"effective atoms of {half} in the bank", partial(_draw_ess, ess)))
        finding.remarks.append(f"The bank is the first {half} pairs; {len(truth)} of the others are looked at.")
        if ess.median() < _FEW_ATOMS:
            finding.remarks.append("The bank is too small for posteriors this sharp: coverage tells of the bank, too.")
    return finding


def _normaliser(subject: Subject, over: Side) -> Finding:
    given = other(over)
    finding = Finding(f"normaliser over {over}", f"Is the mean of exp(score) over {over} one for every {given}?")
    half = subject.pairs.n_pairs // 2
    bank, rest = slice(half), slice(half, half + _CONDITIONS)
    u, v = subject.pairs.u[bank if over == "u" else rest], subject.pairs.v[rest if over == "u" else bank]
    v = v.unique() if over == "u" and subject.n_classes is not None else v
    with _explaining(finding):
        check = diagnostics.normalizer_check(subject.model, u, v, over=over)
        finding.numbers = {
            "error, nats": check.error,
            "p-value of one for all": check.p_value if check.trusted.any() else math.nan,
            "trusted part of estimates": float(check.trusted.double().mean()),
        }
        finding.figures.append(("log of the mean, less the constant that the loss leaves open", check.plot))
    return finding


@contextmanager
def _explaining(finding: Finding) -> Iterator[None]:
    """Let a diagnostic that refuses leave its reason as a remark."""
    try:
        yield
    except ValueError as error:
        finding.remarks.append(f"{UNANSWERED}: {error}")


def _draw_training(curves: dict[str, list[float]], ax: Axes) -> None:
    for color, (name, curve) in zip(PALETTE, curves.items(), strict=False):
        ax.plot(range(1, len(curve) + 1), curve, color=color, label=name, marker="." if len(curve) < 30 else "")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize=8)


def _draw_ess(ess: Float[Tensor, " B"], ax: Axes) -> None:
    logs = ess.double().clamp(min=1).log10()
    draw_histogram(ax, logs.numpy(), bins=20)
    ticks = range(math.floor(float(logs.min())), math.ceil(float(logs.max())) + 1)
    ax.set_xticks(list(ticks), [f"{10**tick:,}" for tick in ticks])
    ax.set(xlabel="effective number of atoms", ylabel="conditions")


def _draw_reliability(probs: Float[Tensor, "B K"], labels: Int[Tensor, " B"], ax: Axes) -> None:
    confidence, predicted = probs.max(1)
    place = (confidence * _BINS).long().clamp(max=_BINS - 1)
    right = (predicted == labels).float()
    bins = [place == number for number in range(_BINS) if (place == number).any()]
    x, y = ([float(values[chosen].mean()) for chosen in bins] for values in (confidence, right))
    sizes = [20 + 200 * float(chosen.float().mean()) for chosen in bins]
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=1)
    ax.plot(x, y, color=PALETTE[0], linewidth=1.2)
    ax.scatter(x, y, sizes, color=PALETTE[0])
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.05))
