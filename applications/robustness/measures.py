"""What a fit to shuffled pairs is worth on clean ones: retrieval, and whether its conditionals can be believed."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

import probcl as pcl
from applications.robustness.experiment import Setting
from applications.tables import Row
from probcl.datasets import Pairs
from probcl.diagnostics import Uniformity

REGION = 0.9


class Conditionals(NamedTuple):
    """What ν(u|v) and ν(v|u), on the bank of held-out items, say of the true partners of held-out pairs."""

    nll: float
    ece: float
    masses: Uniformity  # of the smallest region with the true partner in it, (B, 1)

    @property
    def coverage(self) -> float:
        """How often the 90% region holds the true partner."""
        return float((self.masses.values <= REGION).double().mean())


class Outcome(NamedTuple):
    """What one fit has learned, measured on clean held-out pairs."""

    setting: Setting
    recall: float
    before: Conditionals
    after: Conditionals
    temperature_after: float


def measure(setting: Setting, model: pcl.BimodalModel, test: Pairs) -> Outcome:
    """Measure a fit; each half of the test pairs is judged with the temperature refitted on the other."""
    u, v = test
    recalls = [
        pcl.diagnostics.recall_at_k(pcl.retrieval.Library(model, u=u), v),
        pcl.diagnostics.recall_at_k(pcl.retrieval.Library(model, v=v), u),
    ]
    halves = torch.arange(test.n_pairs).tensor_split(2)
    refitted = [recalibrated(model, test.take(half)) for half in reversed(halves)]
    return Outcome(
        setting,
        sum(recalls) / 2,
        conditionals([model, model], halves, test),
        conditionals(refitted, halves, test),
        math.sqrt(math.prod(other.temperature.value for other in refitted)),
    )


def recalibrated(model: pcl.BimodalModel, pairs: Pairs) -> pcl.BimodalModel:
    """Return the model with its temperature refitted by the conditional likelihood."""
    with warnings.catch_warnings():
        # A model that has collapsed tells no pairs apart, at any temperature: the table shows it.
        warnings.simplefilter("ignore", pcl.ProbclWarning)
        return pcl.diagnostics.recalibrate(model, *pairs)[0]


def conditionals(models: Sequence[pcl.BimodalModel], parts: Sequence[Tensor], test: Pairs) -> Conditionals:
    """Ask models for both conditionals of their parts of the test pairs, on the bank of all of them."""
    logits, partners = [], []
    for model, part in zip(models, parts, strict=True):
        for conditional, bank, given in ((model.u_given_v, test.u, test.v), (model.v_given_u, test.v, test.u)):
            logits.append(_conditional(conditional, bank).condition(given[part]).logits)
            partners.append(part)
    return judged(torch.cat(logits), torch.cat(partners), seed=0)


def judged(logits: Float[Tensor, "B N"], partners: Int[Tensor, " B"], seed: int) -> Conditionals:
    """Judge conditionals on a bank by the positions of the true partners."""
    return Conditionals(
        nll=pcl.diagnostics.negative_log_likelihood(logits, partners),
        ece=pcl.diagnostics.expected_calibration_error(logits.exp(), partners),
        masses=Uniformity(region_masses(logits.exp(), partners, seed)[:, None]),
    )


def region_masses(probs: Float[Tensor, "B N"], partners: Int[Tensor, " B"], seed: int) -> Float[Tensor, " B"]:
    """Return the mass of the items more probable than the true partner, and a random part of those as probable.

    If the true partner is a draw of its conditional this is uniform: the transform behind highest-density regions.
    """
    probs = probs.double()
    own = probs.gather(1, partners[:, None])
    above = torch.where(probs > own, probs, 0).sum(1)
    tied = torch.where(probs == own, probs, 0).sum(1)
    uniform = torch.rand(len(probs), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (above + uniform * tied).clamp(max=1)


def _conditional(conditional: Callable[[object], pcl.conditional.Conditional], bank: Tensor) -> Any:
    with warnings.catch_warnings():
        # RINCE warns that its score is no log ratio: by how much it misleads is what is measured here.
        warnings.simplefilter("ignore", pcl.ProbclWarning)
        return conditional(pcl.EmpiricalPrior(bank))


def best(outcomes: Sequence[Outcome], loss: str, noise: float) -> list[Outcome]:
    """Return the outcomes of a loss at its best temperature for this noise: that of the highest mean recall."""
    groups: dict[float, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.setting.loss == loss and outcome.setting.noise == noise:
            groups.setdefault(outcome.setting.temperature, []).append(outcome)
    return max(groups.values(), key=lambda group: mean([outcome.recall for outcome in group]))


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def row(group: list[Outcome]) -> Row:
    """Return a row of the table: means over seeds of one setting."""
    first = group[0].setting
    return {
        "shuffled": f"{first.noise:.0%}",
        "loss": first.loss,
        "τ": first.temperature,
        "R@1": mean([outcome.recall for outcome in group]),
        "NLL": mean([outcome.before.nll for outcome in group]),
        "ECE": mean([outcome.before.ece for outcome in group]),
        "90% region": mean([outcome.before.coverage for outcome in group]),
        "refitted τ": mean([outcome.temperature_after for outcome in group]),
        "NLL after": mean([outcome.after.nll for outcome in group]),
        "ECE after": mean([outcome.after.ece for outcome in group]),
        "90% after": mean([outcome.after.coverage for outcome in group]),
    }
