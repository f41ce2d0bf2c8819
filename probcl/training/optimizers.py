"""Optimisers by name, and their state as plain data."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from probcl.errors import CheckpointError

_SGD_MOMENTUM = 0.9
# L-BFGS stops by itself where float32 gradients are noise; in float64 these let it go on to near machine precision.
_LBFGS_GRADIENT_TOLERANCE = 1e-10
_LBFGS_CHANGE_TOLERANCE = 1e-14

Groups = list[dict[str, Any]]


def _adam(groups: Groups, lr: float | None) -> Optimizer:
    return torch.optim.Adam(groups, lr=1e-3 if lr is None else lr)


def _adamw(groups: Groups, lr: float | None) -> Optimizer:
    return torch.optim.AdamW(groups, lr=1e-3 if lr is None else lr)


def _sgd(groups: Groups, lr: float | None) -> Optimizer:
    return torch.optim.SGD(groups, lr=1e-2 if lr is None else lr, momentum=_SGD_MOMENTUM)


def _lbfgs(groups: Groups, lr: float | None) -> Optimizer:
    return torch.optim.LBFGS(
        [parameter for group in groups for parameter in group["params"]],
        lr=1.0 if lr is None else lr,
        tolerance_grad=_LBFGS_GRADIENT_TOLERANCE,
        tolerance_change=_LBFGS_CHANGE_TOLERANCE,
        line_search_fn="strong_wolfe",
    )


OPTIMIZERS: dict[str, Callable[[Groups, float | None], Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "lbfgs": _lbfgs,
    "sgd": _sgd,
}


def build_optimizer(
    optimizer: str | Callable[[Iterable[nn.Parameter]], Optimizer],
    lr: float | None,
    weight_decay: float | None,
    parameters: Iterable[nn.Parameter],
    undecayed: Iterable[nn.Parameter],
) -> Optimizer:
    """Return the optimiser of the parameters that require a gradient.

    Raises
    ------
    TypeError
        If a function was given and returns no optimiser.
    ValueError
        If no parameter requires a gradient.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("model must have a parameter to train: none requires a gradient")
    if not isinstance(optimizer, str):
        built = optimizer(trained)
        if not isinstance(built, Optimizer):
            raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {type(built).__name__}")
        return built
    spared = {id(parameter) for parameter in undecayed}
    decayed: dict[str, Any] = {"params": [parameter for parameter in trained if id(parameter) not in spared]}
    if weight_decay is not None:
        decayed["weight_decay"] = weight_decay
    others = {"params": [parameter for parameter in trained if id(parameter) in spared], "weight_decay": 0.0}
    return OPTIMIZERS[optimizer]([group for group in (decayed, others) if group["params"]], lr)


def flatten_state(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a state dict as JSON, and put the tensors in it into `tensors` under names that start with `name`.

    Raises
    ------
    CheckpointError
        If the state holds something else than tensors, numbers, strings, None, and dicts, lists and tuples of them.
    """
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Tensor):
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"dict": [[key, flatten_state(value, f"{name}.{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        items = [flatten_state(value, f"{name}.{index}", tensors) for index, value in enumerate(tree)]
        return {type(tree).__name__: items}
    raise CheckpointError(f"cannot write {name}, of type {type(tree).__name__}, into a checkpoint")


def unflatten_state(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the state dict that `flatten_state` took apart."""
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        # Copied, because sums over tensors that lie unaligned in memory, as in a file, are rounded differently.
        return tensors[content].clone()
    if kind == "dict":
        return {key: unflatten_state(value, tensors) for key, value in content}
    items = [unflatten_state(value, tensors) for value in content]
    return tuple(items) if kind == "tuple" else items
