"""Recall: whether what is retrieved is relevant."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from probcl.checks import describe, require_count, require_tensor
from probcl.diagnostics.credible_regions import clopper_pearson
from probcl.diagnostics.figures import axes_or_new
from probcl.plotting import PALETTE
from probcl.retrieval import Library


@dataclass(frozen=True, eq=False, repr=False)
class Recall:
    """Recall at 1 … K: how far down the list of retrieved items the first relevant one is.

    Attributes
    ----------
    found
        Whether a relevant item is among the first k, for each query and k = 1 … K, shape (B, K).
    chance
        Recall at k of a list in random order, shape (K,).

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.diagnostics import recall
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> library = pcl.retrieval.Library(model, u=torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    >>> result = recall(library, torch.tensor([[0.1], [1.9], [2.1], [2.9]]), max_k=2)
    >>> result.values, result.at(2), result.chance
    (tensor([0.7500, 1.0000], dtype=torch.float64), 1.0, tensor([0.2500, 0.5000], dtype=torch.float64))
    """

    found: Bool[Tensor, "B K"]
    chance: Float[Tensor, " K"]

    @property
    def values(self) -> Float[Tensor, " K"]:
        """Recall at 1 … K, shape (K,)."""
        return self.found.double().mean(0)

    def at(self, k: int) -> float:
        """Recall at `k`."""
        if require_count("k", k) > len(self.chance):
            raise ValueError(f"k must be at most {len(self.chance)}, as far as recall was computed, got {k}")
        return float(self.values[k - 1])

    def interval(self, confidence: float = 0.95) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Return Clopper-Pearson confidence limits of `values`, for independent queries."""
        low, high = clopper_pearson(self.found.sum(0).double().numpy(), len(self.found), confidence)
        return torch.from_numpy(low), torch.from_numpy(high)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw recall at k against k with its 95% limits, and that of a random order in grey."""
        ax = axes_or_new(ax)
        ranks = torch.arange(1, len(self.chance) + 1)
        ax.plot(ranks, self.chance, color="0.5", linewidth=1, label="random order")
        ax.fill_between(ranks, *self.interval(), color=PALETTE[0], alpha=0.25, linewidth=0)
        ax.plot(ranks, self.values, "o-", color=PALETTE[0], markersize=3, linewidth=1.2, label="model")
        ax.set(xlabel="k, items retrieved", ylabel="recall at k", ylim=(0, 1.02))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False, fontsize=8)
        return ax

    def __repr__(self) -> str:
        shown = [k for k in (1, 5, 10, 100) if k <= len(self.chance)]
        return f"Recall({', '.join(f'R@{k} {self.at(k):.3f}' for k in shown)}, {len(self.found)} queries)"


def recall(
    library: Library,
    queries: Shaped[Tensor, "B *event"],
    max_k: int = 10,
    *,
    query_labels: Int[Tensor, " B"] | None = None,
    item_labels: Int[Tensor, " N"] | None = None,
) -> Recall:
    """Recall at every k up to `max_k`, with a plot.

    Parameters
    ----------
    library, queries, query_labels, item_labels
        As in `recall_at_k`.
    max_k
        K, how many items to retrieve.

    Raises
    ------
    TypeError, ValueError
        As `recall_at_k` does.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.diagnostics import recall
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> library = pcl.retrieval.Library(model, u=torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    >>> recall(library, torch.tensor([[0.1], [1.9], [2.1], [2.9]]), max_k=3).values
    tensor([0.7500, 1.0000, 1.0000], dtype=torch.float64)
    """
    if not isinstance(library, Library):
        raise TypeError(f"library must be a probcl.retrieval.Library, got {describe(library)}")
    if (query_labels is None) != (item_labels is None):
        given = "query_labels" if item_labels is None else "item_labels"
        raise ValueError(
            f"query_labels and item_labels must both be given, or neither for queries matched with items, got {given}"
        )
    if query_labels is None and len(queries) != len(library):
        raise ValueError(
            f"without labels query i is matched with item i, got {len(queries)} queries and {len(library)} items"
        )
    wanted = _labels("query_labels", query_labels, len(queries))
    labels = _labels("item_labels", item_labels, len(library))
    retrieved = library.topk(queries, max_k).indices.cpu()
    relevant = labels[retrieved] == wanted[:, None]
    return Recall(relevant.cummax(1).values, _recall_by_chance(labels, wanted, max_k))


def recall_at_k(
    library: Library,
    queries: Shaped[Tensor, "B *event"],
    k: int = 1,
    *,
    query_labels: Int[Tensor, " B"] | None = None,
    item_labels: Int[Tensor, " N"] | None = None,
) -> float:
    """Fraction of queries with a relevant item among the `k` items retrieved, in [0, 1]; `recall` plots it.

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
    TypeError
        If `library` is not a `Library`.
    ValueError
        If only one of the labels is given or one has another shape, if there are none and B ≠ N, or `k` exceeds N.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.diagnostics import recall_at_k
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> library = pcl.retrieval.Library(model, u=torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    >>> recall_at_k(library, torch.tensor([[0.1], [1.9], [2.1], [2.9]]), k=1)
    0.75
    """
    return recall(library, queries, k, query_labels=query_labels, item_labels=item_labels).at(k)


def _recall_by_chance(labels: Int[Tensor, " N"], wanted: Int[Tensor, " B"], max_k: int) -> Float[Tensor, " K"]:
    """Return 1 − C(N − R, k) / C(N, k) for the R items relevant to a query, averaged over queries."""
    relevant = (labels == wanted[:, None]).sum(1, keepdim=True)
    drawn = torch.arange(max_k)
    # The next item is irrelevant too, as long as all before it were.
    missed = (len(labels) - relevant - drawn).clamp(min=0) / (len(labels) - drawn).double()
    return 1 - missed.cumprod(1).mean(0)


def _labels(name: str, labels: Tensor | None, length: int) -> Int[Tensor, " length"]:
    if labels is None:
        return torch.arange(length)
    if require_tensor(name, labels).shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {describe(labels)}")
    return labels.cpu()
