"""Recall: whether what is retrieved is relevant."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from probcl.checks import describe, require_tensor
from probcl.retrieval import Library


def recall_at_k(
    library: Library,
    queries: Shaped[Tensor, "B *event"],
    k: int = 1,
    *,
    query_labels: Int[Tensor, " B"] | None = None,
    item_labels: Int[Tensor, " N"] | None = None,
) -> float:
    """Fraction of queries with a relevant item among the `k` items retrieved, in [0, 1].

    Without labels, query i is matched with item i of the library and nothing else is relevant: the R@k of image and
    text retrieval (Radford et al. 2021, CLIP). With labels, every item of the query's label is relevant.

    Parameters
    ----------
    library
        The items to search, N of them.
    queries
        Of the other modality, shape ``(B, *event_shape)``.
    k
        How many items to retrieve.
    query_labels, item_labels
        Integer labels of shapes (B,) and (N,); both or neither.

    Raises
    ------
    ValueError
        If only one of the labels is given or one has another shape, if there are none and B ≠ N, or `k` exceeds N.
    """
    if (query_labels is None) != (item_labels is None):
        raise ValueError("give both query_labels and item_labels, or neither for queries matched with items")
    if query_labels is None and len(queries) != len(library):
        raise ValueError(
            f"without labels query i is matched with item i, got {len(queries)} queries and {len(library)} items"
        )
    wanted = _labels("query_labels", query_labels, len(queries))
    labels = _labels("item_labels", item_labels, len(library))
    retrieved = library.topk(queries, k).indices.cpu()
    return float((labels[retrieved] == wanted[:, None]).any(1).double().mean())


def _labels(name: str, labels: Tensor | None, length: int) -> Int[Tensor, " length"]:
    if labels is None:
        return torch.arange(length)
    if require_tensor(name, labels).shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {describe(labels)}")
    return labels.cpu()
