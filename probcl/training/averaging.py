"""`AverageWeights`: an average of the weights along a fit."""

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from probcl.checks import require_number
from probcl.training.callbacks import Callback, FitState


class AverageWeights(Callback):
    """End a fit with an exponential average of the weights of its steps instead of the last ones.

    Contrastive gradients are noisy, as every batch has other negatives; the average is at a lower loss than what it is
    an average of (Polyak & Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407).

    Parameters
    ----------
    decay
        Of the average, at every step: about the last 1 / (1 − decay) steps count. In [0, 1); 0 keeps the last weights.

    Raises
    ------
    TypeError, ValueError
        If `decay` is not a number in [0, 1).

    Notes
    -----
    Losses in the history, validation among them, are those of the weights that were trained, not of their average. The
    average replaces whatever weights the fit would have ended with: also the best ones, with ``patience``. It is not
    part of a checkpoint, and begins anew at the first step of a resumed fit.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> u = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    >>> history = pcl.fit(model, (u, u), epochs=3, callbacks=[pcl.training.AverageWeights(0.9)])
    """

    def __init__(self, decay: float) -> None:
        self.decay = require_number("decay", decay)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")

    def on_fit_start(self, state: FitState) -> None:
        self.average = AveragedModel(state.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))

    def on_step_end(self, state: FitState) -> None:
        self.average.update_parameters(state.model)

    def on_fit_end(self, state: FitState) -> None:
        if self.average.n_averaged > 0:
            state.model.load_state_dict(self.average.module.state_dict())
