"""What a sampler draws from and what it gives back: `Target`, `Draws` and `Sampler`.

The law of z given v_b is the prior tilted by a score, ν(dz | v_b) = e^{s(z, v_b)} μ(dz) / Z(v_b), and every sampler
treats a batch of B conditions v_1, ..., v_B at once.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import pyro
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.distributions import Distribution

from probcl.checks import describe, require_count
from probcl.errors import ProbclWarning
from probcl.randomness import seeded

# Fewer effective draws than this and neither a mean nor the diagnostics themselves can be relied on.
MIN_ESS = 100.0
# Vehtari et al. (2021) ask for 1.01 of one quantity; this bounds the worst of many coordinates.
MAX_R_HAT = 1.05
# A relative error of 30% in Z(v): beyond it the particles have lost track of where the mass is.
MAX_LOG_EVIDENCE_SE = 0.3

_CONDITIONS_NAMED = 8


@runtime_checkable
class LatentPrior(Protocol):
    """What samplers need of a prior: the law of its latent variable z.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> isinstance(pcl.GaussianPrior(torch.zeros(2), torch.eye(2)), pcl.samplers.LatentPrior)
    True
    """

    @property
    def latent(self) -> Distribution:
        """The law of z, a Pyro distribution with ``batch_shape`` ()."""
        ...


@dataclass(frozen=True)
class Target:
    """The tilted laws e^{s(z, v_b)} μ(dz) of B conditions.

    Parameters
    ----------
    prior
        Its ``latent`` is μ, the law of z, with ``batch_shape`` () and a continuous support.
    log_tilt
        Maps z of shape (S, B, *latent_event), other draws for each condition, to s(z_{ib}, v_b), (S, B);
        differentiable in z.
    log_tilt_shared
        Maps z of shape (S, *latent_event), the same draws for every condition, to s(z_i, v_b), (S, B).
    batch_size
        B.
    context
        Embeddings of v_1, ..., v_B, shape (B, d), which an amortised sampler takes as input.
    subset
        Maps indices, shape (b,), to the target of these conditions alone. Without it `select` evaluates the scores of
        all conditions and keeps some.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> prior = pcl.GaussianPrior(torch.zeros(1), torch.eye(1))
    >>> v = torch.tensor([0.0, 1.0, 2.0])
    >>> target = pcl.samplers.Target(prior, lambda z: z[..., 0] * v, lambda z: z * v, batch_size=3)
    >>> target.log_prob(torch.zeros(1, 3, 1)), target.select(torch.tensor([2])).batch_size
    (tensor([[-0.9189, -0.9189, -0.9189]]), 1)
    """

    prior: LatentPrior
    log_tilt: Callable[[Tensor], Tensor]
    log_tilt_shared: Callable[[Tensor], Tensor]
    batch_size: int
    context: Float[Tensor, "B d"] | None = None
    subset: "Callable[[Tensor], Target] | None" = None

    def __post_init__(self) -> None:
        require_count("batch_size", self.batch_size)
        if len(self.prior.latent.batch_shape):
            raise ValueError(f"prior.latent must have batch_shape (), got {tuple(self.prior.latent.batch_shape)}")
        if self.context is not None and len(self.context) != self.batch_size:
            raise ValueError(f"context must have {self.batch_size} rows, one a condition, got {describe(self.context)}")

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one z."""
        return self.prior.latent.event_shape

    def log_prob(self, z: Float[Tensor, "S B *event"]) -> Float[Tensor, "S B"]:
        """Log-density of z given each condition, less log Z(v_b)."""
        return self.prior.latent.log_prob(z) + self.log_tilt(z)

    def select(self, index: Int[Tensor, " b"]) -> "Target":
        """Return the target of some of the conditions."""
        if self.subset is not None:
            return self.subset(index)
        return Target(
            self.prior,
            _SomeColumns(self.log_tilt, index, self.batch_size),
            _SomeColumns(self.log_tilt_shared, index),
            len(index),
            None if self.context is None else self.context[index.to(self.context.device)],
        )


