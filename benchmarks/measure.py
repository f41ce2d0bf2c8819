"""Time and memory of calls, side by side."""

import contextlib
import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Call = Callable[[], object]
_TILE_ON_CPU, _TILE_ELSEWHERE = (256, 512), (4096, 8192)


@dataclass(frozen=True)
class Measured:
    """Median seconds of a call, and the memory it needs beyond what was there, in bytes."""

    seconds: float
    memory: int


def side_by_side(calls: Mapping[str, Call], repeats: int, device: torch.device) -> dict[str, Measured]:
    """Measure calls in turn, `repeats` times over, after two of each that do not count; of these the second for memory.

    Taking turns spreads whatever else the machine does over all of them.
    """
    memory = {name: _peak(call, device) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(_time(call, device))
    return {name: Measured(statistics.median(seconds[name]), memory[name]) for name in calls}


def _time(call: Call, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    call()
    _synchronise(device)
    return time.perf_counter() - start


def _peak(call: Call, device: torch.device) -> int:
    call()
    gc.collect()
    if device.type == "cuda":
        _synchronise(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        _synchronise(device)
        return torch.cuda.max_memory_allocated() - before
    _return_free_memory()
    if not _reset_peak():
        call()
        return -1
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _reset_peak() -> bool:
    """Have Linux forget the largest resident size so far; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _return_free_memory() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def products(x: torch.Tensor, y: torch.Tensor, count: int) -> Call:
    """Return a call that multiplies all rows of x and y, tile by tile, so many times: the floor of exact methods."""
    height, width = _TILE_ON_CPU if x.device.type == "cpu" else _TILE_ELSEWHERE
    buffer = x.new_empty(height, width)

    def multiply() -> None:
        for _ in range(count):
            for rows in x.split(height):
                for columns in y.split(width):
                    torch.mm(rows, columns.mT, out=buffer[: len(rows), : len(columns)])

    return multiply


def machine(device: torch.device) -> str:
    """Say what this ran on."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpu = Path("/proc/cpuinfo")
        lines = cpu.read_text().splitlines() if cpu.exists() else []
        name = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
        )
        name += f", {torch.get_num_threads()} threads"
    return f"{name}; torch {torch.__version__}; {platform.system()}"
