"""Encoders of images."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from probcl.checks import require_count
from probcl.serialization import register

# LeNet's second convolution shrinks its input by 4; on maps smaller than this nothing would be left to pool.
_SMALLEST_UNPADDED_MAP = 8


@register
class LeNet(nn.Module):
    """LeNet-5 (LeCun et al., 1998) with ReLU and max pooling, for square images.

    Parameters
    ----------
    out_features
        Width of the embedding.
    in_channels, image_size
        Shape of an image, (in_channels, image_size, image_size). Images smaller than 16 pixels keep their size in the
        second convolution.

    Examples
    --------
    >>> import torch
    >>> from probcl.encoders import LeNet
    >>> LeNet(out_features=16)(torch.zeros(8, 1, 28, 28)).shape
    torch.Size([8, 16])
    """

    def __init__(self, out_features: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        require_count("out_features", out_features)
        require_count("in_channels", in_channels)
        require_count("image_size", image_size, minimum=4)
        halved = image_size // 2
        padding = 2 if halved < _SMALLEST_UNPADDED_MAP else 0
        final = (halved - 4 + 2 * padding) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * final * final, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, out_features),
        )

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out"]:
        """Return embeddings of shape (batch, out_features)."""
        embeddings: Tensor = self.layers(x)
        return embeddings


class _ResidualBlock(nn.Module):
    """x + conv(conv(x)), halving the image where `stride` is 2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(in_channels), nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.norm2, self.conv2 = _norm(out_channels), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out h w"]:
        residual = self.conv1(relu(self.norm1(x)))
        features: Tensor = self.shortcut(x) + self.conv2(relu(self.norm2(residual)))
        return features


@register
class ResidualConvNet(nn.Module):
    """A small pre-activation residual network with global average pooling, for images of any size.

    It normalises by groups of channels rather than over the batch, so that an embedding does not depend on the rest of
    the batch: a score must be a function of its pair alone.

    Parameters
    ----------
    out_features
        Width of the embedding.
    in_channels
        Channels of an image.
    width
        Channels of the first stage; each later stage doubles them and halves the image.
    stages
        How many stages, of one residual block each.

    Examples
    --------
    >>> import torch
    >>> from probcl.encoders import ResidualConvNet
    >>> encoder = ResidualConvNet(out_features=16, in_channels=3, width=8)
    >>> encoder(torch.zeros(2, 3, 32, 32)).shape, encoder(torch.zeros(2, 3, 20, 28)).shape
    (torch.Size([2, 16]), torch.Size([2, 16]))
    """

    def __init__(self, out_features: int, in_channels: int = 1, width: int = 32, stages: int = 3) -> None:
        super().__init__()
        sizes = (("out_features", out_features), ("in_channels", in_channels), ("width", width), ("stages", stages))
        for name, value in sizes:
            require_count(name, value)
        channels = [width * 2**stage for stage in range(stages)]
        blocks = [
            _ResidualBlock(before, after, stride=1 if stage == 0 else 2)
            for stage, (before, after) in enumerate(zip([width, *channels], channels, strict=False))
        ]
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            *blocks,
            _norm(channels[-1]),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels[-1], out_features),
        )

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out"]:
        """Return embeddings of shape (batch, out_features)."""
        embeddings: Tensor = self.layers(x)
        return embeddings


def _norm(channels: int) -> nn.GroupNorm:
    groups = next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)