class _SomeColumns:
    """A score of all conditions, of which some are wanted."""

    def __init__(self, score: Callable[[Tensor], Tensor], index: Int[Tensor, " b"], of: int | None = None) -> None:
        self.score, self.index = score, index
        # The conditions that are not wanted are given the draws of the first that is.
        self.source = None if of is None else torch.zeros(of, dtype=torch.long, device=index.device)
        if self.source is not None:
            self.source[index] = torch.arange(len(index), device=index.device)

    def __call__(self, z: Tensor) -> Tensor:
        scores = self.score(z if self.source is None else z[:, self.source.to(z.device)])
        return scores[:, self.index.to(scores.device)]


@dataclass(frozen=True)
class Draws:
    """Draws of z for each of B conditions, and how far they can be trusted.

    Attributes
    ----------
    z
        Equally weighted draws, shape (S, B, *latent_event); resampled where the method weights.
    ess
        Effective sample size behind them, (B,); not bounded by S, of which they may be a thinning.
    trusted
        Whether the method's diagnostics pass, (B,).
    method
        What drew them.
    log_evidence, log_evidence_se
        log E_prior e^s and its standard error, (B,), from methods that estimate it.
    k_hat
        Pareto tail index of the importance weights, (B,), from methods that weight.
    r_hat
        Split rank-normalised R̂ of the worst coordinate, (B,), from methods that run chains.
    divergent
        Share of the trajectories that diverged, (B,), from Hamiltonian chains.
    reason
        Why `AutoSampler` chose the method; empty otherwise.
    num_chains
        Chains that they are taken from in turn: draw i is of chain i modulo their number. 1 if there are no chains.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> prior = pcl.GaussianPrior(torch.zeros(1), torch.eye(1))
    >>> v = torch.tensor([0.0, 1.0])
    >>> target = pcl.samplers.Target(prior, lambda z: z[..., 0] * v, lambda z: z * v, batch_size=2)
    >>> draws = pcl.samplers.ImportanceResampling().draw(target, 500, seed=0)
    >>> draws.z.shape, draws.trusted, draws.method
    (torch.Size([500, 2, 1]), tensor([True, True]), 'importance resampling')
    >>> draws.select(torch.tensor([1])).log_evidence.round(decimals=1)  # ½ v²
    tensor([0.5000], dtype=torch.float64)
    """

    z: Shaped[Tensor, "S B *event"]
    ess: Float[Tensor, " B"]
    trusted: Bool[Tensor, " B"]
    method: str
    log_evidence: Float[Tensor, " B"] | None = None
    log_evidence_se: Float[Tensor, " B"] | None = None
    k_hat: Float[Tensor, " B"] | None = None
    r_hat: Float[Tensor, " B"] | None = None
    divergent: Float[Tensor, " B"] | None = None
    reason: str = ""
    num_chains: int = 1

    def select(self, index: Int[Tensor, " b"]) -> "Draws":
        """Return the draws of some conditions."""
        arrays = {name: value[index] for name, value in self._arrays().items() if value is not None}
        return replace(self, z=self.z[:, index], **cast(Any, arrays))

    def put(self, index: Int[Tensor, " b"], other: "Draws") -> "Draws":
        """Return these with the draws of some conditions replaced, NaN for diagnostics that their method lacks."""
        theirs = other._arrays()
        arrays = {}
        for name, value in self._arrays().items():
            if value is None and theirs[name] is None:
                continue
            merged = torch.full_like(self.ess, torch.nan) if value is None else value.clone()
            new = theirs[name]
            merged[index] = merged.new_full((len(index),), torch.nan) if new is None else new.to(merged)
            arrays[name] = merged
        methods = {0: self.method, self.z.shape[1]: other.method}
        method = methods.get(len(index), f"{self.method} + {other.method}")
        num_chains = {0: self.num_chains, self.z.shape[1]: other.num_chains}.get(len(index), 1)
        z = self.z.index_copy(1, index, other.z.to(self.z))
        return replace(self, z=z, method=method, num_chains=num_chains, **cast(Any, arrays))

    def _arrays(self) -> dict[str, Tensor | None]:
        """Whatever has one entry a condition."""
        names = ("ess", "trusted", "log_evidence", "log_evidence_se", "k_hat", "r_hat", "divergent")
        return {name: getattr(self, name) for name in names}

    def report(self, which: Bool[Tensor, " B"]) -> str:
        """Say which conditions these are and the worst of their diagnostics."""
        return f"{name_conditions(which)} (at worst {self.worst(which)})"

    def worst(self, which: Bool[Tensor, " B"]) -> str:
        """Name the diagnostics of these conditions, each at its worst."""
        parts = [f"effective sample size {self.ess[which].min():.0f}"]
        for name, values in [
            ("k̂", self.k_hat),
            ("R̂", self.r_hat),
            ("log-evidence ±", self.log_evidence_se),
            ("divergent", self.divergent),
        ]:
            # NaN: the method of that condition does not have this diagnostic.
            known = values[which] if values is not None else self.ess[:0]
            known = known[~known.isnan()]
            if len(known):
                parts.append(f"{name} {known.max():.2f}")
        return ", ".join(parts)


