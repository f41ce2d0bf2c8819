"""Retrieval: the archive's own windows, weighed by how well they fit the tracks."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probcl.assimilation.baselines.base import Posterior
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.routes.contrastive import ContrastiveRoute
from probcl.assimilation.tracking import Track, untracked
from probcl.conditional import Conditional
from probcl.conditional.empirical import EmpiricalConditional
from probcl.priors import EmpiricalPrior
from probcl.randomness import seeded


class RetrievalRoute(ContrastiveRoute):
    """The posterior over the archive's own windows: each member is a day of the archive.

    Members are drawn by their posterior weights, so that they are equally likely afterwards.

    Examples
    --------
    >>> from probcl.assimilation.routes import RetrievalRoute
    >>> RetrievalRoute.name  # Assimilator.fit(archive, ..., method="retrieval")
    'retrieval'
    >>> RetrievalRoute.settings["batch_size"]
    1024
    """

    name = "retrieval"

    bank: Tensor
    days: Tensor
    _conditional: Conditional | None = None

    def remember(self, pairs: WindowPairs) -> None:
        first = pairs.first_of_each
        self.recall({"bank": pairs.x[first], "days": torch.from_numpy(pairs.index[first])})

    @property
    def memory(self) -> dict[str, Tensor]:
        return {"bank": self.bank, "days": self.days}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        self.bank, self.days, self._conditional = memory["bank"], memory["days"], None

    def calibrate(
        self, held_out: WindowPairs, truth: Float[np.ndarray, "n 2 points"], track: Track = untracked
    ) -> None:
        super().calibrate(held_out, truth, track)
        self._conditional = None

    @property
    def conditional(self) -> Conditional:
        """The posterior's family, made once: a whole archive is embedded for it."""
        if self._conditional is None:
            self._conditional = self.model.u_given_v(EmpiricalPrior(self.bank))
        return self._conditional

    def analyse(self, tokens: Float[Tensor, "1 tokens width"], members: int, rng: np.random.Generator) -> Posterior:
        law = cast(EmpiricalConditional, self.conditional.condition(tokens))
        with seeded(int(rng.integers(2**63))):
            chosen = law.sample_index((members,))[:, 0]
        return Posterior(
            members=self.prior.decode(self.bank[chosen].numpy()),
            mean=self.prior.decode(law.mean[0].numpy()),
            stddev=np.sqrt(self.prior.variance(law.covariance[0].numpy()) + self.prior.unresolved**2),
            archive_index=self.days[chosen].numpy(),
            effective_sample_size=float(law.ess()[0]),
        )
