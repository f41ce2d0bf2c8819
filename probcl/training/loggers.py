"""`Logging`: a fit's numbers for whoever draws curves of them, and `TensorBoard`, who does."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from probcl.checks import describe, require_count
from probcl.files import require_path
from probcl.training.callbacks import Callback, FitState

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


@runtime_checkable
class Logger(Protocol):
    """Whatever has ``log(scalars, step)``: numbers by name, and after how many steps of the fit they hold.

    Steps never fall within a fit, and one step may come twice with other names. A fit that is resumed goes on with the
    step after its checkpoint's, so those that were logged between the checkpoint and the interruption come again, with
    the same values on a CPU.

    Examples
    --------
    >>> class Kept:
    ...     def __init__(self):
    ...         self.rows = []
    ...
    ...     def log(self, scalars, step):
    ...         self.rows.append((step, dict(scalars)))
    >>> isinstance(Kept(), Logger)
    True
    """

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Take scalars that hold after `step` steps."""
        ...


class Logging(Callback):
    """Feeds a logger during a fit, on rank 0 only.

    After steps: ``train/loss``, ``train/mi_bound`` (nats), ``train/lr``, ``train/grad_norm`` and, if it is learned,
    ``train/temperature``. After epochs: ``epoch``, the number that ended, ``epoch/loss`` and ``epoch/mi_bound``, means
    over the steps of the epoch, and, with validation, ``validation/loss`` and ``validation/mi_bound``.

    Parameters
    ----------
    logger
        Who is told; see `Logger`.
    every
        Steps from one time to the next that values of steps are logged.

    Raises
    ------
    TypeError, ValueError
        If `logger` has no method ``log``, or `every` is no positive integer.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> class Printer:
    ...     def log(self, scalars, step):
    ...         print(step, *scalars)
    >>> u = torch.randn(60, 3)
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    >>> logging = pcl.training.Logging(Printer(), every=2)
    >>> history = pcl.fit(model, (u, u), epochs=1, batch_size=20, callbacks=[logging])
    2 train/loss train/mi_bound train/lr train/grad_norm
    3 epoch epoch/loss epoch/mi_bound
    """

    def __init__(self, logger: Logger, every: int = 1) -> None:
        if not callable(getattr(logger, "log", None)):
            raise TypeError(f"logger must have a method log(scalars, step), got {describe(logger)}")
        self.logger, self.every = logger, require_count("every", every)

    def on_step_end(self, state: FitState) -> None:
        if state.rank == 0 and state.step % self.every == 0:
            self.logger.log(_of_step(state), state.step)

    def on_epoch_end(self, state: FitState) -> None:
        if state.rank == 0:
            self.logger.log(_of_epoch(state), state.step)


def _of_step(state: FitState) -> dict[str, float]:
    values = {name: getattr(state, name) for name in ("loss", "mi_bound", "lr", "grad_norm")}
    if state.model.temperature.learnable:
        values["temperature"] = state.model.temperature.value
    return {f"train/{name}": value for name, value in values.items()}


def _of_epoch(state: FitState) -> dict[str, float]:
    history = state.history
    values = {"epoch": float(history.epochs)}
    values |= {f"epoch/{name}": float(getattr(history, name)[-1]) for name in ("loss", "mi_bound")}
    if history.best_epoch is not None:
        values |= {"validation/loss": state.validation_loss, "validation/mi_bound": state.validation_mi_bound}
    return values


class TensorBoard:
    """A `Logger` that writes event files, as `torch.utils.tensorboard` does: ``tensorboard --logdir FOLDER``.

    Every value is on disk once it is logged, so that a fit that is killed has its curves. A step that comes again, as
    in a fit that was resumed or begun anew, takes the place of the old one and of all that came after it: TensorBoard
    then shows the new values only. Give each fit a folder of its own.

    Parameters
    ----------
    folder
        Where to write; made with the first value.

    Raises
    ------
    ImportError
        If tensorboard is not installed.
    TypeError
        If `folder` is not a path.

    Examples
    --------
    >>> import tempfile, torch, probcl as pcl
    >>> u = torch.randn(60, 3)
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logging = pcl.training.Logging(pcl.training.TensorBoard(folder))
    ...     history = pcl.fit(model, (u, u), epochs=1, callbacks=[logging])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = require_path("folder", folder)
        _require_tensorboard()
        self._writer: SummaryWriter | None = None
        self._last: dict[str, int] = {}

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        if self._writer is None or any(self._last.get(name, -1) >= step for name in scalars):
            self._begin(step)
        assert self._writer is not None
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
            self._last[name] = step
        self._writer.flush()

    def _begin(self, step: int) -> None:
        """Begin an event file that says that nothing from this step on counts in those before it."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self.close()
        # TensorBoard reads the files by name, and names tell the time to a second.
        while any(self.folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
            time.sleep(0.05)
        self._writer = SummaryWriter(str(self.folder), purge_step=step)

    def close(self) -> None:
        """Close the file; another value would begin a new one."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._last = None, {}


def _require_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError('writing event files needs the extra: pip install "probcl[tensorboard]"') from error
