"""`Autoencoder`: a variational autoencoder of images as a Pyro model and its guide, fitted by `pyro.infer.SVI`."""

from collections.abc import Sequence
from typing import Literal

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions import Binomial, Independent, Normal
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import OneCycleLR  # type: ignore[attr-defined]
from torch import Tensor, nn

from probcl.checks import describe, require_count, require_finite, require_positive, require_tensor
from probcl.frozen import evaluating
from probcl.generation.networks import ConvDecoder, ConvEncoder
from probcl.randomness import seeded
from probcl.serialization import register

Likelihood = Literal["binomial", "normal"]

# The Kullback-Leibler term is phased in over this part of the training, lest the latent variables be given up at once.
_WARM_UP = 0.2
# Of the logarithms of variances that the encoder returns.
_LOG_VARIANCES = (-8.0, 3.0)


@register
class Autoencoder(nn.Module):
    """A variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114) with convolutions, in Pyro.

    z ~ N(0, I), x ~ likelihood(decoder(z)); the guide is N(mean(x), diag(variance(x))). With a context c, both networks
    are given it too, and the law is that of x given c.

    Parameters
    ----------
    image_shape
        (channels, height, width).
    latent_dim
        Dimension of z.
    likelihood
        ``"binomial"`` for grey levels in [0, 1]: `levels` times the value, rounded, is a number of successes in
        `levels` trials. With one level that is the Bernoulli law of black-and-white images.
        ``"normal"`` for real values, with a standard deviation learned for each pixel.
    levels
        The more, the sharper the likelihood and the more of an image the latent variables hold.
    width, hidden
        Sizes of the networks, see `ConvEncoder`.
    context_dim
        Width of c, or 0.

    Raises
    ------
    ValueError
        If sizes are not positive, or `likelihood` is neither of the two.

    Examples
    --------
    >>> import torch
    >>> from probcl.generation import Autoencoder
    >>> images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> autoencoder = Autoencoder((1, 8, 8), latent_dim=2, width=4, hidden=16)
    >>> bounds = autoencoder.fit(images, epochs=2, batch_size=32)
    >>> autoencoder.posterior(images).mean.shape, len(bounds)
    (torch.Size([64, 2]), 2)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int = 16,
        likelihood: Likelihood = "binomial",
        levels: int = 16,
        width: int = 16,
        hidden: int = 128,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        if likelihood not in ("binomial", "normal"):
            raise ValueError(f"likelihood must be 'binomial' or 'normal', got {likelihood!r}")
        self.latent_dim = require_count("latent_dim", latent_dim)
        self.levels = require_count("levels", levels)
        self.context_dim = require_count("context_dim", context_dim, minimum=0)
        self.likelihood, self.image_shape = likelihood, tuple(image_shape)
        self.encoder = ConvEncoder(image_shape, 2 * latent_dim, width, hidden, context_dim)
        self.decoder = ConvDecoder(latent_dim + context_dim, image_shape, width, hidden, likelihood == "binomial")
        self.log_scale = nn.Parameter(torch.full(self.image_shape, -1.0)) if likelihood == "normal" else None

    def posterior(
        self, images: Float[Tensor, "n channels height width"], context: Float[Tensor, "n c"] | None = None
    ) -> Independent:
        """Return the guide's law of z for each image, with ``event_shape`` (latent_dim,)."""
        mean, log_variance = self.encoder(images, context).chunk(2, dim=1)
        return Independent(Normal(mean, (log_variance.clamp(*_LOG_VARIANCES) / 2).exp()), 1)

    def law(self, z: Float[Tensor, "n k"], context: Float[Tensor, "n c"] | None = None) -> Independent:
        """Return the law of `observed(images)` given z."""
        natural = self.decoder.natural(z if context is None else torch.cat([z, context], dim=1))
        if self.log_scale is None:
            return Independent(Binomial(self.levels, logits=natural), 3)
        return Independent(Normal(natural, self.log_scale.exp()), 3)

    def observed(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
        """Return images as the likelihood counts them."""
        return (images * self.levels).round() if self.likelihood == "binomial" else images

    def model(
        self,
        images: Float[Tensor, "n channels height width"],
        context: Float[Tensor, "n c"] | None = None,
        weight: float = 1.0,
    ) -> None:
        """Pyro model: a plate of images, latent ``"z"``, whose log-densities count `weight` times, observed ``"x"``."""
        pyro.module("autoencoder", self)
        standard = Normal(images.new_zeros(self.latent_dim), 1.0).to_event(1)
        with pyro.plate("images", len(images)):
            with poutine.scale(scale=weight):
                z = pyro.sample("z", standard)
            pyro.sample("x", self.law(z, context), obs=self.observed(images))

    def guide(
        self,
        images: Float[Tensor, "n channels height width"],
        context: Float[Tensor, "n c"] | None = None,
        weight: float = 1.0,
    ) -> None:
        """Pyro guide of `model`."""
        pyro.module("autoencoder", self)
        with pyro.plate("images", len(images)), poutine.scale(scale=weight):
            pyro.sample("z", self.posterior(images, context))

    @torch.no_grad()
    def negative_elbo(
        self,
        images: Float[Tensor, "n channels height width"],
        context: Float[Tensor, "n c"] | None = None,
        seed: int | None = 0,
    ) -> float:
        """Mean over images of the negative evidence lower bound, in nats, estimated by one z for each."""
        with pyro.get_param_store().scope(), seeded(seed), evaluating(self):
            bound: float = TraceMeanField_ELBO().loss(self.model, self.guide, images, context) / len(images)
            return bound

    def fit(
        self,
        images: Float[Tensor, "n channels height width"],
        context: Float[Tensor, "n c"] | None = None,
        *,
        epochs: int = 150,
        batch_size: int = 128,
        lr: float = 2e-3,
        seed: int | None = 0,
    ) -> list[float]:
        """Fit by stochastic variational inference: Adam, one cycle of the learning rate.

        Pyro's parameter store is afterwards what it was and, with a `seed`, so are torch's generators.

        Parameters
        ----------
        images
            Shape (n, *image_shape).
        context
            One row for each image, shape (n, context_dim).
        epochs, batch_size, lr
            Passes over the images, images in a batch at most, largest learning rate.
        seed
            Makes the fit deterministic.

        Returns
        -------
        list of float
            The mean negative evidence lower bound in each epoch, in nats; while the Kullback-Leibler term is phased in,
            less of it.

        Raises
        ------
        TypeError
            If `images` is not a tensor of a floating-point type.
        ValueError
            If shapes do not fit, or images are not finite or, for the binomial likelihood, outside [0, 1].
        """
        self._check(images, context)
        require_positive("lr", lr)
        batches = -(-len(images) // require_count("batch_size", batch_size))
        steps = require_count("epochs", epochs) * batches
        # Its first update is made before the first step of the schedule, and its last needs one more.
        schedule = {"optimizer": torch.optim.Adam, "optim_args": {"lr": lr}, "max_lr": lr, "total_steps": steps + 1}
        with pyro.get_param_store().scope(), seeded(seed), torch.enable_grad():
            optimizer = OneCycleLR({**schedule, "pct_start": 0.1})
            svi = SVI(self.model, self.guide, optimizer, TraceMeanField_ELBO())
            losses, step = [], 0
            for _ in range(epochs):
                total = 0.0
                for rows in torch.randperm(len(images), device=images.device).tensor_split(batches):
                    weight = min(1.0, (step + 1) / (_WARM_UP * steps))
                    total += svi.step(images[rows], None if context is None else context[rows], weight)
                    optimizer.step()
                    step += 1
                losses.append(total / len(images))
        self.requires_grad_(True).zero_grad()
        return losses

    def _check(self, images: Tensor, context: Tensor | None) -> None:
        require_images("images", images)
        if images.shape[1:] != self.image_shape or len(images) == 0:
            raise ValueError(f"images must be one or more of shape {self.image_shape}, got {describe(images)}")
        require_finite("images", images)
        if self.likelihood == "binomial" and (images.min() < 0 or images.max() > 1):
            found = f"values from {float(images.min()):g} to {float(images.max()):g}"
            raise ValueError(f"images must lie in [0, 1] for the binomial likelihood, got {found}")
        if (context is None) != (self.context_dim == 0):
            raise ValueError(f"context must be given if and only if context_dim is not 0, got {describe(context)}")
        if context is not None and context.shape != (len(images), self.context_dim):
            raise ValueError(f"context must have shape {(len(images), self.context_dim)}, got {describe(context)}")


def require_images(name: str, value: object) -> Tensor:
    """Return `value` if it is a tensor of a floating-point type; raise `TypeError` otherwise."""
    images = require_tensor(name, value)
    if not images.is_floating_point():
        advice = ": divide grey levels of 0 … 255 by 255" if images.dtype == torch.uint8 else ""
        raise TypeError(f"{name} must be of a floating-point type, got {describe(images)}{advice}")
    return images