def name_conditions(which: Bool[Tensor, " B"]) -> str:
    """Name conditions for a message: how many of how many, and the first few positions."""
    positions = which.nonzero()[:, 0].tolist()
    named = ", ".join(str(position) for position in positions[:_CONDITIONS_NAMED])
    more = ", ..." if len(positions) > _CONDITIONS_NAMED else ""
    return f"{len(positions)} of {len(which)} conditions [{named}{more}]"


class Sampler(ABC):
    """Draws from a `Target`. A subclass implements `_draw`; seeding and warning are done here.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.samplers import Draws, Sampler, Target
    >>> class Exact(Sampler):  # draws from N(v, 1), which N(0, 1) tilted by e^{zv} is
    ...     def _draw(self, target, num_samples):
    ...         z = target.prior.latent.sample((num_samples, target.batch_size)) + target.context
    ...         ess = torch.full((target.batch_size,), float(num_samples))
    ...         return Draws(z, ess=ess, trusted=ess > 0, method="exact")
    >>> v = torch.tensor([[1.0], [3.0]])
    >>> prior = pcl.GaussianPrior(torch.zeros(1), torch.eye(1))
    >>> target = Target(prior, lambda z: (z * v).sum(-1), lambda z: z @ v.T, batch_size=2, context=v)
    >>> Exact().draw(target, 1000, seed=0).z.mean(0).round().flatten()
    tensor([1., 3.])
    """

    advice: ClassVar[str]
    """What to do when the draws are not to be trusted."""

    def draw(self, target: Target, num_samples: int, *, seed: int | None = None) -> Draws:
        """Draw for every condition of a target.

        Parameters
        ----------
        target
            The tilted laws.
        num_samples
            S, how many draws for each condition.
        seed
            Makes the draws deterministic and leaves torch's global generators as they were. Without it the draws use
            those generators, as Pyro's do.

        Raises
        ------
        ValueError
            If a score is NaN or +∞, or −∞ wherever it was tried.

        Warns
        -----
        ProbclWarning
            If the draws of some conditions are not to be trusted, naming them and what to do.
        """
        require_count("num_samples", num_samples)
        with seeded(seed), unvalidated(), torch.no_grad():
            draws = self._draw(target, num_samples)
        if not draws.trusted.all():
            warnings.warn(
                f"draws by {draws.method} are not to be trusted for {draws.report(~draws.trusted)}. {self.advice}",
                ProbclWarning,
                stacklevel=2,
            )
        return draws

    @abstractmethod
    def _draw(self, target: Target, num_samples: int) -> Draws:
        """Draw, without gradients unless asked for; neither seed nor warn."""


@contextmanager
def unvalidated() -> Iterator[None]:
    """Let distributions answer NaN out of their support, where a proposal may end up, as Pyro's MCMC does."""
    with pyro.validation_enabled(False):
        yield


def require_scores(scores: Float[Tensor, "*draws B"]) -> Float[Tensor, "*draws B"]:
    """Return scores in float64 if they can be weights' logarithms; raise otherwise."""
    scores = scores.double()
    columns = scores.reshape(-1, scores.shape[-1])
    bad = (columns.isnan() | (columns == torch.inf)).any(0)
    if bad.any():
        raise ValueError(f"scores must be finite or −inf, got NaN or +inf for {name_conditions(bad)}")
    impossible = columns.isneginf().all(0)
    if impossible.any():
        raise ValueError(f"the score is −inf at all {len(columns)} prior draws of {name_conditions(impossible)}")
    return scores
