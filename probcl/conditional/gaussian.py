"""The exact route: conditionals that are Gaussian because the score is quadratic and the prior Gaussian.

That is so for a linear encoder of the target, or none, under `InnerProduct`, `L2` or `WithPotentials` of these, and
for the information form (`probcl.information`). With u = mean + scale z and z ~ N(0, I), the score is
s = c + bᵀz − ½ zᵀΛz for each v, and z given v is Gaussian of precision I + Λ and mean (I + Λ)⁻¹b.
"""

import math
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import constraints

from probcl.alignment import L2, Alignment, InnerProduct, WithPotentials
from probcl.conditional.base import Conditional
from probcl.conditional.exact import ExactConditional
from probcl.encoders.vector import Identity, Linear
from probcl.information import QuadraticFeatures, information_factor, quadratic_features, split_information
from probcl.priors import GaussianPrior

# Entries of the precisions that are worked on at a time: 2 MB, which stay in a core's cache.
_ENTRIES_AT_ONCE = 2**18
_ROUNDINGS = 4


class QuadraticTilt(NamedTuple):
    """A score c + bᵀz − ½ zᵀΛz in the latent variable of a Gaussian prior; Λ may be one for the whole batch."""

    constant: Float[Tensor, " B"]
    linear: Float[Tensor, "B k"]
    precision: Float[Tensor, "b k k"]


class _Law(NamedTuple):
    """Laws N(mean, (LLᵀ)⁻¹) of z, and their normalisers; L may be one for the whole batch."""

    factor: Float[Tensor, "b k k"]
    mean: Float[Tensor, "B k"]
    log_normalizer: Float[Tensor, " B"]


def is_gaussian(conditional: Conditional) -> bool:
    """Whether the score is quadratic in the target and its prior Gaussian."""
    gauge, alignment, encoder = conditional.model.gauge, conditional.model.alignment, conditional.encoder
    if gauge is not None and gauge.over != conditional.target:
        return False
    if isinstance(encoder, QuadraticFeatures):
        quadratic = type(alignment) is InnerProduct
    else:
        one_axis = len(conditional.prior.event_shape) == 1
        quadratic = one_axis and _layers(encoder) is not None and _is_quadratic(alignment)
    return quadratic and conditional.gaussian_prior is not None


def _layers(encoder: nn.Module) -> list[nn.Linear] | None:
    """Return the linear layers that an encoder is a chain of; None if it is something else."""
    if type(encoder) in (nn.Identity, Identity):
        return []
    if type(encoder) in (nn.Linear, Linear):
        return [cast(nn.Linear, encoder)]
    if type(encoder) is not nn.Sequential:
        return None
    parts = [_layers(part) for part in encoder]
    return None if None in parts else [layer for part in parts for layer in cast(list[nn.Linear], part)]


def _is_quadratic(alignment: Alignment) -> bool:
    if type(alignment) is WithPotentials:
        return _is_quadratic(alignment.base)
    return type(alignment) in (InnerProduct, L2)


def quadratic_tilt(conditional: Conditional, given: Float[Tensor, "B d"]) -> QuadraticTilt:
    """Write the score of a conditional that `is_gaussian` as a quadratic form of z."""
    model, prior, encoder = conditional.model, conditional.gaussian_prior, conditional.encoder
    assert prior is not None
    mean, scale = prior.mean.reshape(-1).to(given), prior.scale.to(given)
    if isinstance(encoder, QuadraticFeatures):
        x, slope = encoder.whitener.to(given) @ (mean - encoder.mean.to(given)), encoder.whitener.to(given) @ scale
        origin = quadratic_features(x[None])
        linear, quadratic = split_information(given)
        if x.any():
            linear = linear - quadratic @ x
        if not _is_identity(slope, encoder.whitener.dtype):
            linear, quadratic = linear @ slope, slope.mT @ quadratic @ slope
    else:
        slope, origin = scale, mean[None]
        for layer in _layers(encoder) or []:
            weight = layer.weight.detach().to(given)
            slope, origin = weight @ slope, origin @ weight.mT
            origin = origin if layer.bias is None else origin + layer.bias.detach().to(given)
        linear, shared = _expand(model.alignment, slope, origin[0], given)
        quadratic = shared[None]
    tau = model.temperature.value
    constant = conditional.scores(given, origin).matrix().reshape(-1)
    return QuadraticTilt(constant, linear / tau, quadratic / tau)


