"""Ranks for the tests: processes that talk through gloo, and what they are to do.

Tasks return plain tensors, which the tests compare with what one process finds.
"""

import multiprocessing
import pickle
import tempfile
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import alignment_cases
import torch
from small_models import normal
from torch import Tensor, nn
from torch import distributed as dist

import probcl as pcl
from probcl import Scores

PATIENCE = 120  # seconds after which a rank that does not answer is a failure

Task = Callable[..., Any]


def launch(world: int, task: Task, *arguments: Any) -> list[Any]:
    """What a task returns on each rank, or the text of the exception that ended it; None if it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed_worker", "distributed_fits", "torch._dynamo", "xarray", "pytest"])
    with tempfile.TemporaryDirectory() as directory:
        started = []
        for rank in range(world):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(sender, f"{directory}/store", rank, world, task, arguments))
            process.start()
            sender.close()
            started.append((process, receiver))
        return [_answer(*one) for one in started]


def _answer(process: Any, receiver: Any) -> Any:
    try:
        assert receiver.poll(PATIENCE), "a rank hangs"
        return pickle.loads(receiver.recv_bytes())
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def _run(sender: Any, store: str, rank: int, world: int, task: Task, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=PATIENCE / 2)
    )
    try:
        answer = task(*arguments)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    # As bytes: tensors sent as they are would be in memory that goes with this process.
    sender.send_bytes(pickle.dumps(answer))


# --- scores -----------------------------------------------------------------------------------------------------------

WORLD = object()
"""Stands for the group of all ranks, which exists in their processes only."""


def of_pairs(loss: pcl.losses.Loss, scores: Scores) -> Tensor:
    """A loss that looks at the pairs themselves, here given this rank's."""
    pairs = normal(*scores.shape, seed=5)[:, :3], normal(*scores.shape, seed=6)[:, :1]
    return pcl.losses.loss_of_pairs(loss, scores, *(scores._rows.take(part) for part in pairs))


def two_views(scores: Scores) -> Tensor:
    """A loss that compares each view with all others, those of other ranks too."""
    unbiased = Scores(scores.u, scores.v, scores.alignment, scores.temperature, scores.method, group=scores.group)
    return pcl.TwoViewLoss(pcl.ConditionalLoss())(unbiased)


def expectations(scores: Scores) -> Tensor:
    """Conditional expectations of features, in both directions: reductions of reductions."""
    features = normal(scores.shape[1], 2, seed=7).to(scores.u)
    given_u = scores.normalized(1).weighted_sum(features, dim=1)
    given_v = scores.normalized(0).weighted_sum(given_u.sin(), dim=0)
    return given_v.square().mean() + given_u[1:].prod(1).sum()


LOSSES: dict[str, Callable[[Scores], Tensor]] = {
    "conditional": pcl.ConditionalLoss(),
    "conditional, u": pcl.ConditionalLoss(2, 0),
    "conditional, v": pcl.ConditionalLoss(0, 2),
    "conditional, no diagonal": pcl.ConditionalLoss(diagonal=False),
    "joint": pcl.JointLoss(),
    "joint, no diagonal": pcl.JointLoss(diagonal=False),
    "rince, q = 0": pcl.RINCELoss(0),
    "rince, q = 1/2": pcl.RINCELoss(0.5),
    "rince, q = 1": pcl.RINCELoss(1.0),
    **{f"f-micl, {name}": pcl.FMICLLoss(name, 2.0) for name in ("kl", "js", "pearson", "squared-hellinger")},
    "f-micl, vincze-le-cam": pcl.FMICLLoss("vincze-le-cam"),
    "spectral": pcl.SpectralLoss(),
    "sigmoid": pcl.SigmoidLoss(-0.3).double(),
    "conditional mmd": partial(of_pairs, pcl.ConditionalMMDLoss()),
    "conditional mmd, u": partial(of_pairs, pcl.ConditionalMMDLoss(2, 0, kernel_u=pcl.losses.EnergyKernel())),
    "joint mmd": partial(of_pairs, pcl.JointMMDLoss()),
    "two views": two_views,
    "expectations": expectations,
}


