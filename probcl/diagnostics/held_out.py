"""Held-out pairs as the diagnostics of a model see them: embedded, in batches, under the model's own loss."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probcl.checks import require_count
from probcl.losses import ConditionalLoss, Identifies
from probcl.model import BimodalModel
from probcl.training.data import batch_count

EmbeddedPairs = list[tuple[Tensor, Tensor]]
"""Batches of embeddings (n, d) and (n, d), in float64, without gradients."""


def embed_pairs(
    model: BimodalModel, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "m *v_event"], minimum: int = 2
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Embed pairs in float64; raise `ValueError` if there are fewer than `minimum`, or they are not pairs."""
    require_matched(u, v, minimum)
    return model.embed_u(u).double(), model.embed_v(v).double()


def require_matched(u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "m *v_event"], minimum: int = 2) -> None:
    """Raise `ValueError` if there are not as many u as v, or fewer than `minimum`."""
    if len(u) != len(v) or len(u) < minimum:
        raise ValueError(f"u and v must be pairs, at least {minimum} of them, got {len(u)} u and {len(v)} v")


def in_batches(z_u: Float[Tensor, "n d"], z_v: Float[Tensor, "n d"], batch_size: int) -> EmbeddedPairs:
    """Cut pairs into batches of nearly equal size, at most `batch_size` but never a single pair."""
    count = batch_count(len(z_u), require_count("batch_size", batch_size, 2))
    return list(zip(z_u.tensor_split(count), z_v.tensor_split(count), strict=True))


def own_direction(model: BimodalModel) -> ConditionalLoss:
    """Return the conditional loss in the directions that the model's own determines, of weights that add up to 2."""
    match model.identifies:
        case Identifies.RATIO_UP_TO_V:
            return ConditionalLoss(2, 0)
        case Identifies.RATIO_UP_TO_U:
            return ConditionalLoss(0, 2)
        case _:
            return ConditionalLoss()


def spread(z: Float[Tensor, "n *event"]) -> Float[Tensor, "*event"]:
    """Return the standard deviation of each component, one where it is zero."""
    deviation = z.std(0) if len(z) > 1 else torch.zeros_like(z[0])
    return torch.where(deviation > 0, deviation, 1)
