"""Conditionals on a data bank."""

import math
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import constraints

from probcl.conditional.base import Conditional
from probcl.conditional.exact import ExactConditional
from probcl.priors import EmpiricalPrior
from probcl.scores import Scores

# Numbers of embeddings that are gathered at a time, to score given values.
_ENTRIES_AT_A_TIME = 2**22
# Log-probabilities that are kept: 32 MB.
_KEPT = 2**22


class EmpiricalConditional(ExactConditional):
    """The learned conditional on the atoms of a data bank: batched over what it is conditioned on.

    Attributes
    ----------
    atoms
        The bank, shape (N, *event_shape).
    logits
        Normalised log-probabilities of the atoms, shape (*batch_shape, N): computed, and kept, once they are asked for.
    log_normalizer
        log E_{u'~prior} e^{s(u', v)}, shape batch_shape, in float64.

    Notes
    -----
    `log_prob` is that of a value: atoms that are equal share their probability, and a value that is not in the bank has
    log-probability −inf. Scores are computed in float64 and rounded once, at the end. All but `logits` and `probs` are
    reductions of `Scores`, which store no matrix of more than a few million of them.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> bank = torch.tensor([[0.0], [1.0], [2.0]])
    >>> d = model.u_given_v(pcl.EmpiricalPrior(bank)).condition(torch.tensor([[1.0]]))
    >>> d.probs
    tensor([[0.2741, 0.4519, 0.2741]])
    >>> d.mean, d.mode, d.ess()
    (tensor([[1.]]), tensor([[1.]]), tensor([2.8216]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_enumerate_support = True

    prior: EmpiricalPrior

    def __init__(self, conditional: Conditional, given: Float[Tensor, "*batch d"]) -> None:
        super().__init__(conditional, given)
        self._tilt = _Tilt(conditional, given.reshape(-1, given.shape[-1]))
        self._tilted_shape = self.batch_shape

    def _expand_into(self, new: "EmpiricalConditional", batch_shape: torch.Size) -> None:
        new._tilt, new._tilted_shape = self._tilt, self._tilted_shape

    def _expanded(self, rows: Shaped[Tensor, "B *rest"]) -> Shaped[Tensor, "*batch_and_rest"]:
        """Give what was computed for each condition the batch's shape."""
        rest = rows.shape[1:]
        return rows.reshape(self._tilted_shape + rest).expand(self.batch_shape + rest)

    @property
    def log_normalizer(self) -> Float[Tensor, "*batch"]:
        return self._expanded(self._tilt.log_normalizer)

    @property
    def logits(self) -> Float[Tensor, "*batch N"]:
        return self._expanded(self._tilt.logits)

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
        tilted = (1,) * (len(self.batch_shape) - len(self._tilted_shape)) + self._tilted_shape
        copies = [size // own for size, own in zip(self.batch_shape, tilted, strict=True)]
        draws = self._tilt.sample(sample_shape.numel() * math.prod(copies), generator)
        # An axis of the batch was either there before it was expanded, or is all copies.
        draws = draws.reshape(sample_shape.numel(), *copies, *tilted)
        pairs = (axis for k in range(len(tilted)) for axis in (1 + k, 1 + k + len(tilted)))
        return draws.permute(0, *pairs).reshape(sample_shape + self.batch_shape)

    def sample(self, sample_shape: Iterable[int] = ()) -> Shaped[Tensor, "*shape"]:
        """Draw atoms, shape (*sample_shape, *batch_shape, *event_shape)."""
        return self.atoms[self.sample_index(sample_shape).to(self.atoms.device)]

    def _sample_latent(self, sample_shape: Iterable[int]) -> Shaped[Tensor, "*shape"]:
        return self.sample(sample_shape)

    def log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-probability of values, −inf for those that are not in the bank."""
        shape = self._batch_of(value)
        index = self.prior.find(value).to(self.given.device)
        condition = self._expanded(torch.arange(math.prod(self._tilted_shape), device=index.device)).expand(shape)
        of_value = self._tilt.log_prob(condition.flatten(), index.clamp(min=0).expand(shape).flatten()).reshape(shape)
        return of_value.masked_fill(index < 0, -torch.inf)

    def enumerate_support(self, expand: bool = True) -> Shaped[Tensor, "*shape"]:
        """Return the distinct values, shape (K, *batch_shape, *event_shape), or with batch axes of length one."""
        values = self.atoms[self._tilt.distinct.to(self.atoms.device)]
        values = values.reshape(-1, *(1 for _ in self.batch_shape), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values

    @property
    def mode(self) -> Shaped[Tensor, "*shape"]:
        """The most probable value."""
        return self.atoms[self._expanded(self._tilt.mode).to(self.atoms.device)]

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
        expected = self._tilt.expectation(of_atoms.reshape(len(of_atoms), -1).to(self.given.device))
        return self._expanded(expected.reshape(-1, *self.event_shape))

    def _real_atoms(self) -> Float[Tensor, "N *event"]:
        if not self.atoms.is_floating_point():
            raise NotImplementedError(f"moments need real-valued atoms, these are {self.atoms.dtype}; use probs")
        return self.atoms.double()

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Entropy in nats of the distribution over values."""
        return self._expanded(self._tilt.entropy)

    def ess(self) -> Float[Tensor, "*batch"]:
        """Effective sample size 1 / Σ_i p_i²: how many equally probable atoms would be as spread out (Kish)."""
        return self._expanded(self._tilt.effective_atoms)


class _Tilt:
    """The scores of a bank's atoms for B conditions, and their reductions, which expanded copies share."""

    def __init__(self, conditional: Conditional, given: Float[Tensor, "B d"]) -> None:
        self.conditional, self.dim, self.given = conditional, conditional.dim, given
        self.prior = cast(EmpiricalPrior, conditional.prior)
        self.scores = self._scores(conditional.bank, self.prior.log_weights)

    def _scores(self, bank: Float[Tensor, "N d"], log_weights: Float[Tensor, " N"]) -> Scores:
        bank, log_weights = bank.double(), log_weights.to(bank.device, torch.float64)
        return self.conditional.scores(self.given.double(), bank, log_weights)

    @cached_property
    def log_normalizer(self) -> Float[Tensor, " B"]:
        return self.scores.logsumexp(self.dim)

    @cached_property
    def normalized(self) -> Scores:
        """Scores that are the log-probabilities of atoms."""
        return self._normalized(self.scores)

    def _normalized(self, scores: Scores) -> Scores:
        shift = -self.log_normalizer
        return scores.shifted(bias_u=shift) if self.dim == 1 else scores.shifted(bias_v=shift)

    @cached_property
    def logits(self) -> Float[Tensor, "B N"]:
        return self.normalized.matrix().movedim(self.dim, 1).to(self.given)

    def expectation(self, of_atoms: Float[Tensor, "N p"]) -> Float[Tensor, "B p"]:
        """Return Σ_i p_i w_i, in float64."""
        return self.normalized.weighted_sum(of_atoms, dim=self.dim)

    @cached_property
    def effective_atoms(self) -> Float[Tensor, " B"]:
        return self.normalized.weighted_sum(self._ones, _squared_exp, self.dim)[:, 0].reciprocal().to(self.given)

    @property
    def _ones(self) -> Float[Tensor, "N 1"]:
        return self.given.new_ones(len(self.prior), 1, dtype=torch.float64)

    @property
    def is_small(self) -> bool:
        """Whether to keep all log-probabilities, which makes single draws and values an order of magnitude faster."""
        return math.prod(self.scores.shape) <= _KEPT

    def sample(self, count: int, generator: torch.Generator | None) -> Int[Tensor, "count B"]:
        """Draw positions of atoms."""
        if self.is_small:
            return torch.multinomial(self._probabilities, count, replacement=True, generator=generator).mT
        return self.scores.sample(count, self.dim, generator=generator)

    @cached_property
    def _probabilities(self) -> Float[Tensor, "B N"]:
        # In float64: torch.multinomial adds them up in their own precision, and float32 loses large banks.
        return self.normalized.matrix().movedim(self.dim, 1).exp()

    @cached_property
    def distinct(self) -> Int[Tensor, " K"]:
        """Positions of the first atom of each value."""
        group = self.prior.group.to(self.given.device)
        return (group == torch.arange(len(group), device=group.device)).nonzero()[:, 0]

    @cached_property
    def values(self) -> Scores:
        """Scores that are the log-probabilities of values: of first atoms, with the weight of all that are equal."""
        if len(self.distinct) == len(self.prior):
            return self.normalized
        return self._normalized(self._scores(self.conditional.bank[self.distinct], self.prior.distinct().log_weights))

    @cached_property
    def mode(self) -> Int[Tensor, " B"]:
        return self.distinct[self.values.topk(1, self.dim).indices[:, 0]]

    @cached_property
    def entropy(self) -> Float[Tensor, " B"]:
        return (len(self.distinct) * self.values.mean(_entropy_term, self.dim)).to(self.given)

    def log_prob(self, conditions: Int[Tensor, " n"], atoms: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the log-probability of each atom's value under each condition."""
        values = self._number_of_value[atoms]
        rows, columns = (conditions, values) if self.dim == 1 else (values, conditions)
        if self.is_small:
            return self._matrix_of_values[rows, columns]
        some = max(1, _ENTRIES_AT_A_TIME // self.given.shape[1])
        return torch.cat([self._entries(*pair) for pair in zip(rows.split(some), columns.split(some), strict=True)])

    @cached_property
    def _number_of_value(self) -> Int[Tensor, " N"]:
        return torch.searchsorted(self.distinct, self.prior.group.to(self.distinct.device))

    @cached_property
    def _matrix_of_values(self) -> Float[Tensor, "n m"]:
        return self.values.matrix().to(self.given)

    def _entries(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        s = self.values
        bias_u, bias_v = (None if b is None else b[at] for b, at in ((s.bias_u, rows), (s.bias_v, columns)))
        matched = Scores(s.u[rows], s.v[columns], s.alignment, s.temperature, bias_u=bias_u, bias_v=bias_v)
        return matched.diagonal().to(self.given)


def _squared_exp(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return (2 * logits).exp()


def _entropy_term(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    terms: Tensor = torch.special.entr(logits.exp())
    return terms


class _Atoms(constraints.Constraint):
    """Membership of a data bank."""

    is_discrete = True

    def __init__(self, prior: EmpiricalPrior) -> None:
        self.prior = prior
        self.event_dim = len(prior.event_shape)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.prior.find(value) >= 0
