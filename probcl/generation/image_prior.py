"""`ImagePrior`: the law of images that an autoencoder has learned, to be tilted by any contrastive model."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import MixtureSameFamily
from torch import Tensor

from probcl import __version__
from probcl.checks import describe, require_count
from probcl.errors import CheckpointError
from probcl.files import require_path, write_atomically
from probcl.frozen import evaluating
from probcl.generation.autoencoder import Autoencoder, Likelihood, require_images
from probcl.generation.latent import fit_mixture, mixture, parameters
from probcl.priors import DecoderPrior
from probcl.randomness import seeded
from probcl.serialization import from_config, load_weights, read_archive, to_config, under, write_archive

KIND = "probcl image prior"
WEIGHTS_FILE, CONFIG_FILE = "prior.safetensors", "config.json"


class ImagePrior(DecoderPrior):
    """The decoder of an autoencoder, with a mixture of Gaussians for its latent variables.

    An image is the *mean* that the decoder gives, not a draw of its pixels, so that it is conditioned through z alone.
    Made by `fit_image_prior`.

    Parameters
    ----------
    autoencoder
        A fitted one, without context.
    latent
        Law of z.

    Raises
    ------
    ValueError
        If the autoencoder has a context, or `latent` is not of its latent dimension.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from probcl.generation import ImagePrior, fit_image_prior
    >>> prior = fit_image_prior(torch.rand(64, 1, 8, 8), latent_dim=2, width=4, hidden=16, components=3, epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prior.save(folder)
    ...     loaded = ImagePrior.load(folder)
    >>> loaded.decode(torch.zeros(1, 2)).allclose(prior.decode(torch.zeros(1, 2)))
    True
    """

    latent: MixtureSameFamily

    def __init__(self, autoencoder: Autoencoder, latent: MixtureSameFamily) -> None:
        if autoencoder.context_dim:
            raise ValueError(f"autoencoder must have no context, got one with context_dim={autoencoder.context_dim}")
        if latent.event_shape != (autoencoder.latent_dim,):
            raise ValueError(
                f"latent must have event_shape ({autoencoder.latent_dim},), got {tuple(latent.event_shape)}"
            )
        super().__init__(autoencoder.decoder, latent)
        self.autoencoder = autoencoder

    def save(self, directory: str | Path) -> None:
        """Save into a directory: ``prior.safetensors``, which holds everything, and ``config.json`` for people to read.

        An existing save is replaced atomically.
        """
        law = {f"latent.{name}": tensor for name, tensor in parameters(self.latent).items()}
        networks = {f"autoencoder.{name}": tensor for name, tensor in self.autoencoder.state_dict().items()}
        record = {"probcl_version": __version__, "autoencoder": to_config(self.autoencoder)}
        directory = require_path("directory", directory)
        write_archive(directory / WEIGHTS_FILE, KIND, law | networks, record)
        write_atomically(directory / CONFIG_FILE, (json.dumps(record, indent=2) + "\n").encode())

    @classmethod
    def load(cls, directory: str | Path) -> "ImagePrior":
        """Load a saved prior, on the CPU. No code is read from the files.

        Raises
        ------
        CheckpointError
            If the files are missing, damaged, of another format version or do not describe an image prior.
        """
        path = require_path("directory", directory) / WEIGHTS_FILE
        tensors, record = read_archive(path, KIND)
        try:
            autoencoder = from_config(record["autoencoder"], "autoencoder")
            if not isinstance(autoencoder, Autoencoder):
                raise TypeError(f"autoencoder must be an Autoencoder, got {type(autoencoder).__name__}")
            latent = mixture(**under("latent", tensors))
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not describe a prior this probcl can build: {error!r}") from error
        load_weights(autoencoder, under("autoencoder", tensors), path)
        return cls(autoencoder, latent)

    def __repr__(self) -> str:
        components, k = parameters(self.latent)["means"].shape
        return f"ImagePrior(event_shape={tuple(self.event_shape)}, latent_dim={k}, components={components})"


def fit_image_prior(
    images: Float[Tensor, "n channels height width"],
    *,
    latent_dim: int = 16,
    likelihood: Likelihood = "binomial",
    levels: int = 16,
    width: int = 16,
    hidden: int = 128,
    components: int = 20,
    latent_images: Float[Tensor, "m channels height width"] | None = None,
    codes_per_image: int = 3,
    epochs: int = 150,
    batch_size: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
) -> ImagePrior:
    """Learn a law of images: a variational autoencoder, then a mixture of Gaussians on the codes of the data.

    The autoencoder alone would draw z from N(0, I), where much of the mass belongs to no image: the sharper its
    likelihood, the more so. The mixture is fitted to the aggregate posterior, draws of the guide for all images, which
    is the law of z that the decoder was trained on (Dai & Wipf 2019, arXiv 1903.05789, two-stage VAE; Ghosh et al.
    2020, arXiv 1903.12436, ex-post density estimation). Labels are not used.

    Parameters
    ----------
    images
        Shape (n, channels, height, width); in [0, 1] for the binomial likelihood.
    latent_dim, likelihood, levels, width, hidden
        Of the `Autoencoder`.
    components
        Of the mixture. More of them follow the data more closely, up to copying them: look at how close draws come to
        the training images.
    latent_images
        Images whose codes the mixture is fitted to, by default `images`: give the original images here if those are
        augmented.
    codes_per_image
        Draws of the guide for each of them.
    epochs, batch_size, lr, seed
        Of `Autoencoder.fit`. With the seed the result is deterministic, and neither torch's generators nor Pyro's
        parameter store are touched.

    Returns
    -------
    ImagePrior
        A `DecoderPrior` for ``model.u_given_v(prior)``, with ``save`` and ``load``.

    Raises
    ------
    TypeError
        If `images` or `latent_images` is not a tensor of a floating-point type.
    ValueError
        If it does not have four axes, `latent_images` are of another shape, or an argument is out of its range.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> prior = pcl.generation.fit_image_prior(torch.rand(64, 1, 8, 8), latent_dim=2, components=3, epochs=1)
    >>> prior.sample((5,)).shape
    torch.Size([5, 1, 8, 8])
    """
    if require_images("images", images).ndim != 4:
        raise ValueError(f"images must have shape (n, channels, height, width), got {describe(images)}")
    of = images if latent_images is None else require_images("latent_images", latent_images)
    if of.shape[1:] != images.shape[1:]:
        raise ValueError(f"latent_images must be of shape {tuple(images.shape[1:])}, got {describe(of)}")
    n_codes = len(of) * require_count("codes_per_image", codes_per_image)
    if require_count("components", components) > n_codes:
        raise ValueError(f"components must be no more than the {n_codes} codes, got {components}")
    with seeded(seed):
        arguments: dict[str, Any] = {"likelihood": likelihood, "levels": levels, "width": width, "hidden": hidden}
        autoencoder = Autoencoder(images.shape[1:], latent_dim, **arguments).to(images)
    autoencoder.fit(images, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed)
    codes = draw_codes(autoencoder, of, codes_per_image, seed=seed)
    return ImagePrior(autoencoder, fit_mixture(codes, components, seed))


@torch.no_grad()
def draw_codes(
    autoencoder: Autoencoder,
    images: Float[Tensor, "n channels height width"],
    count: int = 1,
    context: Float[Tensor, "n c"] | None = None,
    seed: int | None = 0,
) -> Float[Tensor, "N k"]:
    """Draw z from the guide, `count` times for each image: the aggregate posterior, shape (count · n, k).

    Examples
    --------
    >>> import torch
    >>> from probcl.generation import Autoencoder, draw_codes
    >>> autoencoder = Autoencoder((1, 8, 8), latent_dim=2, width=4, hidden=16)
    >>> draw_codes(autoencoder, torch.rand(64, 1, 8, 8), count=3).shape
    torch.Size([192, 2])
    """
    with seeded(seed), evaluating(autoencoder):
        return autoencoder.posterior(images, context).sample((count,)).flatten(0, 1)
