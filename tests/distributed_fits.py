"""What `test_distributed.py` fits on several ranks; each rank calls `fits`, and so does one process for comparison."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_models import normal
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

import probcl as pcl

U = normal(50, 4, seed=1)
V = U[:, :3].tanh() + 0.4 * normal(50, 3, seed=2)
SETTINGS = {"epochs": 3, "batch_size": 13, "lr": 0.02, "seed": 5, "progress": False, "device": "cpu"}


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def model(dropout: float = 0.0, seed: int = 0, last: nn.Module | None = None) -> pcl.BimodalModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        towers = [
            nn.Sequential(nn.Linear(n, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 3), *([last] if last else []))
            for n in (4, 3)
        ]
        return pcl.BimodalModel(*towers, alignment=pcl.L2(), temperature=0.5, learn_temperature=True).double()


class Items(Dataset):
    """Pairs one by one, of which one rank may lack some."""

    def __init__(self, broken_on: int = -1) -> None:
        self.broken_on = broken_on

    def __len__(self) -> int:
        return len(U)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.broken_on == rank() and index > 1:
            raise OSError(f"pair {index} cannot be read")
        return U[index], V[index]


class Scaled(pcl.Loss):
    """A loss whose own parameter enters after the reductions."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, scores: pcl.Scores) -> Tensor:
        return pcl.ConditionalLoss()(scores) * self.log_scale.exp() - self.log_scale


def loader(shared_out: bool = False) -> DataLoader:
    pairs = TensorDataset(U[:48], V[:48])
    if shared_out and dist.is_initialized():
        return DataLoader(pairs, batch_size=6, sampler=DistributedSampler(pairs, shuffle=False))
    return DataLoader(pairs, batch_size=12, shuffle=not shared_out)


SETUPS: dict[str, Callable[[], dict[str, Any]]] = {
    "adam": lambda: {},
    "another seed of the weights on each rank": lambda: {"model": model(seed=rank())},
    "clipping, cosine": lambda: {"clip_norm": 0.05, "optimizer": "sgd", "schedule": "cosine"},
    "l-bfgs": lambda: {"optimizer": "lbfgs", "batch_size": None, "lr": None, "epochs": 4},
    "patience": lambda: {"validation": 0.3, "patience": 1, "lr": 0.3, "epochs": 12},
    "joint loss, one sided bound": lambda: {"loss": pcl.JointLoss(diagonal=False), "validation": 0.3},
    "loss with a parameter": lambda: {"loss": Scaled()},
    "maximum mean discrepancy": lambda: {"loss": pcl.ConditionalMMDLoss(), "validation": 0.3},
    "sigmoid": lambda: {"loss": pcl.SigmoidLoss(-1.0).double()},
    "data set": lambda: {"pairs": Items(), "validation": 0.2},
    "loader": lambda: {"pairs": loader(), "batch_size": None},
    "loader of shares": lambda: {"pairs": loader(shared_out=True), "batch_size": None},
    "chunks": lambda: {"chunk_size": 3, "validation": 0.2},
    "one encoder": lambda: {"model": one_encoder(), "pairs": (U, U.tanh())},
    "stopped by one rank": lambda: {
        "callbacks": [type("Stop", (pcl.Callback,), {"on_step_end": stop_late_on_the_last_rank})()]
    },
}


def one_encoder() -> pcl.BimodalModel:
    built = model()
    return pcl.BimodalModel(built.encoder_u, built.encoder_u, pcl.InnerProduct())


def stop_late_on_the_last_rank(self: pcl.Callback, state: pcl.FitState) -> bool:
    last = dist.get_world_size() - 1 if dist.is_initialized() else 0
    return state.rank == last and state.step == 6


def fit(name: str = "adam", **options: Any) -> tuple[pcl.BimodalModel, pcl.History]:
    settings = {"pairs": (U, V)} | SETTINGS | SETUPS[name]() | options
    fitted = settings.pop("model", None) or model()
    return fitted, pcl.fit(fitted, settings.pop("pairs"), settings.pop("loss", None), **settings)


def outcome(name: str = "adam", **options: Any) -> dict[str, Tensor]:
    fitted, history = fit(name, **options)
    course = history.to_dataset().drop_vars("seconds")
    arrays = {key: torch.from_numpy(values.to_numpy()) for key, values in course.items()}
    return {**{k: t.detach().clone() for k, t in fitted.state_dict().items()}, **arrays}


def fits(names: list[str]) -> list[dict[str, Tensor]]:
    return [outcome(name) for name in names]


# --- what goes wrong, what is resumed ---------------------------------------------------------------------------------


