"""What routes with nonlinear encoders have in common: the encoders, the contrastive loss, the temperature."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from probcl.assimilation.encoders import FieldEncoder, TrackTransformer
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.operators import LearnedOperator, track_information
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.routes.base import Route
from probcl.assimilation.tracking import Track, untracked
from probcl.diagnostics import recalibrate
from probcl.losses import ConditionalLoss, Loss
from probcl.model import BimodalModel
from probcl.randomness import seeded
from probcl.temperature import Temperature

_EMBEDDING = 64
# Scores of embeddings at the start are of order one, whatever their width.
_TEMPERATURE = _EMBEDDING**0.5


class ContrastiveRoute(Route):
    """Windows embedded by a perceptron and tracks by a transformer, aligned by the two-sided contrastive loss.

    It takes few steps on large batches, where a pair is told from a thousand others, with a high learning rate.
    Calibration refits the temperature; `spread` is by what factor.
    """

    settings: ClassVar[Mapping[str, Any]] = {
        "epochs": 24,
        "batch_size": 1024,
        "lr": 4e-3,
        "optimizer": "adamw",
        "schedule": "cosine",
        "clip_norm": 1.0,
    }

    @classmethod
    def build(
        cls, prior: FieldPrior, seed: int, context: bool = False, operator: LearnedOperator | None = None
    ) -> BimodalModel:
        sizes = np.sqrt(np.square(prior.modes).mean((1, 2, 3))).tolist()
        shape = prior.outlook.shape
        with seeded(seed):
            start = track_information(prior, operator) if context else None
            encoders = FieldEncoder(sizes, _EMBEDDING), TrackTransformer(shape, _EMBEDDING, context=start)
            return BimodalModel(*encoders, temperature=_TEMPERATURE, learn_temperature=True)

    @property
    def loss(self) -> Loss:
        return ConditionalLoss()

    def calibrate(
        self, held_out: WindowPairs, truth: Float[np.ndarray, "n 2 points"], track: Track = untracked
    ) -> None:
        ((self.model, found),) = (
            recalibrate(self.model, *pairs, loss=ConditionalLoss(2, 0))
            for pairs in track([held_out.pairs], "calibrating")
        )
        self.spread = found.temperature_after / found.temperature_before

    def calibrate_like(self, *others: Route) -> None:
        super().calibrate_like(*others)
        self.model.temperature = Temperature(self.spread * self.model.temperature.value)
