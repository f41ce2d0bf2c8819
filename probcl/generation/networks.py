"""The two halves of a convolutional autoencoder, for images of any size."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probcl.checks import require_count
from probcl.serialization import register

# Each halves the image, rounding up; the decoder doubles it as often and cuts off what is too much.
_HALVINGS = 2


@register
class ConvEncoder(nn.Module):
    """Image, and context if there is any, to a vector: three convolutions, of which two halve the image, and an MLP.

    Parameters
    ----------
    image_shape
        (channels, height, width).
    out_features
        Width of the output.
    width
        Channels of the first convolution; each halving doubles them.
    hidden
        Width of the MLP's hidden layer.
    context_dim
        Width of the context, which joins the image's features in front of the MLP.

    Examples
    --------
    >>> import torch
    >>> from probcl.generation import ConvEncoder
    >>> ConvEncoder((1, 28, 28), out_features=16)(torch.zeros(8, 1, 28, 28)).shape
    torch.Size([8, 16])
    """

    def __init__(
        self, image_shape: Sequence[int], out_features: int, width: int = 16, hidden: int = 128, context_dim: int = 0
    ) -> None:
        super().__init__()
        channels, top, small = _sizes(image_shape, width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
        for halving in range(_HALVINGS):
            before = width * 2**halving
            layers += [nn.Conv2d(before, 2 * before, 3, stride=2, padding=1), nn.SiLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(top * math.prod(small) + context_dim, hidden), nn.SiLU(), nn.Linear(hidden, out_features)
        )

    def forward(
        self, images: Float[Tensor, "n channels height width"], context: Float[Tensor, "n c"] | None = None
    ) -> Float[Tensor, "n out"]:
        """Return vectors of shape (n, out_features)."""
        vectors: Tensor = self.head(_joined(self.features(images), context))
        return vectors


@register
class ConvDecoder(nn.Module):
    """Vector to image: an MLP, two transposed convolutions that double the image, and a convolution.

    Parameters
    ----------
    in_features
        Width of the input.
    image_shape
        (channels, height, width).
    width, hidden
        As in `ConvEncoder`.
    bounded
        Whether images lie in [0, 1]; the logistic function then takes them there.

    Examples
    --------
    >>> import torch
    >>> from probcl.generation import ConvDecoder
    >>> ConvDecoder(16, (1, 28, 28))(torch.zeros(8, 16)).shape
    torch.Size([8, 1, 28, 28])
    """

    def __init__(
        self, in_features: int, image_shape: Sequence[int], width: int = 16, hidden: int = 128, bounded: bool = True
    ) -> None:
        super().__init__()
        channels, top, small = _sizes(image_shape, width)
        self.height, self.width, self.bounded = image_shape[1], image_shape[2], bounded
        layers: list[nn.Module] = [
            nn.Linear(in_features, hidden),
            nn.SiLU(),
            nn.Linear(hidden, top * math.prod(small)),
            nn.SiLU(),
            nn.Unflatten(1, (top, *small)),
        ]
        for halving in reversed(range(_HALVINGS)):
            after = width * 2**halving
            layers += [nn.ConvTranspose2d(2 * after, after, 4, stride=2, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def natural(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n channels height width"]:
        """Return images before the logistic function."""
        images: Tensor = self.layers(z)[..., : self.height, : self.width]
        return images

    def forward(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n channels height width"]:
        """Return images of shape (n, *image_shape)."""
        images = self.natural(z)
        return images.sigmoid() if self.bounded else images


def _sizes(image_shape: Sequence[int], width: int) -> tuple[int, int, tuple[int, int]]:
    """Return the channels of the image, and channels and size of the smallest map."""
    if len(image_shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width), got {tuple(image_shape)}")
    channels, *size = (require_count("every entry of image_shape", number) for number in image_shape)
    height, breadth = (math.ceil(number / 2**_HALVINGS) for number in size)
    return channels, require_count("width", width) * 2**_HALVINGS, (height, breadth)


def _joined(values: Float[Tensor, "n d"], context: Float[Tensor, "n c"] | None) -> Float[Tensor, "n e"]:
    return values if context is None else torch.cat([values, context], dim=1)
