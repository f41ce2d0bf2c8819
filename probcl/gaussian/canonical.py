"""Canonical correlations: coordinates in which a Gaussian pair falls apart into independent scalar pairs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import describe, require_count
from probcl.gaussian.arguments import float64_array

# Canonical correlations this close to one are one to rounding, and the mutual information is infinite.
CORRELATION_MARGIN = 1e-12


@dataclass(frozen=True, eq=False)
class Whitening:
    """The symmetric square roots of both marginals, and the cross-covariance they leave between ũ and ṽ.

    Attributes
    ----------
    root_u, root_v
        C_uu^{1/2} and C_vv^{1/2}.
    inverse_root_u, inverse_root_v
        C_uu^{-1/2} and C_vv^{-1/2}, so that ũ = C_uu^{-1/2} u has the identity as its covariance.
    R
        C_uu^{-1/2} C_uv C_vv^{-1/2}; its singular values are the canonical correlations.
    """

    root_u: Float[Tensor, "n_u n_u"]
    root_v: Float[Tensor, "n_v n_v"]
    inverse_root_u: Float[Tensor, "n_u n_u"]
    inverse_root_v: Float[Tensor, "n_v n_v"]
    R: Float[Tensor, "n_u n_v"]


@dataclass(frozen=True, eq=False)
class CanonicalPairs:
    """R = C_uu^{-1/2} C_uv C_vv^{-1/2} = U diag(σ) Vᵀ, with k = min(n_u, n_v) pairs.

    The i-th canonical variates are the scalars ``U[:, i] @ whitener_u @ u`` and
    ``V[:, i] @ whitener_v @ v``: of unit variance, correlated σ_i with each other, uncorrelated with all
    others.

    Attributes
    ----------
    correlations
        σ, in descending order, each in [0, 1).
    U, V
        Singular vectors as columns; the sign of a pair is arbitrary.
    whitener_u, whitener_v
        The symmetric C_uu^{-1/2} and C_vv^{-1/2}.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> pairs = gaussian.canonical_correlations(C, n_u=1)
    >>> pairs.correlations, round(pairs.mutual_information, 4)
    (tensor([0.6000], dtype=torch.float64), 0.2231)
    """

    correlations: Float[Tensor, " k"]
    U: Float[Tensor, "n_u k"]
    V: Float[Tensor, "n_v k"]
    whitener_u: Float[Tensor, "n_u n_u"]
    whitener_v: Float[Tensor, "n_v n_v"]

    @property
    def mutual_information(self) -> float:
        """I(u; v) = −½ Σ log(1 − σ²), in nats."""
        return float(pair_information(self.correlations).sum())


def pair_information(correlations: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Mutual information −½ log(1 − σ²) of each canonical pair, in nats."""
    return -0.5 * torch.log1p(-(correlations**2))


def whiten(C: Float[Tensor, "n n"], n_u: int) -> Whitening:
    """Check a joint covariance and whiten both of its marginals, in float64.

    Raises
    ------
    TypeError
        If `C` is not a floating-point tensor or `n_u` not an integer.
    ValueError
        If `C` is not square, finite, symmetric and positive definite, or `n_u` not between 1 and n − 1.
    """
    C = _require_symmetric(C)
    if require_count("n_u", n_u) >= len(C):
        raise ValueError(f"n_u must leave at least one row of C ({len(C)} rows) to v, got {n_u}")
    root_u, inverse_root_u = _square_roots("C_uu, the first n_u rows and columns of C,", C[:n_u, :n_u])
    root_v, inverse_root_v = _square_roots("C_vv, the last n - n_u rows and columns of C,", C[n_u:, n_u:])
    R = inverse_root_u @ C[:n_u, n_u:] @ inverse_root_v
    largest = float(torch.linalg.matrix_norm(R, ord=2))
    if largest >= 1 - CORRELATION_MARGIN:
        raise ValueError(
            f"C must be positive definite, with canonical correlations below one; the largest is {largest:.15g}"
        )
    return Whitening(root_u, root_v, inverse_root_u, inverse_root_v, R)


