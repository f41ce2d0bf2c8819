"""Samplers of tilted laws e^{s(z, v)} μ(dz), for many v at once, that say when they should not be trusted."""

from probcl.samplers.auto import AutoSampler
from probcl.samplers.base import Draws, LatentPrior, Sampler, Target
from probcl.samplers.flow import AmortizedFlow
from probcl.samplers.importance import ImportanceResampling
from probcl.samplers.mcmc import HMC, NUTS
from probcl.samplers.moves import CrankNicolson, Hamiltonian, Move
from probcl.samplers.smc import TemperedSMC

__all__ = [
    "HMC",
    "NUTS",
    "AmortizedFlow",
    "AutoSampler",
    "CrankNicolson",
    "Draws",
    "Hamiltonian",
    "ImportanceResampling",
    "LatentPrior",
    "Move",
    "Sampler",
    "Target",
    "TemperedSMC",
]
