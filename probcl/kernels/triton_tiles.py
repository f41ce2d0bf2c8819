"""How large the tiles of the Triton programs are.

The sizes are those at which the compiler keeps everything in registers and shared memory (tests/test_kernels_triton.py
asks it), not those that have been measured to be the fastest.
"""

from dataclasses import dataclass
from typing import Any

import torch

# Shared memory of a block of threads, in bytes, from which larger tiles fit: an H100 has it, others have 100 to 164 KB.
_LARGE = 200_000


@dataclass(frozen=True)
class Tile:
    """The size of a tile, and how many of the embeddings' dimensions are multiplied, and pulled back to, at a time.

    `warps` of threads share the work, and `stages` of loads are under way at a time.
    """

    height: int
    width: int
    depth: int
    slice: int
    warps: int
    stages: int

    def options(self, d: int) -> dict[str, Any]:
        """Arguments of a program for embeddings of width d."""
        return {
            "HEIGHT": self.height,
            "WIDTH": self.width,
            "DEPTH": self.depth,
            "SHALLOW": d <= self.depth,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


def forward_tile(dtype: torch.dtype, d: int) -> Tile:
    """Tile of the pass over the scores."""
    depth = _power_of_two(d)
    if dtype == torch.float32:
        return Tile(64, 64, min(depth, 32), 0, warps=8, stages=2)
    if 64 < depth <= 128:
        return Tile(128, 64, depth, 0, warps=8, stages=3)
    return Tile(128, 128, min(depth, 64), 0, warps=8, stages=3)


def backward_tile(dtype: torch.dtype, d: int, precision: str, shared_memory: int) -> Tile:
    """Tile of the gradient. Its sums, a tile high and a slice wide, stay in registers."""
    depth = _power_of_two(d)
    if dtype == torch.float32:
        if precision == "ieee":
            return Tile(64, 32, min(depth, 32), min(depth, 256), warps=8, stages=2)
        return Tile(64, 32, min(depth, 32), min(depth, 128), warps=4, stages=2)
    if depth <= 128:
        return Tile(128 if dtype == torch.bfloat16 else 64, 64, depth, depth, warps=8, stages=2)
    if shared_memory < _LARGE:
        return Tile(64, 64, 64, 256, warps=8, stages=2)
    if depth == 256:
        return Tile(128, 64, 64, 256, warps=8, stages=2)
    return Tile(64, 64, 64, 512, warps=8, stages=2)


def interpreted_tile(d: int) -> Tile:
    """Tile so small that several fit into the matrices of a test."""
    depth = min(_power_of_two(d), 64)
    return Tile(32, 16, depth, depth, warps=1, stages=1)


def _power_of_two(d: int) -> int:
    """Return the next one, and at least what a tensor core multiplies at a time."""
    return max(16, 1 << (d - 1).bit_length())
