"""The ranks of `torch.distributed` that fit one model together."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from probcl.distributed import all_reduce, broadcast, share_out
from probcl.training.checkpoint import differences

# What a launcher such as torchrun tells each process.
_LAUNCHED_WITH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_fits = count()


class Ranks:
    """All ranks of a group, or this process alone; what is called here is to be called on each of them.

    Parameters
    ----------
    group
        None for this process alone, for which nothing here communicates.
    device
        Where tensors that travel are.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and talks."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return which flags are raised on any rank."""
        if self.group is None:
            return flags
        raised = all_reduce(torch.tensor(flags, dtype=torch.int32, device=self.device), self.group, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in raised.tolist())

    def first_of(self, values: Tensor) -> Tensor:
        """Return the values of the first rank, so that all decide alike whatever their rounding."""
        return values if self.group is None else broadcast(values, self.group)

    def exchange(self, text: str) -> list[str]:
        """Return what each rank has to say."""
        if self.group is None:
            return [text]
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        (rows,) = share_out((len(data),), self.group, self.device)
        return [bytes(part.tolist()).decode() for part in rows.gather(data).split(list(rows.sizes))]

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Raise `ValueError` on every rank if these facts, JSON values in nested dicts, differ between ranks."""
        first, *others = (json.loads(text) for text in self.exchange(json.dumps(facts, default=str)))
        for rank, other in enumerate(others, start=1):
            found = [f"{name} is {a!r} and {b!r}" for name, a, b in differences(first, other)]
            if found:
                raise ValueError(f"all ranks must be given the same fit, but on ranks 0 and {rank} {'; '.join(found)}")

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Make an error of one rank inside, where none may wait for another, an error on all of them."""
        try:
            yield
        except Exception as error:
            if self.group is not None:
                self.any(True)
                self.exchange(f"{type(error).__name__}: {error}")
            raise
        if self.any(False) == (True,):
            said = [f"rank {rank} failed with {text}" for rank, text in enumerate(self.exchange("")) if text]
            raise RuntimeError("; ".join(said))

    def equalize(self, module: nn.Module, *, buffers_only: bool = False) -> None:
        """Give all ranks the first one's parameters and buffers."""
        if self.group is not None:
            for tensor in module.buffers() if buffers_only else module.state_dict().values():
                tensor.copy_(broadcast(tensor.to(self.device).contiguous(), self.group))

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their average over ranks; where no rank has one there stays none."""
        if self.group is None:
            return
        for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
            self._average([parameter for parameter in parameters if parameter.dtype == dtype])

    def _average(self, parameters: Sequence[nn.Parameter]) -> None:
        assert self.group is not None
        present = [parameter.grad is not None for parameter in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flags = gradients[0].new_tensor(present)
        flat = all_reduce(torch.cat([flags, *(gradient.flatten() for gradient in gradients)]), self.group)
        found, *averages = flat.split([len(parameters), *(parameter.numel() for parameter in parameters)])
        for parameter, average, somewhere in zip(parameters, averages, found.tolist(), strict=True):
            if somewhere:
                parameter.grad = average.view_as(parameter) / self.size


@contextmanager
def joined(device: torch.device, timeout: float | None) -> Iterator[Ranks]:
    """Join the ranks: those of `torch.distributed` if it is initialised, those of the launcher, or nobody."""
    if not dist.is_available():
        yield Ranks(None, device)
    elif dist.is_initialized():
        yield _of_world(device)
    elif launched_with_others():
        _initialize(device, timeout)
        try:
            yield _of_world(device)
        finally:
            dist.destroy_process_group()
    else:
        yield Ranks(None, device)


def launched_with_others() -> bool:
    """Whether a launcher such as torchrun has started this process as one of several."""
    return all(name in os.environ for name in _LAUNCHED_WITH) and int(os.environ["WORLD_SIZE"]) > 1


def local_rank() -> int:
    """Return which of the processes on this machine this is, 0 if it is the only one."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched_with_others() else 0


def _of_world(device: torch.device) -> Ranks:
    group = dist.group.WORLD
    if group is None or dist.get_world_size() == 1:
        return Ranks(None, device)
    return Ranks(group, device if dist.get_backend(group) == "nccl" else torch.device("cpu"))


def _initialize(device: torch.device, timeout: float | None) -> None:
    """Do what `torch.distributed.init_process_group` does, but so that it can be done again after this fit."""
    store, rank, size = _rendezvous()
    dist.init_process_group(
        "nccl" if device.type == "cuda" and _has_gpu_to_itself() else "gloo",
        store=PrefixStore(f"probcl fit {next(_fits)}", store),
        rank=rank,
        world_size=size,
        timeout=None if timeout is None else timedelta(seconds=timeout),
    )


@cache
def _rendezvous() -> tuple[Store, int, int]:
    # Kept, because rank 0 serves it to the others as long as it lives.
    meeting: tuple[Store, int, int] = next(rendezvous("env://"))
    return meeting


def _has_gpu_to_itself() -> bool:
    # NCCL refuses to have two ranks on one GPU.
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= torch.cuda.device_count()
