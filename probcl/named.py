"""The parts of a model by the names that files and command lines call them, each with parameters of its own."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from probcl.alignment import L2, Alignment, Cosine, InnerProduct, WithPotentials
from probcl.distance import ConcatMixture, FGaussian, Laplace, Power, SumMixture
from probcl.divergences import WITHOUT_PARAMETERS, Divergence, Tsallis
from probcl.encoders import MLP, Identity, Label, LeNet, Linear, ResidualConvNet, TrajectoryTransformer
from probcl.losses import (
    ConditionalLoss,
    ConditionalMMDLoss,
    EnergyKernel,
    FMICLLoss,
    GaussianKernel,
    JointLoss,
    JointMMDLoss,
    LaplaceKernel,
    Loss,
    RINCELoss,
    SigmoidLoss,
    SpectralLoss,
    SumOfLosses,
)

ENCODERS: dict[str, type[nn.Module]] = {
    "identity": Identity,
    "linear": Linear,
    "mlp": MLP,
    "lenet": LeNet,
    "convnet": ResidualConvNet,
    "label": Label,
    "trajectory": TrajectoryTransformer,
}

ALIGNMENTS: dict[str, type[Alignment]] = {
    "inner": InnerProduct,
    "cosine": Cosine,
    "l2": L2,
    "potentials": WithPotentials,
    "laplace": Laplace,
    "power": Power,
    "sum-mixture": SumMixture,
    "concat-mixture": ConcatMixture,
    "f-gaussian": FGaussian,
}

LOSSES: dict[str, type[Loss]] = {
    "conditional": ConditionalLoss,
    "joint": JointLoss,
    "f-micl": FMICLLoss,
    "rince": RINCELoss,
    "sigmoid": SigmoidLoss,
    "spectral": SpectralLoss,
    "mmd": ConditionalMMDLoss,
    "joint-mmd": JointMMDLoss,
    "sum-of-losses": SumOfLosses,
}

DIVERGENCES: dict[str, type[Divergence]] = WITHOUT_PARAMETERS | {Tsallis.name: Tsallis}

KERNELS: dict[str, Callable[..., Any]] = {"gaussian": GaussianKernel, "laplace": LaplaceKernel, "energy": EnergyKernel}


def named(table: Mapping[str, Callable[..., Any]], name: str, /, **parameters: Any) -> Any:
    """Return the part of this name from one of the tables of this module, made with these parameters.

    Raises
    ------
    ValueError
        If there is none of that name.

    Examples
    --------
    >>> from probcl.named import ALIGNMENTS, named
    >>> named(ALIGNMENTS, "power", gamma=0.5)
    Power(gamma=0.5)
    """
    if name not in table:
        raise ValueError(f"name must be one of {', '.join(table)}, got {name!r}")
    return table[name](**parameters)
