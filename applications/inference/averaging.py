"""Averaging of weights along a fit."""

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import probcl as pcl


class AverageWeights(pcl.Callback):
    """End a fit with an exponential average of the weights of its steps instead of the last ones.

    The average begins at the first step.

    Contrastive gradients are noisy, as every batch has other negatives; the average is at a lower loss than what it is
    an average of (Polyak & Juditsky 1992; Izmailov et al. 2018).

    Parameters
    ----------
    decay
        Of the average, at every step: about the last 1 / (1 − decay) steps count.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_fit_start(self, state: pcl.training.FitState) -> None:
        self.average = AveragedModel(state.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))

    def on_step_end(self, state: pcl.training.FitState) -> None:
        self.average.update_parameters(state.model)

    def on_fit_end(self, state: pcl.training.FitState) -> None:
        state.model.load_state_dict(self.average.module.state_dict())
