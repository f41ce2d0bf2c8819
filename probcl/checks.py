"""Argument checks whose messages name the argument, what was expected, and what came."""

import math
from collections.abc import Sized
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

# Of a text that stands for a value in a message.
_LONGEST = 80


def describe(value: object) -> str:
    """Short description of what a caller passed, for error messages."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype} and shape {value.shape}"
    if is_table(value):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"  # type: ignore[attr-defined]
    if isinstance(value, Sized) and len(repr(value)) > _LONGEST:
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.{_LONGEST}} of type {type(value).__name__}"


def as_tensor_hint(name: str, value: object) -> str:
    """Return how to make a tensor of what a caller passed, as the end of an error message; nothing if it cannot be."""
    name = name.rpartition(" ")[2]  # of "validation u"
    if is_table(value):
        return f"; use torch.tensor({name}.to_numpy(), dtype=torch.float32), without dtype for labels"
    if isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        return f"; use torch.as_tensor({name}), with dtype=torch.float32 if they are not labels"
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        return f"; use torch.as_tensor({name}, dtype=torch.float32)"
    return ""


def is_table(value: object) -> bool:
    """Whether something is of pandas, polars or xarray, whose text would be its contents."""
    return hasattr(value, "to_numpy") and hasattr(value, "shape")


def require_tensor(name: str, value: object) -> Tensor:
    """Return `value` if it is a tensor; raise `TypeError` otherwise."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {describe(value)}{as_tensor_hint(name, value)}")
    return value


def require_floating(name: str, value: object) -> Tensor:
    """Return `value` if it is a tensor of a floating-point type; raise `TypeError` otherwise."""
    tensor = require_tensor(name, value)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be of a floating-point type, got {describe(tensor)}; use {name}.float()")
    return tensor


def require_integers(name: str, value: object) -> Tensor:
    """Return `value` if it is a tensor of integers, and not of truth values; raise `TypeError` otherwise."""
    tensor = require_tensor(name, value)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {describe(tensor)}; use {name}.long() if they are whole numbers")
    return tensor


def require_finite(name: str, value: Tensor) -> Tensor:
    """Return `value` if every entry is finite; raise `ValueError` otherwise."""
    if value.is_floating_point() or value.is_complex():
        bad = ~torch.isfinite(value)
        if bad.any():
            raise ValueError(f"{name} must be finite, got {int(bad.sum())} NaN or infinite of {value.numel()} values")
    return value


def require_logarithms(name: str, value: Tensor) -> Tensor:
    """Return `value` if every entry can be the logarithm of a weight, finite or −∞; raise `ValueError` otherwise."""
    if (value.isnan() | (value == torch.inf)).any():
        raise ValueError(f"{name} must be finite or −inf, got NaN or +inf")
    return value


def require_embeddings(name: str, value: object) -> Tensor:
    """Return `value` if it is a finite floating-point matrix with at least one row and one column.

    Raises
    ------
    TypeError
        If `value` is not a tensor of a floating-point type.
    ValueError
        If it is not two-dimensional, is empty, or has NaN or infinite entries.
    """
    tensor = require_floating(name, value)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(f"{name} must be a non-empty (n, d) matrix of embeddings, got {describe(tensor)}")
    return require_finite(name, tensor)


def require_number(name: str, value: object) -> float:
    """Return `value` if it is a real number; raise `TypeError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {describe(value)}")
    return float(value)


def require_fraction(name: str, value: object) -> float:
    """Return `value` if it is a number between 0 and 1, neither of them; raise otherwise."""
    number = require_number(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
    return number


def require_weight(name: str, value: object) -> float:
    """Return `value` if it is a number that is finite and not negative; raise otherwise."""
    weight = require_number(name, value)
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"{name} must be finite and not negative, got {weight}")
    return weight


def require_weights(lambda_u: object, lambda_v: object) -> tuple[float, float]:
    """Return the weights of u|v and of v|u if they are finite, not negative, and not both zero; raise otherwise."""
    weights = require_weight("lambda_u", lambda_u), require_weight("lambda_v", lambda_v)
    if sum(weights) == 0:
        raise ValueError("lambda_u and lambda_v must not both be zero")
    return weights


def require_positive(name: str, value: object) -> None:
    """Raise unless `value` is a finite number, or a tensor of one element, above zero."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a number or a tensor of one element, got {describe(value)}")
        number = float(value.detach())
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number or a tensor of one element, got {describe(value)}")
    else:
        number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and positive, got {number}")


def require_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` if it is an integer of at least `minimum`; raise otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {describe(value)}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)
