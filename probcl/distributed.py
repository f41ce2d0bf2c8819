"""Rows that are shared out among the ranks of `torch.distributed`, and reductions over all of them, with gradients.

Every rank computes the same loss, and ``loss.backward()`` on all of them is the gradient of the sum of these equal
losses: the adjoint of a gather is a sum over ranks and a cut, the adjoint of a sum is a sum. A parameter's gradient,
averaged over ranks, is therefore the gradient of the loss, wherever the parameter enters and however reductions follow
one another. That is the average which `torch.nn.parallel.DistributedDataParallel` and its kin take.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributed as dist

# What a maximum is taken for where there is nothing but −∞, whose difference to itself is no number.
_FLOOR = -1e30

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Rows:
    """How rows are shared out: the first `sizes[0]` are with rank 0, the next with rank 1, and so on.

    Without a group this process has them all, and nothing here communicates.
    """

    group: dist.ProcessGroup | None
    rank: int
    sizes: tuple[int, ...]

    @property
    def total(self) -> int:
        """Rows on all ranks together."""
        return sum(self.sizes)

    @property
    def own(self) -> slice:
        """Where this rank's rows are among all."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def gather(self, part: Shaped[Tensor, "own *rest"]) -> Shaped[Tensor, "all *rest"]:
        """Return the rows of all ranks, given this rank's; differentiable."""
        return part if self.group is None else _Gather.apply(self, part)

    def take(self, rows: Shaped[Tensor, "all *rest"]) -> Shaped[Tensor, "own *rest"]:
        """Return this rank's part of all rows."""
        return rows if self.group is None else rows[self.own]


def share_out(counts: tuple[int, ...], group: dist.ProcessGroup | None, device: torch.device) -> list[Rows]:
    """Tell each other how many rows of several matrices each rank has."""
    if group is None:
        return [Rows(None, 0, (count,)) for count in counts]
    own = torch.tensor([counts], device=device)
    ones = Rows(group, dist.get_rank(group), (1,) * dist.get_world_size(group))
    columns = zip(*_gather(ones, own).tolist(), strict=True)
    return [Rows(group, ones.rank, sizes) for sizes in columns]


def total(part: Float[Tensor, "*shape"], group: dist.ProcessGroup) -> Float[Tensor, "*shape"]:
    """Return the sum over ranks; differentiable."""
    whole: Tensor = _Total.apply(group, part)
    return whole


def total_logsumexp(part: Float[Tensor, "*shape"], group: dist.ProcessGroup) -> Float[Tensor, "*shape"]:
    """Return the log-sum-exp over ranks; differentiable."""
    # In float64, so that the rounding of the ranks' parts cancels against that of their own gradients.
    shift = all_reduce(part.detach().clone(), group, dist.ReduceOp.MAX).clamp(min=_FLOOR).double()
    exponentials = total((part.double() - shift).exp(), group)
    impossible = exponentials == 0
    return (exponentials.masked_fill(impossible, 1.0).log() + shift).masked_fill(impossible, -torch.inf).to(part.dtype)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Rows, part: Tensor) -> Tensor:
        ctx.rows = rows
        return _gather(rows, part)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _Total.apply(ctx.rows.group, gradient)[ctx.rows.own]


class _Total(torch.autograd.Function):
    """A sum over ranks of which every rank has the result: its own adjoint."""

    @staticmethod
    def forward(ctx: Any, group: dist.ProcessGroup, part: Tensor) -> Tensor:
        ctx.group = group
        return all_reduce(part.clone(), group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _Total.apply(ctx.group, gradient)


def _connected(collective: Callable[P, R]) -> Callable[P, R]:
    """Have a collective operation say what it means that it failed."""

    @wraps(collective)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return collective(*args, **kwargs)
        except RuntimeError as error:
            raise RuntimeError(
                f"rank {dist.get_rank()} lost contact with another one, which has failed (see its own message), was "
                f"killed, or took longer than the timeout: {error}"
            ) from error

    return wrapped


@_connected
def all_reduce(tensor: Tensor, group: dist.ProcessGroup, operation: Any = dist.ReduceOp.SUM) -> Tensor:
    """Replace a tensor by its sum over ranks, and return it."""
    tensor = tensor.contiguous()
    dist.all_reduce(tensor, operation, group)
    return tensor


@_connected
def broadcast(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Replace a tensor by that of the group's first rank, and return it."""
    dist.broadcast(tensor, dist.get_global_rank(group, 0), group)
    return tensor


@_connected
def _gather(rows: Rows, part: Tensor) -> Tensor:
    """Return all rows, by parts that are of one length while they travel."""
    longest, ranks = max(rows.sizes), len(rows.sizes)
    padded = part.new_zeros(longest, *part.shape[1:])
    padded[: len(part)] = part
    everything = part.new_empty(ranks * longest, *part.shape[1:])
    dist.all_gather(list(everything.chunk(ranks)), padded, rows.group)
    if rows.total == len(everything):
        return everything
    parts = everything.split(longest)
    return torch.cat([held[:size] for held, size in zip(parts, rows.sizes, strict=True)])
