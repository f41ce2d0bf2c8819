"""Ocean data assimilation: from drifters' tracks to currents."""

from probcl.assimilation.advection import Fate, GridFlow, Positions, advect
from probcl.assimilation.archive import require_archive
from probcl.assimilation.simulation import simulate_tracks

__all__ = ["Fate", "GridFlow", "Positions", "advect", "require_archive", "simulate_tracks"]