def canonical_correlations(C: Float[Tensor, "n n"], n_u: int) -> CanonicalPairs:
    """Canonical correlation analysis of a joint covariance.

    Parameters
    ----------
    C
        Covariance of (u, v), of shape (n_u + n_v, n_u + n_v); positive definite.
    n_u
        Dimension of u, whose rows and columns come first.

    Raises
    ------
    TypeError
        If `C` is not a floating-point tensor or `n_u` not an integer.
    ValueError
        If `C` is not square, finite, symmetric and positive definite, or `n_u` not between 1 and n − 1.

    References
    ----------
    Hotelling, *Relations between two sets of variates*, Biometrika 28 (1936).

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.eye(4, dtype=torch.float64)
    >>> C[0, 2] = C[2, 0] = 0.8  # u₁ with v₁
    >>> C[1, 3] = C[3, 1] = 0.3  # u₂ with v₂
    >>> gaussian.canonical_correlations(C, n_u=2).correlations
    tensor([0.8000, 0.3000], dtype=torch.float64)
    """
    whitening = whiten(C, n_u)
    U, correlations, Vt = torch.linalg.svd(whitening.R, full_matrices=False)
    return CanonicalPairs(correlations, U, Vt.T, whitening.inverse_root_u, whitening.inverse_root_v)


def canonical_correlations_from_data(u: Float[Tensor, "N n_u"], v: Float[Tensor, "N n_v"]) -> CanonicalPairs:
    """Canonical correlation analysis of the centred sample covariance of paired rows.

    Parameters
    ----------
    u, v
        N paired observations, a row each. More than n_u + n_v are needed: with fewer, some combination of u
        equals some combination of v on the sample and a canonical correlation is one whatever the truth.

    Raises
    ------
    TypeError
        If `u` or `v` is not a floating-point tensor.
    ValueError
        If they are not finite matrices, differ in their number of rows, have too few, or have linearly
        dependent columns.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> normal = torch.randn(5000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> u, v = normal[:, :2], 0.8 * normal[:, :1] + 0.6 * normal[:, 2:]
    >>> gaussian.canonical_correlations_from_data(u, v).correlations.round(decimals=2)  # of u₁ with v it is 0.8
    tensor([0.8000], dtype=torch.float64)
    """
    u, v = float64_array("u", u), float64_array("v", v)
    if len(u) != len(v):
        raise ValueError(f"u and v must have one row per pair, got {len(u)} and {len(v)} rows")
    if len(u) <= u.shape[1] + v.shape[1]:
        raise ValueError(f"u and v need more than {u.shape[1] + v.shape[1]} rows (n_u + n_v), got {len(u)}")
    return canonical_correlations(torch.cov(torch.cat([u, v], dim=1).T), u.shape[1])


def mutual_information(C: Float[Tensor, "n n"], n_u: int) -> float:
    """Return I(u; v) = −½ Σ log(1 − σ²) in nats; arguments and errors as `canonical_correlations`.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> round(gaussian.mutual_information(C, n_u=1), 4)  # −½ log(1 − 0.6²)
    0.2231
    """
    return canonical_correlations(C, n_u).mutual_information


def _require_symmetric(C: Tensor) -> Tensor:
    matrix = float64_array("C", C).detach()
    if matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"C must be a square (n_u + n_v, n_u + n_v) covariance, got {describe(C)}")
    asymmetry = float((matrix - matrix.T).abs().max())
    if asymmetry > torch.finfo(C.dtype).eps ** 0.5 * float(matrix.abs().max()):
        raise ValueError(f"C must be symmetric, got entries that differ from their mirror by {asymmetry:.3g}")
    return 0.5 * (matrix + matrix.T)


def _square_roots(name: str, marginal: Tensor) -> tuple[Tensor, Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(marginal)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest <= len(eigenvalues) * torch.finfo(torch.float64).eps * largest:
        raise ValueError(f"{name} must be positive definite, got eigenvalues from {smallest:.3g} to {largest:.3g}")
    root = eigenvalues.sqrt()
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
