"""The law a quadratic score has learned: the product of the marginals, tilted by e^s."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.gaussian.arguments import float64_matrix
from probcl.gaussian.canonical import Whitening, whiten


@dataclass(frozen=True, eq=False)
class TiltedGaussian:
    """ν ∝ e^{s} N(0, C_uu) ⊗ N(0, C_vv) with ``s(u, v) = uᵀAv − ½uᵀBu − ½vᵀC_v``.

    Each property is computed when asked for and raises `ValueError` if what it names does not exist: ν(u|v)
    needs ``C_uu^{-1} + B`` positive definite, ν(v|u) needs ``C_vv^{-1} + C_``, and the joint quantities
    (`covariance`, `cov_u`, `cov_v`, `cross_cov`) need the precision of the whole, see `normalisable`.
    Conditionals may exist where the joint does not: a conditional loss never asks for the joint.

    Attributes
    ----------
    whitening
        Square roots of the marginals and the true whitened cross-covariance R.
    whitened_A, whitened_B, whitened_C
        The score in whitened coordinates, ``Ã = C_uu^{1/2} A C_vv^{1/2}``, ``B̃ = C_uu^{1/2} B C_uu^{1/2}``
        and ``C̃ = C_vv^{1/2} C_ C_vv^{1/2}``. Compare fits here: in the entries of A the problem is as
        ill-conditioned as C_uu and C_vv are.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> law = gaussian.optimum(C, n_u=1, alignment="potentials").law
    >>> law.mean_map_u_given_v, law.cov_u_given_v  # the truth, 0.6 and 1 − 0.6²
    (tensor([[0.6000]], dtype=torch.float64), tensor([[0.6400]], dtype=torch.float64))
    """

    whitening: Whitening
    whitened_A: Float[Tensor, "n_u n_v"]
    whitened_B: Float[Tensor, "n_u n_u"]
    whitened_C: Float[Tensor, "n_v n_v"]

    @property
    def whitened_precision_u(self) -> Float[Tensor, "n_u n_u"]:
        """Whitened precision of ν(u|v), I + B̃."""
        return _plus_identity(self.whitened_B)

    @property
    def whitened_precision_v(self) -> Float[Tensor, "n_v n_v"]:
        """Whitened precision of ν(v|u), I + C̃."""
        return _plus_identity(self.whitened_C)

    @property
    def whitened_precision(self) -> Float[Tensor, "n n"]:
        """Whitened precision of ν, [[I + B̃, −Ã], [−Ãᵀ, I + C̃]]."""
        top = torch.cat([self.whitened_precision_u, -self.whitened_A], dim=1)
        bottom = torch.cat([-self.whitened_A.T, self.whitened_precision_v], dim=1)
        return torch.cat([top, bottom])

    @property
    def normalisable(self) -> bool:
        """Whether e^s has a finite integral under the product of the marginals."""
        return bool(torch.linalg.cholesky_ex(self.whitened_precision).info == 0)

    @property
    def mean_map_u_given_v(self) -> Float[Tensor, "n_u n_v"]:
        """M with E_ν[u|v] = M v, which is ``(C_uu^{-1} + B)^{-1} A``."""
        return self.cov_u_given_v @ self.whitening.inverse_root_u @ self.whitened_A @ self.whitening.inverse_root_v

    @property
    def mean_map_v_given_u(self) -> Float[Tensor, "n_v n_u"]:
        """M with E_ν[v|u] = M u, which is ``(C_vv^{-1} + C_)^{-1} Aᵀ``."""
        return self.cov_v_given_u @ self.whitening.inverse_root_v @ self.whitened_A.T @ self.whitening.inverse_root_u

    @property
    def cov_u_given_v(self) -> Float[Tensor, "n_u n_u"]:
        """Covariance of ν(u|v), ``(C_uu^{-1} + B)^{-1}``, the same for every v."""
        inverse = _inverse("ν(u|v): C_uu^{-1} + B", self.whitened_precision_u)
        return self.whitening.root_u @ inverse @ self.whitening.root_u

    @property
    def cov_v_given_u(self) -> Float[Tensor, "n_v n_v"]:
        """Covariance of ν(v|u), ``(C_vv^{-1} + C_)^{-1}``, the same for every u."""
        inverse = _inverse("ν(v|u): C_vv^{-1} + C_", self.whitened_precision_v)
        return self.whitening.root_v @ inverse @ self.whitening.root_v

    @property
    def covariance(self) -> Float[Tensor, "n n"]:
        """Covariance of ν, in the order (u, v)."""
        inverse = _inverse("the joint tilt ν: its precision", self.whitened_precision)
        root = torch.block_diag(self.whitening.root_u, self.whitening.root_v)
        covariance: Tensor = root @ inverse @ root
        return covariance

    @property
    def cov_u(self) -> Float[Tensor, "n_u n_u"]:
        """Covariance of the marginal ν_u."""
        return self.covariance[: len(self.whitened_A), : len(self.whitened_A)]

    @property
    def cov_v(self) -> Float[Tensor, "n_v n_v"]:
        """Covariance of the marginal ν_v."""
        return self.covariance[len(self.whitened_A) :, len(self.whitened_A) :]

    @property
    def cross_cov(self) -> Float[Tensor, "n_u n_v"]:
        """E_ν[u vᵀ]."""
        return self.covariance[: len(self.whitened_A), len(self.whitened_A) :]


def learned_law(
    C: Float[Tensor, "n n"],
    n_u: int,
    A: Float[Tensor, "n_u n_v"],
    B: Float[Tensor, "n_u n_u"] | None = None,
    C_: Float[Tensor, "n_v n_v"] | None = None,
) -> TiltedGaussian:
    """Return the law ν ∝ e^{s} μ_u μ_v learned from N(0, C) by ``s = uᵀAv − ½uᵀBu − ½vᵀC_v``.

    Differentiable in `A`, `B` and `C_`. Neither conditional nor joint need exist; see `TiltedGaussian`.

    Parameters
    ----------
    C, n_u
        Covariance of (u, v), positive definite, and the dimension of u, which comes first.
    A
        Of shape (n_u, n_v); GᵀH for linear encoders u ↦ Gu, v ↦ Hv.
    B, C_
        Quadratic terms, zero if not given; only their symmetric parts matter. The L2 score −½|Gu − Hv|² has
        ``B = GᵀG`` and ``C_ = HᵀH``.

    Raises
    ------
    TypeError
        If an array is not a floating-point tensor or `n_u` not an integer.
    ValueError
        If `C` is not a positive definite covariance, or an array has the wrong shape or is not finite.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> law = gaussian.learned_law(C, n_u=1, A=torch.tensor([[0.6]], dtype=torch.float64))  # s = 0.6 uv
    >>> law.mean_map_u_given_v, law.cov_u_given_v, law.normalisable
    (tensor([[0.6000]], dtype=torch.float64), tensor([[1.]], dtype=torch.float64), True)
    """
    whitening = whiten(C, n_u)
    n_v = len(C) - n_u
    A = float64_matrix("A", A, (n_u, n_v))
    B = A.new_zeros(n_u, n_u) if B is None else float64_matrix("B", B, (n_u, n_u))
    C_ = A.new_zeros(n_v, n_v) if C_ is None else float64_matrix("C_", C_, (n_v, n_v))
    root_u, root_v = whitening.root_u, whitening.root_v
    return TiltedGaussian(
        whitening=whitening,
        whitened_A=root_u @ A @ root_v,
        whitened_B=root_u @ (0.5 * (B + B.T)) @ root_u,
        whitened_C=root_v @ (0.5 * (C_ + C_.T)) @ root_v,
    )


def _plus_identity(matrix: Tensor) -> Tensor:
    return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device) + matrix


def _inverse(what: str, precision: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(precision)
    if info != 0:
        raise ValueError(f"the score does not define {what} is not positive definite")
    return torch.cholesky_inverse(factor)
