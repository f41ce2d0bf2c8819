"""Encoder of class labels."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import one_hot

from probcl.checks import describe, require_count, require_integers
from probcl.serialization import register


@register
class Label(nn.Module):
    """Class labels 0 … K−1 as one-hot vectors, or as learned vectors of another width.

    Parameters
    ----------
    n_classes
        The number K of classes.
    out_features
        Width of the embedding; by default K, the one-hot vectors themselves, with nothing to learn.

    Raises
    ------
    TypeError
        On use, if labels are not integers.
    ValueError
        On use, if a label is outside 0 … K−1, or the labels are not a vector.

    Examples
    --------
    >>> import torch
    >>> from probcl.encoders import Label
    >>> Label(3)(torch.tensor([0, 2]))
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    >>> Label(1000, out_features=16)(torch.tensor([0, 999])).shape
    torch.Size([2, 16])
    """

    _like: Tensor

    def __init__(self, n_classes: int, out_features: int | None = None) -> None:
        super().__init__()
        self.n_classes = require_count("n_classes", n_classes)
        self.embedding = (
            None if out_features is None else nn.Embedding(n_classes, require_count("out_features", out_features))
        )
        # A one-hot encoder has no parameter that says which type and device its embeddings should have.
        self.register_buffer("_like", torch.empty(0))

    def forward(self, labels: Integer[Tensor, " batch"]) -> Float[Tensor, "batch out"]:
        """Return embeddings of shape (batch, out_features)."""
        if require_integers("labels", labels).ndim != 1:
            raise ValueError(f"labels must have shape (batch,), got {describe(labels)}")
        if labels.numel() and (labels.min() < 0 or labels.max() >= self.n_classes):
            found = f"values from {int(labels.min())} to {int(labels.max())}"
            raise ValueError(f"labels must lie in 0 … {self.n_classes - 1}, got {found}")
        if self.embedding is not None:
            embeddings: Tensor = self.embedding(labels.long())
            return embeddings
        return one_hot(labels.long(), self.n_classes).to(self._like)
