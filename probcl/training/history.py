"""`History`: what happened during a fit, as arrays."""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    import xarray

STEP_FIELDS = ("step_loss", "step_mi_bound", "step_lr", "step_grad_norm", "step_epoch")
EPOCH_FIELDS = ("loss", "mi_bound", "validation_loss", "validation_mi_bound", "seconds")

_DESCRIPTIONS = {
    "loss": "training loss, mean over the batches",
    "mi_bound": "lower bound of the mutual information on training pairs, mean over the batches",
    "validation_loss": "validation loss, mean over the batches",
    "validation_mi_bound": "lower bound of the mutual information on validation pairs, mean over the batches",
    "seconds": "wall time of the epoch",
    "step_loss": "training loss of the batch",
    "step_mi_bound": "lower bound of the mutual information on the batch",
    "step_lr": "learning rate",
    "step_grad_norm": "norm of the gradient before clipping",
    "step_epoch": "epoch of the step",
}
_UNITS = {"mi_bound": "nat", "validation_mi_bound": "nat", "step_mi_bound": "nat", "seconds": "s"}


@dataclass(frozen=True, eq=False)
class History:
    """The course of a fit. Epochs and steps count from 0.

    The bound is −L_cond of `probcl.ConditionalLoss` with weights (1, 1) on the same scores, whichever loss is trained.
    In expectation it is at most the mutual information I(u; v) (Baptista, Stuart & Tran 2025, Theorem 2.8), and on a
    batch of N pairs at most log N. Under another loss it is a by-product that nothing keeps near I(u; v), so that the
    ``repr`` shows it only where it is what was trained: where it is the negative of the loss at every step.

    Attributes
    ----------
    loss, mi_bound
        Means over the batches of each epoch, while the weights were changing; shape (epochs,).
    validation_loss, validation_mi_bound
        Means over the validation batches at the end of each epoch; shape (epochs,), NaN without validation.
    seconds
        Wall time of each epoch; shape (epochs,). The only entry in which a resumed fit differs from one that was not
        interrupted.
    step_loss, step_mi_bound, step_lr, step_grad_norm, step_epoch
        Loss, bound, learning rate, norm of the gradient before clipping, and epoch of each step; shape (steps,).
    best_epoch
        Epoch of the lowest validation loss, or None without validation.
    stopped_early
        Whether patience ran out or a callback ended the fit.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> u = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    >>> history = pcl.fit(model, (u, u), epochs=3, batch_size=16)
    >>> history.epochs, history.steps, history.loss.shape
    (3, 12, (3,))
    >>> history.to_dataset().sizes["step"]
    12
    """

    loss: Float[np.ndarray, " epochs"]
    mi_bound: Float[np.ndarray, " epochs"]
    validation_loss: Float[np.ndarray, " epochs"]
    validation_mi_bound: Float[np.ndarray, " epochs"]
    seconds: Float[np.ndarray, " epochs"]
    step_loss: Float[np.ndarray, " steps"]
    step_mi_bound: Float[np.ndarray, " steps"]
    step_lr: Float[np.ndarray, " steps"]
    step_grad_norm: Float[np.ndarray, " steps"]
    step_epoch: Int[np.ndarray, " steps"]
    stopped_early: bool = False

    @property
    def epochs(self) -> int:
        """Number of epochs that ended."""
        return len(self.loss)

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return len(self.step_loss)

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the lowest validation loss, the first of them if it was reached twice."""
        if np.isnan(self.validation_loss).all():
            return None
        return int(np.nanargmin(self.validation_loss))

    def to_dataset(self) -> "xarray.Dataset":
        """Return an `xarray.Dataset` with dimensions ``epoch`` and ``step``."""
        import xarray

        def variable(name: str) -> tuple[str, np.ndarray, dict[str, str]]:
            attributes = {"long_name": _DESCRIPTIONS[name]}
            if name in _UNITS:
                attributes["units"] = _UNITS[name]
            return "step" if name in STEP_FIELDS else "epoch", getattr(self, name), attributes

        return xarray.Dataset(
            {name: variable(name) for name in (*EPOCH_FIELDS, *STEP_FIELDS)},
            coords={"epoch": np.arange(self.epochs), "step": np.arange(self.steps)},
            attrs={
                "stopped_early": int(self.stopped_early),
                **({} if self.best_epoch is None else {"best_epoch": self.best_epoch}),
            },
        )

    def __repr__(self) -> str:
        parts = [f"{self.epochs} epochs", f"{self.steps} steps"]
        if self.epochs:
            parts.append(f"loss {self.loss[-1]:.4g}")
            if np.array_equal(self.step_mi_bound, -self.step_loss):
                parts.append(f"I ≥ {self.mi_bound[-1]:.4g} nats")
        if self.best_epoch is not None:
            best = self.best_epoch
            parts += [
                f"validation loss {self.validation_loss[-1]:.4g}",
                f"best epoch {best} (loss {self.validation_loss[best]:.4g})",
            ]
        return f"History({', '.join(parts)}{', stopped early' if self.stopped_early else ''})"


class Recorder:
    """Collects the numbers of a `History`."""

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in (*STEP_FIELDS, *EPOCH_FIELDS)}
        self._steps_before = 0

    def record_step(self, loss: float, mi_bound: float, grad_norm: float, lr: float) -> None:
        """Append a step of the running epoch."""
        values = {"loss": loss, "mi_bound": mi_bound, "grad_norm": grad_norm, "lr": lr, "epoch": self.epochs}
        for name, value in values.items():
            self._columns[f"step_{name}"].append(value)

    def record_epoch(self, validation_loss: float, validation_mi_bound: float, seconds: float) -> None:
        """Append an epoch that ended, with the means of its steps."""
        steps = self.steps_in_epoch
        values = {
            "loss": math.fsum(self._columns["step_loss"][-steps:]) / steps,
            "mi_bound": math.fsum(self._columns["step_mi_bound"][-steps:]) / steps,
            "validation_loss": validation_loss,
            "validation_mi_bound": validation_mi_bound,
            "seconds": seconds,
        }
        for name, value in values.items():
            self._columns[name].append(value)
        self._steps_before = self.steps

    @property
    def steps(self) -> int:
        """Number of steps recorded."""
        return len(self._columns["step_loss"])

    @property
    def epochs(self) -> int:
        """Number of epochs that ended."""
        return len(self._columns["loss"])

    @property
    def steps_in_epoch(self) -> int:
        """Number of steps since the last epoch ended."""
        return self.steps - self._steps_before

    def epochs_since_best(self) -> int:
        """Return how many epochs ago the validation loss was lowest, the first of them if it was reached twice."""
        losses = self._columns["validation_loss"]
        return len(losses) - 1 - losses.index(min(losses))

    def history(self, stopped_early: bool) -> History:
        """Return what was recorded so far."""
        columns = {name: np.array(values, np.float64) for name, values in self._columns.items()}
        steps = columns.pop("step_epoch").astype(np.int64)
        return History(**columns, step_epoch=steps, stopped_early=stopped_early)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the columns as float64 tensors."""
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in self._columns.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self._columns = {name: array("d", tensors[name].tolist()) for name in self._columns}
        self._steps_before = sum(epoch < self.epochs for epoch in self._columns["step_epoch"])
