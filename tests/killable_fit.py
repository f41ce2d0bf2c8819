"""A small fit that does everything a checkpoint must remember, for `test_resume.py` to kill.

Runs as a function in a forked process, or as a program: ``python killable_fit.py CHECKPOINT RESULT``.
"""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import probcl as pcl
from probcl.training import FitState

PAIRS, BATCH_SIZE, EPOCHS, VALIDATION = 160, 16, 12, 0.2
STEPS = EPOCHS * round(PAIRS * (1 - VALIDATION)) // BATCH_SIZE
CHECKPOINT_EVERY = 3


class _Announce(pcl.Callback):
    """Tells the test, from the start and after each step, how far the fit has come."""

    def __init__(self, announce: Callable[[int], object]) -> None:
        self.announce = announce

    def on_fit_start(self, state: FitState) -> None:
        self.announce(state.step)

    def on_step_end(self, state: FitState) -> None:
        self.announce(state.step)


def run(checkpoint: Path, result: Path, announce: Callable[[int], object] = lambda step: None) -> None:
    """Fit, resuming if there is a checkpoint, and write the weights and the history to `result`."""
    torch.set_num_threads(1)
    u, v = pairs()
    model = untrained_model()
    history = pcl.fit(
        model,
        (u, v),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        lr=3e-3,
        schedule="cosine",
        warmup=1.5,
        clip_norm=1.0,
        validation=VALIDATION,
        patience=4,
        seed=7,
        device="cpu",
        progress=False,
        callbacks=[_Announce(announce)],
        checkpoint=checkpoint,
        checkpoint_every=CHECKPOINT_EVERY,
        resume=True,
    )
    course = history.to_dataset().drop_vars("seconds")
    tensors = {f"weights.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    tensors |= {f"history.{name}": torch.from_numpy(values.to_numpy()) for name, values in course.data_vars.items()}
    save_file(tensors, result)


def run_announcing(checkpoint: Path, result: Path, connection: Connection, death: str = "") -> None:
    """Run in a process of its own, as the target of `multiprocessing.Process`."""
    if death:
        die_in_write(death, write=9)
    run(checkpoint, result, connection.send)


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(PAIRS, 5, generator=generator)
    return u, u[:, :4] + 0.5 * torch.randn(PAIRS, 4, generator=generator)


def untrained_model() -> pcl.BimodalModel:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        towers = [
            nn.Sequential(nn.Linear(width, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 6))
            for width in (5, 4)
        ]
        return pcl.BimodalModel(*towers, alignment=pcl.Cosine(), temperature=0.2, learn_temperature=True)


def die_in_write(moment: str, write: int) -> None:
    """Make this process kill itself inside the given write of a file."""
    fsync, replace = os.fsync, os.replace
    writes = 0

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counting_fsync(handle: int) -> None:
        nonlocal writes
        writes += 1
        if writes == write and moment == "half written":
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            die()
        fsync(handle)

    def counting_replace(source: Path, target: Path) -> None:
        if writes == write and moment == "before the rename":
            die()
        replace(source, target)
        if writes == write and moment == "after the rename":
            die()

    os.fsync, os.replace = counting_fsync, counting_replace


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), lambda step: print(step, flush=True))
