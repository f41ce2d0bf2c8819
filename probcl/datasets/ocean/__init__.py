"""Worlds of ocean currents, from exact to real: Gaussian, vortices, turbulence, a torus, and maps of the Agulhas."""

from probcl.datasets.ocean.box import EPOCH, Box
from probcl.datasets.ocean.currents import CurrentsSplit, load_globcurrent, split_by_gap
from probcl.datasets.ocean.gaussian_ocean import GaussianOcean
from probcl.datasets.ocean.torus import TorusFlow
from probcl.datasets.ocean.turbulence import Turbulence
from probcl.datasets.ocean.two_layer import QGIntegration, TwoLayerQG
from probcl.datasets.ocean.vortices import Vortices

__all__ = [
    "EPOCH",
    "Box",
    "CurrentsSplit",
    "GaussianOcean",
    "QGIntegration",
    "TorusFlow",
    "Turbulence",
    "TwoLayerQG",
    "Vortices",
    "load_globcurrent",
    "split_by_gap",
]
