"""Calling an encoder on a batch, with errors that say what it could not take."""

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from probcl.checks import describe


def as_input(encoder: nn.Module, values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Put values on an encoder's device, and real ones in its precision."""
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        if tensor.is_floating_point():
            return values.to(tensor if values.is_floating_point() else tensor.device)
    return values


def embed(encoder: nn.Module, values: Shaped[Tensor, "n *event"], role: str, name: str) -> Float[Tensor, "n d"]:
    """Return an encoder's embeddings of a batch.

    Parameters
    ----------
    encoder, values
        What to call, and on what.
    role, name
        What errors call them.

    Raises
    ------
    TypeError
        If the encoder returns no floating-point tensor.
    ValueError
        If it cannot take these values, or returns no (n, d) matrix.
    """
    try:
        embedding = encoder(values)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{role} cannot take {name}, {describe(values)}: {error}{_remedy(encoder, values, name)}"
        ) from error
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point():
        raise TypeError(f"{role} must return a floating-point tensor, got {describe(embedding)}")
    if embedding.ndim != 2 or len(embedding) != len(values):
        raise ValueError(
            f"{role} must map {len(values)} inputs to a ({len(values)}, d) matrix, got {describe(embedding)}"
            f"{_remedy(encoder, values, name)}"
        )
    return embedding


def _remedy(encoder: nn.Module, values: Shaped[Tensor, "n *event"], name: str) -> str:
    """Return what may help with values that an encoder did not take, as the end of a message."""
    name = name.rpartition(" ")[2]  # of "validation u"
    wanted = next((tensor.dtype for tensor in encoder.parameters() if tensor.is_floating_point()), None)
    if wanted is not None and values.dtype != wanted:
        return f"; use torch.as_tensor({name}, dtype={wanted})"
    if values.ndim == 1 and values.is_floating_point():
        return f"; give numbers as {name}[:, None], and a single vector as {name}[None]"
    return ""
