"""Training: `fit`, what it returns, and how to listen to it."""

from probcl.training.callbacks import Callback, FitState
from probcl.training.fitting import fit
from probcl.training.history import History

__all__ = ["Callback", "FitState", "History", "fit"]
