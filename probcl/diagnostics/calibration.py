"""Simulation-based calibration and the probability integral transform: where the truth ranks among the draws."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor
from torch.distributions import Distribution

from probcl.checks import describe, require_tensor
from probcl.diagnostics.draws import Posterior, Truth, as_samples, as_truth, by_component, seeded
from probcl.diagnostics.uniformity import Uniformity, rank_values

DEFAULT_SAMPLES = 500


@dataclass(frozen=True, eq=False, repr=False)
class SBC(Uniformity):
    """Ranks of the truth among the draws: `values` are (rank + w) / (S + 1), w uniform on (0, 1).

    Attributes
    ----------
    num_samples
        S, the number of draws for each pair.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import sbc
    >>> rng = torch.Generator().manual_seed(0)
    >>> truth, draws = torch.randn(500, 1, generator=rng), torch.randn(99, 500, 1, generator=rng)
    >>> result = sbc(draws, truth, seed=0)
    >>> result.ranks.shape, result.num_samples
    (torch.Size([500, 1]), 99)
    >>> bool(result.p_value > 0.05)
    True
    """

    num_samples: int

    quantity: ClassVar[str] = "rank of the truth / number of draws"

    @property
    def ranks(self) -> Int[Tensor, "B D"]:
        """How many of the S draws are below the truth, 0 to S, ties broken at random; shape (B, D)."""
        return (self.values * (self.num_samples + 1)).long().clamp(max=self.num_samples)


@dataclass(frozen=True, eq=False, repr=False)
class PIT(Uniformity):
    """The posterior's distribution function at the truth, `values` = F(truth | v).

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import pit
    >>> rng = torch.Generator().manual_seed(0)
    >>> result = pit(torch.distributions.Normal(torch.zeros(500), 2.0), torch.randn(500, generator=rng))
    >>> bool(result.values.min() > 0.01)  # too wide a law: the truth is never far out
    True
    """

    quantity: ClassVar[str] = "posterior probability below the truth"


def sbc(
    posterior: Posterior,
    truth: Truth,
    *,
    quantity: Callable[[Tensor], Tensor] | None = None,
    num_samples: int = DEFAULT_SAMPLES,
    seed: int | None = None,
) -> SBC:
    r"""Simulation-based calibration: ranks of the truth among posterior draws.

    For (u, v) ~ μ and u_1, …, u_S independent draws of the *right* posterior μ(u|v), the rank
    R = #{s : f(u_s) < f(u)} is uniform on 0, …, S for every f (Talts, Betancourt, Simpson, Vehtari & Gelman 2018,
    theorem 1). A ∪-shaped histogram is a posterior that is too narrow, a ∩-shaped one too wide, a slope a bias.

    It does not see everything: a posterior that ignores v and returns the prior passes for every f(u). Give a
    `quantity` that knows v, such as the log-likelihood, to see that too (Modrák et al. 2023). Draws must be
    independent: thin a Markov chain first.

    Parameters
    ----------
    posterior
        Draws, shape ``(S, B, *event_shape)``, or a distribution with ``batch_shape`` (B,), such as
        ``model.u_given_v(prior).condition(v)``.
    truth
        The u that belong to the B conditions, shape ``(B, *event_shape)``; pairs from the joint law.
    quantity
        f, from ``(..., B, *event_shape)`` to (..., B) or ``(..., B, *out)``; the components of u by default.
    num_samples
        How many draws to take of a distribution.
    seed
        Makes ties, and draws of a distribution, reproducible without touching torch's global generator.

    Returns
    -------
    SBC
        With D components: the product of event_shape, or of what `quantity` returns.

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers (or a distribution).
    ValueError
        If shapes do not fit or a value is not finite.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import sbc
    >>> rng = torch.Generator().manual_seed(0)
    >>> v = torch.randn(500, 1, generator=rng)
    >>> u = v + torch.randn(500, 1, generator=rng)
    >>> draws = v + torch.randn(200, 500, 1, generator=rng)  # of u given v
    >>> for width in (1.0, 0.7):
    ...     print(width, bool(sbc(v + width * (draws - v), u, seed=0).p_value > 0.01))
    1.0 True
    0.7 False
    """
    u = as_truth(truth)
    with seeded(seed):
        samples = as_samples(posterior, u, num_samples)
        if quantity is not None:
            samples, u = _apply(quantity, samples, 2), _apply(quantity, u, 1)
        return SBC(rank_values(by_component(samples, 2), by_component(u, 1)), len(samples))


def pit(posterior: Posterior, truth: Truth, *, num_samples: int = DEFAULT_SAMPLES, seed: int | None = None) -> PIT:
    """Probability integral transform of each component: uniform if its conditional is right (Dawid 1984).

    A distribution of continuous scalars that has a ``cdf`` is asked for it. Otherwise F is that of the draws, with its
    steps filled in at random (`SBC`), so that the values are uniform for every number of draws; discrete components
    are treated alike (the randomised transform of Czado, Gneiting & Held 2009).

    Parameters
    ----------
    posterior, truth, num_samples, seed
        As in `sbc`.

    Raises
    ------
    TypeError, ValueError
        As `sbc` does.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import pit
    >>> rng = torch.Generator().manual_seed(0)
    >>> v = torch.randn(500, generator=rng)
    >>> u = v + torch.randn(500, generator=rng)
    >>> bool(pit(torch.distributions.Normal(v, 1.0), u).p_value > 0.01)
    True
    """
    u = as_truth(truth)
    if isinstance(posterior, Distribution):
        exact = _distribution_function(posterior, torch.as_tensor(truth))
        if exact is not None:
            return PIT(by_component(exact, 1))
    with seeded(seed):
        samples = as_samples(posterior, u, num_samples)
        return PIT(by_component(rank_values(samples, u), 1))


def _apply(quantity: Callable[[Tensor], Tensor], u: Float[Tensor, "*shape"], batch_ndim: int) -> Tensor:
    value = require_tensor("what quantity returns", quantity(u)).detach().double()
    if value.shape[:batch_ndim] != u.shape[:batch_ndim]:
        raise ValueError(f"quantity must keep the first {batch_ndim} axes of {tuple(u.shape)}, got {describe(value)}")
    return value


def _distribution_function(posterior: Distribution, truth: Real[Tensor, "B *event"]) -> Tensor | None:
    """Return F(truth) if the distribution knows it and it is continuous, so that F(truth) can be uniform."""
    if posterior.event_shape or posterior.batch_shape != truth.shape:
        return None
    try:
        if posterior.support is None or posterior.support.is_discrete:
            return None
        return posterior.cdf(truth).detach().to("cpu", torch.float64)
    except NotImplementedError:
        return None
