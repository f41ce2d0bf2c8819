"""Every loss, for the tests that run over all of them, and how to take it of a batch."""

import warnings

from torch import Tensor

from probcl import (
    ConditionalLoss,
    ConditionalMMDLoss,
    FMICLLoss,
    JointLoss,
    JointMMDLoss,
    Laplace,
    Loss,
    Power,
    ProbclWarning,
    RINCELoss,
    Scores,
    SigmoidLoss,
    SpectralLoss,
    SumOfLosses,
    TwoViewLoss,
)
from probcl.divergences import (
    KL,
    Divergence,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    Tsallis,
    VinczeLeCam,
)
from probcl.losses import EnergyKernel, LaplaceKernel

ALLOWED: dict[str, Divergence] = {
    "kl": KL(),
    "js": JensenShannon(),
    "pearson": Pearson(),
    "squared-hellinger": SquaredHellinger(),
    "tsallis 1.5": Tsallis(1.5),
    "vincze-le-cam": VinczeLeCam(),
}
# The f-mutual information of a von Mises-Fisher pair in eight dimensions with κ = 4, by quadrature: LOSSES.md c, and
# tests/test_losses_theory.py.
OF_VON_MISES_FISHER = {
    "kl": 0.7801,
    "js": 0.3579,
    "pearson": 2.5328,
    "squared-hellinger": 0.3864,
    "tsallis 1.5": 1.3840,
    "vincze-le-cam": 0.6348,
}
DIVERGENCES: dict[str, Divergence] = ALLOWED | {
    "tsallis 0.5": Tsallis(0.5),
    "tsallis 3": Tsallis(3),
    "reverse-kl": ReverseKL(),
    "neyman": Neyman(),
}


def f_micl(divergence: Divergence, alpha: float = 1.0, diagonal: bool = False) -> FMICLLoss:
    """The loss, without the warning of what the theory excludes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbclWarning)
        return FMICLLoss(divergence, alpha, diagonal=diagonal)


SYMMETRIC: dict[str, Loss] = {
    **{f"f-micl {name}": f_micl(divergence) for name, divergence in DIVERGENCES.items()},
    "f-micl js, 40": FMICLLoss("js", 40),
    "rince 0": RINCELoss(0),
    "rince 0.01": RINCELoss(0.01),
    "rince": RINCELoss(),
    "rince 1": RINCELoss(1),
    "rince, lam": RINCELoss(0.5, 0.02),
    "sigmoid": SigmoidLoss(-2.0),
    "spectral": SpectralLoss(),
    "mmd": ConditionalMMDLoss(),
    "joint mmd": JointMMDLoss(kernel_u=LaplaceKernel(), kernel_v=EnergyKernel()),
    "sum of losses": SumOfLosses(ConditionalLoss(), [Laplace(), Power(2)], [0.5, 0.8], [0.3, 0.7]),
    "two views": TwoViewLoss(ConditionalLoss()),
    "two views, sigmoid": TwoViewLoss(SigmoidLoss(-2.0)),
}
LOSSES: dict[str, Loss] = SYMMETRIC | {
    "two-sided": ConditionalLoss(),
    "joint": JointLoss(),
    "rince u|v": RINCELoss(lambda_u=2, lambda_v=0),
    "rince 0 v|u": RINCELoss(0, lambda_u=0, lambda_v=2),
    "mmd u|v": ConditionalMMDLoss(2, 0, kernel_u=EnergyKernel()),
}


def value_of(loss: Loss, scores: Scores) -> Tensor:
    """The loss of a batch whose pairs are, for want of others, a function of the embeddings' number and order."""
    u, v = scores.u.detach(), scores.v.detach()
    return loss.given(u[:, :1].sin(), v.cos())(scores)
