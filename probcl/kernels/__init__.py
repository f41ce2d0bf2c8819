"""How the reductions of the score matrix are carried out.

`probcl.Scores` describes the matrix with `ScoreTerms` and hands every reduction to a *kernel*. Today there is one,
`DenseKernel`, which stores the matrix. A tiled or a GPU kernel joins by implementing `Kernel` and entering `KERNELS`;
no caller of `Scores` changes.
"""

from probcl.kernels.base import Kernel, ScoreTerms
from probcl.kernels.dense import DenseKernel

KERNELS: dict[str, type[Kernel]] = {"dense": DenseKernel}

__all__ = ["KERNELS", "DenseKernel", "Kernel", "ScoreTerms"]
