"""How routes are trained and judged: what `Assimilator.fit` does with a part of an archive."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from probcl.assimilation.archive import Archive
from probcl.assimilation.choice import Trial, choose, worth_trying
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.holdout import Holdout
from probcl.assimilation.lessons import MODES, Lessons
from probcl.assimilation.mosaics import source_of
from probcl.assimilation.pairs import Campaign, WindowPairs, simulate_pairs, truths
from probcl.assimilation.routes import ROUTES, Route
from probcl.assimilation.tracking import Track

_HELD_OUT_PAIRS = 1000


class Check(NamedTuple):
    """Pairs that were not trained on, and the maps that they are about."""

    pairs: WindowPairs
    truth: Float[np.ndarray, "n 2 points"]


@dataclass(frozen=True, eq=False)
class Course:
    """The arguments of `Assimilator.fit` that hold for whatever part of the archive is learned from."""

    campaign: Campaign
    patch: int | tuple[int, int] | None
    stride: int | None
    prior: str | FieldPrior
    rank: int | None
    maps: int
    pairs: int
    context: bool
    operator: str
    checkpoint: str | Path | None
    resume: bool
    seed: int
    track: Track
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.operator not in ("given", "learned"):
            raise ValueError(f"operator must be 'given' or 'learned', got {self.operator!r}")
        if self.stride is not None and self.patch is None:
            raise ValueError(f"stride must be None where there are no patches, got {self.stride} and patch=None")

    @property
    def modes(self) -> int:
        """Modes that were asked for."""
        return self.prior.rank if isinstance(self.prior, FieldPrior) else self.rank or MODES

    def lessons(self, archive: xr.Dataset) -> Lessons:
        """Return what there is to learn in a part of the archive."""
        shared = ("campaign", "patch", "stride", "prior", "rank", "maps", "pairs", "seed", "track")
        return Lessons.of(archive, **{name: getattr(self, name) for name in shared})

    def check(self, lessons: Lessons, aside: xr.Dataset) -> Check:
        """Return pairs of a part that was held out, in the modes of the lessons."""
        source = source_of(aside, self.patch)
        held = Archive.of(source.archive)
        count = min(_HELD_OUT_PAIRS, self.pairs)
        pairs = simulate_pairs(source, lessons.prior, self.campaign, count, self.seed + 1, held, self.track)
        return Check(pairs, truths(held, pairs))

    def train(self, name: str, lessons: Lessons, validation: WindowPairs | None = None, again: str = "") -> Route:
        """Return a route that has learned its lessons; `again` tells the checkpoints of several trainings apart."""
        operator = lessons.operator if self.operator == "learned" else None
        route = ROUTES[name](lessons.prior, ROUTES[name].build(lessons.prior, self.seed, self.context, operator))
        stem: dict[str, Any] = {}
        if self.checkpoint is not None:
            # The operator is not among what a checkpoint compares.
            told = "" if self.operator == "given" else f"-{self.operator}"
            stem = {"checkpoint": Path(f"{self.checkpoint}.{name}{told}{again}"), "resume": self.resume}
        route.train(lessons.pairs, validation, seed=self.seed, **stem, **self.training)
        route.remember(lessons.pairs)
        return route

    def best(self, method: str, lessons: Lessons, check: Check) -> tuple[Route, dict[str, Any]]:
        """Return the route asked for, or the best of those worth trying, calibrated, and what decided."""
        trials = []
        for name in [method] if method != "auto" else worth_trying(lessons.prior, lessons.pairs):
            route = self.train(name, lessons, check.pairs)
            route.calibrate(*check, self.track)
            trials.append(Trial.of(route, *check, self.seed, self.track))
        best, why = choose(trials)
        return best.route, why

    def refit(self, first: Route, whole: xr.Dataset, opposite: Holdout) -> tuple[Route, Lessons]:
        """Train a route once more on the whole, as calibrated at both ends: at the archive's end, and at its beginning.

        Currents may be calmer at the one than at the other.
        """
        lessons = self.lessons(opposite.train)
        second = self.train(first.name, lessons, again="-first")
        second.calibrate(*self.check(lessons, opposite.held_out), self.track)
        lessons = self.lessons(whole)
        route = self.train(first.name, lessons, again="-refit")
        route.calibrate_like(first, second)
        return route, lessons

    def told(self, lessons: Lessons) -> dict[str, Any]:
        """Return what of the course is kept in a record, as JSON values."""
        operator: dict[str, Any] = {"operator": self.operator}
        if self.operator == "learned":
            operator |= {"smoothness": lessons.operator.smoothness, "error": lessons.operator.error}
        return {"seed": self.seed, "pairs": self.pairs, "stride": self.stride, "operator": operator}
