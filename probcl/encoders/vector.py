"""Encoders of vectors."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from probcl.checks import require_count
from probcl.serialization import register

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


@register
class Identity(nn.Identity):
    """The embedding is the data: for vectors that need no encoder.

    Examples
    --------
    >>> import torch
    >>> from probcl.encoders import Identity
    >>> Identity()(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    """

    def __init__(self) -> None:
        super().__init__()


@register
class Linear(nn.Linear):
    """The linear map u ↦ G u, without an intercept by default: the encoder of the Gaussian theory.

    Parameters
    ----------
    in_features, out_features
        Widths of the input and of the embedding.
    bias
        Whether to add a learned constant.

    Examples
    --------
    >>> import torch
    >>> from probcl.encoders import Linear
    >>> encoder = Linear(5, 2)
    >>> encoder(torch.ones(4, 5)).shape, encoder.bias is None
    (torch.Size([4, 2]), True)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(require_count("in_features", in_features), require_count("out_features", out_features), bias)


@register
class MLP(nn.Module):
    """A multilayer perceptron on flattened inputs.

    Parameters
    ----------
    in_features, out_features
        Widths of the flattened input and of the embedding.
    hidden
        Widths of the hidden layers.
    activation
        ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.

    Examples
    --------
    >>> import torch
    >>> from probcl.encoders import MLP
    >>> MLP(in_features=12, out_features=2, hidden=(64, 64))(torch.ones(8, 3, 4)).shape
    torch.Size([8, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (128, 128),
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
        widths = [in_features, *hidden, out_features]
        names = ["in_features", *(f"hidden[{number}]" for number in range(len(hidden))), "out_features"]
        for name, width in zip(names, widths, strict=True):
            require_count(name, width)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths[:-1]):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], out_features))

    def forward(self, x: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch out"]:
        """Return embeddings of shape (batch, out_features)."""
        embeddings: Tensor = self.layers(x)
        return embeddings
