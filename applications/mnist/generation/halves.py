"""A second pairing, of two image modalities: the upper half of a digit and its lower half, each given the other."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import probcl as pcl
from applications.mnist.experiment import with_shifts
from applications.mnist.generation.config import Config
from applications.mnist.generation.judge import Judge
from applications.mnist.generation.measures import timed
from applications.seeding import seeded
from applications.tables import Row
from probcl.datasets import Pairs, Split
from probcl.generation import ImagePrior, fit_image_prior

TRUE = "the true ones"


class HalfModels(NamedTuple):
    """A contrastive model of (lower, upper) halves, and a prior for either half."""

    model: pcl.BimodalModel
    lower: ImagePrior
    upper: ImagePrior


class Direction(NamedTuple):
    """One half given the other: the conditional's maker, the priors to tilt, and how to put a digit together."""

    name: str
    conditional: Callable[..., pcl.conditional.Conditional]
    prior: ImagePrior
    bank: Tensor
    given: Tensor
    missing: Tensor
    whole: Callable[[Tensor, Tensor], Tensor]


class Completed(NamedTuple):
    """Test digits with halves that were drawn for them, shape (S, B, *image_shape), and their row of the table."""

    direction: str
    method: str
    digits: Tensor
    row: Row


def split(images: Tensor) -> Pairs:
    """Cut images in two: u the lower halves, v the upper ones."""
    middle = images.shape[-2] // 2
    return Pairs(images[..., middle:, :].contiguous(), images[..., :middle, :].contiguous())


def joined(upper: Tensor, lower: Tensor) -> Tensor:
    """Put halves together."""
    return torch.cat([upper, lower], dim=-2)


def fit_halves(data: Split, config: Config) -> HalfModels:
    """Fit the two-sided contrastive model of the halves, and their priors. No label is used.

    The temperature is learned, then refitted to validation pairs, as training pairs are told apart too well.
    """
    seed, channels = config.seed, data.train.u.shape[1]
    with seeded(seed):
        of_lower, of_upper = (
            pcl.encoders.ResidualConvNet(in_channels=channels, **config.halves.encoder) for _ in range(2)
        )
    model = pcl.BimodalModel(of_lower, of_upper, pcl.Cosine(), temperature=0.1, learn_temperature=True)
    validation = split(data.validation.u)
    pairs = split((with_shifts(data.train) if config.shifted else data.train).u)
    pcl.fit(
        model,
        pairs,
        optimizer="adamw",
        schedule="cosine",
        validation=validation,
        seed=seed,
        **config.halves.training,
    )
    model, _ = pcl.diagnostics.recalibrate(model, *validation)
    own = split(data.train.u)
    lower, upper = (
        fit_image_prior(images, latent_images=originals, seed=seed, **config.halves.prior)
        for images, originals in zip(pairs, own, strict=True)
    )
    return HalfModels(model, lower, upper)


def directions(models: HalfModels, data: Split, count: int) -> Iterator[Direction]:
    """Yield both, for the first test images."""
    model, bank, test = models.model, split(data.train.u), split(data.test.u[:count])
    yield Direction("upper → lower", model.u_given_v, models.lower, bank.u, test.v, test.u, joined)
    yield Direction(
        "lower → upper", model.v_given_u, models.upper, bank.v, test.u, test.v, lambda given, half: joined(half, given)
    )


def complete(direction: Direction, labels: Tensor, judge: Judge, config: Config) -> Iterator[Completed]:
    """Draw the missing halves in three ways, and fill a row for each and for the true ones."""
    for method, draw in _methods(direction, config).items():
        halves, seconds = timed(draw, config.seed, repeats=1)
        score = pcl.diagnostics.energy_score(halves, direction.missing, fair=True)
        measured = {
            "energy score": float(score.mean),
            "± s.e.": float(score.standard_error),
            "ms/image": 1000 * seconds / (halves.shape[0] * halves.shape[1]),
        }
        yield _completed(direction, method, halves, labels, judge, measured)
    blank = {"energy score": "–", "± s.e.": "–", "ms/image": "–"}
    yield _completed(direction, TRUE, direction.missing[None], labels, judge, blank)


def _methods(direction: Direction, config: Config) -> dict[str, Callable[[], Tensor]]:
    draws, sampler = config.halves.draws, pcl.samplers.ImportanceResampling(config.halves.proposals)

    def tilted() -> Tensor:
        return direction.conditional(direction.prior, sampler=sampler).condition(direction.given).sample((draws,))

    def from_bank() -> Tensor:
        bank = direction.conditional(pcl.EmpiricalPrior(direction.bank))
        return pcl.generation.resample(bank.condition(direction.given), draws).values

    def untilted() -> Tensor:
        return direction.prior.sample((draws, len(direction.given)))

    return {"prior tilted": tilted, "training halves resampled": from_bank, "prior not tilted": untilted}


def _completed(
    direction: Direction, method: str, halves: Tensor, labels: Tensor, judge: Judge, measured: Row
) -> Completed:
    digits = direction.whole(direction.given.expand(len(halves), *direction.given.shape), halves)
    purity = judge.accuracy(Pairs(digits.flatten(0, 1), labels.repeat(len(halves))))
    row = {"given → drawn": direction.name, "halves": method, "purity": purity, **measured}
    return Completed(direction.name, method, digits, row)
