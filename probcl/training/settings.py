"""The options of a fit, checked."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from probcl.checks import describe, require_count, require_number, require_positive
from probcl.training.optimizers import OPTIMIZERS
from probcl.training.ranks import launched_with_others, local_rank
from probcl.training.schedules import SCHEDULES, Schedule

DEFAULT_BATCH_SIZE = 512

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Amp = Literal["auto"] | bool


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a fit computes, apart from model, loss and pairs; see `probcl.fit`."""

    epochs: int
    batch_size: int | None
    optimizer: str | OptimizerFactory
    lr: float | None
    weight_decay: float | None
    schedule: str | Schedule
    warmup: float
    clip_norm: float | None
    patience: int | None
    restore_best: bool
    seed: int
    amp: Amp
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        require_count("epochs", self.epochs)
        require_count("seed", self.seed, minimum=0)
        if self.batch_size is not None:
            require_count("batch_size", self.batch_size, minimum=2)
        if self.chunk_size is not None:
            require_count("chunk_size", self.chunk_size)
        if self.patience is not None:
            require_count("patience", self.patience)
        for name in ("lr", "clip_norm"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        _require_known("optimizer", self.optimizer, OPTIMIZERS)
        _require_known("schedule", self.schedule, SCHEDULES)
        _require_between("warmup", self.warmup, 0, self.epochs, "epochs, fewer than the fit has")
        if self.weight_decay is not None:
            _require_between("weight_decay", self.weight_decay, 0, math.inf, "and finite")
        if self.amp not in (True, False, "auto"):
            raise ValueError(f"amp must be True, False or 'auto', got {self.amp!r}")
        self._check_optimizer_options()

    def _check_optimizer_options(self) -> None:
        if not isinstance(self.optimizer, str):
            self._forbid("an optimizer that is a function sets its own", "lr", "weight_decay")
        elif self.optimizer == "lbfgs":
            reason = "L-BFGS takes all pairs at once, and its line search the gradient as it is"
            self._forbid(reason, "batch_size", "weight_decay", "clip_norm")

    def _forbid(self, reason: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} must be left out, got {getattr(self, name)}: {reason}")

    @property
    def full_batch(self) -> bool:
        """Whether every step takes all pairs."""
        return self.optimizer == "lbfgs"

    @property
    def schedule_function(self) -> Schedule:
        """The schedule as a function of the fraction of training done."""
        return SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule

    def describe(self) -> dict[str, Any]:
        """Return what two fits must have in common for one to continue the other, as JSON."""
        options = {name: _name(value) for name, value in vars(self).items()}
        if self.schedule == "constant":
            # Nothing before the last epoch depends on how many there will be.
            del options["epochs"]
        return options


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device to train on: with ``"auto"`` a CUDA GPU if there is one, else the CPU.

    Of several processes that a launcher started on one machine, each takes a GPU of its own.

    Raises
    ------
    ValueError
        If the device is unknown or not present.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if str(device) == "cuda" and launched_with_others():
        device = f"cuda:{local_rank() % max(1, torch.cuda.device_count())}"
    try:
        resolved = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be 'auto' or a device that is present, got {device!r}: {error}") from error
    return resolved


def resolve_amp(amp: Amp, device: torch.device) -> bool:
    """Return whether encoders run in bfloat16; with ``"auto"`` they do on a GPU that has it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported() if amp == "auto" else amp


def _require_known(name: str, value: object, known: Iterable[str]) -> None:
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"{name} must be one of {sorted(known)} or a function, got {value!r}")
    elif not callable(value):
        raise TypeError(f"{name} must be one of {sorted(known)} or a function, got {describe(value)}")


def _require_between(name: str, value: object, low: float, high: float, unit: str) -> None:
    if not low <= require_number(name, value) < high:
        raise ValueError(f"{name} must be at least {low} {unit}, got {value}")


def _name(value: Any) -> Any:
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else value