def _is_identity(slope: Float[Tensor, "k l"], precision: torch.dtype) -> bool:
    """Whether features and prior share their whitened variable, up to rounding in their own precision."""
    k, columns = slope.shape
    allowed = _ROUNDINGS * k * torch.finfo(precision).eps
    return k == columns and bool((slope - torch.eye(k).to(slope)).abs().max() <= allowed)


def _expand(
    alignment: Alignment, slope: Float[Tensor, "d k"], origin: Float[Tensor, " d"], given: Float[Tensor, "B d"]
) -> tuple[Float[Tensor, "B k"], Float[Tensor, "k k"]]:
    """Return b and Λ of a(slope z + origin, given), without the temperature."""
    if isinstance(alignment, WithPotentials):
        g, potential = alignment.split(slope.mT)
        g0, potential0 = alignment.split(origin[None])
        linear, quadratic = _expand(alignment.base, g.mT, g0[0], alignment.split(given)[0])
        return linear - potential0 @ potential.mT, quadratic + potential @ potential.mT
    if isinstance(alignment, L2):
        return (given - origin) @ slope, slope.mT @ slope
    return given @ slope, slope.new_zeros(slope.shape[1], slope.shape[1])


class GaussianConditional(ExactConditional):
    """A Gaussian conditional in closed form: exact draws, density, moments and normaliser, batched over v.

    Attributes
    ----------
    gaussian
        The prior as u = mean + scale z with z ~ N(0, I): itself, or the same law for a normal one of Pyro.
    latent_mean
        Mean of z given v, shape (*batch_shape, k).
    latent_precision
        Precision of z given v, shape (*batch_shape, k, k).

    Notes
    -----
    Computed in float64 and rounded to the precision of the prior. Draws are differentiable in the prior's mean and
    scale and in the embeddings it is given.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> nu = model.u_given_v(pcl.GaussianPrior(torch.zeros(1), torch.eye(1)))
    >>> d = nu.condition(torch.tensor([[2.0]]))  # e^{−½ (u − 2)²} times N(0, 1)
    >>> d.mean, d.variance
    (tensor([[1.]]), tensor([[0.5000]]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, conditional: Conditional, given: Float[Tensor, "*batch d"]) -> None:
        super().__init__(conditional, given)
        self.gaussian = cast(GaussianPrior, conditional.gaussian_prior)
        law = _laws(conditional, given.reshape(-1, given.shape[-1]))
        batch_shape, k = self.batch_shape, law.mean.shape[1]
        # Where Λ does not depend on v there is one factor for the whole batch.
        shared = torch.Size(1 for _ in batch_shape) if len(law.factor) == 1 else batch_shape
        self._factor = law.factor.reshape(*shared, k, k)
        self.latent_mean = law.mean.reshape(*batch_shape, k)
        self._log_normalizer = law.log_normalizer.reshape(batch_shape)

    def _expand_into(self, new: "GaussianConditional", batch_shape: torch.Size) -> None:
        new.gaussian, new._factor = self.gaussian, self._factor
        new.latent_mean = self.latent_mean.expand(*batch_shape, -1)
        new._log_normalizer = self._log_normalizer.expand(batch_shape)

    @property
    def latent_precision(self) -> Float[Tensor, "*batch k k"]:
        precision = self._factor @ self._factor.mT
        return precision.expand(*self.batch_shape, *precision.shape[-2:])

    @property
    def log_normalizer(self) -> Float[Tensor, "*batch"]:
        """Log of Z(v) = E_{u'~prior} e^{s(u', v)}, shape batch_shape, in float64."""
        return self._log_normalizer

    @property
    def support(self) -> constraints.Constraint:
        support: constraints.Constraint = self.prior.support
        return support

    def rsample(self, sample_shape: Iterable[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw values, shape (*sample_shape, *batch_shape, *event_shape), exactly."""
        return self.gaussian.decode(self._sample_whitened(sample_shape))

    def _sample_whitened(self, sample_shape: Iterable[int]) -> Float[Tensor, "*shape k"]:
        shape = torch.Size(sample_shape) + self.latent_mean.shape
        noise = torch.randn(shape, dtype=self.latent_mean.dtype, device=self.latent_mean.device)
        return self.latent_mean + self._coloured(noise)

    def _sample_latent(self, sample_shape: Iterable[int]) -> Float[Tensor, "*shape"]:
        # The latent variable of a distribution is u.
        return self._sample_whitened(sample_shape) if self.gaussian is self.prior else self.rsample(sample_shape)

    def _coloured(self, noise: Float[Tensor, "*shape k"]) -> Float[Tensor, "*shape k"]:
        """Turn white noise into deviations of z from its mean: L⁻ᵀ noise, I + Λ = LLᵀ."""
        # Axes to the left of the factor's are many right-hand sides of one system, which spares copies of it.
        batch = self._factor.shape[:-2] if self._factor.shape[:-2].numel() > 1 else torch.Size()
        inner = noise.shape[noise.ndim - 1 - len(batch) :]
        columns = noise.reshape(-1, *inner).movedim(0, -1)
        factor = self._factor.reshape(*batch, *self._factor.shape[-2:])
        coloured: Tensor = torch.linalg.solve_triangular(factor.mT, columns, upper=True)
        return coloured.movedim(-1, 0).reshape(noise.shape)

    def log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density, normalised; `NotImplementedError` if the prior lives on a subspace and has none."""
        self._batch_of(value)
        density: Tensor = self.prior.log_prob(value) + self.log_ratio(value)
        return density

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Conditional mean, shape (*batch_shape, *event_shape)."""
        return self.gaussian.decode(self.latent_mean)

    @property
    def mode(self) -> Float[Tensor, "*shape"]:
        """The most probable value, which is the mean."""
        return self.mean

    @property
    def covariance(self) -> Float[Tensor, "*batch n n"]:
        """Conditional covariance of the flattened value, shape (*batch_shape, n, n)."""
        covariance = self.covariance_root.mT @ self.covariance_root
        return covariance.expand(*self.batch_shape, *covariance.shape[-2:])

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Conditional variance of each component, shape (*batch_shape, *event_shape)."""
        variance = self.covariance_root.square().sum(-2)
        return variance.expand(*self.batch_shape, -1).reshape(*self.batch_shape, *self.event_shape)

    @cached_property
    def covariance_root(self) -> Float[Tensor, "*b k n"]:
        """A root of the covariance: covariance = rootᵀ root, shape (*batch_shape, k, n), or of ones for batch_shape."""
        root: Tensor = torch.linalg.solve_triangular(self._factor, self.gaussian.scale.mT, upper=False)
        return root

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Entropy in nats; `NotImplementedError` if the prior lives on a subspace and the density does not exist."""
        (n,) = self.gaussian.density.event_shape
        root = self.covariance_root
        log_determinant = torch.linalg.slogdet((root.mT @ root).double()).logabsdet
        entropy: Tensor = 0.5 * n * (1 + math.log(2 * math.pi)) + 0.5 * log_determinant
        return entropy.to(root).expand(self.batch_shape)