def errors(directory: str) -> list[str]:
    """What each of several fits that cannot work says, on this rank."""
    said = []
    for options in (
        {"pairs": Items(broken_on=1)},
        {"lr": 0.1 + rank()},
        {"pairs": (U + rank(), V)},
        {"checkpoint": f"{directory}/fit" if rank() else None},
        {"pairs": (U[:5], V[:5]), "batch_size": 2, "world": 4},
        {"pairs": loader_of_its_own()},
        {"pairs": loader_for_another_rank()},
        {"model": poisoned()},
    ):
        if dist.get_world_size() < options.pop("world", 0):
            continue
        try:
            fit(**options)
            said.append("nothing")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def loader_of_its_own() -> DataLoader:
    return DataLoader(TensorDataset(U[rank() :], V[rank() :]), batch_size=12)


def loader_for_another_rank() -> DataLoader:
    pairs, world = TensorDataset(U, V), dist.get_world_size()
    sampler = DistributedSampler(pairs, rank=(rank() + 1) % world, num_replicas=world)
    return DataLoader(pairs, batch_size=6, sampler=sampler)


class Poison(nn.Module):
    """Returns no numbers on the second rank, once it is trained."""

    def forward(self, z: Tensor) -> Tensor:
        return z * torch.nan if self.training and rank() == 1 else z


def poisoned() -> pcl.BimodalModel:
    return model(last=Poison())


def shares_of_noise() -> list[Tensor]:
    """Dropout's masks of the first step."""
    seen = []

    class Watched(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            seen.append(z.detach() == 0)
            return z

    watched = model()
    watched.encoder_u = nn.Sequential(nn.Linear(4, 40), nn.Dropout(0.5), Watched(), nn.Linear(40, 3)).double()
    fit(model=watched, epochs=1, batch_size=50)
    return [mask for mask in seen if mask.any()][:1]


class CrashError(Exception):
    pass


def crash_at(step: int) -> pcl.Callback:
    def on_step_end(self: pcl.Callback, state: pcl.FitState) -> None:
        if state.step == step:
            raise CrashError

    return type("Crash", (pcl.Callback,), {"on_step_end": on_step_end})()


def crashed(directory: str) -> list[str]:
    """Fit until a crash, on every rank; returns the files that this rank has written."""
    folder = Path(directory) / f"rank {rank()}"
    folder.mkdir()
    try:
        fit("patience", checkpoint=folder / "fit", checkpoint_every=2, callbacks=[crash_at(7)])
    except CrashError:
        return [path.name for path in folder.iterdir()]
    raise AssertionError("no crash")


def resumed(directory: str) -> dict[str, Tensor]:
    return outcome("patience", resume=f"{directory}/rank 0/fit")


def interrupted(directory: str) -> tuple[str, bool]:
    """Ctrl-C on the second rank alone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_step_end(self: pcl.Callback, state: pcl.FitState) -> None:
        if state.rank == 1 and state.step == 6:
            signal.raise_signal(signal.SIGINT)

    try:
        fit(
            checkpoint=f"{directory}/fit",
            callbacks=[type("Interrupt", (pcl.Callback,), {"on_step_end": on_step_end})()],
        )
    except KeyboardInterrupt:
        return "interrupted", True
    return "nothing", False


def killed(directory: str) -> str:
    """The second rank is killed in the fourth step; returns what the first says, and after how many seconds."""

    def on_step_end(self: pcl.Callback, state: pcl.FitState) -> None:
        if state.rank == 1 and state.step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    began = time.monotonic()
    try:
        fit(callbacks=[type("Die", (pcl.Callback,), {"on_step_end": on_step_end})()])
    except RuntimeError as error:
        return f"{time.monotonic() - began:.0f} s: {error}"
    return "nothing"


def data_parallel_gradients() -> list[Tensor]:
    """Gradients that torch's own data parallelism leaves in the encoders, from rows 0 to 4 and 5 to 7."""
    built = model()
    u, v = U[:8], V[:8]
    encoders: list[nn.Module] = [built.encoder_u, built.encoder_v]
    if dist.is_initialized():
        own = slice(0, 5) if rank() == 0 else slice(5, 8)
        u, v = u[own], v[own]
        encoders = [nn.parallel.DistributedDataParallel(encoder) for encoder in encoders]
    group = dist.group.WORLD if dist.is_initialized() else None
    pcl.ConditionalLoss()(pcl.Scores(encoders[0](u), encoders[1](v), pcl.Cosine(), 0.2, group=group)).backward()
    return [parameter.grad for encoder in (built.encoder_u, built.encoder_v) for parameter in encoder.parameters()]


if __name__ == "__main__":
    # As under torchrun: nobody has initialised torch.distributed, and two fits follow each other.
    import sys

    torch.set_num_threads(1)
    found = [outcome(), outcome("joint loss, one sided bound")]
    assert not dist.is_initialized()
    torch.save(found, f"{sys.argv[1]}.{os.environ.get('RANK', 'alone')}")
