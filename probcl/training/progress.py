"""The progress bar of a fit."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from probcl.training.callbacks import Callback, FitState

# Often enough to look alive, seldom enough to cost nothing.
_SECONDS_BETWEEN_UPDATES = 0.1


class ProgressBar(Callback):
    """Epoch, loss, mutual-information bound, validation loss and the time left, on one line of the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console or Console(stderr=True),
        )
        self._updated = 0.0

    def on_fit_start(self, state: FitState) -> None:
        fields: dict[str, Any] = _fields(state, state.epoch)
        self._task = self._progress.add_task("", total=state.epochs, **fields)
        self._progress.start()

    def on_step_end(self, state: FitState) -> None:
        now = time.monotonic()
        if now - self._updated > _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            within = state.batch / state.batches if state.batches else 0.0
            self._show(state, min(state.epoch + within, state.epoch + 1), state.epoch + 1)

    def on_epoch_end(self, state: FitState) -> None:
        self._show(state, state.epoch + 1, state.epoch + 1)

    def _show(self, state: FitState, completed: float, epoch: int) -> None:
        fields: dict[str, Any] = _fields(state, epoch)
        self._progress.update(self._task, completed=completed, **fields)

    def on_fit_end(self, state: FitState) -> None:
        self._progress.stop()


def _fields(state: FitState, epoch: int) -> dict[str, str]:
    width = len(str(state.epochs))
    parts = []
    if state.step:
        parts += [f"loss {_short(state.loss)}", f"I ≥ {_short(state.mi_bound)} nats"]
    if state.validation_loss == state.validation_loss:
        parts.append(f"val loss {_short(state.validation_loss)}")
    return {"epoch": f"{epoch:>{width}}/{state.epochs}", "numbers": " · ".join(parts)}


def _short(value: float) -> str:
    return f"{value:7.4f}".replace("-", "−")


def on_terminal() -> bool:
    """Whether somebody is watching."""
    return Console(stderr=True).is_terminal
