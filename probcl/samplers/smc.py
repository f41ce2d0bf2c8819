"""Tempered sequential Monte Carlo: from the prior to the tilted law through e^{β s} μ, β from 0 to 1."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probcl.checks import require_count, require_fraction
from probcl.samplers.base import MAX_LOG_EVIDENCE_SE, MIN_ESS, Draws, Sampler, Target, require_scores
from probcl.samplers.moves import CrankNicolson, Move, Particles, finite
from probcl.samplers.unconstrained import Unconstrained
from probcl.samplers.weights import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_se,
    shuffled,
    systematic_resample,
    take,
)

_BISECTIONS = 40
_MOST_TEMPERATURES = 200


class TemperedSMC(Sampler):
    r"""Adaptive tempered SMC with independent islands (Del Moral, Doucet & Jasra 2006; Dai et al. 2022).

    Particles start as prior draws. Each temperature is the largest at which the effective sample size of the weights
    e^{Δβ s} is still `ess_target` of the particles, found by bisection; then the particles are resampled and moved.
    The product of the mean weights is an estimate of the evidence E_μ e^s.

    The particles of a condition form islands with their own temperatures, which do not interact except through the
    covariance that scales their moves. Their disagreement gives the standard error of the evidence and the effective
    sample size, where a single system could only assert them; islands are weighted by their evidence when they are
    put together (Vergé, Dubarry, Del Moral & Moulines 2015). All conditions run at once.

    Parameters
    ----------
    num_particles
        For each condition; more are used if more draws are asked for.
    num_islands
        Into how many islands they are divided.
    ess_target
        Fraction, in (0, 1).
    move
        `CrankNicolson` (the default, no gradients) or `Hamiltonian`.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0), sampler=pcl.samplers.TemperedSMC())
    >>> draws = nu.condition(torch.tensor([[5.0, 0.0]])).draw(1000, seed=0)
    >>> draws.trusted, (draws.log_evidence - 12.5).abs() < 4 * draws.log_evidence_se  # log E e^s = ½ |v|²
    (tensor([True]), tensor([True]))
    """

    advice = "Raise num_particles or the moves' repeats, use move=Hamiltonian() if z has many dimensions, or try NUTS"

    def __init__(
        self,
        num_particles: int = 2048,
        *,
        num_islands: int = 32,
        ess_target: float = 0.5,
        move: Move | None = None,
    ) -> None:
        self.num_islands = require_count("num_islands", num_islands, minimum=2)
        self.num_particles = require_count("num_particles", num_particles, minimum=16 * num_islands)
        self.ess_target = require_fraction("ess_target", ess_target)
        self.move = CrankNicolson() if move is None else move

    def _draw(self, target: Target, num_samples: int) -> Draws:
        law = Unconstrained(target)
        each = math.ceil(max(self.num_particles, num_samples) / self.num_islands)
        particles, log_evidence, step = self._anneal(law, self._start(law, each * self.num_islands))
        ess = island_ess(particles.x.unflatten(0, (self.num_islands, each)), log_evidence)
        chosen = shuffled(systematic_resample(log_evidence.repeat_interleave(each, 0), num_samples))
        # Islands of more than their share of the evidence give some particles twice: tell them apart again.
        final, _ = self.move(law, _take(particles, chosen), torch.ones_like(ess), step)
        log_evidence_se = log_mean_exp_se(log_evidence)
        return Draws(
            z=law.constrain(final.x),
            ess=ess,
            trusted=(ess >= MIN_ESS) & (log_evidence_se <= MAX_LOG_EVIDENCE_SE),
            method="tempered SMC",
            log_evidence=log_mean_exp(log_evidence),
            log_evidence_se=log_evidence_se,
        )

    def _start(self, law: Unconstrained, count: int) -> Particles:
        z = law.latent.sample((count, law.target.batch_size))
        x = law.unconstrain(z)
        return Particles(x, law.log_prior(x).double(), require_scores(law.target.log_tilt(z)))

    def _anneal(
        self, law: Unconstrained, particles: Particles
    ) -> tuple[Particles, Float[Tensor, "G B"], Float[Tensor, " B"]]:
        """Take the particles to β = 1; return them, the islands' log-evidences and the step sizes."""
        shape = (self.num_islands, len(particles.x) // self.num_islands)
        beta = particles.log_tilt.new_zeros(law.target.batch_size)
        step = particles.x.new_full((law.target.batch_size,), self.move.first_step(law.dim))
        log_evidence = beta.expand(self.num_islands, -1)
        for stage in range(_MOST_TEMPERATURES):
            # A law that needs more temperatures is taken the rest of the way at once; its ESS will tell.
            last = stage == _MOST_TEMPERATURES - 1
            change = 1 - beta if last else self._next_change(particles.log_tilt, 1 - beta)
            beta = torch.where(change == 1 - beta, 1.0, beta + change)
            log_weights = (finite(particles.log_tilt) * change).unflatten(0, shape).movedim(1, 0)
            log_evidence = log_evidence + log_mean_exp(log_weights)
            particles = _take(particles, _within_islands(systematic_resample(log_weights, shape[1])))
            particles, step = self.move(law, particles, beta, step)
            if bool((beta == 1).all()):
                break
        return particles, log_evidence, step

    def _next_change(self, log_tilt: Float[Tensor, "S B"], most: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the largest change of β, `most` if it can be, that keeps the effective sample size at its target."""
        wanted = self.ess_target * len(log_tilt)
        log_tilt = finite(log_tilt - log_tilt.amax(0))
        enough = effective_sample_size(log_tilt * most) >= wanted
        low, high = torch.zeros_like(most), most
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            keep = effective_sample_size(log_tilt * middle) >= wanted
            low, high = torch.where(keep, middle, low), torch.where(keep, high, middle)
        return torch.where(enough, most, high)

    def __repr__(self) -> str:
        return (
            f"TemperedSMC(num_particles={self.num_particles}, num_islands={self.num_islands}, "
            f"ess_target={self.ess_target:g}, move={self.move!r})"
        )


def island_ess(x: Float[Tensor, "G n B D"], log_evidence: Float[Tensor, "G B"]) -> Float[Tensor, " B"]:
    """Effective sample size of islands weighted by their evidence: variance over squared standard error of the mean.

    The standard error is that of a ratio estimate over independent islands; the ratio is averaged over coordinates.
    With few islands it is itself uncertain, by a factor 1 ± √(2 / (G D)) or so. An estimate that relies on few of the
    islands is bounded by the particles they hold.
    """
    islands, each = x.shape[:2]
    weight = log_evidence.softmax(0)[..., None]
    means = x.double().mean(1)
    mean = (weight * means).sum(0)
    variance = (weight * (x.double() - mean).square().mean(1)).sum(0)
    error = islands / (islands - 1) * (weight * (means - mean)).square().sum(0)
    tiny = torch.finfo(error.dtype).tiny
    ess = 1 / (error / variance.clamp(min=tiny)).mean(-1).clamp(min=tiny)
    return ess.minimum(each * effective_sample_size(log_evidence))


def _within_islands(index: Int[Tensor, "n G B"]) -> Int[Tensor, "S B"]:
    """Turn positions within islands into positions among all particles, island by island."""
    each, islands, _ = index.shape
    return (index + each * torch.arange(islands, device=index.device)[:, None]).movedim(0, 1).flatten(0, 1)


def _take(particles: Particles, index: Tensor) -> Particles:
    return Particles(*(take(values, index) for values in (particles.x, particles.log_prior, particles.log_tilt)))
