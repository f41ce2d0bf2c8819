"""Losses: what is minimised so that the scores become the logarithm of the density ratio, or a transform of the ratio.

Every loss takes a `probcl.Scores` of matched pairs, (u_i, v_i) on its diagonal, and returns a scalar. What each fits,
what it is blind to and what it costs is one table, in the documentation's page on losses.
"""

from probcl.losses.base import Identifies, Loss, loss_of_pairs, require_pairs
from probcl.losses.fmicl import FMICLLoss
from probcl.losses.grams import EnergyKernel, GaussianKernel, LaplaceKernel, median_distance
from probcl.losses.likelihood import ConditionalLoss, JointLoss
from probcl.losses.mmd import ConditionalMMDLoss, JointMMDLoss
from probcl.losses.rince import RINCELoss
from probcl.losses.sigmoid import SigmoidLoss
from probcl.losses.spectral import SpectralLoss
from probcl.losses.sum_of_losses import SumOfLosses
from probcl.losses.two_views import TwoViewLoss

__all__ = [
    "ConditionalLoss",
    "ConditionalMMDLoss",
    "EnergyKernel",
    "FMICLLoss",
    "GaussianKernel",
    "Identifies",
    "JointLoss",
    "JointMMDLoss",
    "LaplaceKernel",
    "Loss",
    "RINCELoss",
    "SigmoidLoss",
    "SpectralLoss",
    "SumOfLosses",
    "TwoViewLoss",
    "loss_of_pairs",
    "median_distance",
    "require_pairs",
]
