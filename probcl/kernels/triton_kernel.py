"""The kernel that has a GPU compute and reduce the scores without writing them down."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.kernels import triton_launch
from probcl.kernels.base import ScoreTerms
from probcl.kernels.first_order import first_order
from probcl.kernels.tiled import TiledKernel
from probcl.kernels.tiles import Form
from probcl.kernels.triton_launch import Matrix, Side


@dataclass(frozen=True)
class Storage:
    """How the factors are read and multiplied.

    In half precision x is what it was before it was divided by the temperature, so that embeddings of that precision
    lose nothing: the quotient is taken of the product. `precision` is for factors of single precision.
    """

    dtype: torch.dtype
    temperature: Float[Tensor, ""]
    precision: str

    def matrix(self, form: Form, diagonal: bool, tensors: Sequence[Any]) -> Matrix:
        """Return the scores, linear in the product, that a form and the tensors of `Arguments` but the scale say."""
        x, y, *rest = tensors
        scale = torch.ones_like(self.temperature)
        if self.dtype != torch.float32:
            x, y, scale = (x * self.temperature).to(self.dtype), y.to(self.dtype), 1 / self.temperature
        row, column, bias_u, bias_v = (part if part is None else part.contiguous() for part in rest)
        return Matrix(x, y, row, column, bias_u, bias_v, scale, form.ceiling, form.offset, diagonal, self.precision)


class TritonLogSumExp(torch.autograd.Function):
    """Log-sum-exp of every row and, if asked for, of every column in one pass.

    The gradient takes two: one over the scores for what belongs to rows, one over their transpose for the rest.
    """

    @staticmethod
    def forward(
        ctx: Any, form: Form, diagonal: bool, storage: Storage, both: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        rows, columns = triton_launch.log_sum_exps(storage.matrix(form, diagonal, tensors), both)
        ctx.form, ctx.diagonal, ctx.storage = form, diagonal, storage
        # Factors in half precision are made again: what is saved are the inputs, for `first_order` to see.
        ctx.save_for_backward(rows, columns, *tensors)
        ctx.set_materialize_grads(False)
        return rows, columns

    @staticmethod
    @first_order
    def backward(ctx: Any, in_rows: Tensor | None, in_columns: Tensor | None) -> tuple[Any, ...]:
        rows, columns, *tensors = ctx.saved_tensors
        if in_rows is None and in_columns is None:
            return (None,) * len(ctx.needs_input_grad)
        matrix = ctx.storage.matrix(ctx.form, ctx.diagonal, tensors)
        row = None if in_rows is None else Side(rows, in_rows).possible()
        column = None if in_columns is None else Side(columns, in_columns).possible()
        x, y, *margins = ctx.needs_input_grad[4:]
        of_row, of_column, of_bias_u, of_bias_v = margins
        in_x, in_row = _pulled(matrix, row, column, x, of_row or of_bias_u)
        in_y, in_column = _pulled(matrix.transposed(), column, row, y, of_column or of_bias_v)
        if in_y is not None:
            in_y *= matrix.scale
        gradients = (in_x, in_y, in_row, in_column, in_row, in_column)
        return (None,) * 4 + tuple(g if need else None for g, need in zip(gradients, (x, y, *margins), strict=True))


class TritonKernel(TiledKernel):
    """Reduce the scores inside a GPU's processors: log-sum-exps and their gradients, by programs written in Triton.

    Other reductions, alignments with a link, excluded columns and double precision are left to the tiles. First
    derivatives only. Embeddings of half precision are multiplied in it on tensor cores, and everything is summed in
    single precision.

    Raises
    ------
    ImportError
        Without Triton.
    ValueError
        If the embeddings are not on a CUDA device.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> device = "cuda" if torch.cuda.is_available() else "cpu"
    >>> x = torch.eye(3, device=device)
    >>> pcl.Scores(x, x, method="triton" if device == "cuda" else "tiled").logsumexp(dim=1).cpu()
    tensor([1.5514, 1.5514, 1.5514])
    """

    def __init__(self, terms: ScoreTerms) -> None:
        interpreted = triton_launch.programs().INTERPRETED
        if not (terms.x.is_cuda or interpreted):
            raise ValueError(f"method='triton' needs embeddings on a CUDA device, got {terms.x.device}")
        super().__init__(terms)
        temperature = torch.as_tensor(terms.temperature, dtype=terms.x.dtype, device=terms.x.device)
        self.storage = Storage(terms.precision, temperature.detach(), _precision())
        self.is_fused = terms.link is None and terms.excluded is None and terms.x.dtype == torch.float32

    def _margins(self, diagonal: bool) -> tuple[Tensor, Tensor]:
        return self._fused(diagonal, both=True) if self.is_fused else super()._margins(diagonal)

    def _total(self, diagonal: bool) -> Tensor:
        return self._fused(diagonal, both=False)[0].logsumexp(0) if self.is_fused else super()._total(diagonal)

    def _fused(self, diagonal: bool, both: bool) -> tuple[Tensor, Any]:
        *tensors, _, _ = self.arguments
        sums: tuple[Tensor, Any] = TritonLogSumExp.apply(self.form, diagonal, self.storage, both, *tensors)
        return sums


def can_fuse(u: Float[Tensor, "n d"], linear: bool) -> bool:
    """Whether the programs can serve these embeddings, with an alignment that is linear in their product."""
    if not (u.is_cuda and linear) or u.dtype == torch.float64 or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(u.device) >= (8, 0)  # with bfloat16 and TF32


def _pulled(
    matrix: Matrix, row: Side | None, column: Side | None, product: bool, margin: bool
) -> tuple[Tensor | None, Tensor | None]:
    if not (product or margin):
        return None, None
    return triton_launch.gradients(matrix, row, column, product, margin)


def _precision() -> str:
    """How to multiply in single precision: on tensor cores, in three terms, if torch has been allowed to use TF32."""
    matmul = torch.backends.cuda.matmul
    allowed = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32x3" if allowed else "ieee"
