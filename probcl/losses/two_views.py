"""Any loss on two views of one modality."""

from jaxtyping import Float, Shaped
from torch import Tensor, cat

from probcl.checks import describe
from probcl.losses.base import Identifies, Loss, require_loss, require_pairs
from probcl.scores import Scores
from probcl.two_views import views


class TwoViewLoss(Loss):
    """A loss of all views at once, for pairs that are two views of one thing: NT-Xent for `ConditionalLoss`.

    Between the views of a batch of n pairs a loss compares each u with n v, and each v with n u. This one compares each
    of the 2n views with all the 2n − 1 others (Chen et al. 2020, SimCLR; `probcl.views`). It is meant for a model whose
    two encoders are one, ``BimodalModel(encoder, encoder)``, fitted to pairs of views. With two encoders it
    runs as well, but also compares the u with one another by the first of them, and the v by the second.

    Parameters
    ----------
    loss
        Any loss.

    Raises
    ------
    TypeError
        If `loss` is no `Loss`.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> encoder = torch.nn.Linear(8, 4)
    >>> model = pcl.BimodalModel(encoder, encoder, alignment=pcl.Cosine(), temperature=0.5)
    >>> u = torch.randn(64, 8)
    >>> views = u + 0.1 * torch.randn(64, 8), u + 0.1 * torch.randn(64, 8)
    >>> loss = pcl.losses.TwoViewLoss(pcl.ConditionalLoss())
    >>> history = pcl.fit(model, views, loss, epochs=1, progress=False)
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = require_loss("loss", loss)

    @property
    def identifies(self) -> Identifies:
        return self.loss.identifies

    def given(self, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "n *v_event"]) -> Loss:
        if type(self.loss).given is Loss.given:  # it looks at no data
            return self
        if u.shape != v.shape:
            raise ValueError(f"u and v must be views of one thing, of one shape, got {describe(u)} and {describe(v)}")
        return TwoViewLoss(self.loss.given(cat([u, v]), cat([v, u])))

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        require_pairs(scores)
        if scores.bias_u is not None or scores.bias_v is not None or scores.exclude is not None:
            raise ValueError("scores of two views must have no biases and exclude nothing")
        value: Tensor = self.loss(
            views(scores.u, scores.v, scores.alignment, scores.temperature, scores.method, group=scores.group)
        )
        return value
