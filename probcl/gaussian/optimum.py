"""The best linear encoders of a given rank, for every alignment and loss of the table."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_count, require_weights
from probcl.gaussian.canonical import CanonicalPairs, canonical_correlations, pair_information
from probcl.gaussian.law import TiltedGaussian, learned_law
from probcl.gaussian.pairs import row


@dataclass(frozen=True, eq=False)
class Optimum:
    """The score ``uᵀAv − ½uᵀBu − ½vᵀC_v`` that minimises a population loss, and the law it has learned.

    Attributes
    ----------
    A, B, C_
        The score: ``A = GᵀH``, ``B = K_uᵀK_u``, ``C_ = K_vᵀK_v``. For centred variables:
        subtract the means first.
    encoder_u, encoder_v
        G and H, encoders u ↦ Gu and v ↦ Hv; rows beyond the number of canonical pairs are zero. Only their
        product is determined for the inner product, and both up to one common rotation for L2.
    potential_u, potential_v
        K_u and K_v: zero for "inner", G and H themselves for "l2", where s = −½|Gu − Hv|².
    loss
        Value of L at the optimum in nats, L_cond or L_joint as `conditional_loss` and `joint_loss` compute
        it: the negative of the bound on mutual information.
    divergence
        J at the optimum in nats, what `conditional_divergence` and `joint_divergence` compute: the KL
        divergence from μ to what was learned that remains, zero where everything the loss looks at is
        recovered. J = L + I(u; v) for "joint", J = L + ½(λ_u + λ_v) I(u; v) otherwise.
    pairs
        Canonical correlations and directions of C.
    law
        The conditionals, marginals and cross-covariance implied.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> best = gaussian.optimum(C, n_u=1, rank=1)
    >>> best.A, best.encoder_u.T @ best.encoder_v
    (tensor([[0.6000]], dtype=torch.float64), tensor([[0.6000]], dtype=torch.float64))
    >>> round(best.loss, 4), round(best.divergence, 4)
    (-0.18, 0.0431)
    """

    A: Float[Tensor, "n_u n_v"]
    B: Float[Tensor, "n_u n_u"]
    C_: Float[Tensor, "n_v n_v"]
    encoder_u: Float[Tensor, "rank n_u"]
    encoder_v: Float[Tensor, "rank n_v"]
    potential_u: Float[Tensor, "rank n_u"]
    potential_v: Float[Tensor, "rank n_v"]
    loss: float
    divergence: float
    pairs: CanonicalPairs
    law: TiltedGaussian


def optimum(
    C: Float[Tensor, "n n"],
    n_u: int,
    rank: int = 3,
    alignment: str = "inner",
    loss: str = "conditional",
    lambda_u: float | None = None,
    lambda_v: float | None = None,
) -> Optimum:
    """Find the optimal linear encoders for (u, v) ~ N(0, C) at temperature one, in closed form.

    Where canonical correlations tie, or the loss is blind to part of the score (a one-sided loss to one of
    `B` and `C_` under "potentials"), this is one of several optima; the values are those of all.

    Parameters
    ----------
    C, n_u
        Covariance of (u, v), positive definite, and the dimension of u, which comes first.
    rank
        Dimension of the embedding space, 0 or more; what exceeds the number of canonical pairs is not used.
    alignment
        "inner" ⟨Gu, Hv⟩; "l2" −½|Gu − Hv|²; "potentials" ⟨Gu, Hv⟩ − ½|K_u u|² − ½|K_v v|².
    loss
        "conditional" with weights `lambda_u`, `lambda_v`; "u|v", the weights (2, 0); "v|u", the weights
        (0, 2); "joint".
    lambda_u, lambda_v
        Weights of the u|v and v|u terms, each 1 unless given; only for the loss "conditional".

    Raises
    ------
    TypeError
        If `C` is not a floating-point tensor, or `n_u` or `rank` not an integer.
    ValueError
        If `C` is not a positive definite covariance, a name or weight is not one of these, weights are
        given to another loss than "conditional", or the closed form is not known: L2 with two unequal
        positive weights.

    References
    ----------
    Baptista, Stuart & Tran (arXiv 2505.24134v1), Thms 5.1, 5.3 and 5.6; the other rows are new in probcl.

    Examples
    --------
    >>> import torch
    >>> from probcl import gaussian
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    >>> gaussian.optimum(C, n_u=1, alignment="inner").law.cov_u_given_v  # as broad as the prior
    tensor([[1.]], dtype=torch.float64)
    >>> gaussian.optimum(C, n_u=1, alignment="l2", loss="u|v").law.cov_u_given_v  # 1 − 0.6²: exact
    tensor([[0.6400]], dtype=torch.float64)
    """
    require_count("rank", rank, minimum=0)
    loss_row, weight = _resolve(alignment, loss, lambda_u, lambda_v)
    pairs = canonical_correlations(C, n_u)
    kept = min(rank, len(pairs.correlations))
    information = pair_information(pairs.correlations)
    best = row(alignment, loss_row)(pairs.correlations[:kept])
    U, V = pairs.whitener_u @ pairs.U[:, :kept], pairs.whitener_v @ pairs.V[:, :kept]
    G, H = _rows(best.g, U, rank), _rows(best.h, V, rank)
    K_u, K_v = _rows(best.k_u, U, rank), _rows(best.k_v, V, rank)
    A, B, C_ = G.T @ H, K_u.T @ K_u, K_v.T @ K_v
    left_over = torch.cat([information[:kept] - best.gain, information[kept:]])
    return Optimum(
        A=A,
        B=B,
        C_=C_,
        encoder_u=G,
        encoder_v=H,
        potential_u=K_u,
        potential_v=K_v,
        loss=-weight * float(best.gain.sum()),
        divergence=weight * float(left_over.sum()),
        pairs=pairs,
        law=learned_law(C, n_u, A, B, C_),
    )


def _rows(gains: Tensor, directions: Tensor, rank: int) -> Tensor:
    encoder = directions.new_zeros(rank, len(directions))
    encoder[: len(gains)] = gains[:, None] * directions.T
    return encoder


def _resolve(alignment: str, loss: str, lambda_u: float | None, lambda_v: float | None) -> tuple[str, float]:
    """Return the loss whose row of the table serves, and the weight ½(λ_u + λ_v) of its values."""
    row(alignment, loss)
    if loss != "conditional":
        if lambda_u is not None or lambda_v is not None:
            raise ValueError(f"lambda_u and lambda_v go with loss='conditional' only, got loss={loss!r}")
        return loss, 1.0
    weights = require_weights(1.0 if lambda_u is None else lambda_u, 1.0 if lambda_v is None else lambda_v)
    weight = 0.5 * sum(weights)
    if alignment != "l2" or weights[0] == weights[1]:
        return loss, weight
    if min(weights) > 0:
        raise ValueError(
            "lambda_u and lambda_v must be equal, or one of them zero, for alignment='l2': no closed form is"
            f" known otherwise; got {weights[0]} and {weights[1]}"
        )
    return ("u|v" if weights[1] == 0 else "v|u"), weight
