"""`Conditional`: a model and a prior, from which a distribution comes for every batch of conditions."""

import warnings
from functools import cached_property

import pyro
import torch
from jaxtyping import Bool, Float, Shaped
from pyro.distributions import ConditionalDistribution
from torch import Tensor, nn

from probcl.checks import describe, require_finite, require_tensor
from probcl.conditional.distribution import TiltedDistribution
from probcl.embed import as_input
from probcl.errors import ProbclWarning
from probcl.frozen import frozen
from probcl.gauge import Side
from probcl.kernels.base import Dim
from probcl.losses import Identifies
from probcl.model import BimodalModel
from probcl.priors import EmpiricalPrior, GaussianPrior, Prior, as_gaussian, as_prior
from probcl.priors.support import WithSupport
from probcl.randomness import seeded
from probcl.samplers import AutoSampler, Sampler
from probcl.scores import Scores

_LEFT_OPEN: dict[Side, Identifies] = {"u": Identifies.RATIO_UP_TO_U, "v": Identifies.RATIO_UP_TO_V}


class Conditional(nn.Module, ConditionalDistribution):
    """The learned conditional of one modality given the other, with a prior for the first.

    Made by `BimodalModel.u_given_v` and `BimodalModel.v_given_u`. A data bank is embedded once, here.

    Parameters
    ----------
    model
        The fitted model.
    prior
        What the score tilts: a data bank, a prior of `probcl.priors`, or any continuous distribution.
    target
        ``"u"`` for ν(u|v), ``"v"`` for ν(v|u).
    sampler
        One of `probcl.samplers`. With ``"auto"`` or None the closed form is used where there is one, and an
        `AutoSampler` elsewhere; a sampler is used in any case.

    Raises
    ------
    TypeError
        If `prior` or `sampler` is none of these.
    ValueError
        If the target's encoder cannot take what the prior draws; or if there is a sampler for a data bank, which is
        drawn from exactly.

    Warns
    -----
    ProbclWarning
        If the model was fitted by a loss that leaves this conditional open; see `BimodalModel.regauged`. Or by one
        that determines no conditional.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())  # s(u, v) = ⟨u, v⟩
    >>> conditional = model.u_given_v(pcl.GaussianPrior(torch.zeros(2), torch.eye(2)))
    >>> conditional.condition(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).mean
    tensor([[1., 0.],
            [0., 3.]])
    """

    bank: Tensor

    def __init__(self, model: BimodalModel, prior: object, target: Side, sampler: Sampler | str | None = None) -> None:
        super().__init__()
        if model.identifies is _LEFT_OPEN[target]:
            given = "v" if target == "u" else "u"
            warnings.warn(
                f"{target}|{given} is not what this model was fitted for: its loss determines "
                f"{model.identifies.value}. Use model.regauged(over={given!r}, prior=...) first",
                ProbclWarning,
                stacklevel=3,
            )
        if model.identifies is Identifies.TRANSFORM:
            warnings.warn(
                f"this model claims no conditional: its loss determines {model.identifies.value}",
                ProbclWarning,
                stacklevel=3,
            )
        self.model, self.prior, self.target, self.sampler = model, as_prior(prior), target, _as_sampler(sampler)
        self.prefers_closed_form = sampler is None or sampler == "auto"
        if not isinstance(self.prior, EmpiricalPrior):
            self._try_out(self.prior)
        elif self.prefers_closed_form:
            self.register_buffer("bank", self.embed(self.prior.values), persistent=False)
        else:
            raise ValueError(f"sampler must be None for a data bank, which is drawn from exactly, got {self.sampler!r}")

    def _try_out(self, prior: Prior) -> None:
        """Find out now whether the encoder takes the prior's values, and not at the first draw."""
        with seeded(0):
            values = prior.sample((2,))
        try:
            self.embed(values)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"prior must be a law of what encoder_{self.target} takes, got {prior!r}: {error}"
            ) from error

    def condition(self, context: Shaped[Tensor, "*batch_and_event"]) -> TiltedDistribution:
        """Return the conditional given a batch of the other modality.

        Parameters
        ----------
        context
            Shape (B, *event); a single label may be a tensor without axes.

        Returns
        -------
        TiltedDistribution
            With ``batch_shape`` (B,), or () for a single label.

        Raises
        ------
        ValueError
            If `context` is empty, not finite, or nothing that its encoder takes.
        """
        from probcl.conditional.empirical import EmpiricalConditional
        from probcl.conditional.gaussian import GaussianConditional, is_gaussian
        from probcl.conditional.tilted import TiltedConditional

        given = self.embed_given(context)
        if isinstance(self.prior, EmpiricalPrior):
            return EmpiricalConditional(self, given)
        if self.prefers_closed_form and is_gaussian(self):
            return GaussianConditional(self, given)
        return TiltedConditional(self, given)

    def forward(self, context: Shaped[Tensor, "*batch_and_event"]) -> TiltedDistribution:
        """Return ``condition(context)``."""
        return self.condition(context)

    def pyro_model(self, context: Shaped[Tensor, "*batch_and_event"]) -> Float[Tensor, "*shape"]:
        """Run the conditional as a Pyro model: the prior's latent variable ``"z"``, and a factor for the tilt.

        One draw for each of the B conditions, in a plate; ``"u"`` (or ``"v"``) is recorded as a deterministic site. For
        `pyro.infer`: ``NUTS(conditional.pyro_model)``. `TiltedDistribution.pyro_model` embeds the conditions only once.
        """
        return self.run_given(self.embed_given(context))

    def run_given(self, given: Float[Tensor, "*batch d"]) -> Float[Tensor, "*shape"]:
        """Run the conditional as a Pyro model, given embeddings of the conditions."""
        if isinstance(self.prior, EmpiricalPrior):
            raise NotImplementedError("on a data bank, sample from condition(context) itself: pyro.sample('u', ...)")
        given = given.reshape(-1, given.shape[-1])
        event_dim = len(self.prior.event_shape)
        with pyro.plate("conditions", len(given), dim=-1):
            value = self.prior.decode(pyro.sample("z", WithSupport(self.prior.latent)))
            # Further axes to the left come with Pyro's parallel inference.
            batch = value.shape[: value.ndim - event_dim]
            pyro.factor("tilt", self.matched_scores(value, given.expand(*batch, -1)).to(value.dtype))
            return pyro.deterministic(self.target, value, event_dim=event_dim)

    @property
    def encoder(self) -> nn.Module:
        """The encoder of the target."""
        return self.model.encoder_u if self.target == "u" else self.model.encoder_v

    def embed(self, values: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n d"]:
        """Embed values of the target, for use and not for training."""
        return self.model.embed_u(values) if self.target == "u" else self.model.embed_v(values)

    def embed_given(self, context: Shaped[Tensor, "*batch_and_event"]) -> Float[Tensor, "*batch d"]:
        """Embed what is conditioned on, with its batch axis or, for a single label, without."""
        require_finite("context", require_tensor("context", context))
        batch_shape = context.shape[:1]
        if 0 in batch_shape:
            raise ValueError(f"context must have at least one condition, got {describe(context)}")
        batch = context.reshape(1) if context.ndim == 0 else context
        try:
            given = self.model.embed_v(batch) if self.target == "u" else self.model.embed_u(batch)
        except ValueError as error:
            raise ValueError(
                f"context must be a batch, with one axis before the event's, got {describe(context)}: {error}"
            ) from error
        return given.reshape(*batch_shape, given.shape[-1])

    def scores(
        self,
        given: Float[Tensor, "B d"],
        target: Float[Tensor, "N d"],
        log_weights: Float[Tensor, " N"] | None = None,
    ) -> Scores:
        """Return the scores of embeddings; the target runs along `dim`. They have no gradient in the model."""
        with frozen(self.model):
            if self.target == "v":
                return self.model.scores_of_embeddings(given, target, bias_v=log_weights)
            return self.model.scores_of_embeddings(target, given, bias_u=log_weights)

    def matched_scores(
        self, values: Shaped[Tensor, "*batch_and_event"], given: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch"]:
        """Return s of each value with each condition, of one batch shape, differentiable in the values.

        In float64, so that a small temperature does not magnify rounding; −∞ where an embedding overflows.

        Raises
        ------
        ValueError
            If the encoder returns NaN for a value that is nowhere near overflow.
        """
        batch = given.shape[:-1]
        flat = values.reshape(-1, *values.shape[len(batch) :])
        if flat.requires_grad and torch.is_grad_enabled():
            with frozen(self.encoder):
                target = self.encoder(as_input(self.encoder, flat))
        else:
            target = self.embed(flat)
        target, possible = self._possible(target, flat)
        scores = self.scores(given.reshape(-1, given.shape[-1]).double(), target).diagonal()
        return scores.masked_fill(~possible, -torch.inf).to(values.device).reshape(batch)

    def shared_scores(self, values: Shaped[Tensor, "n *event"], given: Float[Tensor, "B d"]) -> Float[Tensor, "n B"]:
        """Return s of all values with all conditions, as `matched_scores` does, without gradients."""
        target, possible = self._possible(self.embed(values), values)
        scores = self.scores(given.double(), target).matrix().movedim(self.dim, 0)
        return scores.masked_fill(~possible[:, None], -torch.inf).to(values.device)

    def _possible(
        self, target: Float[Tensor, "n d"], values: Shaped[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Return embeddings in float64, with ones where they overflow, and where they do not."""
        possible = target.isfinite().all(-1)
        if not possible.all():
            # Products of squares within a network overflow from here on, and differences of infinities are NaN.
            moderate = values.reshape(len(values), -1).abs().amax(1) <= torch.finfo(target.dtype).max ** 0.25
            wrong = target.isnan().any(-1) & moderate.to(target.device)
            if wrong.any():
                raise ValueError(
                    f"encoder_{self.target} must not return NaN, and does for {int(wrong.sum())} of {len(wrong)} values"
                )
        return torch.where(possible[:, None], target, 1.0).double(), possible

    @cached_property
    def gaussian_prior(self) -> GaussianPrior | None:
        """The prior as a Gaussian law with whitened latent variables, if it is one."""
        return as_gaussian(self.prior)

    @property
    def dim(self) -> Dim:
        """The axis of the scores along which the target runs."""
        return 0 if self.target == "u" else 1

    def extra_repr(self) -> str:
        return f"target={self.target!r}, prior={self.prior!r}"


def _as_sampler(sampler: object) -> Sampler:
    if sampler is None or sampler == "auto":
        return AutoSampler()
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be 'auto' or a sampler such as probcl.samplers.NUTS(), got {describe(sampler)}")
    return sampler
