"""Conditionals with any continuous prior, by a sampler."""

from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import constraints

from probcl.conditional.base import Conditional
from probcl.conditional.distribution import FROZEN_DRAWS, FROZEN_SEED, TiltedDistribution
from probcl.priors import Prior
from probcl.samplers import Draws, Sampler, Target
from probcl.samplers.base import unvalidated
from probcl.samplers.unconstrained import unconstraining

_MODE_ITERATIONS = 200
_FAR = 1e30


class TiltedConditional(TiltedDistribution):
    """A continuous prior tilted by the score, drawn from by a sampler.

    Moments, mode and normaliser rest on one set of draws, made when first asked for and kept, so that they agree with
    each other and do not change from call to call.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), temperature=0.5)
    >>> nu = model.u_given_v(torch.distributions.Gamma(torch.tensor([3.0]), 4.0))
    >>> d = nu.condition(torch.tensor([[1.0]]))  # Gamma(3, 4) times e^{2u} is Gamma(3, 2), of mean 1.5
    >>> bool((d.mean - 1.5).abs() < 0.1), bool(d.diagnosis.trusted)
    (True, True)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    prior: Prior

    def __init__(self, conditional: Conditional, given: Float[Tensor, "*batch d"]) -> None:
        super().__init__(conditional, given)
        self.sampler: Sampler = conditional.sampler
        self._source = self

    def _expand_into(self, new: "TiltedConditional", batch_shape: torch.Size) -> None:
        new.sampler, new._source = self.sampler, self._source

    @property
    def support(self) -> constraints.Constraint:
        return self.prior.support

    @property
    def target(self) -> Target:
        """What the samplers are given: the tilted law of the latent variable, for each condition."""
        return _target(self.conditional, self.given.reshape(-1, self.given.shape[-1]))

    def draw(self, num_samples: int, *, seed: int | None = None) -> Draws:
        """Draw latent variables with the sampler's own diagnostics: effective sample size, k̂ or R̂, evidence."""
        return self.sampler.draw(self.target, num_samples, seed=seed)

    def sample(self, sample_shape: Iterable[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw values, shape (*sample_shape, *batch_shape, *event_shape)."""
        shape, source = torch.Size(sample_shape) + self.batch_shape, self._source
        copies = shape[: len(shape) - len(source.batch_shape)]
        if copies + source.batch_shape != shape:  # an axis of length one was expanded
            source, copies = self, torch.Size(sample_shape)
        draws = source.draw(max(copies.numel(), 1))
        return self._decode(draws.z)[: copies.numel()].reshape(shape + self.event_shape)

    @torch.no_grad()
    def _decode(self, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*out"]:
        return self.prior.decode(z)

    @property
    def diagnosis(self) -> Draws:
        """The draws behind moments and normaliser, with their diagnostics."""
        return self._source._diagnosis

    @cached_property
    def _diagnosis(self) -> Draws:
        return self.draw(FROZEN_DRAWS, seed=FROZEN_SEED)

    @property
    def log_normalizer(self) -> Float[Tensor, "*batch"]:
        """Estimate of log Z(v) = log E_{u'~prior} e^{s(u', v)}, shape batch_shape, in float64.

        See `log_normalizer_se`. `NotImplementedError` if the sampler does not estimate it for every condition.
        """
        return self._evidence(self.diagnosis.log_evidence)

    @property
    def log_normalizer_se(self) -> Float[Tensor, "*batch"]:
        """Standard error of `log_normalizer`, which `log_prob` and `log_ratio` inherit."""
        return self._evidence(self.diagnosis.log_evidence_se)

    def _evidence(self, estimate: Tensor | None) -> Float[Tensor, "*batch"]:
        if estimate is None or estimate.isnan().any():
            raise NotImplementedError(
                f"{self.diagnosis.method} does not estimate the normaliser for every condition; use another sampler, "
                "or unnormalized_log_prob"
            )
        return self._of_source(estimate)

    def _of_source(self, per_condition: Shaped[Tensor, "B *event"]) -> Shaped[Tensor, "*shape"]:
        """Give what there is for each condition of the source the shape of this distribution's batch."""
        event = per_condition.shape[1:]
        return per_condition.reshape(self._source.batch_shape + event).expand(self.batch_shape + event)

    def log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density, normalised by an estimate whose standard error is `log_normalizer_se`.

        Raises
        ------
        NotImplementedError
            If the prior has no density that is known, as `log_ratio` has all the same; or if the sampler does not
            estimate the normaliser.
        """
        self._batch_of(value)
        return self.prior.log_prob(value) + self.log_ratio(value)

    def unnormalized_log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density plus the unknown log Z(v): log prior(u) + s(u, v), which needs no draws."""
        self._batch_of(value)
        return self.prior.log_prob(value) + self._scores_at(value).to(self.given.dtype)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the draws, shape (*batch_shape, *event_shape)."""
        return self._of_source(self._decode(self.diagnosis.z).mean(0))

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the draws, shape (*batch_shape, *event_shape)."""
        return self._of_source(self._decode(self.diagnosis.z).var(0))

    @property
    def covariance(self) -> Float[Tensor, "*batch n n"]:
        """Covariance of the draws, flattened, shape (*batch_shape, n, n)."""
        draws = self._decode(self.diagnosis.z)
        draws = draws.reshape(*draws.shape[:2], -1)  # a scalar has one component
        centred = (draws - draws.mean(0)).movedim(0, 1)
        return self._of_source(centred.mT @ centred / (len(draws) - 1))

    def ess(self) -> Float[Tensor, "*batch"]:
        """Effective number of draws behind the moments."""
        return self._of_source(self.diagnosis.ess)

    @property
    def mode(self) -> Float[Tensor, "*shape"]:
        """The value of largest density, by L-BFGS from the best of the draws (Baptista, Stuart & Tran 2025, §4.1).

        The density is that of u itself, where it has one that is known; otherwise that of the latent variable of a
        decoder, or of all sites of a Pyro model, each in its own space. That joint density may have no mode, as where a
        scale that is drawn may fall to zero; what is returned is then some point of large density.
        """
        return self._of_source(self._source._mode)

    @cached_property
    def _mode(self) -> Float[Tensor, "B *event"]:
        density, z = _Density(self.prior, self.target), self.diagnosis.z
        bijection = unconstraining(self.prior.latent)
        with torch.no_grad():
            best = density(z).argmax(0)
        start = z[best, torch.arange(len(best), device=z.device)]
        free = bijection.inv(start).detach().requires_grad_()
        optimizer = torch.optim.LBFGS([free], max_iter=_MODE_ITERATIONS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            # A search that runs away must not stop those of the other conditions.
            loss = -density(bijection(free)[None]).nan_to_num(-_FAR, _FAR, -_FAR).clamp(-_FAR, _FAR).sum()
            (gradient,) = torch.autograd.grad(loss, [free])
            free.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
            return loss.detach()

        with torch.enable_grad(), unvalidated():
            optimizer.step(closure)
        return self._decode(_better(density, bijection(free.detach()), start))


class _Density:
    """What a mode maximises, log μ + s at draws z (S, B, *latent_event)."""

    def __init__(self, prior: Prior, target: Target) -> None:
        self.prior, self.target = prior, target

    def __call__(self, z: Float[Tensor, "S B *event"]) -> Float[Tensor, "S B"]:
        return self.prior.log_density(z) + self.target.log_tilt(z)


def _better(
    density: _Density, z: Float[Tensor, "B *event"], other: Float[Tensor, "B *event"]
) -> Float[Tensor, "B *event"]:
    """Return whichever is more probable, for each condition: one step too far can spoil all of a joint optimisation."""
    candidates = torch.stack([z, other])
    with torch.no_grad(), unvalidated():
        value = density(candidates)
    best = value.masked_fill(~value.isfinite(), -torch.inf).argmax(0)
    return candidates[best, torch.arange(len(z), device=z.device)]


class _Tilt:
    """s(decode(z), v_b) for draws of each condition's own, z (S, B, *latent_event)."""

    def __init__(self, conditional: Conditional, given: Float[Tensor, "B d"]) -> None:
        self.conditional, self.given = conditional, given

    def __call__(self, z: Float[Tensor, "S B *event"]) -> Float[Tensor, "S B"]:
        values = self.conditional.prior.decode(z)  # type: ignore[union-attr]
        return self.conditional.matched_scores(values, self.given.expand(len(z), -1, -1))


class _SharedTilt(_Tilt):
    """The same for draws that all conditions share, z (S, *latent_event): one score matrix."""

    def __call__(self, z: Float[Tensor, "S *event"]) -> Float[Tensor, "S B"]:
        return self.conditional.shared_scores(self.conditional.prior.decode(z), self.given)  # type: ignore[union-attr]


class _Subset:
    """The target of some of the conditions."""

    def __init__(self, conditional: Conditional, given: Float[Tensor, "B d"]) -> None:
        self.conditional, self.given = conditional, given

    def __call__(self, index: Int[Tensor, " b"]) -> Target:
        return _target(self.conditional, self.given[index.to(self.given.device)])


def _target(conditional: Conditional, given: Float[Tensor, "B d"]) -> Target:
    return Target(
        prior=conditional.prior,  # type: ignore[arg-type]
        log_tilt=_Tilt(conditional, given),
        log_tilt_shared=_SharedTilt(conditional, given),
        batch_size=len(given),
        context=given,
        subset=_Subset(conditional, given),
    )
