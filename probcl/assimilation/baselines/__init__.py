"""Classical data assimilation from drifters: what a learned analysis must beat, useful in itself.

Each method is ``fit(archive)``, then ``analyse(tracks, time, members, seed)``: an `xarray.Dataset` with an ensemble of
maps, their mean and standard deviation, on the archive's grid. Those that read tracks as pseudo-velocities
(`segments`) take an ``error_floor``; `EnsembleSmoother` and `ExactPosterior` take the tracks as they are.
"""

from probcl.assimilation.baselines.analogs import Analogs
from probcl.assimilation.baselines.base import Baseline
from probcl.assimilation.baselines.climatology import Climatology
from probcl.assimilation.baselines.covariance import Covariance, IsotropicCovariance, StreamFunctionCovariance
from probcl.assimilation.baselines.displacements import Advection, displacements, track_log_likelihood
from probcl.assimilation.baselines.enoi import EnsembleOptimalInterpolation
from probcl.assimilation.baselines.esmda import EnsembleSmoother, es_mda
from probcl.assimilation.baselines.etkf import ETKF
from probcl.assimilation.baselines.gaussian_process import OptimalInterpolation
from probcl.assimilation.baselines.hyperparameters import Hyperparameters, fit_hyperparameters
from probcl.assimilation.baselines.importance import ExactPosterior
from probcl.assimilation.baselines.linear import LinearGaussian
from probcl.assimilation.baselines.localization import gaspari_cohn
from probcl.assimilation.baselines.tuning import Case, Tuned, tune, tune_setting
from probcl.assimilation.segments import Segments, segments

__all__ = [
    "ETKF",
    "Advection",
    "Analogs",
    "Baseline",
    "Case",
    "Climatology",
    "Covariance",
    "EnsembleOptimalInterpolation",
    "EnsembleSmoother",
    "ExactPosterior",
    "Hyperparameters",
    "IsotropicCovariance",
    "LinearGaussian",
    "OptimalInterpolation",
    "Segments",
    "StreamFunctionCovariance",
    "Tuned",
    "displacements",
    "es_mda",
    "fit_hyperparameters",
    "gaspari_cohn",
    "segments",
    "track_log_likelihood",
    "tune",
    "tune_setting",
]
