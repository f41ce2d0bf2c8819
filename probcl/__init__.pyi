from . import (
    assimilation,
    classification,
    conditional,
    datasets,
    diagnostics,
    divergences,
    encoders,
    gaussian,
    generation,
    information,
    losses,
    plotting,
    priors,
    retrieval,
    samplers,
)
from .alignment import L2, Alignment, Cosine, InnerProduct, WithPotentials
from .diagnostics import f_mutual_information
from .distance import ConcatMixture, FGaussian, Laplace, Power, SumMixture
from .errors import CheckpointError, DataFileError, ProbclWarning
from .information import GaussianConditionalLoss
from .losses import (
    ConditionalLoss,
    ConditionalMMDLoss,
    FMICLLoss,
    JointLoss,
    JointMMDLoss,
    Loss,
    RINCELoss,
    SigmoidLoss,
    SpectralLoss,
    SumOfLosses,
    TwoViewLoss,
)
from .model import BimodalModel
from .priors import DecoderPrior, EmpiricalPrior, GaussianPrior, ModelPrior
from .scores import Scores
from .serialization import register
from .training import Callback, FitState, History, fit
from .two_views import views

__version__: str

__all__ = [
    "L2",
    "Alignment",
    "BimodalModel",
    "Callback",
    "CheckpointError",
    "ConcatMixture",
    "ConditionalLoss",
    "ConditionalMMDLoss",
    "Cosine",
    "DataFileError",
    "DecoderPrior",
    "EmpiricalPrior",
    "FGaussian",
    "FMICLLoss",
    "FitState",
    "GaussianConditionalLoss",
    "GaussianPrior",
    "History",
    "InnerProduct",
    "JointLoss",
    "JointMMDLoss",
    "Laplace",
    "Loss",
    "ModelPrior",
    "Power",
    "ProbclWarning",
    "RINCELoss",
    "Scores",
    "SigmoidLoss",
    "SpectralLoss",
    "SumMixture",
    "SumOfLosses",
    "TwoViewLoss",
    "WithPotentials",
    "assimilation",
    "classification",
    "conditional",
    "datasets",
    "diagnostics",
    "divergences",
    "encoders",
    "f_mutual_information",
    "fit",
    "gaussian",
    "generation",
    "information",
    "losses",
    "plotting",
    "priors",
    "register",
    "retrieval",
    "samplers",
    "views",
]
