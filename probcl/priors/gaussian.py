"""Gaussian priors, as linear images of independent standard normal variables."""

from functools import cached_property

import torch
from jaxtyping import Float
from pyro.distributions import Normal
from torch import Tensor
from torch.distributions import MultivariateNormal

from probcl.checks import describe, require_count, require_finite, require_floating
from probcl.priors.base import Prior


class GaussianPrior(Prior):
    """u ~ N(mean, covariance), written as u = mean + scale x with x ~ N(0, I).

    Parameters
    ----------
    mean
        Shape event_shape; any number of axes.
    covariance
        Shape (n, n), n the number of components of u: symmetric positive definite.

    Attributes
    ----------
    scale
        Shape (n, k); covariance = scale scaleᵀ. For a prior on EOFs its columns are the EOFs times their standard
        deviations, and x are the whitened principal components.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If an argument is not finite or of the wrong shape, or the covariance is not symmetric positive definite.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> prior = pcl.GaussianPrior(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> prior.log_prob(torch.zeros(1, 2))
    tensor([-2.3872])
    >>> maps = torch.randn(50, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> pcl.GaussianPrior.fit(maps, rank=10).scale.shape  # ten EOFs of maps of u and v
    torch.Size([72, 10])
    """

    def __init__(self, mean: Float[Tensor, "*event"], covariance: Float[Tensor, "n n"]) -> None:
        n = _require_real("mean", mean).numel()
        if _require_real("covariance", covariance).shape != (n, n):
            raise ValueError(
                f"covariance must have shape ({n}, {n}) as mean has {n} components, got {describe(covariance)}"
            )
        if not torch.allclose(covariance, covariance.mT, rtol=1e-4, atol=1e-6 * float(covariance.abs().max())):
            asymmetry = float((covariance - covariance.mT).abs().max())
            raise ValueError(f"covariance must be symmetric, got entries {asymmetry:.3g} from their mirror")
        factor, info = torch.linalg.cholesky_ex(covariance)
        if info:
            smallest = float(torch.linalg.eigvalsh(covariance)[0])
            raise ValueError(
                f"covariance must be positive definite, got an eigenvalue of {smallest:.3g}; for one of lower rank use "
                "GaussianPrior.from_scale"
            )
        self._set(mean, factor)

    def _set(self, mean: Tensor, scale: Tensor) -> None:
        self.mean, self.scale = mean.to(scale), scale
        self.event_shape = mean.shape
        self.latent = Normal(scale.new_zeros(scale.shape[1]), 1.0, validate_args=False).to_event(1)

    @classmethod
    def from_scale(
        cls, mean: Float[Tensor, "*event"], scale: Float[Tensor, "n k"], diagonal: Float[Tensor, " n"] | None = None
    ) -> "GaussianPrior":
        """Return N(mean, scale scaleᵀ + diag(diagonal)): low rank, plus independent variances where these are given."""
        n = _require_real("mean", mean).numel()
        if _require_real("scale", scale).ndim != 2 or len(scale) != n or not scale.numel():
            raise ValueError(f"scale must have one row for each of the mean's {n} components, got {describe(scale)}")
        if diagonal is not None:
            if _require_real("diagonal", diagonal).shape != (n,) or (diagonal < 0).any():
                raise ValueError(f"diagonal must be {n} non-negative variances, got {describe(diagonal)}")
            scale = torch.cat([scale, diagonal.to(scale).sqrt().diag()], dim=1)
        prior = cls.__new__(cls)
        prior._set(mean, scale)
        return prior

    @classmethod
    def fit(cls, data: Float[Tensor, "N *event"], rank: int | None = None, shrink: bool = True) -> "GaussianPrior":
        """Fit to data: EOFs (principal components) where `rank` is given, otherwise a dense covariance.

        Parameters
        ----------
        data
            Shape (N, *event_shape).
        rank
            How many EOFs to keep; the prior then lives on their span.
        shrink
            Whether a dense covariance is shrunk towards a multiple of the identity (Ledoit & Wolf, 2004), which keeps
            it well conditioned when N is not much larger than the number of components.
        """
        flat = _require_real("data", data).reshape(len(data), -1)
        if len(flat) < 2:
            raise ValueError(f"data must have at least two rows, got {describe(data)}")
        mean = flat.mean(0)
        if rank is None:
            covariance = _covariance(flat - mean, shrink)
            return cls(mean.reshape(data.shape[1:]), covariance.to(flat))
        limit = min(flat.shape[1], len(flat) - 1)
        if require_count("rank", rank) > limit:
            raise ValueError(f"rank must be at most {limit} for {describe(data)}, got {rank}")
        _, deviations, eofs = torch.linalg.svd(flat - mean, full_matrices=False)
        scale = eofs[:rank].mT * deviations[:rank] / (len(flat) - 1) ** 0.5
        return cls.from_scale(mean.reshape(data.shape[1:]), scale)

    @property
    def covariance(self) -> Float[Tensor, "n n"]:
        """Covariance of the flattened u."""
        return self.scale @ self.scale.mT

    @cached_property
    def whitener(self) -> Float[Tensor, "k n"]:
        """Pseudo-inverse of `scale`."""
        inverse: Tensor = torch.linalg.pinv(self.scale)
        return inverse

    def decode(self, z: Float[Tensor, "*batch k"]) -> Float[Tensor, "*out"]:
        # Samplers that follow gradients work in float64.
        return (z @ self.scale.mT.to(z)).reshape(*z.shape[:-1], *self.event_shape) + self.mean.to(z)

    def whiten(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch k"]:
        """Return the latent x of smallest norm with mean + scale x closest to u: the principal components, for EOFs."""
        return self._deviation(u) @ self.whitener.mT

    def log_prob(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        density: Tensor = self.density.log_prob(self._deviation(u))
        return density

    def _deviation(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch n"]:
        return (u - self.mean).reshape(*u.shape[: u.ndim - len(self.event_shape)], -1)

    @cached_property
    def density(self) -> MultivariateNormal:
        """Law of the flattened u − mean; `NotImplementedError` if it lives on a subspace and has no density."""
        n = len(self.scale)
        # covariance = RᵀR for the triangular R of scaleᵀ = QR, whose digits are not lost to squaring.
        lower = torch.linalg.qr(self.scale.mT, mode="r").R.mT
        pivots = lower.diagonal()
        if lower.shape[1] < n or bool((pivots.abs() <= n * torch.finfo(lower.dtype).eps * lower.abs().max()).any()):
            rank = int(torch.linalg.matrix_rank(self.scale))
            raise NotImplementedError(f"a Gaussian of rank {rank} in {n} dimensions has no density; use log_ratio")
        return MultivariateNormal(pivots.new_zeros(n), scale_tril=lower * pivots.sign(), validate_args=False)

    def __repr__(self) -> str:
        return f"GaussianPrior(event_shape={tuple(self.event_shape)}, rank={self.scale.shape[1]})"


def _require_real(name: str, value: object) -> Tensor:
    return require_finite(name, require_floating(name, value))


def _covariance(centred: Float[Tensor, "N n"], shrink: bool) -> Float[Tensor, "n n"]:
    from sklearn.covariance import empirical_covariance, ledoit_wolf

    array = centred.double().cpu().numpy()
    if shrink:
        return torch.from_numpy(ledoit_wolf(array, assume_centered=True)[0])
    return torch.from_numpy(empirical_covariance(array, assume_centered=True))
