"""The choice between routes: which are worth training, and which to keep."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from probcl.assimilation import scores
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.routes import InformationRoute, RetrievalRoute, Route, SamplerRoute
from probcl.assimilation.tracking import Track, untracked
from probcl.errors import ProbclWarning

# Retrieval is for low-dimensional currents with an archive to match: over whole regions it falls to climatology.
_FEW_MODES = 40
_MANY_WINDOWS = 1000
_VARIANCE_HELD = 0.95
FEWEST_WINDOWS = 5.0
"""Equal members below which a posterior over the archive counts as collapsed."""

_MEMBERS = 40


@dataclass(frozen=True, eq=False)
class Trial:
    """A trained route and how it does on held-out windows.

    Attributes
    ----------
    route
        Trained and calibrated.
    crps
        In m/s.
    ess
        Median effective number of archive windows or draws behind a posterior, None where it is in closed form.
    """

    route: Route
    crps: float
    ess: float | None

    @classmethod
    def of(
        cls,
        route: Route,
        held_out: WindowPairs,
        truth: Float[np.ndarray, "n 2 points"],
        seed: int,
        track: Track = untracked,
    ) -> "Trial":
        """Analyse held-out windows and score them."""
        rng, count = np.random.default_rng(seed), min(route.trial_windows, len(truth))
        with warnings.catch_warnings():
            # A posterior that is not to be trusted counts by its score here.
            warnings.simplefilter("ignore", ProbclWarning)
            posteriors = [route.analyse(held_out.tokens[[k]], _MEMBERS, rng) for k in track(range(count), "checking")]
        members = np.stack([posterior.members for posterior in posteriors]).reshape(count, _MEMBERS, -1)
        crps = float(scores.fair_crps(members, truth[:count].reshape(count, -1), None).mean())
        sizes = [posterior.effective_sample_size for posterior in posteriors]
        return cls(route, crps, None if None in sizes else float(np.median(np.array(sizes, float))))


def modes_holding(prior: FieldPrior, part: float = _VARIANCE_HELD) -> int:
    """Return how many modes hold this part of the variance; all of them, and one more, if they hold less."""
    power = np.square(prior.modes).sum((1, 2, 3))
    rest = np.square(prior.unresolved).sum() * len(prior.lags)
    return int(np.searchsorted(np.cumsum(power) / (power.sum() + rest), part)) + 1


def worth_trying(prior: FieldPrior, train: WindowPairs) -> list[str]:
    """Return the routes to train: the information form always, retrieval for few modes and many windows.

    The sampler is never among them: it would train retrieval's encoders once more and take a hundred times as long for
    an analysis.
    """
    windows = len(train.first_of_each)
    retrieval = modes_holding(prior) <= _FEW_MODES and windows >= _MANY_WINDOWS
    return [InformationRoute.name, *([RetrievalRoute.name] if retrieval else [])]


def choose(trials: Sequence[Trial]) -> tuple[Trial, dict[str, Any]]:
    """Return the trial of lowest CRPS among those that do not rest on a handful of windows, and what decided."""
    sound = [trial for trial in trials if trial.ess is None or trial.ess >= FEWEST_WINDOWS] or trials
    best = min(sound, key=lambda trial: trial.crps)
    tried = {trial.route.name: {"crps": trial.crps, "ess": trial.ess} for trial in trials}
    prior = trials[0].route.prior
    enough = modes_holding(prior)
    held = f"{enough} modes hold" if enough <= prior.rank else f"all {prior.rank} modes do not hold"
    why = f"lowest CRPS on held-out windows of {', '.join(tried)}; {held} {_VARIANCE_HELD:.0%} of the variance"
    collapsed = [trial.route.name for trial in trials if trial not in sound]
    if collapsed:
        why += f"; {', '.join(collapsed)} left out, as half of its posteriors rest on under {FEWEST_WINDOWS:g} windows"
    if SamplerRoute.name not in tried:
        why += "; the sampler, slower than retrieval by far, is tried only when asked for"
    return best, {"method": best.route.name, "tried": tried, "why": why}
