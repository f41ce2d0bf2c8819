"""The analysis in information form: closed form, for whole regions."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probcl.assimilation.baselines.base import Posterior
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.operators import LearnedOperator, track_information
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.routes.base import Route
from probcl.assimilation.tracking import Track, untracked
from probcl.conditional import Conditional
from probcl.information import GaussianConditionalLoss, QuadraticFeatures
from probcl.losses import Loss
from probcl.model import BimodalModel
from probcl.priors import GaussianPrior
from probcl.randomness import seeded

# The spread is sought within this factor of the model's own.
_WIDEST = 3.0


class InformationRoute(Route):
    """The posterior in closed form: Gaussian in the modes, with a sum over segments as its information.

    Trained by the exact conditional loss, without negatives. Members are draws of the Gaussian plus the prior's
    unresolved part.

    Examples
    --------
    >>> from probcl.assimilation.routes import InformationRoute
    >>> InformationRoute.name  # Assimilator.fit(archive, ..., method="information")
    'information'
    >>> InformationRoute.settings["batch_size"]
    32
    """

    name = "information"
    settings: ClassVar[Mapping[str, Any]] = {
        "epochs": 3,
        "batch_size": 32,
        "lr": 1e-2,
        "schedule": "cosine",
        "clip_norm": 10.0,
    }

    @classmethod
    def build(
        cls, prior: FieldPrior, seed: int, context: bool = False, operator: LearnedOperator | None = None
    ) -> BimodalModel:
        del context  # the encoder is optimal interpolation itself, before training
        with seeded(seed):
            return BimodalModel(QuadraticFeatures.of(standard_normal(prior.rank)), track_information(prior, operator))

    @property
    def loss(self) -> Loss:
        return GaussianConditionalLoss()

    def calibrate(
        self, held_out: WindowPairs, truth: Float[np.ndarray, "n 2 points"], track: Track = untracked
    ) -> None:
        error, variance = 0.0, 0.0
        for start in track(range(0, len(truth), 16), "calibrating"):
            law = self._conditional.condition(held_out.tokens[start : start + 16])
            mean = self.prior.decode(law.mean.numpy())
            error += float(np.square(truth[start : start + 16] - mean).sum())
            variance += float(self.prior.variance_of_root(law.covariance_root.numpy()).sum())
        unresolved = float(np.square(self.prior.unresolved).sum()) * len(truth)
        ratio = max(error - unresolved, error / _WIDEST**2) / variance
        self.spread = float(np.clip(np.sqrt(ratio), 1 / _WIDEST, _WIDEST))

    def analyse(self, tokens: Float[Tensor, "1 tokens width"], members: int, rng: np.random.Generator) -> Posterior:
        law = self._conditional.condition(tokens)
        mean = law.mean.numpy()
        with seeded(int(rng.integers(2**63))):
            drawn = mean + self.spread * (law.sample((members,)).numpy() - mean)
        maps = self.prior.decode(drawn[:, 0])
        maps += self.prior.unresolved.astype(maps.dtype) * rng.standard_normal(maps.shape, dtype=maps.dtype)
        variance = (
            self.spread**2 * self.prior.variance_of_root(law.covariance_root.numpy())[0] + self.prior.unresolved**2
        )
        return Posterior(members=maps, mean=self.prior.decode(mean)[0], stddev=np.sqrt(variance))

    @cached_property
    def _conditional(self) -> Conditional:
        return self.model.u_given_v(standard_normal(self.prior.rank))


def standard_normal(rank: int) -> GaussianPrior:
    """Return N(0, I), the prior of currents in their modes."""
    return GaussianPrior.from_scale(torch.zeros(rank), torch.eye(rank))
