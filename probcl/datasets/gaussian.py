"""Pairs drawn from a Gaussian law that the caller chooses."""

import torch
from jaxtyping import Float
from torch import Tensor

from probcl.checks import require_count
from probcl.datasets.pairs import Pairs
from probcl.gaussian.canonical import whiten


def gaussian_pairs(
    C: Float[Tensor, "n n"],
    n_u: int,
    n: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Pairs:
    """Draw `n` independent pairs with (u, v) ~ N(0, C).

    Parameters
    ----------
    C : Tensor, shape (n_u + n_v, n_u + n_v)
        Joint covariance, positive definite, u first.
    n_u : int
        Number of components of u.
    n : int
        Number of pairs.
    seed : int
        Determines the draws; torch's global generator is neither used nor changed.
    dtype : torch.dtype
        Of the result. Drawing is done in float64, so that results of two types differ by rounding only.

    Returns
    -------
    Pairs
        On the CPU, `u` of shape (n, n_u) and `v` of shape (n, n_v).

    Raises
    ------
    TypeError
        If `C` is not a floating-point tensor, `n_u`, `n` or `seed` is not an integer, or `dtype` is not a
        floating-point type.
    ValueError
        If `C` is not square, finite, symmetric and positive definite, `n_u` leaves u or v without components,
        `n` is below 1, or `seed` is negative.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> C = torch.tensor([[1.0, 0.6], [0.6, 1.0]])
    >>> u, v = pcl.datasets.gaussian_pairs(C, n_u=1, n=10_000, seed=0)
    >>> u.shape, (u * v).mean().round(decimals=1)
    (torch.Size([10000, 1]), tensor(0.6000))
    """
    require_count("n", n)
    require_count("seed", seed, minimum=0)
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point type, got {dtype}")
    whitening = whiten(C.cpu(), n_u)
    R, n_v = whitening.R, len(whitening.root_v)
    independent = torch.linalg.cholesky(torch.eye(n_v, dtype=R.dtype) - R.mT @ R)

    generator = torch.Generator().manual_seed(seed)
    white_u, noise = torch.randn(n, n_u + n_v, generator=generator, dtype=R.dtype).split([n_u, n_v], dim=1)
    white_v = white_u @ R + noise @ independent.mT
    return Pairs((white_u @ whitening.root_u).to(dtype), (white_v @ whitening.root_v).to(dtype))
