"""Conditionals ν(u|v) and ν(v|u) as Pyro distributions.

`Conditional` is what `BimodalModel.u_given_v` returns: a `pyro.distributions.ConditionalDistribution` whose
``condition`` gives a `TorchDistribution`, batched over what it is conditioned on. With an `EmpiricalPrior` that
distribution lives on the bank's atoms, with weights softmax_i(s(u_i, v) + log w_i) (Baptista, Stuart & Tran 2025, §4).
"""

import warnings
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from pyro.distributions import ConditionalDistribution, TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from probcl.checks import describe, require_finite, require_tensor
from probcl.errors import ProbclWarning
from probcl.gauge import Side
from probcl.kernels.base import Dim
from probcl.losses import Identifies
from probcl.model import BimodalModel
from probcl.priors import EmpiricalPrior
from probcl.scores import Scores

_LEFT_OPEN: dict[Side, Identifies] = {"u": Identifies.RATIO_UP_TO_U, "v": Identifies.RATIO_UP_TO_V}


class Conditional(nn.Module, ConditionalDistribution):
    """The learned conditional of one modality given the other, with a prior for the first.

    Made by `BimodalModel.u_given_v` and `BimodalModel.v_given_u`. The prior's bank is embedded once, here.

    Parameters
    ----------
    model
        The fitted model.
    prior
        The data bank that the score tilts.
    target
        ``"u"`` for ν(u|v), ``"v"`` for ν(v|u).

    Warns
    -----
    ProbclWarning
        If the model was fitted by a loss that leaves this conditional open; see `BimodalModel.regauged`.
    """

    bank: Tensor

    def __init__(self, model: BimodalModel, prior: EmpiricalPrior, target: Side) -> None:
        super().__init__()
        if not isinstance(prior, EmpiricalPrior):
            raise TypeError(f"prior must be an EmpiricalPrior, got {describe(prior)}")
        if model.identifies is _LEFT_OPEN[target]:
            given = "v" if target == "u" else "u"
            warnings.warn(
                f"{target}|{given} is not what this model was fitted for: its loss determines "
                f"{model.identifies.value}. Use model.regauged(over={given!r}, prior=...) first",
                ProbclWarning,
                stacklevel=3,
            )
        self.model, self.prior, self.target = model, prior, target
        self.register_buffer("bank", self._embed(prior.values, of=target), persistent=False)

    def condition(self, context: Shaped[Tensor, "*batch_and_event"]) -> "EmpiricalConditional":
        """Return the conditional given a batch of the other modality.

        Parameters
        ----------
        context
            Shape (B, *event); a single label may be a tensor without axes.

        Returns
        -------
        EmpiricalConditional
            With ``batch_shape`` (B,), or () for a single label.
        """
        require_finite("context", require_tensor("context", context))
        batch_shape = context.shape[:1]
        given = self._embed(context.reshape(1) if context.ndim == 0 else context, of="v" if self.target == "u" else "u")
        if given.shape[:-1] != (batch_shape or (1,)):
            raise ValueError(f"context must be a batch, with one axis before the event's, got {describe(context)}")
        return EmpiricalConditional(self, given.reshape(*batch_shape, given.shape[-1]))

    def forward(self, context: Shaped[Tensor, "*batch_and_event"]) -> "EmpiricalConditional":
        """Return ``condition(context)``."""
        return self.condition(context)

    def _embed(self, values: Tensor, of: Side) -> Tensor:
        return self.model.embed_u(values) if of == "u" else self.model.embed_v(values)

    def scores(
        self,
        given: Float[Tensor, "B d"],
        target: Float[Tensor, "N d"],
        log_weights: Float[Tensor, " N"] | None = None,
    ) -> Scores:
        """Return the scores of embeddings; the target runs along `dim`."""
        if self.target == "v":
            return self.model.scores_of_embeddings(given, target, bias_v=log_weights)
        return self.model.scores_of_embeddings(target, given, bias_u=log_weights)

    @property
    def dim(self) -> Dim:
        """The axis of the scores along which the target runs."""
        return 0 if self.target == "u" else 1

    def extra_repr(self) -> str:
        return f"target={self.target!r}, prior={self.prior!r}"


