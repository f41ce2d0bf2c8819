"""Functions with first derivatives only, which say so when they are asked for more."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def first_order(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Make differentiating the gradient of an `autograd.Function` an error instead of a wrong result."""

    @wraps(backward)
    def guarded(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            results = backward(ctx, *gradients)
        if not torch.is_grad_enabled():
            return results
        inputs = [tensor for tensor in (*ctx.saved_tensors, *gradients) if tensor is not None and tensor.requires_grad]
        places = [place for place, result in enumerate(results) if isinstance(result, Tensor)]
        refusing = _Refuse.apply(len(places), *(results[place] for place in places), *inputs)
        replaced = dict(zip(places, refusing, strict=True))
        return tuple(replaced.get(place, result) for place, result in enumerate(results))

    return guarded


class _Refuse(torch.autograd.Function):
    """Return the first `count` tensors; have no gradient."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise NotImplementedError(
            "tiled scores have first derivatives only, and a second one was asked for: use Scores(..., method='dense')"
        )
