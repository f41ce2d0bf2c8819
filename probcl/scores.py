"""`Scores`: the matrix s(u_i, v_j) of a batch, of which everything in the package is a reduction."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import softplus

from probcl.alignment import (
    Alignment,
    Factors,
    InnerProduct,
    Potentials,
    add_matched,
    require_alignment,
    sum_present,
)
from probcl.checks import (
    describe,
    require_count,
    require_embeddings,
    require_logarithms,
    require_positive,
    require_tensor,
)
from probcl.distributed import share_out
from probcl.kernels import KERNELS, Kernel, ScoreTerms
from probcl.kernels.base import Dim
from probcl.kernels.sharded import ShardedKernel
from probcl.kernels.triton_kernel import can_fuse

# torch's softplus(x) returns x above its threshold; its default, 20, costs float64 half of its digits (e⁻²⁰ = 2e-9).
_SOFTPLUS_LINEAR_ABOVE = 50

# Entries of the matrix, for each dimension of the embeddings, from which tiles are faster (benchmarks/crossover.py).
_TILED_FROM = 8192

# The same for the programs on a GPU. A guess: nobody has measured it yet.
_FUSED_FROM = 1 << 22

Method = Literal["auto", "dense", "tiled", "triton"]


class TopK(NamedTuple):
    """The k largest scores of each row (or column), in descending order, and their positions."""

    values: Float[Tensor, "count k"]
    indices: Int[Tensor, "count k"]


class Scores:
    """The n × m scores s(u_i, v_j) = a(g_u(u_i), g_v(v_j)) / τ + bias_u_i + bias_v_j of two sets of embeddings.

    Rows are u and columns are v. Reductions follow torch: ``dim=1`` runs over the columns (over v) and leaves one value
    for each u_i, ``dim=0`` runs over the rows (over u) and leaves one for each v_j, ``dim=None`` runs over all pairs.
    Each is differentiable where training needs it: in the embeddings, the temperature and the biases.

    Parameters
    ----------
    u, v
        Embeddings, shapes (n, d) and (m, d), of the same floating-point type on the same device. The scores of half
        precision embeddings are in single precision.
    alignment
        a(x, y); `InnerProduct` by default.
    temperature
        τ > 0, a number or a tensor of one element (which may require a gradient).
    method
        How the reductions are carried out: ``"dense"`` stores the n × m matrix, ``"tiled"`` never does and has first
        derivatives only, by `torch.autograd` and not by `torch.func`, and so does ``"triton"``, on a CUDA device
        (extra ``triton``), with fused programs for log-sum-exps, in which what a cosine normalises and a
        distance centres is rounded to half precision again if the embeddings are in it. ``"auto"`` takes the one that
        should be the fastest for the size and the device.
    bias_u, bias_v
        Added to each row (n,) or column (m,): logarithms of prior weights, or a change of gauge. They may be −inf (an
        impossible atom).
    exclude
        For each row one column that is no candidate for it, a permutation of 0 to n − 1, for n = m: its score is −∞ and
        no reduction sees it, as if it were not there. See `probcl.views`, of whose two copies of each thing one is
        excluded.
    group
        Ranks of `torch.distributed` that share the rows out, such as ``torch.distributed.group.WORLD``. Embeddings and
        biases are then those of this rank, any number of them; matched pairs are matched in the order of the ranks; and
        `shape` and every reduction are those of all ranks' rows and columns together, equal on every rank. No rank
        holds more than its own u and all v. Of the gradients the average over ranks is to be taken, as
        `torch.nn.parallel.DistributedDataParallel` does (see `probcl.distributed`). By default this process is alone.

    Raises
    ------
    TypeError
        If an embedding is not a floating-point tensor, the types of embeddings and biases differ, or `alignment` is not
        an `Alignment`.
    ValueError
        On empty or mis-shaped embeddings, different widths or devices, NaN or infinite entries or such that scores
        overflow, a temperature that is not positive, a zero vector under `Cosine`, or a `method` that is
        unknown or not for this device.
    ImportError
        If `method` is ``"triton"`` and Triton is not installed.

    Examples
    --------
    >>> import torch
    >>> from probcl import Cosine, Scores
    >>> scores = Scores(torch.eye(2), torch.eye(2), alignment=Cosine(), temperature=0.5)
    >>> scores.matrix()
    tensor([[2., 0.],
            [0., 2.]])
    >>> scores.logsumexp(dim=1)
    tensor([2.1269, 2.1269])
    """

    def __init__(
        self,
        u: Float[Tensor, "n d"],
        v: Float[Tensor, "m d"],
        alignment: Alignment | None = None,
        temperature: float | Tensor = 1.0,
        method: Method = "auto",
        *,
        bias_u: Float[Tensor, " n"] | None = None,
        bias_v: Float[Tensor, " m"] | None = None,
        exclude: Int[Tensor, " n"] | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.u, self.v = _check_embeddings(u, v)
        require_positive("temperature", temperature)
        self.alignment = InnerProduct() if alignment is None else require_alignment("alignment", alignment)
        # Without axes, so that it broadcasts and promotes like the number it stands for.
        self.temperature = temperature.reshape(()) if isinstance(temperature, Tensor) else temperature
        self.method = method
        self.bias_u = _check_bias("bias_u", bias_u, self.u)
        self.bias_v = _check_bias("bias_v", bias_v, self.v)
        self.exclude = _check_exclude(exclude, self.u, self.v)
        self.group = group
        self._rows, self._columns = share_out((len(self.u), len(self.v)), group, self.u.device)
        self._kernel = self._make_kernel()

    def _make_kernel(self) -> Kernel:
        v = self._columns.gather(_widened(self.v))
        bias_v = _present(self._columns.gather, self.bias_v)
        local = _choose_kernel(self.method, self.u, v, self.alignment)(self._terms(_widened(self.u), v, bias_v))
        return local if self.group is None else ShardedKernel(local, self._rows)

    def _terms(
        self, u: Float[Tensor, "n d"], v: Float[Tensor, "m d"], bias_v: Float[Tensor, " m"] | None
    ) -> ScoreTerms:
        factors = self.alignment.factorize(u, v)
        if not (factors.x.requires_grad or factors.y.requires_grad):  # a training that diverges is named by its step
            _check_magnitude(factors.x, factors.y, self.temperature)
        potentials = self.alignment.potentials(u, v)
        matched = self._rows.total == self._columns.total
        return ScoreTerms(
            *factors,
            link=None if self.alignment.is_linear else self.alignment.link,
            slope=None if self.alignment.is_linear else self.alignment.slope,
            parameters=tuple(p for p in self.alignment.parameters() if p.requires_grad),
            temperature=self.temperature,
            bias_u=sum_present(_divide(potentials.row, self.temperature), self.bias_u),
            bias_v=sum_present(_divide(potentials.column, self.temperature), bias_v),
            diagonal=self._diagonal(u, v, factors, potentials, bias_v) if matched else None,
            precision=self.u.dtype,
            offset=self._rows.own.start,
            excluded=None if self.exclude is None else self.exclude + self._columns.own.start,
        )

    def _diagonal(
        self,
        u: Float[Tensor, "n d"],
        v: Float[Tensor, "m d"],
        factors: Factors,
        potentials: Potentials,
        bias_v: Float[Tensor, " m"] | None,
    ) -> Float[Tensor, " n"]:
        if type(self.alignment).matched is Alignment.matched and self.group is None:
            # What the matrix is made of serves its diagonal too.
            matched = add_matched(self.alignment.paired(factors), *potentials) / self.temperature
        else:
            matched = self.alignment.matched(u, self._rows.take(v)) / self.temperature
        biases = sum_present(self.bias_u, _present(self._rows.take, bias_v))
        return matched if biases is None else matched + biases

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows (u) and columns (v)."""
        return self._rows.total, self._columns.total

    def count(self, dim: Dim | None = None, *, diagonal: bool = True) -> int:
        """Return how many entries a reduction takes together; along a `dim`, for each value.

        Raises
        ------
        ValueError
            If there are none, or no matched pairs to leave out.
        """
        n, m = self.shape
        if dim is not None:
            _check_dim(dim)
        if not diagonal and n != m:
            raise ValueError(f"diagonal=False needs as many u as v, got scores of shape {self.shape}")
        left_out = (not diagonal) + (self.exclude is not None)
        entries = n * (m - left_out) if dim is None else self.shape[dim] - left_out
        if entries == 0:
            raise ValueError("without the matched pair a single pair leaves nothing; give at least two pairs")
        return entries

    def gather(self, values: Shaped[Tensor, "own *rest"]) -> Shaped[Tensor, "n *rest"]:
        """Return what all ranks have of something with a row for each u, given this rank's rows; differentiable."""
        return self._rows.gather(values)

    def matrix(self) -> Float[Tensor, "n m"]:
        """All scores at once, for when the whole matrix is wanted and fits in memory."""
        return self._kernel.matrix()

    def diagonal(self) -> Float[Tensor, " n"]:
        """Scores of the matched pairs, s(u_i, v_i)."""
        diagonal = self._kernel.diagonal
        if diagonal is None:
            raise ValueError(f"scores have matched pairs only if there are as many u as v, got shape {self.shape}")
        return diagonal

    def logsumexp(self, dim: Dim | None = None, *, diagonal: bool = True) -> Float[Tensor, "*shape"]:
        """Log-sum-exp, log Σ e^s; without the matched pairs if `diagonal` is False."""
        self.count(dim, diagonal=diagonal)
        return self._kernel.logsumexp(dim, diagonal)

    def logmeanexp(self, dim: Dim | None = None, *, diagonal: bool = True) -> Float[Tensor, "*shape"]:
        """Log-mean-exp: the estimate of log E_{u'} e^{s(u',v)} (``dim=0``), of its mirror, or over all pairs."""
        return self.logsumexp(dim, diagonal=diagonal) - math.log(self.count(dim, diagonal=diagonal))

    def mean(
        self,
        fn: Callable[[Tensor], Tensor] | None = None,
        dim: Dim | None = None,
        *,
        diagonal: bool = True,
    ) -> Float[Tensor, "*shape"]:
        """Mean of an elementwise function of the scores (of the scores themselves by default)."""
        count = self.count(dim, diagonal=diagonal)
        return self._kernel.sum(_identity if fn is None else fn, dim, diagonal) / count

    def weighted_sum(
        self,
        weights: Float[Tensor, "length p"],
        fn: Callable[[Tensor], Tensor] = torch.exp,
        dim: Dim = 1,
    ) -> Float[Tensor, "count p"]:
        """Weighted sums Σ_j fn(s_ij) w_jp (``dim=1``) or Σ_i fn(s_ij) w_ip (``dim=0``).

        On scores `normalized` along the same `dim`, with the default `fn`, this is the conditional expectation of w.
        """
        length = self.shape[_check_dim(dim)]
        if require_tensor("weights", weights).ndim != 2 or len(weights) != length:
            raise ValueError(f"weights must be a matrix of {length} rows for dim={dim}, got {describe(weights)}")
        if weights.dtype != self.u.dtype:
            raise TypeError(f"weights must have the embeddings' dtype {self.u.dtype}, got {describe(weights)}")
        return self._kernel.weighted_sum(_widened(weights), fn, dim)

    def topk(self, k: int, dim: Dim = 1) -> TopK:
        """Return the `k` largest scores of each row (``dim=1``) or column (``dim=0``), in descending order."""
        if require_count("k", k) > self.count(_check_dim(dim)):
            raise ValueError(f"k must be at most the {self.count(dim)} entries along dim={dim}, got {k}")
        return TopK(*self._kernel.topk(k, dim))

    def sample(
        self, num_samples: int = 1, dim: Dim = 1, *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "num_samples count"]:
        """Exact draws of an index for each row (column) with probabilities softmax(s).

        A stored matrix takes argmax_j (s_ij + Gumbel noise), which needs no normaliser; tiles draw a block of columns
        by its log-sum-exp, and then within it.
        """
        self._check_possible(dim)
        return self._kernel.sample(require_count("num_samples", num_samples), dim, generator)

    def diagonal_nll(self, dim: Dim) -> Float[Tensor, " n"]:
        """Negative log-softmax of the matched pairs along `dim`, log Σ_j e^{s_ij} − s_ii for ``dim=1``.

        Computed as softplus(log Σ_{j≠i} e^{s_ij} − s_ii), which keeps its digits, and its gradient's, when the pairs
        are so well told apart that the difference of the two terms is lost to rounding.
        """
        self._check_possible(dim)
        margin = self.logsumexp(dim, diagonal=False) - self.diagonal()
        return softplus(margin, threshold=_SOFTPLUS_LINEAR_ABOVE)

    def normalized(self, dim: Dim) -> "Scores":
        """Return the scores less their log-sum-exp along `dim`: their exponentials sum to one there.

        Along ``dim=1`` every row changes by a constant, which no softmax along the rows can see: a change of gauge.
        """
        self._check_possible(dim)
        shift = -self.logsumexp(dim)
        if dim == 1:
            return self.shifted(bias_u=self._rows.take(shift))
        return self.shifted(bias_v=self._columns.take(shift))

    def shifted(self, bias_u: Float[Tensor, " n"] | None = None, bias_v: Float[Tensor, " m"] | None = None) -> "Scores":
        """Return the scores with these biases added to rows and columns."""
        return self._changed(
            bias_u=sum_present(self.bias_u, _check_bias("bias_u", bias_u, self.u)),
            bias_v=sum_present(self.bias_v, _check_bias("bias_v", bias_v, self.v)),
        )

    def under(self, alignment: Alignment, temperature: float | Tensor) -> "Scores":
        """Return the scores of the same embeddings under another alignment and temperature."""
        return self._changed(alignment=alignment, temperature=temperature)

    def _changed(self, **changes: Any) -> "Scores":
        """Return the scores with some of the arguments replaced."""
        names = ("u", "v", "alignment", "temperature", "method", "bias_u", "bias_v", "exclude", "group")
        return Scores(**{name: getattr(self, name) for name in names} | changes)

    def _check_possible(self, dim: Dim) -> None:
        """Raise if a row (column) has no softmax, because biases of −inf leave it nothing."""
        bias_u, bias_v = _present(self._rows.gather, self.bias_u), _present(self._columns.gather, self.bias_v)
        own, others = (bias_u, bias_v) if _check_dim(dim) == 1 else (bias_v, bias_u)
        if (own is not None and own.isneginf().any()) or (others is not None and others.isneginf().all()):
            raise ValueError(f"a bias of −inf leaves a {'row' if dim == 1 else 'column'} without any possible entry")

    def __repr__(self) -> str:
        n, m = self.shape
        temperature = float(torch.as_tensor(self.temperature).detach())
        size = f"{n} × {m}" if self.group is None else f"{n} × {m} on {len(self._rows.sizes)} ranks"
        return f"Scores({size}, alignment={self.alignment!r}, temperature={temperature:g}, method={self.method!r})"