class EmpiricalConditional(TorchDistribution):
    """The learned conditional on the atoms of a data bank: batched over what it is conditioned on.

    Attributes
    ----------
    atoms
        The bank, shape (N, *event_shape).
    logits
        Normalised log-probabilities of the atoms, shape (*batch_shape, N).
    log_normalizer
        log E_{u'~prior} e^{s(u', v)}, shape batch_shape, in float64.

    Notes
    -----
    `log_prob` is that of a value: atoms that are equal share their probability, and a value that is not in the bank has
    log-probability −inf. Scores are computed in float64 and rounded once, at the end.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_enumerate_support = True

    def __init__(self, conditional: Conditional, given: Float[Tensor, "*batch d"]) -> None:
        self.conditional, self.given = conditional, given
        self.prior = conditional.prior
        scores = conditional.scores(
            given.reshape(-1, given.shape[-1]).double(),
            conditional.bank.double(),
            self.prior.log_weights.to(given.device, torch.float64),
        )
        batch_shape = given.shape[:-1]
        log_normalizer = scores.logsumexp(conditional.dim)
        logits = scores.matrix().movedim(conditional.dim, 1) - log_normalizer[:, None]
        self.log_normalizer = log_normalizer.reshape(batch_shape)
        self.logits = logits.to(given).reshape(*batch_shape, len(self.prior))
        super().__init__(batch_shape, self.prior.event_shape, validate_args=False)

    @property
    def atoms(self) -> Shaped[Tensor, "N *event"]:
        return self.prior.values

    @property
    def probs(self) -> Float[Tensor, "*batch N"]:
        """Probabilities of the atoms."""
        return self.logits.exp()

    @property
    def support(self) -> constraints.Constraint:
        return _Atoms(self.prior)

    def expand(self, batch_shape: Iterable[int], _instance: Any = None) -> "EmpiricalConditional":
        """Return this distribution with a larger batch shape, its tensors expanded and not copied."""
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(EmpiricalConditional, _instance)
        new.conditional, new.prior = self.conditional, self.prior
        new.given = self.given.expand(*batch_shape, -1)
        new.logits = self.logits.expand(*batch_shape, -1)
        new.log_normalizer = self.log_normalizer.expand(batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        return new

    def sample_index(
        self, sample_shape: Iterable[int] = (), *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "*shape"]:
        """Draw positions in the bank, shape (*sample_shape, *batch_shape)."""
        sample_shape = torch.Size(sample_shape)
        # In float64: torch.multinomial adds the probabilities up in their own precision, and float32 loses large banks.
        probs = self.logits.double().exp().reshape(-1, len(self.prior))
        draws = torch.multinomial(probs, sample_shape.numel(), replacement=True, generator=generator)
        return draws.mT.reshape(sample_shape + self.batch_shape)

    def sample(self, sample_shape: Iterable[int] = ()) -> Shaped[Tensor, "*shape"]:
        """Draw atoms, shape (*sample_shape, *batch_shape, *event_shape)."""
        return self.atoms[self.sample_index(sample_shape).to(self.atoms.device)]

    def log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-probability of values, −inf for those that are not in the bank."""
        index = self.prior.find(value).to(self.logits.device)
        shape = torch.broadcast_shapes(index.shape, self.batch_shape)
        of_value = self._value_logits.expand(*shape, -1).gather(-1, index.clamp(min=0).expand(shape)[..., None])[..., 0]
        return of_value.masked_fill(index < 0, -torch.inf)

    @cached_property
    def _value_logits(self) -> Float[Tensor, "*batch N"]:
        """Log-probabilities of values, each at its first atom; −inf at repeated ones."""
        group = self.prior.group.to(self.logits.device)
        if len(self._distinct) == len(group):
            return self.logits
        largest = self.logits.amax(-1, keepdim=True)
        mass = torch.zeros_like(self.logits).index_add(-1, group, (self.logits - largest).exp())
        return mass.log() + largest

    @property
    def _distinct(self) -> Int[Tensor, " K"]:
        group = self.prior.group
        return (group == torch.arange(len(group), device=group.device)).nonzero()[:, 0]

    def log_ratio(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log of dν(·|v)/dμ at values (*sample_shape, *batch_shape, *event_shape) that need not be in the bank."""
        event_dim = len(self.event_shape)
        shape = torch.broadcast_shapes(value.shape[: value.ndim - event_dim], self.batch_shape)
        flat = value.expand(*shape, *self.event_shape).reshape(-1, *self.event_shape)
        target = self.conditional._embed(flat, of=self.conditional.target)
        given = self.given.expand(*shape, -1).reshape(-1, self.given.shape[-1])
        scores = self.conditional.scores(given.double(), target.double()).diagonal().reshape(shape)
        return (scores - self.log_normalizer).to(self.given)

    def enumerate_support(self, expand: bool = True) -> Shaped[Tensor, "*shape"]:
        """Return the distinct values, shape (K, *batch_shape, *event_shape), or with batch axes of length one."""
        values = self.atoms[self._distinct]
        values = values.reshape(-1, *(1 for _ in self.batch_shape), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values

    @property
    def mode(self) -> Shaped[Tensor, "*shape"]:
        """The most probable value."""
        return self.atoms[self._value_logits.argmax(-1).to(self.atoms.device)]

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Conditional mean, shape (*batch_shape, *event_shape); real atoms only."""
        return self._expectation(self._real_atoms()).to(self.atoms)

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Conditional variance of each component, shape (*batch_shape, *event_shape); real atoms only."""
        # Around the bank's centre, so that E x² − (E x)² loses no digits to a common offset.
        centred = self._real_atoms() - self._real_atoms().mean(0)
        variance = self._expectation(centred.square()) - self._expectation(centred).square()
        return variance.clamp(min=0).to(self.atoms)

    def _expectation(self, of_atoms: Float[Tensor, "N *event"]) -> Float[Tensor, "*shape"]:
        expected = self.probs.to(of_atoms) @ of_atoms.reshape(len(of_atoms), -1)
        return expected.reshape(*self.batch_shape, *self.event_shape)

    def _real_atoms(self) -> Float[Tensor, "N *event"]:
        if not self.atoms.is_floating_point():
            raise NotImplementedError(f"moments need real-valued atoms, these are {self.atoms.dtype}; use probs")
        return self.atoms.double()

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Entropy in nats of the distribution over values."""
        return torch.special.entr(self._value_logits.exp()).sum(-1)

    def ess(self) -> Float[Tensor, "*batch"]:
        """Effective sample size 1 / Σ_i p_i²: how many equally probable atoms would be as spread out (Kish)."""
        return self.probs.square().sum(-1).reciprocal()

    def __repr__(self) -> str:
        return (
            f"EmpiricalConditional(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}, "
            f"atoms={len(self.prior)})"
        )


class _Atoms(constraints.Constraint):
    """Membership of a data bank."""

    is_discrete = True

    def __init__(self, prior: EmpiricalPrior) -> None:
        self.prior = prior
        self.event_dim = len(prior.event_shape)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.prior.find(value) >= 0
