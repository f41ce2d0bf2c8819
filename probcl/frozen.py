"""Using a module without leaving a mark on it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_restored(module: nn.Module) -> Iterator[None]:
    """Put the parts of a module back into the modes, of training or evaluation, that they were in."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and its parts back into the modes they were in."""
    with modes_restored(module):
        module.eval()
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode and its parameters out of reach of gradients, and all back as they were.

    What is computed inside has gradients with respect to its inputs alone: without this, an optimiser's ``backward()``
    on a conditional would fill the ``.grad`` of the model's parameters.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with evaluating(module):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
