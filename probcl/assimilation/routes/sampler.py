"""The sampler: the nonlinear encoders tilt a prior on currents, and Monte Carlo draws from what results."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probcl.assimilation.baselines.base import Posterior
from probcl.assimilation.decoder import FieldDecoderPrior, fit_decoder
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.routes.contrastive import ContrastiveRoute
from probcl.assimilation.routes.information import standard_normal
from probcl.conditional import TiltedConditional
from probcl.generation.latent import fit_mixture, mixture, parameters
from probcl.model import BimodalModel
from probcl.priors import DistributionPrior, Prior
from probcl.samplers import CrankNicolson, Draws, Sampler, TemperedSMC
from probcl.training import History

Law = Literal["decoder", "mixture", "gaussian"]

_COMPONENTS = 20
# Mean and standard deviation rest on as many draws, if fewer members are asked for.
_DRAWS = 512


class SamplerRoute(ContrastiveRoute):
    """The posterior by tempered sequential Monte Carlo, under a prior learned from the archive.

    The encoders are those of retrieval; members are new currents and not days of the archive. The prior, of x in the
    modes, is the `law` given to `train`: ``"decoder"`` (`fit_decoder`, the default), ``"mixture"`` of Gaussians, or
    ``"gaussian"``, N(0, I). Draws that the sampler does not trust make a warning, which is recorded with the analysis.

    Attributes
    ----------
    law
        Which prior.
    sampler
        How the posterior is drawn from; any of `probcl.samplers` may take its place.

    Examples
    --------
    >>> from probcl.assimilation.routes import SamplerRoute
    >>> SamplerRoute.name  # Assimilator.fit(archive, ..., method="sampler")
    'sampler'
    >>> SamplerRoute.settings["batch_size"]
    1024
    """

    name = "sampler"
    trial_windows = 20

    fields: Prior

    def __init__(self, prior: FieldPrior, model: BimodalModel) -> None:
        super().__init__(prior, model)
        self.law: Law = "decoder"
        self.sampler: Sampler = TemperedSMC(num_particles=2048, num_islands=16, move=CrankNicolson(repeats=8))
        self._seed = 0

    def train(
        self, pairs: WindowPairs, validation: WindowPairs | None = None, *, law: Law = "decoder", **settings: Any
    ) -> History:
        if law not in ("decoder", "mixture", "gaussian"):
            raise ValueError(f"law must be 'decoder', 'mixture' or 'gaussian', got {law!r}")
        self.law, self._seed = law, settings.get("seed", 0)
        return super().train(pairs, validation, **settings)

    def remember(self, pairs: WindowPairs) -> None:
        x = pairs.x[pairs.first_of_each]
        if self.law == "decoder":
            self.fields = fit_decoder(x, seed=self._seed)
        elif self.law == "mixture":
            self.fields = DistributionPrior(fit_mixture(x, min(_COMPONENTS, len(x)), self._seed))
        else:
            self.fields = standard_normal(self.prior.rank)

    @property
    def memory(self) -> dict[str, Tensor]:
        if isinstance(self.fields, FieldDecoderPrior):
            return self.fields.tensors
        return parameters(cast(Any, self.fields.latent)) if self.law == "mixture" else {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        if not memory:
            self.law, self.fields = "gaussian", standard_normal(self.prior.rank)
        elif "means" in memory:
            self.law, self.fields = "mixture", DistributionPrior(mixture(**memory))
        else:
            self.law, self.fields = "decoder", FieldDecoderPrior.of_tensors(memory)

    def analyse(self, tokens: Float[Tensor, "1 tokens width"], members: int, rng: np.random.Generator) -> Posterior:
        law = cast(TiltedConditional, self.model.u_given_v(self.fields, sampler=self.sampler).condition(tokens))
        draws = law.draw(max(members, _DRAWS), seed=int(rng.integers(2**63)))
        with torch.no_grad():
            x = self.fields.decode(draws.z)[:, 0].double().numpy()
        rest = self._unresolved
        drawn = x[:members] + rest * rng.standard_normal((members, self.prior.rank))
        return Posterior(
            members=self.prior.decode(drawn),
            mean=self.prior.decode(x.mean(0)),
            stddev=np.sqrt(self.prior.variance(np.cov(x.T) + np.diag(rest**2)) + self.prior.unresolved**2),
            effective_sample_size=float(draws.ess[0]),
            warning=_warning(draws),
        )

    @property
    def _unresolved(self) -> Float[np.ndarray, " rank"]:
        """Standard deviation of what the prior on x leaves out of it."""
        if isinstance(self.fields, FieldDecoderPrior):
            return self.fields.unresolved.double().numpy()
        return np.zeros(self.prior.rank)


def _warning(draws: Draws) -> str:
    return (
        ""
        if bool(draws.trusted[0])
        else f"draws by {draws.method} are not to be trusted: {draws.report(~draws.trusted)}"
    )
