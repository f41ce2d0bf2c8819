"""Whether values are what an encoder takes, said with the file that they come from."""

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from probcl.embed import as_input, embed
from probcl.encoders import Label
from probcl.errors import DataFileError
from probcl.frozen import evaluating
from probcl.serialization import to_config


def require_taken(encoder: nn.Module, values: Shaped[Tensor, "n *event"], origin: str, what: str) -> None:
    """Raise unless an encoder takes values.

    Parameters
    ----------
    encoder, values
        Two of the values are tried; of labels all are looked at.
    origin, what
        The file that they come from, and what they are, "v of the model".

    Raises
    ------
    DataFileError
        If it does not, with what was expected and what came.
    """
    tried = values if isinstance(encoder, Label) else values[:2]
    try:
        with evaluating(encoder), torch.no_grad():
            embed(encoder, as_input(encoder, tried), "the encoder", what)
    except (TypeError, ValueError) as error:
        raise DataFileError(f"{origin}: {what} must be {_expected(encoder)}; got {_found(values)}") from error


def _expected(encoder: nn.Module) -> str:
    config = to_config(encoder)
    told = config["arguments"] or {}
    match config["class"]:
        case "Linear" | "MLP":
            return f"{told['in_features']} numbers each, an array of shape (n, {told['in_features']})"
        case "LeNet":
            size = told["image_size"]
            return f"images, an array of shape (n, {told['in_channels']}, {size}, {size})"
        case "ResidualConvNet":
            return f"images, an array of shape (n, {told['in_channels']}, height, width)"
        case "TrajectoryTransformer":
            width = told["in_features"]
            return f"sets of trajectories, an array of shape (n, trajectories, samples, {width} + 1)"
        case "Label":
            return f"numbers of classes, integers from 0 to {told['n_classes'] - 1} in an array of shape (n,)"
        case name:
            return f"what its encoder, {name}, takes"


def _found(values: Shaped[Tensor, "n *event"]) -> str:
    found = f"an array of shape {tuple(values.shape)}"
    if values.is_floating_point() or values.ndim != 1:
        return found
    return f"{found} with integers from {int(values.min())} to {int(values.max())}"
