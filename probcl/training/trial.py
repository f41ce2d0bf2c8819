"""A first try of a model on two pairs, so that what cannot work fails before training and says why."""

import torch
from torch import Tensor, nn

from probcl.checks import describe
from probcl.losses import Loss
from probcl.model import BimodalModel, evaluating
from probcl.training.data import Batch


def require_working(model: BimodalModel, loss: Loss, sample: Batch, name: str = "") -> None:
    """Embed, score and take the loss of a few pairs.

    Raises
    ------
    TypeError
        If an encoder returns no floating-point tensor, or the two return different types.
    ValueError
        If an encoder cannot take its input or returns no (n, d) matrix, or the two return different widths.
    """
    batch = Batch(sample.u[:2], sample.v[:2])
    with evaluating(model), evaluating(loss), torch.no_grad():
        z_u = _embed(model.encoder_u, "encoder_u", batch.u, f"{name}u")
        z_v = _embed(model.encoder_v, "encoder_v", batch.v, f"{name}v")
        if z_u.shape[1] != z_v.shape[1]:
            raise ValueError(
                f"encoder_u and encoder_v must return embeddings of one width, got {z_u.shape[1]} and {z_v.shape[1]}"
            )
        loss(model.scores_of_embeddings(z_u, z_v))


def _embed(encoder: nn.Module, role: str, values: Tensor, name: str) -> Tensor:
    try:
        embedding = encoder(values)
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"{role} cannot take {name}, {describe(values)}: {error}") from error
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point():
        raise TypeError(f"{role} must return a floating-point tensor, got {describe(embedding)}")
    if embedding.ndim != 2 or len(embedding) != len(values):
        raise ValueError(
            f"{role} must map {len(values)} inputs to a ({len(values)}, d) matrix, got {describe(embedding)}"
        )
    return embedding
