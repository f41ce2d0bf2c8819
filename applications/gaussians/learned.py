"""The law that a fitted model has learned, in closed form."""

import copy

import torch
from torch import Tensor

import probcl as pcl


def learned_law(model: pcl.BimodalModel, C: Tensor, n_u: int) -> tuple[Tensor, pcl.gaussian.TiltedGaussian]:
    """Return A, and the law of a model with linear encoders whose pairs have the covariance `C`.

    The score s(u, v) = uᵀAv − ½uᵀBu − ½vᵀC_v is quadratic, so that its second derivatives are all of it.
    """
    exact = copy.deepcopy(model).double()

    def score(u: Tensor, v: Tensor) -> Tensor:
        return exact.log_ratio(u[None], v[None])[0]

    origin = (torch.zeros(n_u).double(), torch.zeros(len(C) - n_u).double())
    (minus_B, A), (_, minus_C) = torch.autograd.functional.hessian(score, origin)
    return A, pcl.gaussian.learned_law(C, n_u, A, -minus_B, -minus_C)