def _laws(conditional: Conditional, given: Float[Tensor, "B d"]) -> _Law:
    """Return the laws of z for a batch, in the precision of the prior but for the normalisers."""
    if not isinstance(conditional.encoder, QuadraticFeatures):
        return _law(conditional, given)
    rows = max(1, _ENTRIES_AT_ONCE // conditional.encoder.latent**2)
    parts = [_law(conditional, part) for part in given.split(rows)]
    return _Law(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _law(conditional: Conditional, given: Float[Tensor, "B d"]) -> _Law:
    tilt = quadratic_tilt(conditional, given.double())
    factor = information_factor(tilt.precision)
    whitened = _solve(factor, tilt.linear)
    log_determinant = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_normalizer = tilt.constant + 0.5 * whitened.square().sum(-1) - 0.5 * log_determinant
    like = cast(GaussianPrior, conditional.gaussian_prior).scale
    return _Law(factor.to(like), _solve(factor, whitened, transposed=True).to(like), log_normalizer)


def _solve(factor: Float[Tensor, "b k k"], x: Float[Tensor, "B k"], transposed: bool = False) -> Float[Tensor, "B k"]:
    """Return L⁻¹x, or L⁻ᵀx, for one lower triangular L or one for each x."""
    factor = factor.mT if transposed else factor
    if len(factor) == 1:
        solved: Tensor = torch.linalg.solve_triangular(factor[0], x.mT, upper=transposed).mT
    else:
        solved = torch.linalg.solve_triangular(factor, x[:, :, None], upper=transposed)[..., 0]
    return solved
