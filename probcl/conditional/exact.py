"""Conditionals that are drawn from independently and exactly, and whose normaliser is known."""

from collections.abc import Iterable
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probcl.checks import require_count
from probcl.conditional.distribution import FROZEN_DRAWS, FROZEN_SEED, TiltedDistribution
from probcl.randomness import seeded
from probcl.samplers import Draws


class ExactConditional(TiltedDistribution):
    """What conditionals in closed form answer to the questions that one by a sampler is asked."""

    def _sample_latent(self, sample_shape: Iterable[int]) -> Shaped[Tensor, "*shape"]:
        """Draw the prior's latent variables, shape (*sample_shape, *batch_shape, *latent_event)."""
        raise NotImplementedError

    @property
    def log_normalizer_se(self) -> Float[Tensor, "*batch"]:
        """Zero: the normaliser is exact."""
        return torch.zeros_like(self.log_normalizer)

    def draw(self, num_samples: int, *, seed: int | None = None) -> Draws:
        require_count("num_samples", num_samples)
        with seeded(seed), torch.no_grad():
            z = self._sample_latent((num_samples,))
        log_evidence = self.log_normalizer.detach().flatten()
        return Draws(
            z=z.flatten(1, len(self.batch_shape)) if self.batch_shape else z[:, None],
            ess=torch.full_like(log_evidence, num_samples),
            trusted=torch.ones_like(log_evidence, dtype=torch.bool),
            method="exact",
            log_evidence=log_evidence,
            log_evidence_se=torch.zeros_like(log_evidence),
            reason="the conditional is known in closed form",
        )

    @cached_property
    def diagnosis(self) -> Draws:
        """Draws of a fixed seed; the moments do not rest on them."""
        return self.draw(FROZEN_DRAWS, seed=FROZEN_SEED)

    def ess(self) -> Float[Tensor, "*batch"]:
        """∞: the moments are exact."""
        return torch.full_like(self.log_normalizer, torch.inf)

    def unnormalized_log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        log_prob = self.log_prob(value)
        return log_prob + self.log_normalizer.to(log_prob)
