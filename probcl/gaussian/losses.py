"""Population losses of any quadratic score under μ = N(0, C): Gaussian integrals in closed form.

In whitened coordinates, with Ã, B̃, C̃ the score and R the true cross-covariance,

    E_μ s                                    = ⟨Ã, R⟩ − ½ tr B̃ − ½ tr C̃
    E_v log E_{u'~μ_u} e^{s(u',v)}           = −½ log|I + B̃| + ½ tr Ãᵀ(I + B̃)⁻¹Ã − ½ tr C̃
    log E_{μ_u⊗μ_v} e^s                      = −½ log|[[I + B̃, −Ã], [−Ãᵀ, I + C̃]]|.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_weights
from probcl.gaussian.canonical import mutual_information
from probcl.gaussian.law import learned_law


def conditional_loss(
    C: Float[Tensor, "n n"],
    n_u: int,
    A: Float[Tensor, "n_u n_v"],
    B: Float[Tensor, "n_u n_u"] | None = None,
    C_: Float[Tensor, "n_v n_v"] | None = None,
    lambda_u: float = 1.0,
    lambda_v: float = 1.0,
) -> Float[Tensor, ""]:
    """Compute the population conditional loss L_cond (BST (11)-(12), weights (3.4)) of a quadratic score.

    −L_cond = ½(λ_u + λ_v) E_μ s − ½λ_u E_v log E_{u'} e^{s(u',v)} − ½λ_v E_u log E_{v'} e^{s(u,v')}: the
    limit of the InfoNCE / CLIP loss less log N. Weights (2, 0) fit u|v only, (0, 2) fit v|u only. Never
    below −½(λ_u + λ_v) I(u; v). Differentiable in `A`, `B` and `C_`.

    Parameters
    ----------
    C, n_u, A, B, C_
        As in `learned_law`.
    lambda_u, lambda_v
        Weights of the u|v and v|u terms, not negative and not both zero.

    Returns
    -------
    Tensor
        In nats, float64; +inf (of zero gradient) where an integral of positive weight diverges, which is
        where ν(u|v) or ν(v|u) does not exist.

    Raises
    ------
    TypeError, ValueError
        As `learned_law`, and for weights that are negative, not finite or both zero.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> A = torch.tensor([[0.6]], dtype=torch.float64)
    >>> gaussian.conditional_loss(C, n_u=1, A=A)  # 0.6 · 0.6 − ½ 0.6², negated
    tensor(-0.1800, dtype=torch.float64)
    """
    require_weights(lambda_u, lambda_v)
    law = learned_law(C, n_u, A, B, C_)
    A_, R = law.whitened_A, law.whitening.R
    loss = A_.new_zeros(())
    if lambda_u > 0:
        loss = loss - 0.5 * lambda_u * _log_ratio(A_, R, law.whitened_B, law.whitened_precision_u)
    if lambda_v > 0:
        loss = loss - 0.5 * lambda_v * _log_ratio(A_.T, R.T, law.whitened_C, law.whitened_precision_v)
    return loss


def joint_loss(
    C: Float[Tensor, "n n"],
    n_u: int,
    A: Float[Tensor, "n_u n_v"],
    B: Float[Tensor, "n_u n_u"] | None = None,
    C_: Float[Tensor, "n_v n_v"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the population joint loss, −L_joint = E_μ s − log E_{μ_u⊗μ_v} e^s (Donsker-Varadhan).

    Arguments, units and errors as `conditional_loss`; +inf (of zero gradient) where ν is not normalisable.
    Never below −I(u; v), nor below the (1, 1) conditional loss of the same score (BST Thm 3.10).

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> A = torch.tensor([[0.6]], dtype=torch.float64)
    >>> gaussian.joint_loss(C, 1, A) >= gaussian.conditional_loss(C, 1, A)
    tensor(True)
    >>> gaussian.joint_loss(C, 1, 2 * A)  # e^{1.2 uv} has no integral
    tensor(inf, dtype=torch.float64)
    """
    law = learned_law(C, n_u, A, B, C_)
    factor, exists = _cholesky(law.whitened_precision)
    if not exists:
        return _diverged(law.whitened_precision)
    mean_score = (law.whitened_A * law.whitening.R).sum() - 0.5 * (law.whitened_B.trace() + law.whitened_C.trace())
    return -mean_score - factor.diagonal().log().sum()


def conditional_divergence(
    C: Float[Tensor, "n n"],
    n_u: int,
    A: Float[Tensor, "n_u n_v"],
    B: Float[Tensor, "n_u n_u"] | None = None,
    C_: Float[Tensor, "n_v n_v"] | None = None,
    lambda_u: float = 1.0,
    lambda_v: float = 1.0,
) -> Float[Tensor, ""]:
    """J_cond = ½λ_u E_v KL(μ_{u|v} ‖ ν_{u|v}) + ½λ_v E_u KL(μ_{v|u} ‖ ν_{v|u}), in nats.

    Equals L_cond + ½(λ_u + λ_v) I(u; v) (BST Thm 2.8). Arguments and errors as `conditional_loss`.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> for alignment in ("inner", "l2", "potentials"):
    ...     best = gaussian.optimum(C, n_u=1, alignment=alignment)
    ...     print(alignment, round(float(gaussian.conditional_divergence(C, 1, best.A, best.B, best.C_)), 4))
    inner 0.0431
    l2 0.0254
    potentials 0.0
    """
    loss = conditional_loss(C, n_u, A, B, C_, lambda_u, lambda_v)
    return loss + 0.5 * (lambda_u + lambda_v) * mutual_information(C, n_u)


def joint_divergence(
    C: Float[Tensor, "n n"],
    n_u: int,
    A: Float[Tensor, "n_u n_v"],
    B: Float[Tensor, "n_u n_u"] | None = None,
    C_: Float[Tensor, "n_v n_v"] | None = None,
) -> Float[Tensor, ""]:
    """J_joint = KL(μ ‖ ν) = L_joint + I(u; v), in nats; arguments and errors as `joint_loss`.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> nothing = torch.zeros(1, 1, dtype=torch.float64)
    >>> gaussian.joint_divergence(C, 1, nothing)  # the mutual information
    tensor(0.2231, dtype=torch.float64)
    """
    return joint_loss(C, n_u, A, B, C_) + mutual_information(C, n_u)


def _log_ratio(A: Tensor, R: Tensor, B: Tensor, precision: Tensor) -> Tensor:
    """E_μ log dν(x|y)/dμ_x, where A is the whitened cross term, x by y, and B the quadratic term of x."""
    factor, exists = _cholesky(precision)
    if not exists:
        return -_diverged(precision)
    explained = torch.linalg.solve_triangular(factor, A, upper=False).square().sum()
    ratio: Tensor = (A * R).sum() - 0.5 * B.trace() + factor.diagonal().log().sum() - 0.5 * explained
    return ratio


def _cholesky(precision: Tensor) -> tuple[Tensor, bool]:
    factor, info = torch.linalg.cholesky_ex(precision)
    return factor, bool(info == 0)


def _diverged(precision: Tensor) -> Tensor:
    # Tied to the arguments, so that a line search may call backward on a step that went too far.
    return 0.0 * precision.sum() + math.inf
