"""A rank of a job of torchrun that is killed: the job ends, says so, and goes on when it is started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import probcl as pcl
from faults.processes import Row

RANKS = 2
SECONDS = 120


class _Die(pcl.Callback):
    """Kills one rank after one step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_step_end(self, state: pcl.FitState) -> None:
        if (state.rank, state.step) == (self.rank, self.step):
            os.kill(os.getpid(), signal.SIGKILL)


def program(folder: Path, rank: int, step: int) -> None:
    """What each rank runs: a fit that goes on from its checkpoint, and writes the model."""
    import distributed_fits

    torch.set_num_threads(1)
    fitted, _ = distributed_fits.fit(
        checkpoint=folder / "checkpoint", checkpoint_every=2, resume=True, callbacks=[_Die(rank, step)]
    )
    if os.environ["RANK"] == "0":
        fitted.save(folder / "model")


def torchrun(folder: Path, rank: int, step: int) -> tuple[subprocess.CompletedProcess, float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    done = subprocess.run(
        [*command, "-m", "faults.ranks", str(folder), str(rank), str(step)],
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * SECONDS,
    )
    return done, time.monotonic() - began


def killed_ranks(cases: int, seed: int, scratch: Path) -> Row:
    """Kill a rank at a random step, and run the job again; the weights must be those of an undisturbed job, bitwise."""
    row = Row("a rank killed under torchrun")
    rng = np.random.default_rng(seed)
    whole, took = torchrun(scratch / "whole", -1, -1)
    assert whole.returncode == 0, whole.stderr
    expected = pcl.BimodalModel.load(scratch / "whole" / "model", **_towers()).state_dict()
    for case in range(cases):
        folder, rank, step = scratch / str(case), case % RANKS, int(rng.integers(3, 11))
        done, seconds = torchrun(folder, rank, step)
        said = "SIGKILL" in done.stderr
        again, _ = torchrun(folder, -1, -1)
        if done.returncode == 0 or again.returncode:
            row.add(lost=f"rank {rank}, step {step}: {done.returncode}, then {again.returncode}: {again.stderr[-500:]}")
            continue
        found = pcl.BimodalModel.load(folder / "model", **_towers()).state_dict()
        same = all(torch.equal(found[name], value) for name, value in expected.items())
        late = seconds > took + SECONDS
        row.add(
            "the job ended with 'Signal 9 (SIGKILL)', and went on to the same weights",
            lost="" if same else f"rank {rank}, step {step}: other weights after going on",
            silent=f"rank {rank}: {seconds:.0f} s, {done.stderr[-500:]}" if late or not said else "",
        )
    return row


def _towers() -> dict:
    import distributed_fits

    built = distributed_fits.model()
    return {"encoder_u": built.encoder_u, "encoder_v": built.encoder_v}


if __name__ == "__main__":
    program(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
