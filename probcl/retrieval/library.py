"""`Library`: the items of one modality, embedded once, to be searched with queries of the other."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probcl.alignment import sum_present
from probcl.checks import describe, require_count, require_finite, require_tensor
from probcl.errors import CheckpointError
from probcl.gauge import Side
from probcl.model import BimodalModel, require_model
from probcl.retrieval import streaming
from probcl.retrieval.collection import Collection
from probcl.retrieval.folder import MANIFEST, fingerprint
from probcl.retrieval.queries import Queries
from probcl.retrieval.shards import Items, Shard, embedded
from probcl.scores import Scores, TopK

if TYPE_CHECKING:
    from probcl.retrieval.approximation import Approximation
    from probcl.retrieval.index import Index


class Library:
    """Items of one modality, embedded once, to be searched with queries of the other.

    Everything is computed a shard (16 MB of embeddings) at a time. An item has an id: its place, from 0, in the order
    in which items were ever added. Ids do not change when other items are removed, and none is given twice.

    Parameters
    ----------
    model
        The fitted model. Scores are in its gauge.
    u, v
        The items: exactly one of the two, the modality to be retrieved. A tensor or an array (one that is mapped from a
        file is read piece by piece) of shape (N, *event_shape), or an iterable of such batches.
    log_prior
        φ, the logarithm of each item's prior weight or density up to a constant, shape (N,); −inf excludes an item.
    batch_size
        How many items or queries to encode at a time.

    Attributes
    ----------
    side
        ``"u"`` or ``"v"``: the modality of the items.
    collection
        The embedded items.

    Raises
    ------
    TypeError
        If the items are none of these.
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
        u: Items | None = None,
        v: Items | None = None,
        *,
        log_prior: Float[Tensor, " N"] | None = None,
        batch_size: int = 4096,
    ) -> None:
        side, items = _one_of(u, v)
        self._set(model, Collection(_record(model, side)), batch_size)
        self.add(items, log_prior=log_prior)

    @classmethod
    def create(
        cls,
        model: BimodalModel,
        path: str | Path,
        u: Items | None = None,
        v: Items | None = None,
        *,
        log_prior: Float[Tensor, " N"] | None = None,
        batch_size: int = 4096,
    ) -> "Library":
        """Make a library in a folder, without ever holding more than a shard of it in memory.

        Parameters are those of the class, and `path`, a folder that holds no library.

        Raises
        ------
        FileExistsError
            If there is a library in the folder.
        """
        side, items = _one_of(u, v)
        if (Path(path) / MANIFEST).exists():
            raise FileExistsError(f"there is a library at {path} already: open it, or remove the folder")
        library = cls.__new__(cls)
        library._set(model, Collection(_record(model, side), Path(path)), batch_size)
        library.add(items, log_prior=log_prior)
        return library

    @classmethod
    def open(cls, path: str | Path, model: BimodalModel, *, batch_size: int = 4096, verify: bool = True) -> "Library":
        """Open a library in a folder. Its files are mapped into memory, and read where they are used.

        What is added or removed is written to the folder at once. One process at a time may do so: another meets
        `BlockingIOError`, and `CheckpointError` if it opened the library before the change.

        Parameters
        ----------
        path
            What `create` or `save` was given.
        model
            A model with the encoder that embedded the items. The rest of it may have changed: the other encoder, the
            temperature, the gauge.
        verify
            Whether to read all files and compare them with their digests. Lengths are compared in any case.

        Raises
        ------
        CheckpointError
            If a file is missing, truncated, altered or of another format version, or the encoder has other weights.
        """
        library = cls.__new__(cls)
        library._set(model, Collection.read(Path(path), verify), batch_size)
        library._require_encoder(f"the library at {path}")
        return library

    def _set(self, model: BimodalModel, collection: Collection, batch_size: int) -> None:
        self.model, self.collection = model, collection
        self.batch_size = require_count("batch_size", batch_size)
        self.side: Side = collection.record["side"]
        # By id, so that they are found for any selection of items; computed when they are first needed.
        self._gauge_bias: Tensor | None = None

    def _require_encoder(self, what: str) -> None:
        if self.collection.record != _record(self.model, self.side):
            raise CheckpointError(
                f"{what} was embedded by another encoder_{self.side}, or by other weights of it, than the model has: "
                "make the library anew"
            )

    def save(self, path: str | Path) -> None:
        """Write a copy into a folder, for `open`; a library that is there is replaced."""
        self.collection.write(Path(path))

    def add(self, items: Items, *, log_prior: Float[Tensor, " N"] | None = None) -> Int[Tensor, " N"]:
        """Add items, with their `log_prior` (0 by default), and return their ids.

        Raises
        ------
        ValueError
            As for the class, and if the encoder has changed since it embedded the first items.
        """
        self._require_encoder("what is in the library")
        self._gauge_bias = None
        first = self.collection.next_id
        return self.collection.add(embedded(self.side, items, self._embed_items, log_prior, self.batch_size, first))

    def remove(self, ids: Int[Tensor, " k"]) -> None:
        """Remove items.

        Raises
        ------
        ValueError
            If an id is of no item in the library, or no item would be left.
        """
        self._gauge_bias = None
        self.collection.remove(require_tensor("ids", ids).cpu())

    @property
    def ids(self) -> Int[Tensor, " N"]:
        """Ids of all items, ascending."""
        return self.collection.ids

    @property
    def embeddings(self) -> Float[Tensor, "N d"]:
        """Embeddings of all items in the order of `ids`, copied into one tensor."""
        return self.collection.all().embeddings

    @property
    def log_prior(self) -> Float[Tensor, " N"] | None:
        """φ of all items in the order of `ids`, or None if none was given."""
        return self.collection.all().log_prior

    def topk(self, queries: Shaped[Tensor, "B *event"], k: int = 5) -> TopK:
        """Return the `k` items with the largest scores for each query, best first.

        Parameters
        ----------
        queries
            What to search with, of the other modality, shape (B, *event_shape).
        k
            How many items to return.

        Returns
        -------
        TopK
            ``values``, the scores plus `log_prior`, and ``indices``, the ids of the items, both of shape (B, k).

        Raises
        ------
        ValueError
            If `k` is larger than the library, there are no queries or they are not finite, or scores overflow.
        """
        return self.search(self.embed_queries(queries), k)

    def log_normalizer(self, queries: Shaped[Tensor, "B *event"]) -> Float[Tensor, " B"]:
        """Return log Σ_j e^{s_j + φ_j} over all items j for each query, in float64; φ = 0 without `log_prior`.

        With weights e^φ that sum to one this is the log Z(v) of ν(u|v) = e^{s(u, v)} μ(u) / Z(v).
        """
        return streaming.log_normalizer(self.shards(), self.embed_queries(queries))

    def sample(
        self, queries: Shaped[Tensor, "B *event"], num_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "num_samples B"]:
        """Draw ids of items, exactly, from ν(·|query): with probabilities proportional to e^{s_j + φ_j}.

        One pass over the library for every 1,024 queries finds the log-sum-exps of its parts, and a second look is
        taken at those parts that draws come from.

        Raises
        ------
        ValueError
            As `topk` does, and if `log_prior` leaves no item that is possible.
        """
        count = require_count("num_samples", num_samples)
        return streaming.sample(self.shards, len(self), self.embed_queries(queries), count, generator)

    def approximate(
        self,
        queries: Shaped[Tensor, "B *event"],
        k: int = 100,
        tail: int = 1000,
        *,
        index: "Index | None" = None,
        generator: torch.Generator | None = None,
    ) -> "Approximation":
        """Approximate the conditional by its `k` most probable items and `tail` random ones; see `Approximation`.

        Parameters
        ----------
        queries
            Shape (B, *event_shape).
        k, tail
            How many of the most probable items to find, and how many of all to draw, uniformly and with replacement.
        index
            Where to find the most probable items; in the library, exactly, by default.
        generator
            For the draws.
        """
        from probcl.retrieval.approximation import approximate

        if index is not None and index.library is not self:
            raise ValueError("index must be one of this library's, got another library's")
        asked = self.embed_queries(queries)
        head = (self if index is None else index).search(asked, k)
        return approximate(self, asked, head, tail, generator)

    def index(self, kind: Literal["ivf", "hnsw"] = "ivf", **settings: Any) -> "Index":
        """Build an `Index` with these settings for approximate search (``pip install "probcl[faiss]"``)."""
        from probcl.retrieval.index import Index

        return Index(self, kind, **settings)

    def embed_queries(self, queries: Shaped[Tensor, "B *event"]) -> Queries:
        """Embed queries, of the other modality."""
        require_finite("queries", require_tensor("queries", queries))
        if queries.ndim == 0 or len(queries) == 0:
            raise ValueError(f"queries must have at least one entry along their first axis, got {describe(queries)}")
        other: Side = "v" if self.side == "u" else "u"
        z = self._embed(other, queries)
        with torch.no_grad():
            return Queries(self.model, self.side, z, self.model.gauge_bias(other, z))

    def search(self, queries: Queries, k: int) -> TopK:
        """Return the `k` best items for embedded queries, as `topk` does."""
        if require_count("k", k) > len(self):
            raise ValueError(f"k must be at most the {len(self)} items of the library, got {k}")
        return streaming.topk(self.shards(), queries, k)

    def shards(self) -> Iterator[Shard]:
        """Return the items a shard at a time, with a log-prior that includes the gauge."""
        return map(self._in_gauge, self.collection)

    def at(self, positions: Int[Tensor, " k"]) -> Shard:
        """Return the items at these positions in `ids`, with a log-prior that includes the gauge."""
        return self._in_gauge(self.collection.at(positions))

    def _in_gauge(self, shard: Shard) -> Shard:
        gauge = self.model.gauge
        if gauge is None or gauge.over == self.side:
            return shard
        if self._gauge_bias is None:
            self._gauge_bias = self._gauge_biases()
        log_prior = None if shard.log_prior is None else shard.log_prior.to(self._gauge_bias)
        return replace(shard, log_prior=sum_present(log_prior, self._gauge_bias[shard.ids]))

    @torch.no_grad()
    def _gauge_biases(self) -> Float[Tensor, " next_id"]:
        """Return what the gauge adds to the scores of each item, by id; 0 for ids of no item."""
        device = self.model.device
        biases = [self.model.gauge_bias(self.side, shard.embeddings.to(device)) for shard in self.collection]
        found = torch.cat([bias for bias in biases if bias is not None])
        return found.new_zeros(self.collection.next_id).index_copy(0, self.ids.to(device), found)

    def _embed(self, side: Side, values: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n d"]:
        embed = self.model.embed_u if side == "u" else self.model.embed_v
        return embed(values, self.batch_size)

    def _embed_items(self, items: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n d"]:
        z = self._embed(self.side, items)
        # What the alignment cannot take, such as a zero vector under a cosine, is found here and not by a query.
        Scores(z, z[:1], self.model.alignment)
        return z

    def __len__(self) -> int:
        return len(self.collection)

    def __repr__(self) -> str:
        width = next(iter(self.collection)).embeddings.shape[1]
        prior = ", with log_prior" if any(shard.log_prior is not None for shard in self.collection) else ""
        place = "" if self.collection.path is None else f", in {self.collection.path}"
        return f"Library({len(self)} items of {self.side}, width {width}{prior}{place})"


def _one_of(u: Items | None, v: Items | None) -> tuple[Side, Items]:
    if u is not None and v is None:
        return "u", u
    if v is not None and u is None:
        return "v", v
    raise ValueError(f"give the items as either u or v, got {'neither' if u is None else 'both'}")


def _record(model: BimodalModel, side: Side) -> dict[str, Any]:
    encoder = require_model(model).encoder_u if side == "u" else model.encoder_v
    return {"side": side, "encoder": fingerprint(encoder)}
