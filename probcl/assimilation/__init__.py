"""Ocean data assimilation, xarray in and xarray out: learned analyses, the classical methods, their scores."""

from probcl.assimilation import baselines, scores
from probcl.assimilation.accessor import PosteriorAccessor
from probcl.assimilation.advection import Fate, GridFlow, Positions, advect
from probcl.assimilation.archive import require_archive
from probcl.assimilation.assimilator import Assimilator
from probcl.assimilation.comparison import compare
from probcl.assimilation.evaluation import Evaluation, evaluate
from probcl.assimilation.output import to_cf, write
from probcl.assimilation.pairs import Campaign
from probcl.assimilation.patches import patches
from probcl.assimilation.prediction import predict_tracks
from probcl.assimilation.readers import read_archive, read_tracks
from probcl.assimilation.scorecard import scorecard
from probcl.assimilation.simulation import simulate_tracks
from probcl.assimilation.suite import fit_baselines

__all__ = [
    "Assimilator",
    "Campaign",
    "Evaluation",
    "Fate",
    "GridFlow",
    "Positions",
    "PosteriorAccessor",
    "advect",
    "baselines",
    "compare",
    "evaluate",
    "fit_baselines",
    "patches",
    "predict_tracks",
    "read_archive",
    "read_tracks",
    "require_archive",
    "scorecard",
    "scores",
    "simulate_tracks",
    "to_cf",
    "write",
]
