"""Conditionals on a data bank."""

from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import constraints

from probcl.conditional.base import Conditional
from probcl.conditional.exact import ExactConditional
from probcl.priors import EmpiricalPrior


class EmpiricalConditional(ExactConditional):
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

    prior: EmpiricalPrior

    def __init__(self, conditional: Conditional, given: Float[Tensor, "*batch d"]) -> None:
        super().__init__(conditional, given)
        scores = conditional.scores(
            given.reshape(-1, given.shape[-1]).double(),
            conditional.bank.double(),
            self.prior.log_weights.to(given.device, torch.float64),
        )
        log_normalizer = scores.logsumexp(conditional.dim)
        logits = scores.matrix().movedim(conditional.dim, 1) - log_normalizer[:, None]
        self._log_normalizer = log_normalizer.reshape(self.batch_shape)
        self.logits = logits.to(given).reshape(*self.batch_shape, len(self.prior))

    def _expand_into(self, new: "EmpiricalConditional", batch_shape: torch.Size) -> None:
        new.logits = self.logits.expand(*batch_shape, -1)
        new._log_normalizer = self._log_normalizer.expand(batch_shape)

    @property
    def log_normalizer(self) -> Float[Tensor, "*batch"]:
        return self._log_normalizer

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

    def _sample_latent(self, sample_shape: Iterable[int]) -> Shaped[Tensor, "*shape"]:
        return self.sample(sample_shape)

    def log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-probability of values, −inf for those that are not in the bank."""
        shape = self._batch_of(value)
        index = self.prior.find(value).to(self.logits.device)
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

    @property
    def covariance(self) -> Float[Tensor, "*batch n n"]:
        """Conditional covariance, flattened, shape (*batch_shape, n, n); real atoms only."""
        atoms = self._real_atoms().flatten(1) if self.event_shape else self._real_atoms()[:, None]
        probs = self.probs.to(atoms).reshape(-1, len(atoms))
        centred = [atoms - p @ atoms for p in probs]
        covariance = torch.stack([(x * p[:, None]).mT @ x for x, p in zip(centred, probs, strict=True)])
        return covariance.reshape(*self.batch_shape, *covariance.shape[1:]).to(self.atoms)

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


class _Atoms(constraints.Constraint):
    """Membership of a data bank."""

    is_discrete = True

    def __init__(self, prior: EmpiricalPrior) -> None:
        self.prior = prior
        self.event_dim = len(prior.event_shape)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.prior.find(value) >= 0