def _choose_kernel(method: str, u: Float[Tensor, "n d"], v: Float[Tensor, "m d"], alignment: Alignment) -> type[Kernel]:
    name = method
    if method == "auto":
        entries = len(u) * len(v)
        name = "tiled" if entries >= _TILED_FROM * u.shape[1] else "dense"
        if entries >= _FUSED_FROM and can_fuse(u, alignment.is_linear):
            name = "triton"
    if name not in KERNELS:
        raise ValueError(f"method must be 'auto' or one of {sorted(KERNELS)}, got {method!r}")
    return KERNELS[name]


def _check_embeddings(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    u, v = require_embeddings("u", u), require_embeddings("v", v)
    if u.shape[1] != v.shape[1]:
        raise ValueError(f"u and v must have the same embedding width, got {u.shape[1]} and {v.shape[1]}")
    if u.dtype != v.dtype:
        raise TypeError(f"u and v must have the same dtype, got {u.dtype} and {v.dtype}")
    if u.device != v.device:
        raise ValueError(f"u and v must be on the same device, got {u.device} and {v.device}")
    return u, v


def _check_magnitude(x: Float[Tensor, "n k"], y: Float[Tensor, "m k"], temperature: float | Tensor) -> None:
    """Raise if a score could overflow, by the Cauchy-Schwarz inequality on the largest entries."""
    tau = float(torch.as_tensor(temperature).detach())
    of_x, of_y = (float(part.detach().abs().amax()) for part in (x, y))
    limit = math.log(torch.finfo(x.dtype).max / len(x[0]))
    if of_x and of_y and math.log(of_x) + math.log(of_y) - math.log(tau) > limit:
        raise ValueError(
            f"u and v must have scores that {x.dtype} can hold, got entries up to {of_x:.1e} and {of_y:.1e} "
            f"at temperature {tau:g}"
        )


def _check_dim(dim: Dim) -> Dim:
    # A negative dim would be understood by some reductions and taken for the other one by the rest.
    if dim not in (0, 1):
        raise ValueError(f"dim must be 0 (over u) or 1 (over v), got {dim!r}")
    return dim


def _check_bias(name: str, bias: Tensor | None, embeddings: Tensor) -> Tensor | None:
    if bias is None:
        return None
    if require_tensor(name, bias).shape != embeddings.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(embeddings)},), got {describe(bias)}")
    if _widened(bias).dtype != _widened(embeddings).dtype:
        raise TypeError(f"{name} must have the embeddings' dtype {embeddings.dtype}, got {describe(bias)}")
    return _widened(require_logarithms(name, bias))


def _check_exclude(exclude: object, u: Tensor, v: Tensor) -> Tensor | None:
    if exclude is None:
        return None
    columns, count = require_tensor("exclude", exclude), len(u)
    if len(v) != count or columns.shape != (count,) or columns.dtype != torch.long:
        raise ValueError(
            f"exclude must be an integer tensor with a column for each of as many u as v, got {describe(columns)} for "
            f"{count} and {len(v)}"
        )
    order = torch.arange(count, device=columns.device)
    if not torch.equal(columns.sort().values, order) or (columns == order).any():
        raise ValueError("exclude must name each column once, and never that of the matched pair")
    return columns.to(u.device)


def _widened(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision stores embeddings; scores are computed in single."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _divide(a: Tensor | None, temperature: float | Tensor) -> Tensor | None:
    return None if a is None else a / temperature


def _present(function: Callable[[Tensor], Tensor], a: Tensor | None) -> Tensor | None:
    return None if a is None else function(a)


def _identity(scores: Tensor) -> Tensor:
    return scores
