"""Ocean data assimilation, xarray in and xarray out: the classical methods and the scores of an analysis."""

from probcl.assimilation import baselines, scores
from probcl.assimilation.scorecard import scorecard

__all__ = ["baselines", "scorecard", "scores"]
