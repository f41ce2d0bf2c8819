"""What all conditionals share: the model, the prior, and the log-ratio of the one to the other."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyro
import torch
from jaxtyping import Float, Shaped
from pyro.distributions import ConditionalDistribution, TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution

from probcl.checks import describe, require_finite, require_tensor
from probcl.embed import as_input
from probcl.errors import ProbclWarning
from probcl.frozen import frozen
from probcl.gauge import Side
from probcl.kernels.base import Dim
from probcl.losses import Identifies
from probcl.model import BimodalModel
from probcl.priors import EmpiricalPrior, as_prior
from probcl.priors.support import WithSupport
from probcl.scores import Scores

if TYPE_CHECKING:
    from probcl.samplers import Sampler

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
        How to draw where there is no closed form, one of `probcl.samplers`; ``"auto"`` or None is an `AutoSampler`.

    Raises
    ------
    TypeError
        If `prior` or `sampler` is none of these.

    Warns
    -----
    ProbclWarning
        If the model was fitted by a loss that leaves this conditional open; see `BimodalModel.regauged`. Or by one
        that determines no conditional.
    """

    bank: Tensor

    def __init__(
        self, model: BimodalModel, prior: object, target: Side, sampler: "Sampler | str | None" = None
    ) -> None:
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
        if isinstance(self.prior, EmpiricalPrior):
            self.register_buffer("bank", self.embed(self.prior.values), persistent=False)

    def condition(self, context: Shaped[Tensor, "*batch_and_event"]) -> "TiltedDistribution":
        """Return the conditional given a batch of the other modality.

        Parameters
        ----------
        context
            Shape (B, *event); a single label may be a tensor without axes.

        Returns
        -------
        TiltedDistribution
            With ``batch_shape`` (B,), or () for a single label.
        """
        from probcl.conditional.empirical import EmpiricalConditional
        from probcl.conditional.gaussian import GaussianConditional, is_gaussian
        from probcl.conditional.tilted import TiltedConditional

        given = self.embed_given(context)
        if isinstance(self.prior, EmpiricalPrior):
            return EmpiricalConditional(self, given)
        if is_gaussian(self):
            return GaussianConditional(self, given)
        return TiltedConditional(self, given)

    def forward(self, context: Shaped[Tensor, "*batch_and_event"]) -> "TiltedDistribution":
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
        """
        batch = given.shape[:-1]
        flat = values.reshape(-1, *values.shape[len(batch) :])
        if flat.requires_grad and torch.is_grad_enabled():
            with frozen(self.encoder):
                target = self.encoder(as_input(self.encoder, flat))
        else:
            target = self.embed(flat)
        finite = target.isfinite().all(-1)
        target = torch.where(finite[:, None], target, 1.0).double()
        scores = self.scores(given.reshape(-1, given.shape[-1]).double(), target).diagonal()
        return scores.masked_fill(~finite, -torch.inf).to(values.device).reshape(batch)

    @property
    def dim(self) -> Dim:
        """The axis of the scores along which the target runs."""
        return 0 if self.target == "u" else 1

    def extra_repr(self) -> str:
        return f"target={self.target!r}, prior={self.prior!r}"


class TiltedDistribution(TorchDistribution):
    """A prior tilted by e^s for each of a batch of conditions: the base of all learned conditionals.

    Attributes
    ----------
    conditional
        Where it comes from.
    given
        Embeddings of the conditions, shape (*batch_shape, d).
    """

    def __init__(self, conditional: Conditional, given: Float[Tensor, "*batch d"]) -> None:
        self.conditional, self.given = conditional, given
        self.prior: Any = conditional.prior
        super().__init__(given.shape[:-1], self.prior.event_shape, validate_args=False)

    @property
    def log_normalizer(self) -> Float[Tensor, "*batch"]:
        """Log of Z(v) = E_{u'~prior} e^{s(u', v)}, shape batch_shape."""
        raise NotImplementedError

    def expand(self, batch_shape: Iterable[int], _instance: Any = None) -> "TiltedDistribution":
        """Return this distribution with a larger batch shape, its tensors expanded and not copied."""
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(type(self), _instance)
        new.conditional, new.prior = self.conditional, self.prior
        new.given = self.given.expand(*batch_shape, -1)
        self._expand_into(new, batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        return new

    def _expand_into(self, new: Any, batch_shape: torch.Size) -> None:
        """Give an expanded copy what else it needs."""
        raise NotImplementedError

    def log_ratio(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log of dν(·|v)/dμ at values (*sample_shape, *batch_shape, *event_shape), in or out of a bank.

        Differentiable in the values, where these are real.
        """
        scores = self._scores_at(value)
        return (scores - self.log_normalizer.to(scores.device)).to(self.given.dtype)

    def _scores_at(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Return s(value, v), in float64."""
        event_dim = len(self.event_shape)
        if value.shape[value.ndim - event_dim :] != self.event_shape:
            raise ValueError(f"values must end in the event shape {tuple(self.event_shape)}, got {describe(value)}")
        shape = torch.broadcast_shapes(value.shape[: value.ndim - event_dim], self.batch_shape)
        return self.conditional.matched_scores(value.expand(*shape, *self.event_shape), self.given.expand(*shape, -1))

    def pyro_model(self) -> Float[Tensor, "*shape"]:
        """Run this conditional as a Pyro model, as `Conditional.pyro_model` does: ``NUTS(d.pyro_model)``."""
        return self.conditional.run_given(self.given)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}, "
            f"prior={self.prior!r})"
        )


def _as_sampler(sampler: object) -> "Sampler":
    from probcl.samplers import AutoSampler, Sampler

    if sampler is None or sampler == "auto":
        return AutoSampler()
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be 'auto' or a sampler such as probcl.samplers.NUTS(), got {describe(sampler)}")
    return sampler
