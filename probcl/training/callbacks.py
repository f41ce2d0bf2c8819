"""What a fit tells those who listen, and how they stop it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from probcl.model import BimodalModel
from probcl.training.history import History, Recorder


@dataclass
class FitState:
    """Where a fit is, for callbacks to read. Values are those of the last step, or of the last validation.

    Attributes
    ----------
    model
        The model being trained, with its present weights.
    epoch, epochs
        Index of the epoch that is running or has just ended, from 0, and how many there will be at most.
    batch, batches
        Batches done in this epoch, and how many it has (None for a loader without a length).
    step
        Steps done in all.
    loss, mi_bound, lr, grad_norm
        Of the last step: loss, bound −L_cond on the mutual information (nats), learning rate, and the norm of the
        gradient before clipping.
    validation_loss, validation_mi_bound
        Of the last epoch that ended; NaN before that, and without validation.
    rank
        Which of the processes that fit together this is; 0 if it is alone. Callbacks are called on every rank, so let
        those that write files or messages do so on rank 0 only.
    recorder
        What was recorded so far; `history` shows it as arrays.
    stop
        Set it to True to end the fit after this step or epoch.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> def tell(state: pcl.FitState) -> None:
    ...     print(f"epoch {state.epoch + 1} of {state.epochs}, {state.step} steps")
    >>> u = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    >>> history = pcl.fit(model, (u, u), epochs=2, batch_size=16, callbacks=[tell])
    epoch 1 of 2, 4 steps
    epoch 2 of 2, 8 steps
    """

    model: BimodalModel
    epochs: int
    batches: int | None
    recorder: Recorder = field(repr=False)
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = float("nan")
    mi_bound: float = float("nan")
    lr: float = float("nan")
    grad_norm: float = float("nan")
    validation_loss: float = float("nan")
    validation_mi_bound: float = float("nan")
    stop: bool = False
    rank: int = 0

    @property
    def history(self) -> History:
        """The course of the fit so far."""
        return self.recorder.history(stopped_early=self.stop)


class Callback:
    """Base class of those who listen to a fit: override what you need. A method that returns True stops the fit.

    Examples
    --------
    >>> import probcl as pcl
    >>> class StopWhenInformed(pcl.Callback):
    ...     def on_epoch_end(self, state):
    ...         return state.mi_bound > 2.0
    """

    def on_fit_start(self, state: FitState) -> bool | None:
        """Before the first step, of a resumed fit too."""

    def on_step_end(self, state: FitState) -> bool | None:
        """After each step of the optimiser."""

    def on_epoch_end(self, state: FitState) -> bool | None:
        """After each epoch and its validation, before its checkpoint."""

    def on_fit_end(self, state: FitState) -> bool | None:
        """When the fit ends, whether it was finished, interrupted or failed."""


class _EpochEnd(Callback):
    """A plain function, called at the end of each epoch."""

    def __init__(self, function: Callable[[FitState], object]) -> None:
        self.function = function

    def on_epoch_end(self, state: FitState) -> bool | None:
        return self.function(state) is True


class Callbacks:
    """Several callbacks as one: each hears every event, and any of them may stop the fit."""

    def __init__(self, members: Iterable[Callback | Callable[[FitState], object]]) -> None:
        self.members: list[Callback] = []
        for member in members:
            if not isinstance(member, Callback) and not callable(member):
                raise TypeError(f"callbacks must be Callback objects or functions of the state, got {member!r}")
            self.members.append(member if isinstance(member, Callback) else _EpochEnd(member))

    def notify(self, event: str, state: FitState) -> None:
        """Call the method named `event` of each, and stop the fit if one returns True."""
        for member in self.members:
            if getattr(member, event)(state) is True:
                state.stop = True
