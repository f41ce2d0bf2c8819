"""An amortised sampler: a conditional flow learned once for all conditions, corrected by importance weights."""

import math
import warnings

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import TransformedDistribution

from probcl.checks import describe, require_count, require_fraction, require_positive
from probcl.errors import ProbclWarning
from probcl.randomness import seeded
from probcl.samplers.auto import AutoSampler
from probcl.samplers.base import Draws, Sampler, Target, require_scores, unvalidated
from probcl.samplers.flow_network import ConditionalFlow
from probcl.samplers.importance import resampled
from probcl.samplers.smc import TemperedSMC
from probcl.samplers.unconstrained import Unconstrained


class AmortizedFlow(Sampler):
    r"""A conditional normalizing flow q(z | v) distilled from the tilted law.

    `fit` minimises the forward divergence Σ_b KL(ν(·|v_b) ‖ q(·|v_b)) on draws of another sampler, the teacher; with
    `ImportanceResampling` as the teacher that is the self-normalised importance-weighted likelihood of prior draws.
    `draw` then costs one pass of the flow for any v, whether it was trained on or not. It proposes from the flow and,
    for a share of the proposals, from the prior, and weights: the mixture as the proposal density keeps the weights
    below e^s / prior_share wherever the flow has left mass out (Owen & Zhou 2000). k̂ tells how good the flow is.

    Parameters
    ----------
    num_proposals
        For each condition; more are used if more draws are asked for.
    prior_share
        Share of the proposals that come from the prior, in (0, 1).
    num_splines, hidden
        Size of the flow, see `ConditionalFlow`.

    Attributes
    ----------
    flow
        The fitted flow in unconstrained coordinates, or None.
    losses
        Negative log-likelihood at each step of the fit.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> v = torch.linspace(-1, 1, 10)[:, None]
    >>> prior = torch.distributions.Normal(torch.zeros(1), 1.0)
    >>> target = model.u_given_v(prior, sampler=pcl.samplers.ImportanceResampling()).condition(v).target
    >>> flow = pcl.samplers.AmortizedFlow(hidden=16).fit(target, num_draws=64, steps=50, seed=0)
    >>> new = model.u_given_v(prior, sampler=flow).condition(torch.tensor([[0.5]]))
    >>> new.draw(500, seed=0).trusted
    tensor([True])
    """

    advice = "Fit the flow longer or on more conditions like these, or use TemperedSMC"

    def __init__(
        self, num_proposals: int = 2000, *, prior_share: float = 0.1, num_splines: int = 2, hidden: int = 64
    ) -> None:
        self.num_proposals = require_count("num_proposals", num_proposals, minimum=50)
        self.prior_share = require_fraction("prior_share", prior_share)
        self.num_splines = require_count("num_splines", num_splines)
        self.hidden = require_count("hidden", hidden)
        self.flow: ConditionalFlow | None = None
        self.losses: list[float] = []

    def fit(
        self,
        target: Target,
        *,
        teacher: Sampler | None = None,
        num_draws: int = 256,
        steps: int = 2000,
        batch_size: int = 512,
        lr: float = 2e-3,
        seed: int | None = None,
    ) -> "AmortizedFlow":
        """Train the flow on draws of a teacher.

        Parameters
        ----------
        target
            The laws of the training conditions, with their ``context``: a few hundred, like those to be drawn for.
        teacher
            By default `AutoSampler` with few particles and without NUTS. Conditions for which it is not to be trusted
            are left out.
        num_draws
            Draws of the teacher for each condition.
        steps, batch_size, lr
            Adam's steps, each on a random batch of (z, v) pairs, and its learning rate, which falls to zero.
        seed
            As in `draw`.

        Raises
        ------
        ValueError
            If the target has no context, or the teacher is trusted for none of its conditions.

        Warns
        -----
        ProbclWarning
            If the teacher is not to be trusted for half of the conditions or more.
        """
        require_count("steps", steps)
        require_count("batch_size", batch_size)
        require_positive("lr", lr)
        context = _require_context(target)
        with seeded(seed), unvalidated(), torch.no_grad():
            teacher = AutoSampler(smc=TemperedSMC(512), max_nuts_conditions=0) if teacher is None else teacher
            draws = teacher._draw(target, require_count("num_draws", num_draws))
            _require_trusted(draws)
            x = Unconstrained(target).unconstrain(draws.z[:, draws.trusted])
            self._train(x, context[draws.trusted.to(context.device)].to(x), steps, batch_size, lr)
        return self

    @torch.enable_grad()
    def _train(
        self, x: Float[Tensor, "S B D"], context: Float[Tensor, "B d"], steps: int, batch_size: int, lr: float
    ) -> None:
        flow = ConditionalFlow(x.flatten(0, 1), context, self.num_splines, self.hidden)
        optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self.losses = []
        for _ in range(steps):
            draw, condition = (torch.randint(count, (batch_size,), device=x.device) for count in x.shape[:2])
            loss = -flow.condition(context[condition]).log_prob(x[draw, condition]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            self.losses.append(float(loss.detach()))
        self.flow = flow.requires_grad_(False)

    def _draw(self, target: Target, num_samples: int) -> Draws:
        if self.flow is None:
            raise ValueError("the flow is not fitted: call fit(target) with training conditions first")
        context = _require_context(target)
        if context.shape[1] != self.flow.context_dim:
            raise ValueError(
                f"target.context must have {self.flow.context_dim} columns, as in fit, got {describe(context)}"
            )
        law = Unconstrained(target)
        if law.dim != self.flow.dim:
            raise ValueError(f"the flow was fitted for latents of dimension {self.flow.dim}, got one of {law.dim}")
        x, log_weights = self._propose(law, self.flow.condition(context), max(self.num_proposals, num_samples))
        return resampled(law.constrain(x), require_scores(log_weights), num_samples, "amortised flow")

    def _propose(
        self, law: Unconstrained, flow: TransformedDistribution, count: int
    ) -> tuple[Float[Tensor, "N B D"], Float[Tensor, "N B"]]:
        """Draw from the mixture of flow and prior; return the draws and their log-weights for the tilted law."""
        from_prior = max(1, round(self.prior_share * count))
        z = law.latent.sample((from_prior, law.target.batch_size))
        x = torch.cat([law.unconstrain(z), flow.sample((count - from_prior,))])
        log_prior, log_tilt = law.log_terms(x)
        log_flow = flow.log_prob(x).double().nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        share = from_prior / count
        log_proposal = torch.logaddexp(math.log1p(-share) + log_flow, math.log(share) + log_prior)
        return x, (log_prior + log_tilt - log_proposal).masked_fill(log_prior.isneginf(), -torch.inf)

    def __repr__(self) -> str:
        state = "not fitted" if self.flow is None else f"D={self.flow.dim}, {self.flow.context_dim} inputs"
        return f"AmortizedFlow({state}, num_proposals={self.num_proposals}, prior_share={self.prior_share:g})"


def _require_context(target: Target) -> Float[Tensor, "B d"]:
    if target.context is None:
        raise ValueError("an amortised sampler needs target.context, the embedding of each condition; got None")
    return target.context


def _require_trusted(draws: Draws) -> None:
    bad = ~draws.trusted
    if bad.all():
        raise ValueError(f"the teacher ({draws.method}) failed everywhere: {draws.report(bad)}; try TemperedSMC()")
    if bad.sum() * 2 >= len(bad):
        warnings.warn(
            f"the flow was not trained on {draws.report(bad)}, for which its teacher ({draws.method}) is not to be "
            "trusted. Use a stronger teacher, such as TemperedSMC()",
            ProbclWarning,
            stacklevel=3,
        )
