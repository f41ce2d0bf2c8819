"""The law of an autoencoder's latent variables: a mixture of Gaussians on the codes of the data."""

from typing import cast

import torch
from jaxtyping import Float
from pyro.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch import Tensor

from probcl.checks import require_count

_MOST_ITERATIONS = 500
# Added to the components' variances; the codes of a whole data set have variance one or so.
_VARIANCE_FLOOR = 1e-3


def mixture(
    log_weights: Float[Tensor, " K"], means: Float[Tensor, "K k"], scale_tril: Float[Tensor, "K k k"]
) -> MixtureSameFamily:
    """Return the mixture of Gaussians with these weights, means and Cholesky factors of the covariances."""
    components = MultivariateNormal(means, scale_tril=scale_tril, validate_args=False)
    return MixtureSameFamily(Categorical(logits=log_weights), components)


def fit_mixture(z: Float[Tensor, "N k"], components: int, seed: int = 0) -> MixtureSameFamily:
    """Fit a mixture of Gaussians with full covariances to data, by expectation maximisation from a k-means start.

    Parameters
    ----------
    z
        Data, shape (N, k).
    components
        K; no more than N.
    seed
        For the start.

    Examples
    --------
    >>> import torch
    >>> from probcl.generation import fit_mixture
    >>> noise = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    >>> z = torch.cat([noise - 5, noise + 5])
    >>> fit_mixture(z, components=2).component_distribution.mean.flatten().sort().values.round()
    tensor([-5.,  5.])
    """
    from sklearn.mixture import GaussianMixture

    if require_count("components", components) > len(z):
        raise ValueError(f"components must be no more than the {len(z)} data, got {components}")
    fitted = GaussianMixture(components, reg_covar=_VARIANCE_FLOOR, max_iter=_MOST_ITERATIONS, random_state=seed)
    fitted.fit(z.detach().double().cpu().numpy())
    weights, means, covariances = (
        torch.from_numpy(array) for array in (fitted.weights_, fitted.means_, fitted.covariances_)
    )
    return mixture(weights.log().to(z), means.to(z), torch.linalg.cholesky(covariances).to(z))


def parameters(law: MixtureSameFamily) -> dict[str, Tensor]:
    """Return the arguments of `mixture` that make this law."""
    components = cast(MultivariateNormal, law.component_distribution)
    return {
        "log_weights": law.mixture_distribution.logits,
        "means": components.loc,
        "scale_tril": components.scale_tril,
    }
