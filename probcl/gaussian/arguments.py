"""Checks shared by the oracle's functions, with messages that name the argument."""

import torch
from torch import Tensor

from probcl.checks import describe, require_finite, require_floating


def float64_array(name: str, value: Tensor, ndim: int = 2) -> Tensor:
    """Return a finite, floating-point `value` of `ndim` dimensions as float64; raise otherwise.

    Raises
    ------
    TypeError
        If `value` is not a tensor of a floating-point type.
    ValueError
        If it has another number of dimensions, or NaN or infinite entries.
    """
    if require_floating(name, value).ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s' * (ndim > 1)}, got {describe(value)}")
    return require_finite(name, value).to(torch.float64)


def float64_matrix(name: str, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return `value` as `float64_array` does, and raise `ValueError` unless it has this shape."""
    matrix = float64_array(name, value)
    if tuple(matrix.shape) != shape:
        raise ValueError(f"{name} must have shape {shape} to go with C and n_u, got {describe(value)}")
    return matrix
