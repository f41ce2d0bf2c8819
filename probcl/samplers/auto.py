"""`AutoSampler`: the cheapest sampler that can be trusted, chosen for each condition by its diagnostics."""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from probcl.checks import require_count
from probcl.samplers.base import MAX_LOG_EVIDENCE_SE, MIN_ESS, Draws, Sampler, Target, name_conditions
from probcl.samplers.importance import ImportanceResampling
from probcl.samplers.mcmc import NUTS
from probcl.samplers.smc import TemperedSMC
from probcl.samplers.weights import k_hat_threshold

_MISSED_MASS_LEVEL = 0.02


class AutoSampler(Sampler):
    """Importance resampling first; tempered SMC where it fails; NUTS where that fails too.

    A stage hands a condition on when its own diagnostics do not pass; importance resampling also when its effective
    sample size is less than half of the draws asked for (or half of SMC's particles, if these are fewer), as SMC would
    then serve better. SMC is not trusted either where importance resampling found far more evidence than it did.
    `Draws.reason` says which conditions went how far, the worst of their diagnostics, and what these were held to. What
    NUTS draws keeps SMC's estimate of the evidence, and what no stage can be trusted for keeps the draws of SMC.

    Parameters
    ----------
    importance, smc, nuts
        The stages.
    max_nuts_conditions
        NUTS is tried for no more conditions than this: it is the slowest stage, and needs the score's gradient.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0), sampler=pcl.samplers.AutoSampler())
    >>> draws = nu.condition(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).draw(500, seed=0)
    >>> draws.method, draws.trusted
    ('importance resampling', tensor([True, True]))
    """

    advice = "No sampler passed its own diagnostics: see TemperedSMC(num_particles=...) and Draws.reason"

    def __init__(
        self,
        importance: ImportanceResampling | None = None,
        smc: TemperedSMC | None = None,
        nuts: NUTS | None = None,
        *,
        max_nuts_conditions: int = 16,
    ) -> None:
        self.importance = ImportanceResampling() if importance is None else importance
        self.smc = TemperedSMC() if smc is None else smc
        self.nuts = NUTS() if nuts is None else nuts
        self.max_nuts_conditions = require_count("max_nuts_conditions", max_nuts_conditions, minimum=0)

    def _draw(self, target: Target, num_samples: int) -> Draws:
        draws = self.importance._draw(target, num_samples)
        half = min(num_samples, self.smc.num_particles) / 2
        hard = ~draws.trusted | (draws.ess < half)
        needed = f"needed: {self._needed_of_importance(num_samples, half)}"
        if not hard.any():
            everywhere = draws.worst(torch.ones_like(hard))
            reason = (
                f"importance resampling passes its diagnostics for every condition: at worst {everywhere}; {needed}"
            )
            return replace(draws, reason=reason)
        reason = f"tempered SMC after importance resampling for {draws.report(hard)}; {needed}"
        index = hard.nonzero()[:, 0]
        before, after = draws.select(index), self.smc._draw(target.select(index), num_samples)
        missed = _missed_mass(before, after)
        after = replace(after, trusted=after.trusted & ~missed)
        better = after.trusted | ~before.trusted
        draws = draws.put(index[better], after.select(better.nonzero()[:, 0]))
        harder = ~draws.trusted
        if missed.any():
            # NUTS would miss that mass as well, and could not tell.
            harder[index[missed]] = False
            found_less = torch.zeros_like(harder).index_fill(0, index[missed], True)
            reason += f"; it found less evidence than importance resampling for {name_conditions(found_less)}"
        return self._try_nuts(target, num_samples, replace(draws, reason=reason), harder)

    def _needed_of_importance(self, num_samples: int, half: float) -> str:
        """Say what importance resampling is held to."""
        if half < MIN_ESS:
            source = "the least that is trusted"
        elif num_samples <= self.smc.num_particles:
            source = "half of the draws asked for"
        else:
            source = "half of SMC's particles"
        limit = k_hat_threshold(self.importance.num_proposals)
        return f"effective sample size {max(half, MIN_ESS):.0f}, {source}, and k̂ below {limit:.2f}"

    def _try_nuts(self, target: Target, num_samples: int, draws: Draws, hard: Bool[Tensor, " B"]) -> Draws:
        """Replace the draws of hard conditions where NUTS can be trusted."""
        if not hard.any():
            return draws
        if int(hard.sum()) > self.max_nuts_conditions:
            return replace(draws, reason=f"{draws.reason}; too many for NUTS after it: {draws.report(hard)}")
        needed = f"effective sample size {MIN_ESS:.0f} and log-evidence ± {MAX_LOG_EVIDENCE_SE:g}"
        reason = f"{draws.reason}; NUTS after tempered SMC for {draws.report(hard)}; needed: {needed}"
        index = hard.nonzero()[:, 0]
        last = self.nuts._draw(target.select(index), num_samples)
        if not last.trusted.all():
            reason += f"; in vain for {last.report(~last.trusted)} of these"
        good = last.trusted.nonzero()[:, 0]
        before = draws.select(index)
        last = replace(last, log_evidence=before.log_evidence, log_evidence_se=before.log_evidence_se)
        return replace(draws.put(index[good], last.select(good)), reason=reason)

    def __repr__(self) -> str:
        return f"AutoSampler({self.importance!r}, {self.smc!r}, {self.nuts!r})"


def _missed_mass(importance: Draws, smc: Draws) -> Bool[Tensor, " B"]:
    """Whether importance sampling found evidence that SMC did not: a mode that none of its particles reached.

    The mean weight of prior draws is unbiased, so by Markov's inequality it is more than 1/p times the evidence with
    probability less than p, however bad its own error bars are.
    """
    assert importance.log_evidence is not None
    assert smc.log_evidence is not None
    assert smc.log_evidence_se is not None
    allowed = -math.log(_MISSED_MASS_LEVEL) + 3 * smc.log_evidence_se
    return importance.log_evidence - smc.log_evidence > allowed