def weighted(value: Tensor) -> Tensor:
    """A number that depends on every entry in its own way."""
    return (value * normal(*value.shape, seed=9).to(value)).sum()


REDUCTIONS: dict[str, Callable[[Scores], Tensor]] = {
    "matrix": Scores.matrix,
    "diagonal": Scores.diagonal,
    "top 3 of rows": lambda s: s.topk(3, dim=1).values,
    "top 3 of columns": lambda s: s.topk(3, dim=0).values,
    **{
        f"{name} {dim} {'' if diagonal else 'no '}diagonal": lambda s, f=f, dim=dim, diagonal=diagonal: f(
            s, dim=dim, diagonal=diagonal
        )
        for name, f in {
            "logsumexp": Scores.logsumexp,
            "mean": lambda s, dim, diagonal: s.mean(lambda x: x.square() + torch.sigmoid(x), dim, diagonal=diagonal),
        }.items()
        for dim in (0, 1, None)
        for diagonal in (True, False)
    },
    **{
        f"weighted sum {dim}": lambda s, dim=dim: s.weighted_sum(normal(s.shape[dim], 2).to(s.u), dim=dim)
        for dim in (0, 1)
    },
}


def scored(case: str, method: str, sizes: tuple[int, ...], dtype: torch.dtype, group: object, rank: int) -> Any:
    """This rank's embeddings and biases, what all ranks share, and the scores of all; a single process has all rows."""
    alignment = alignment_cases.CASES[case][0]
    n, start = sum(sizes), sum(sizes[:rank])
    own = slice(start, start + sizes[rank]) if group is WORLD else slice(n)
    values = normal(n, 4, seed=1), normal(n, 4, seed=2), 0.3 * normal(n, seed=3), 0.3 * normal(n, seed=4)
    leaves = [value[own].to(dtype).requires_grad_() for value in values]
    tau = torch.tensor(0.7, dtype=dtype, requires_grad=True)
    u, v, bias_u, bias_v = leaves
    ranks = dist.group.WORLD if group is WORLD else None
    return leaves, tau, Scores(u, v, alignment, tau, method, bias_u=bias_u, bias_v=bias_v, group=ranks)


def value_and_gradients(function: Callable[[Scores], Tensor], *setup: Any) -> dict[str, Tensor]:
    """A function of scores, and its gradient in everything: averaged over ranks, as torch's data parallelism does."""
    group = setup[-2]
    leaves, tau, scores = scored(*setup)
    own = list(function.parameters()) if isinstance(function, nn.Module) else []
    value = function(scores)
    scalar = weighted(value) if value.ndim else value
    gradients = torch.autograd.grad(scalar, [*leaves, tau, *own], allow_unused=True)
    names = ["u", "v", "bias_u", "bias_v", "tau", "own"]
    found = {name: gradient for name, gradient in zip(names, gradients, strict=False) if gradient is not None}
    if group is WORLD:
        found = {name: gradient / dist.get_world_size() for name, gradient in found.items()}
        for name in ("tau", "own"):
            if name in found:
                dist.all_reduce(found[name])
    return {"value": value.detach()} | found


def all_scores(setups: list[tuple[Any, ...]]) -> list[dict[str, Tensor]]:
    """Values and gradients of named losses and reductions of scores."""
    functions = LOSSES | REDUCTIONS
    group, rank = (WORLD, dist.get_rank()) if dist.is_initialized() else (None, 0)
    return [value_and_gradients(functions[name], *setup, group, rank) for name, *setup in setups]


def warned() -> str:
    """What a fit with batch normalisation says, after which ranks agree on its statistics."""
    normalised = pcl.BimodalModel(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(4, 3))
    u = normal(20, 4, dtype=torch.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pcl.fit(normalised, (u, u), epochs=1, device="cpu", progress=False)
    mean = normalised.encoder_u[1].running_mean.clone()
    dist.broadcast(mean, 0)
    assert torch.equal(mean, normalised.encoder_u[1].running_mean)
    return str(next(found.message for found in caught if issubclass(found.category, pcl.ProbclWarning)))
