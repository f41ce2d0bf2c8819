"""Sampling-importance-resampling from the prior, with Pareto-smoothed weights."""

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_count
from probcl.samplers.base import MIN_ESS, Draws, Sampler, Target, require_scores
from probcl.samplers.weights import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_se,
    pareto_smoothed,
    shuffled,
    systematic_resample,
    take,
    weights_pass,
)


class ImportanceResampling(Sampler):
    """Draw from the prior, weight by e^s, resample.

    One set of prior draws serves every condition: one matrix of scores, no gradient. It is the fastest sampler wherever
    the tilt is mild, and Pareto-smoothed weights with their tail index k̂ (Vehtari et al. 2024, JMLR 25(72)) say where
    it is not. Draws are repeated when more are asked for than `Draws.ess`. Because conditions share the prior draws,
    their errors are correlated.

    Parameters
    ----------
    num_proposals
        N, how many draws of the prior. The N × B scores are held in memory in float64.
    chunk_size
        How many are scored at a time.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> sampler = pcl.samplers.ImportanceResampling(num_proposals=5000)
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0), sampler=sampler)
    >>> draws = nu.condition(torch.tensor([[1.0, 0.0]])).draw(1000, seed=0)
    >>> draws.z.shape, draws.trusted, draws.k_hat < 0.7
    (torch.Size([1000, 1, 2]), tensor([True]), tensor([True]))
    """

    advice = "Raise num_proposals, or use TemperedSMC"

    def __init__(self, num_proposals: int = 10_000, chunk_size: int = 4096) -> None:
        self.num_proposals = require_count("num_proposals", num_proposals, minimum=25)
        self.chunk_size = require_count("chunk_size", chunk_size)

    def _draw(self, target: Target, num_samples: int) -> Draws:
        z = target.prior.latent.sample((self.num_proposals,))
        log_tilt = torch.cat([target.log_tilt_shared(chunk).double() for chunk in z.split(self.chunk_size)])
        shared = z[:, None].expand(-1, target.batch_size, *target.event_shape)
        return resampled(shared, require_scores(log_tilt), num_samples, "importance resampling")

    def __repr__(self) -> str:
        return f"ImportanceResampling(num_proposals={self.num_proposals})"


def resampled(
    z: Float[Tensor, "N B *event"], log_weights: Float[Tensor, "N B"], num_samples: int, method: str
) -> Draws:
    """Smooth importance weights, resample by them, and judge them; the mean weight is the evidence."""
    scale = log_weights.amax(0)
    smoothed, k_hat = pareto_smoothed(log_weights)
    ess = effective_sample_size(smoothed)
    index = shuffled(systematic_resample(smoothed, num_samples))
    return Draws(
        z=take(z, index),
        ess=ess,
        trusted=weights_pass(k_hat, ess, len(log_weights)) & (ess >= MIN_ESS),
        method=method,
        log_evidence=log_mean_exp(smoothed) + scale,
        log_evidence_se=log_mean_exp_se(smoothed),
        k_hat=k_hat,
    )
