"""How the reductions of the score matrix are carried out.

`probcl.Scores` describes the matrix with `ScoreTerms` and hands every reduction to a *kernel*: `DenseKernel` stores the
matrix, `TiledKernel` computes it tile by tile, `TritonKernel` does so inside the processors of a GPU. Another joins by
implementing `Kernel` and entering `KERNELS`; no caller of `Scores` changes.
"""

from probcl.kernels.base import Kernel, ScoreTerms
from probcl.kernels.dense import DenseKernel
from probcl.kernels.tiled import TiledKernel
from probcl.kernels.triton_kernel import TritonKernel

KERNELS: dict[str, type[Kernel]] = {"dense": DenseKernel, "tiled": TiledKernel, "triton": TritonKernel}

__all__ = ["KERNELS", "DenseKernel", "Kernel", "ScoreTerms", "TiledKernel", "TritonKernel"]
