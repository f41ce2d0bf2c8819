"""A first try of a model on its pairs, so that what cannot work fails before training and says why."""

import torch
from torch import Tensor

from probcl.checks import describe
from probcl.embed import embed
from probcl.frozen import evaluating
from probcl.losses import Loss, loss_of_pairs
from probcl.model import BimodalModel
from probcl.training.data import PairSource, TensorSource
from probcl.training.pairs import Batch


def require_working(model: BimodalModel, loss: Loss, sample: Batch, name: str = "") -> None:
    """Embed, score and take the loss of a few pairs.

    Raises
    ------
    TypeError
        If an encoder returns no floating-point tensor, the two return different types, or the loss is no scalar tensor.
    ValueError
        If an encoder cannot take its input or returns no (n, d) matrix, or the two return different widths.
    """
    batch = Batch(sample.u[:2], sample.v[:2])
    with evaluating(model), evaluating(loss), torch.no_grad():
        z_u = embed(model.encoder_u, batch.u, "encoder_u", f"{name}u")
        z_v = embed(model.encoder_v, batch.v, "encoder_v", f"{name}v")
        if z_u.shape[1] != z_v.shape[1]:
            raise ValueError(
                f"encoder_u and encoder_v must return embeddings of one width, got {z_u.shape[1]} and {z_v.shape[1]}"
            )
        value = loss_of_pairs(loss, model.scores_of_embeddings(z_u, z_v), batch.u, batch.v)
    if not isinstance(value, Tensor) or value.ndim:
        raise TypeError(f"loss must return a scalar tensor, got {describe(value)}")


def require_scores(model: BimodalModel, source: PairSource, name: str = "") -> None:
    """Embed and compare all pairs that are held in memory, so that a bad one is found before training.

    Raises
    ------
    TypeError, ValueError
        As an encoder or `probcl.Scores` does, naming the pairs.
    """
    if not isinstance(source, TensorSource):
        return
    with evaluating(model), torch.no_grad():
        for start, batch in source.in_order():
            try:
                model.scores_of_embeddings(model.encoder_u(batch.u), model.encoder_v(batch.v))
            except (TypeError, ValueError) as error:
                where = f"{name}pairs {start} to {start + len(batch.u) - 1}"
                raise type(error)(f"{where}, rows counted from {start}: {error}") from error
