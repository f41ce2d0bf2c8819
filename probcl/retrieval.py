"""Retrieval: the items of a library with the largest scores, which are the modes of a conditional.

The k items with the largest s(·, v) are the k most probable atoms of ν(·|v) under a uniform prior; with a prior
μ_u ∝ e^φ, adding φ to the scores makes them the most probable a posteriori (Baptista, Stuart & Tran 2025, Alg. 1).
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probcl.checks import describe, require_count, require_finite, require_tensor
from probcl.gauge import Side
from probcl.model import SCORES_AT_ONCE, BimodalModel
from probcl.scores import Scores, TopK, sum_present


class Library:
    """Items of one modality, embedded once, to be searched with queries of the other.

    Parameters
    ----------
    model
        The fitted model. Scores are in its gauge.
    u, v
        The items, shape (N, *event_shape): exactly one of the two, the modality to be retrieved.
    log_prior
        φ, the logarithm of each item's prior weight or density up to a constant, shape (N,); −inf excludes an item.
    batch_size
        How many items or queries to encode at a time.

    Attributes
    ----------
    side
        ``"u"`` or ``"v"``: the modality of the items.
    embeddings
        The embedded items, shape (N, d).

    Raises
    ------
    TypeError
        If the items are not a tensor.
    ValueError
        If both or neither of `u` and `v` are given, the items are empty or not finite, or `log_prior` has another
        length, is NaN or +inf.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.retrieval import Library
    >>> model = pcl.BimodalModel(torch.nn.Identity(), pcl.encoders.Label(3))
    >>> library = Library(model, u=torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 3.0, 0.0]]))
    >>> library.topk(torch.tensor([0, 1]), k=2).indices
    tensor([[0, 2],
            [2, 1]])
    """

    def __init__(
        self,
        model: BimodalModel,
        u: Shaped[Tensor, "N *event"] | None = None,
        v: Shaped[Tensor, "N *event"] | None = None,
        *,
        log_prior: Float[Tensor, " N"] | None = None,
        batch_size: int = 4096,
    ) -> None:
        if (u is None) == (v is None):
            raise ValueError(f"give the items as either u or v, got {'neither' if u is None else 'both'}")
        self.side: Side = "v" if u is None else "u"
        self.model, self.batch_size = model, require_count("batch_size", batch_size)
        items = _require_items(self.side, v if u is None else u)
        self.embeddings = self._embed(self.side, items)
        self.log_prior = None if log_prior is None else _require_log_prior(log_prior, len(self)).to(self.embeddings)
        with torch.no_grad():
            self._bias = sum_present(self.log_prior, model.gauge_bias(self.side, self.embeddings))
        # What the alignment cannot take, such as a zero vector under a cosine, is found here and not by a query.
        Scores(self.embeddings, self.embeddings[:1], model.alignment)

    def topk(self, queries: Shaped[Tensor, "B *event"], k: int = 5) -> TopK:
        """Return the `k` items with the largest scores for each query, best first.

        No more than 2²⁴ scores (or one query's) are held at once.

        Parameters
        ----------
        queries
            What to search with, of the other modality, shape (B, *event_shape).
        k
            How many items to return.

        Returns
        -------
        TopK
            ``values``, the scores plus `log_prior`, and ``indices`` into the library, both of shape (B, k).

        Raises
        ------
        ValueError
            If `k` is larger than the library, or there are no queries, or they are not finite.
        """
        if require_count("k", k) > len(self):
            raise ValueError(f"k must be at most the {len(self)} items of the library, got {k}")
        z = self._embed("v" if self.side == "u" else "u", _require_items("queries", queries))
        found = [self._topk(chunk, k) for chunk in z.split(max(1, SCORES_AT_ONCE // len(self)))]
        return TopK(torch.cat([top.values for top in found]), torch.cat([top.indices for top in found]))

    def _embed(self, side: Side, values: Tensor) -> Float[Tensor, "n d"]:
        embed = self.model.embed_u if side == "u" else self.model.embed_v
        return embed(values, self.batch_size)

    @torch.no_grad()
    def _topk(self, queries: Float[Tensor, "B d"], k: int) -> TopK:
        model, bias = self.model, self._bias
        if self.side == "u":
            given = model.gauge_bias("v", queries)
            scores = Scores(self.embeddings, queries, model.alignment, model.temperature(), bias_u=bias, bias_v=given)
            return scores.topk(k, dim=0)
        given = model.gauge_bias("u", queries)
        scores = Scores(queries, self.embeddings, model.alignment, model.temperature(), bias_u=given, bias_v=bias)
        return scores.topk(k, dim=1)

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        prior = "" if self.log_prior is None else ", with log_prior"
        return f"Library({len(self)} items of {self.side}, width {self.embeddings.shape[1]}{prior})"


def _require_items(name: str, values: object) -> Tensor:
    items = require_finite(name, require_tensor(name, values))
    if items.ndim == 0 or len(items) == 0:
        raise ValueError(f"{name} must have at least one entry along its first axis, got {describe(items)}")
    return items


def _require_log_prior(log_prior: object, length: int) -> Tensor:
    tensor = require_tensor("log_prior", log_prior)
    if tensor.shape != (length,):
        raise ValueError(f"log_prior must have shape ({length},), one for each item, got {describe(tensor)}")
    if (tensor.isnan() | (tensor == torch.inf)).any():
        raise ValueError("log_prior must be finite or −inf, got NaN or +inf")
    return tensor
