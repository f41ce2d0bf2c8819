"""Row blocks on Python threads, each at one of torch's own threads.

torch releases Python's lock inside its operations, so threads that each run a stream of small ones keep all cores busy.
On a quiet machine that is as fast as torch's own threads inside each operation; beside busy processes it is several
times faster, because nobody waits for the slowest thread at the end of every operation.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Result = TypeVar("Result")


def run_blocks(work: Callable[[range], Result], strips: int, device: torch.device) -> list[Result]:
    """Call `work` with contiguous ranges that cover the strips, one range a thread; results in their order.

    Who does what depends on the number of torch's threads only, and so do the results, to the last bit.
    """
    count = min(torch.get_num_threads(), strips) if device.type == "cpu" else 1

    def quietly(block: range) -> Result:
        with torch.no_grad():  # the mode is each thread's own
            return work(block)

    if count == 1:
        return [quietly(range(strips))]
    bounds = [strips * k // count for k in range(count + 1)]
    ranges = [range(low, high) for low, high in itertools.pairwise(bounds)]
    return list(_pool(torch.get_num_threads()).map(quietly, ranges))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, "probcl", initializer=torch.set_num_threads, initargs=(1,))
    # torch.set_num_threads speaks for the calling thread and for those that start later: have all of them start, which
    # takes as many calls that wait for each other, and take the second part back.
    together = Barrier(threads)
    list(pool.map(lambda _: together.wait(), range(threads)))
    torch.set_num_threads(threads)
    return pool


# A forked process, such as a worker of a DataLoader, inherits no threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
