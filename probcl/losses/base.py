"""What every loss is: a scalar of the scores of matched pairs, that says what its minimiser determines."""

from enum import Enum

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from probcl.checks import describe
from probcl.scores import Scores


class Identifies(Enum):
    """What the minimiser of a loss determines of log dμ/(dμ_u dμ_v), and so which conditionals may be trusted.

    Examples
    --------
    >>> import probcl as pcl
    >>> pcl.ConditionalLoss(2, 0).identifies.value
    'the log density ratio up to a function of v: u|v is determined, v|u is not'
    >>> pcl.SpectralLoss().identifies is pcl.losses.Identifies.TRANSFORM
    True
    """

    RATIO = "the log density ratio up to a constant"
    RATIO_UP_TO_V = "the log density ratio up to a function of v: u|v is determined, v|u is not"
    RATIO_UP_TO_U = "the log density ratio up to a function of u: v|u is determined, u|v is not"
    TRANSFORM = "a monotone transform of the density ratio, not its logarithm: no conditional is determined"


class Loss(nn.Module):
    """Base class: ``loss(scores)`` is a scalar to be minimised.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> class Hinge(pcl.Loss):
    ...     identifies = pcl.losses.Identifies.TRANSFORM
    ...
    ...     def forward(self, scores):
    ...         return scores.mean(lambda s: (1 + s).relu(), diagonal=False) - scores.diagonal().mean()
    >>> Hinge()(pcl.Scores(2 * torch.eye(3), torch.eye(3)))
    tensor(-1.)
    """

    @property
    def identifies(self) -> Identifies:
        """What the minimiser determines of the log density ratio."""
        raise NotImplementedError

    def forward(self, scores: Scores) -> Float[Tensor, ""]:
        """Return the loss of a batch of matched pairs."""
        raise NotImplementedError

    def given(self, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "n *v_event"]) -> "Loss":
        """Return this loss for the batch of pairs (u_i, v_i) themselves, for losses that look beyond the scores."""
        return self


def loss_of_pairs(
    loss: Loss, scores: Scores, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "n *v_event"]
) -> Float[Tensor, ""]:
    """Return the loss of pairs and their scores; what is no `Loss`, but a module all the same, sees the scores only.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> u, v = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    >>> loss, scores = pcl.ConditionalMMDLoss(), pcl.Scores(u, v, alignment=pcl.L2())
    >>> pcl.losses.loss_of_pairs(loss, scores, u, v) == loss.given(u, v)(scores)
    tensor(True)
    """
    value: Tensor = (loss.given(u, v) if isinstance(loss, Loss) else loss)(scores)
    return value


def identified_by_conditionals(lambda_u: float, lambda_v: float) -> Identifies:
    """Return what a sum of two losses determines of which the first fits u|v only and the second v|u only."""
    if lambda_v == 0:
        return Identifies.RATIO_UP_TO_V
    return Identifies.RATIO_UP_TO_U if lambda_u == 0 else Identifies.RATIO


def require_loss(name: str, value: object) -> Loss:
    """Return `value` if it is a `Loss`; raise `TypeError` otherwise."""
    if not isinstance(value, Loss):
        hint = ": make one, as in ConditionalLoss()" if isinstance(value, type) else ""
        raise TypeError(f"{name} must be a Loss, got {describe(value)}{hint}")
    return value


def require_pairs(scores: Scores) -> None:
    """Raise unless these are `Scores` (`TypeError`) of at least two matched pairs (`ValueError`).

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> pcl.losses.require_pairs(pcl.Scores(torch.eye(3), torch.eye(3)[:2]))
    Traceback (most recent call last):
        ...
    ValueError: a loss needs matched pairs, as many u as v, got scores of shape (3, 2)
    """
    if not isinstance(scores, Scores):
        raise TypeError(f"a loss takes Scores, as in loss(Scores(z_u, z_v)), got {describe(scores)}")
    n, m = scores.shape
    if n != m:
        raise ValueError(f"a loss needs matched pairs, as many u as v, got scores of shape {scores.shape}")
    if n < 2:
        raise ValueError("a contrastive loss needs at least two pairs, got one")
