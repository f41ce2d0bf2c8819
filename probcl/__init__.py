"""probcl: probabilistic bimodal contrastive learning.

Two encoders and an alignment of their outputs are a learned conditional distribution of each modality given the
other. Fit it with a loss, then retrieve, classify, sample and evaluate with it.
"""

from probcl import (
    classification,
    conditional,
    datasets,
    diagnostics,
    encoders,
    gaussian,
    generation,
    information,
    plotting,
    priors,
    retrieval,
    samplers,
)
from probcl.alignment import L2, Alignment, Cosine, InnerProduct, WithPotentials
from probcl.errors import CheckpointError, DataFileError, ProbclWarning
from probcl.information import GaussianConditionalLoss
from probcl.losses import ConditionalLoss, JointLoss, Loss
from probcl.model import BimodalModel
from probcl.priors import DecoderPrior, EmpiricalPrior, GaussianPrior, ModelPrior
from probcl.scores import Scores
from probcl.serialization import register
from probcl.training import Callback, FitState, History, fit

__version__ = "0.1.0.dev0"

__all__ = [
    "L2",
    "Alignment",
    "BimodalModel",
    "Callback",
    "CheckpointError",
    "ConditionalLoss",
    "Cosine",
    "DataFileError",
    "DecoderPrior",
    "EmpiricalPrior",
    "FitState",
    "GaussianConditionalLoss",
    "GaussianPrior",
    "History",
    "InnerProduct",
    "JointLoss",
    "Loss",
    "ModelPrior",
    "ProbclWarning",
    "Scores",
    "WithPotentials",
    "classification",
    "conditional",
    "datasets",
    "diagnostics",
    "encoders",
    "fit",
    "gaussian",
    "generation",
    "information",
    "plotting",
    "priors",
    "register",
    "retrieval",
    "samplers",
]
