"""Matched pairs: what is asked of them, and what is remembered of them."""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from probcl.checks import as_tensor_hint, describe, require_finite


class Batch(NamedTuple):
    """Matched pairs: row i of `u` belongs to row i of `v`."""

    u: Shaped[Tensor, "n *event_u"]
    v: Shaped[Tensor, "n *event_v"]


def check_pairs(u: Tensor, v: Tensor, name: str) -> None:
    """Raise `ValueError` unless u and v hold equally many pairs, two or more, all finite."""
    for label, tensor in (("u", u), ("v", v)):
        if tensor.ndim == 0:
            raise ValueError(f"{name}{label} must have a first dimension that counts pairs, got {describe(tensor)}")
    if len(u) != len(v):
        raise ValueError(f"{name}u and v must hold equally many pairs, got {len(u)} and {len(v)}")
    check_count(len(u), name)
    require_finite(f"{name}u", u)
    require_finite(f"{name}v", v)


def check_count(count: int, name: str) -> None:
    """Raise `ValueError` if there are too few pairs."""
    if count < 2:
        raise ValueError(f"{name}pairs must be at least two for a contrast, got {count or 'none: the data are empty'}")


def as_pair(batch: object, name: str) -> Batch:
    """Check a batch that user code made, which no check before training can do."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise TypeError(f"{name} must be a pair (u, v) of tensors, got {describe_kind(batch)}")
    u, v = batch
    if u.ndim == 0 or v.ndim == 0 or len(u) != len(v):
        raise ValueError(f"{name}: u and v must hold equally many pairs, got {describe(u)} and {describe(v)}")
    return Batch(require_finite(f"u in {name}", u), require_finite(f"v in {name}", v))


def digest(batch: Batch) -> str:
    """Return what tells a batch from others."""
    content = hashlib.sha256()
    for tensor in batch:
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]


def describe_pair(batch: Batch) -> dict[str, str]:
    """Return the types and shapes of a pair."""
    return {name: f"{part.dtype} of shape {tuple(part.shape[1:])}" for name, part in batch._asdict().items()}


def describe_kind(value: object) -> str:
    """Return the type of what a caller passed, for error messages."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {[type(part).__name__ for part in value[:4]]}"
    array = as_tensor_hint("u", value)
    return f"{describe(value)}{array}, and v likewise, and give (u, v)" if array else f"a {type(value).__name__}"
