"""How long does a rank take for its share of the conditional loss, beside one process for all of it?"""

import math
import multiprocessing
import statistics
import tempfile
import time
from typing import Any

import torch
from torch import distributed as dist

import probcl as pcl
from applications.tables import Row
from benchmarks.peers import TEMPERATURE
from benchmarks.report import parser, prepare, publish

NOTE = (
    "Value and gradient, one thread for each rank, gloo on one machine; medians, of the slowest rank. share: time over "
    "that of one process. gather: time of gathering the embeddings and of summing their gradients. error: of the "
    "gradient, against one process, in norm."
)


def main() -> None:
    command = parser(__doc__, "benchmarks.ranks")
    command.add_argument("--pairs", type=int, default=8192)
    command.add_argument("--width", type=int, default=64)
    command.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    arguments = command.parse_args()
    device = prepare(arguments)
    pairs = arguments.pairs - arguments.pairs % math.lcm(*arguments.ranks)  # equal shares, which the gather alone needs
    rows: list[Row] = []
    one: dict[str, Any] = {}
    for world in arguments.ranks:
        found = _launch(world, pairs, arguments.width, arguments.repeats)
        seconds = max(part["loss"] for part in found)
        gradient = torch.cat([torch.tensor(part["gradient"]) for part in found])
        one = one or {"seconds": seconds, "gradient": gradient}
        rows.append(
            {
                "ranks": str(world),
                "ms": 1e3 * seconds,
                "share": seconds / one["seconds"],
                "gather, ms": 1e3 * max(part["gather"] for part in found),
                "error": f"{float((gradient - one['gradient']).norm() / one['gradient'].norm()):.0e}",
            }
        )
    title = f"Ranks, {pairs:,} pairs of width {arguments.width} in all"
    publish(title, rows, "ranks", device, NOTE)


def _launch(world: int, n: int, d: int, repeats: int) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory, context.Pool(world) as pool:
        tasks = [(f"{directory}/store", rank, world, n, d, repeats) for rank in range(world)]
        return pool.starmap(_measure, tasks, chunksize=1)


def _measure(store: str, rank: int, world: int, n: int, d: int, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(0)
    u, v = (torch.randn(n, d).chunk(world)[rank].clone().requires_grad_() for _ in range(2))
    loss, gather = [], []
    for _ in range(repeats + 1):
        dist.barrier()
        start = time.perf_counter()
        scores = pcl.Scores(u, v, pcl.Cosine(), TEMPERATURE, "tiled", group=dist.group.WORLD)
        gradient = torch.autograd.grad(pcl.ConditionalLoss()(scores), (u, v))[0]
        loss.append(time.perf_counter() - start)
        dist.barrier()
        start = time.perf_counter()
        everything = [torch.empty_like(v) for _ in range(world)]
        dist.all_gather(everything, v.detach())
        dist.all_reduce(torch.cat(everything))
        gather.append(time.perf_counter() - start)
    # The gradient of the ranks' equal losses together; one loss's is the average.
    result = {"loss": statistics.median(loss[1:]), "gather": statistics.median(gather[1:])}
    dist.destroy_process_group()
    return {**result, "gradient": (gradient / world).tolist()}


if __name__ == "__main__":
    main()
