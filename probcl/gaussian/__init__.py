"""The Gaussian oracle: optima, losses and learned laws in closed form for μ = N(0, C) and linear encoders.

Scores are ``s(u, v) = uᵀAv − ½uᵀBu − ½vᵀC_v`` at temperature one. Notation and results follow Baptista,
Stuart & Tran, *A Mathematical Perspective On Contrastive Learning* (arXiv 2505.24134v1), section 5, extended
to every rank and to the rows marked *new* in ``docs/gaussian.md``. Everything is computed in float64.
"""

from probcl.gaussian.canonical import (
    CanonicalPairs,
    canonical_correlations,
    canonical_correlations_from_data,
    mutual_information,
)
from probcl.gaussian.law import TiltedGaussian, learned_law
from probcl.gaussian.losses import conditional_divergence, conditional_loss, joint_divergence, joint_loss
from probcl.gaussian.optimum import Optimum, optimum
from probcl.gaussian.pairs import PairOptimum, crossover, pair_optimum

__all__ = [
    "CanonicalPairs",
    "Optimum",
    "PairOptimum",
    "TiltedGaussian",
    "canonical_correlations",
    "canonical_correlations_from_data",
    "conditional_divergence",
    "conditional_loss",
    "crossover",
    "joint_divergence",
    "joint_loss",
    "learned_law",
    "mutual_information",
    "optimum",
    "pair_optimum",
]
