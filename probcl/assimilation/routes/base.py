"""What routes from tracks to a posterior have in common: a fitted `BimodalModel`, and its conditional.

u are windows of currents in the modes of a `FieldPrior`, v the tokens of tracks. A route builds the model, trains it,
is calibrated on held-out pairs, and analyses the tokens of one window.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from statistics import geometric_mean
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from probcl.assimilation.baselines.base import Posterior
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.operators import LearnedOperator
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.tracking import Track, untracked
from probcl.losses import Loss
from probcl.model import BimodalModel
from probcl.samplers import Sampler
from probcl.training import History, fit

# Part of the training in which the learning rate rises.
_WARMUP = 0.05


class Route(ABC):
    """One way to a posterior.

    Parameters
    ----------
    prior
        Of the currents.
    model
        As `build` makes it, or as it was saved.

    Examples
    --------
    >>> from probcl.assimilation.routes import ROUTES, Route
    >>> sorted(name for name, route in ROUTES.items() if issubclass(route, Route))  # the methods of Assimilator.fit
    ['information', 'retrieval', 'sampler']
    """

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]]
    trial_windows: ClassVar[int] = 100
    """On how many held-out windows it is compared with other routes, at most."""
    sampler: Sampler | None = None
    """What the posterior is drawn with, where it is not in closed form."""

    def __init__(self, prior: FieldPrior, model: BimodalModel) -> None:
        self.prior, self.model = prior, model
        self.spread = 1.0

    @classmethod
    @abstractmethod
    def build(
        cls, prior: FieldPrior, seed: int, context: bool = False, operator: LearnedOperator | None = None
    ) -> BimodalModel:
        """Return an untrained model.

        With `context` its encoder of tracks starts from optimal interpolation's mean. What segments see of the modes is
        the prior's, or an operator's that was learned.
        """

    @property
    @abstractmethod
    def loss(self) -> Loss:
        """What the model is trained with."""

    def train(self, pairs: WindowPairs, validation: WindowPairs | None = None, **settings: Any) -> History:
        """Train on pairs; `settings` of `probcl.fit` take the place of the route's own."""
        chosen = {**self.settings, **settings}
        chosen.setdefault("warmup", _WARMUP * chosen["epochs"])
        held_out = None if validation is None else validation.pairs
        return fit(self.model, pairs.pairs, self.loss, validation=held_out, **chosen)

    @abstractmethod
    def calibrate(
        self, held_out: WindowPairs, truth: Float[np.ndarray, "n 2 points"], track: Track = untracked
    ) -> None:
        """Make the posterior as wide as the errors of its mean are, on windows that it was not trained on.

        `spread` says by what factor; `track` tells how far it has come.
        """

    def calibrate_like(self, *others: "Route") -> None:
        """Take the correction that calibration found for routes trained as this one, each on part of the archive."""
        self.spread = geometric_mean(other.spread for other in others)

    @abstractmethod
    def analyse(self, tokens: Float[Tensor, "1 tokens width"], members: int, rng: np.random.Generator) -> Posterior:
        """Return the posterior given the tokens of one window."""

    def remember(self, pairs: WindowPairs) -> None:
        """Keep what of the training pairs the posterior is made of."""
        del pairs

    @property
    def memory(self) -> dict[str, Tensor]:
        """What `remember` kept, to be saved."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take back what was saved."""
        del memory
