"""Training: `fit`, what it returns, and how to listen to it."""

from probcl.training.averaging import AverageWeights
from probcl.training.callbacks import Callback, FitState
from probcl.training.fitting import fit
from probcl.training.history import History
from probcl.training.loggers import Logger, Logging, TensorBoard

__all__ = ["AverageWeights", "Callback", "FitState", "History", "Logger", "Logging", "TensorBoard", "fit"]
