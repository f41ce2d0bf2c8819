"""probcl: probabilistic bimodal contrastive learning.

Two encoders and an alignment of their outputs are a learned conditional distribution of each modality given the
other. Fit it with a loss, then retrieve, classify, sample and evaluate with it.
"""

from probcl import (
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
from probcl.alignment import L2, Alignment, Cosine, InnerProduct, WithPotentials
from probcl.diagnostics import f_mutual_information
from probcl.distance import ConcatMixture, FGaussian, Laplace, Power, SumMixture
from probcl.errors import CheckpointError, DataFileError, ProbclWarning
from probcl.information import GaussianConditionalLoss
from probcl.losses import (
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
from probcl.model import BimodalModel
from probcl.priors import DecoderPrior, EmpiricalPrior, GaussianPrior, ModelPrior
from probcl.scores import Scores
from probcl.serialization import register
from probcl.training import Callback, FitState, History, fit
from probcl.two_views import views

__version__ = "0.1.0.dev0"

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
