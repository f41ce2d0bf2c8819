"""The learned analysis in information form: Bayes' rule as an encoder of a set of observations.

With a Gaussian prior, x its whitened variable, and the inner product of quadratic features g_u(u) = (x, −½ x xᵀ) with
g_v(v) = (b(v), Λ(v)), the score is s = bᵀx − ½ xᵀΛx and the conditional is Gaussian in closed form, of precision I + Λ
and mean (I + Λ)⁻¹b. For conditionally independent observations b and Λ are sums over them, so the encoder of v sums
over tokens: any number of observations, in any order. `GaussianConditionalLoss` trains it without negatives,
``ConditionalLoss(2, 0)`` with them, towards the same answer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, softplus

from probcl.alignment import InnerProduct
from probcl.checks import describe, require_count
from probcl.encoders.vector import MLP
from probcl.losses import Identifies, Loss, require_pairs
from probcl.priors import GaussianPrior
from probcl.scores import Scores
from probcl.serialization import register

# Relative to the largest singular value: below it a column of the prior's scale adds nothing to the others.
_INDEPENDENT_TO = 1e-5
_ROWS_CHECKED = 4


@register
class QuadraticFeatures(nn.Module):
    """The fixed encoder u ↦ (x, −½ x xᵀ), x = whitener (u − mean): shape (n, latent + latent²).

    Make it with `QuadraticFeatures.of`; the arguments here are the shapes that a saved one is loaded into.

    Parameters
    ----------
    in_features
        Number of components of u.
    latent
        Number of components of x.
    """

    mean: Tensor
    whitener: Tensor

    def __init__(self, in_features: int, latent: int) -> None:
        super().__init__()
        self.latent = require_count("latent", latent)
        self.register_buffer("mean", torch.zeros(require_count("in_features", in_features)))
        self.register_buffer("whitener", torch.zeros(latent, in_features))

    @classmethod
    def of(cls, prior: GaussianPrior) -> "QuadraticFeatures":
        """Return the features of a prior's whitened variable.

        Raises
        ------
        TypeError
            If the prior is not a `GaussianPrior`.
        ValueError
            If its scale has dependent columns: x would then not be N(0, I) under it.
        """
        if not isinstance(prior, GaussianPrior):
            raise TypeError(f"prior must be a GaussianPrior, got {describe(prior)}")
        n, latent = prior.scale.shape
        singular = torch.linalg.svdvals(prior.scale)
        if latent > n or bool(singular[-1] <= _INDEPENDENT_TO * singular[0]):
            raise ValueError(
                f"prior must have a scale with independent columns, got {prior!r} in {n} dimensions; use fewer EOFs, "
                "or GaussianPrior(mean, covariance)"
            )
        features = cls(n, latent)
        features.mean, features.whitener = prior.mean.detach().reshape(-1).clone(), prior.whitener.detach().clone()
        return features

    def whiten(self, u: Float[Tensor, "n *event"]) -> Float[Tensor, "n latent"]:
        """Return x."""
        return (u.reshape(len(u), -1) - self.mean) @ self.whitener.mT

    def forward(self, u: Float[Tensor, "n *event"]) -> Float[Tensor, "n features"]:
        return quadratic_features(self.whiten(u))


@register
class Information(nn.Module):
    """The additive encoder of a set of observations: b = Σ_k A_k y_k and Λ = Σ_k A_k W_k A_kᵀ.

    y_k is what was observed. A_k (latent × values) and W_k ≻ 0 (values × values) are functions, a network's, of what is
    known of observation k before it is made: its position, time, error. For a linear observation y = Hx + e with
    e ~ N(0, R) the exact ones are A = HᵀR⁻¹ and W = R.

    Parameters
    ----------
    in_features
        Width of what describes an observation.
    latent
        Number of components of x.
    values
        Number of components of one observation.
    hidden
        Widths of the network's hidden layers, at least one.

    Notes
    -----
    Input has shape (n, T, in_features + values + 1): descriptions, values, and 1 where there is an observation or 0
    where there is none (whose descriptions and values may be any finite numbers). Output has shape
    (n, latent + latent²), (b, Λ). `ValueError` for other shapes, or a presence that is neither 0 nor 1.

    A starts at zero: with Λ written as φφᵀ and b as φy, zero would be a saddle.
    """

    def __init__(self, in_features: int, latent: int, values: int = 1, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("hidden must have at least one width, got none")
        self.in_features, self.latent = in_features, require_count("latent", latent)
        self.values = require_count("values", values)
        self.body = MLP(in_features, hidden[-1], hidden[:-1])
        self.gain = nn.Linear(hidden[-1], latent * values)
        self.root = nn.Linear(hidden[-1], values * values)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)

    def forward(self, v: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n features"]:
        if v.ndim != 3 or v.shape[2] != self.in_features + self.values + 1:
            raise ValueError(
                f"v must have shape (n, tokens, {self.in_features} + {self.values} + 1): descriptions, values and "
                f"presence, got {describe(v)}"
            )
        description, observed, present = v.split([self.in_features, self.values, 1], dim=2)
        if not ((present == 0) | (present == 1)).all():
            found = f"values from {float(present.min()):g} to {float(present.max()):g}"
            raise ValueError(f"the last column of v, presence, must be 0 or 1, got {found}")
        hidden = gelu(self.body(description.flatten(0, 1))).unflatten(0, v.shape[:2])
        gain = self.gain(hidden).unflatten(2, (self.latent, self.values)) * present[..., None]
        b = torch.einsum("ntkv,ntv->nk", gain, observed)
        # (latent, tokens · values): Λ is one product of matrices, which adds up over tokens.
        root = (gain @ self._root(hidden)).transpose(1, 2).flatten(2)
        return torch.cat([b, (root @ root.mT).flatten(1)], dim=1)

    def _root(self, hidden: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens values values"]:
        """Return the Cholesky factor of W."""
        free = self.root(hidden).unflatten(2, (self.values, self.values))
        root: Tensor = free.tril(-1) + softplus(free.diagonal(dim1=2, dim2=3)).diag_embed()
        return root


class GaussianConditionalLoss(Loss):
    """Exact −E log dν(u|v)/dμ_u of the information form: the u|v loss with its normaliser in closed form, no negatives.

    L = −mean_i [s_ii − log Z(v_i)] for scores of `QuadraticFeatures` with (b, Λ) under `InnerProduct`, with
    log Z = ½ bᵀ(I + Λ)⁻¹b − ½ log|I + Λ|, b and Λ over τ. If u follows the prior it is the limit of
    ``ConditionalLoss(2, 0)`` for large batches, and −L estimates a lower bound of the mutual information I(u; v).

    Raises
    ------
    ValueError
        If the scores are not of the information form.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.information import Information, QuadraticFeatures
    >>> prior = pcl.GaussianPrior(torch.zeros(2), torch.eye(2))
    >>> model = pcl.BimodalModel(QuadraticFeatures.of(prior), Information(in_features=3, latent=2))
    >>> u, v = torch.ones(4, 2), torch.ones(4, 5, 3 + 1 + 1)  # 5 observations: what describes each, its value, presence
    >>> loss = pcl.GaussianConditionalLoss()(model.scores(u, v))
    >>> abs(float(loss.detach()))  # no information is taken from the observations yet
    0.0
    """

    @property
    def identifies(self) -> Identifies:
        return Identifies.RATIO_UP_TO_V

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        _require_information_form(scores)
        b, precision = split_information(scores.v / scores.temperature)
        return (information_log_normalizer(b, precision) - scores.diagonal()).mean()


def quadratic_features(x: Float[Tensor, "n k"]) -> Float[Tensor, "n features"]:
    """Return (x, −½ x xᵀ), whose inner product with (b, Λ) is bᵀx − ½ xᵀΛx."""
    return torch.cat([x, (-0.5 * x[:, :, None] * x[:, None, :]).flatten(1)], dim=1)


def split_information(z_v: Float[Tensor, "n features"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k k"]]:
    """Return b and the symmetric part of Λ from an embedding of v.

    Raises
    ------
    ValueError
        If its width is not k + k² for any k.
    """
    width = z_v.shape[1]
    latent = int(((1 + 4 * width) ** 0.5 - 1) / 2 + 0.5)
    if latent + latent**2 != width:
        raise ValueError(f"an embedding in information form has width k + k², got {width}")
    precision = z_v[:, latent:].unflatten(1, (latent, latent))
    return z_v[:, :latent], 0.5 * (precision + precision.mT)


def information_factor(precision: Float[Tensor, "n k k"]) -> Float[Tensor, "n k k"]:
    """Return the Cholesky factor of I + Λ.

    Raises
    ------
    ValueError
        If some I + Λ is not positive definite: e^s then has no finite integral.
    """
    factor, info = torch.linalg.cholesky_ex(precision + torch.eye(precision.shape[1]).to(precision))
    if (info > 0).any():
        raise ValueError(f"I + Λ(v) must be positive definite, and is not for {int((info > 0).sum())} of {len(info)} v")
    root: Tensor = factor
    return root


def information_log_normalizer(b: Float[Tensor, "n k"], precision: Float[Tensor, "n k k"]) -> Float[Tensor, " n"]:
    """Return log E_{x ~ N(0, I)} exp(bᵀx − ½ xᵀΛx)."""
    factor = information_factor(precision)
    whitened = torch.linalg.solve_triangular(factor, b[:, :, None], upper=False)[..., 0]
    normalizer: Tensor = 0.5 * whitened.square().sum(1) - factor.diagonal(dim1=1, dim2=2).log().sum(1)
    return normalizer


def _require_information_form(scores: Scores) -> None:
    if type(scores.alignment) is not InnerProduct or scores.bias_u is not None or scores.bias_v is not None:
        raise ValueError(f"the information form needs InnerProduct() and no biases, got {scores!r}")
    # A few rows tell, and these embeddings are wide.
    some = scores.u[:_ROWS_CHECKED].detach()
    x, _ = split_information(some)
    features = quadratic_features(x)
    if not torch.allclose(some, features, rtol=1e-3, atol=1e-5 * float(features.abs().max())):
        raise ValueError("the information form needs QuadraticFeatures as the encoder of u, got other embeddings")
