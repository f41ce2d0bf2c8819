"""Diagnostics: whether what was learned is *right*.

The first group asks it of any posterior, from draws ``(S, B, *event)`` beside the true values ``(B, *event)``; the
second of a learned score; the third of retrieval and classification. Those of the first two return a small dataclass of
numbers that can ``plot`` itself.
"""

from probcl.diagnostics.calibration import PIT, SBC, pit, sbc
from probcl.diagnostics.classification import accuracy, expected_calibration_error, negative_log_likelihood
from probcl.diagnostics.credible_regions import Coverage, coverage, hpd_coverage
from probcl.diagnostics.f_gaussian import fit_f_gaussian
from probcl.diagnostics.f_information import FMutualInformation, f_mutual_information, f_mutual_information_of_scores
from probcl.diagnostics.information import MutualInformation, mutual_information
from probcl.diagnostics.local import LocalCoverage, local_coverage
from probcl.diagnostics.potentials import LinearPotentials
from probcl.diagnostics.proper_scores import Score, crps, energy_score
from probcl.diagnostics.random_points import TARP, tarp
from probcl.diagnostics.ratio import NormalizerCheck, normalizer_check, normalizer_check_of_scores
from probcl.diagnostics.retrieval import Recall, recall, recall_at_k
from probcl.diagnostics.temperature import Recalibration, recalibrate
from probcl.diagnostics.two_sample import C2ST, c2st
from probcl.diagnostics.uniformity import Uniformity

__all__ = [
    "C2ST",
    "PIT",
    "SBC",
    "TARP",
    "Coverage",
    "FMutualInformation",
    "LinearPotentials",
    "LocalCoverage",
    "MutualInformation",
    "NormalizerCheck",
    "Recalibration",
    "Recall",
    "Score",
    "Uniformity",
    "accuracy",
    "c2st",
    "coverage",
    "crps",
    "energy_score",
    "expected_calibration_error",
    "f_mutual_information",
    "f_mutual_information_of_scores",
    "fit_f_gaussian",
    "hpd_coverage",
    "local_coverage",
    "mutual_information",
    "negative_log_likelihood",
    "normalizer_check",
    "normalizer_check_of_scores",
    "pit",
    "recalibrate",
    "recall",
    "recall_at_k",
    "sbc",
    "tarp",
]
