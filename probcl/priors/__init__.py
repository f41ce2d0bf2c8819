"""Priors: the marginals μ_u and μ_v that a learned score tilts into conditionals."""

from probcl.priors.base import Prior, as_prior
from probcl.priors.decoder import DecoderPrior
from probcl.priors.distribution import DistributionPrior, as_gaussian
from probcl.priors.empirical import EmpiricalPrior
from probcl.priors.gaussian import GaussianPrior
from probcl.priors.pyro_model import ModelPrior

__all__ = [
    "DecoderPrior",
    "DistributionPrior",
    "EmpiricalPrior",
    "GaussianPrior",
    "ModelPrior",
    "Prior",
    "as_gaussian",
    "as_prior",
]
