"""`Library`: the items of one modality, embedded once, to be searched with queries of the other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probcl.checks import describe, require_count, require_finite, require_tensor
from probcl.errors import CheckpointError
from probcl.gauge import Side
from probcl.kernels.base import Dim
from probcl.model import BimodalModel
from probcl.retrieval import streaming
from probcl.retrieval.collection import Collection
from probcl.retrieval.folder import MANIFEST, fingerprint
from probcl.retrieval.shards import Items, Shard, embedded
from probcl.scores import Method, Scores, TopK, sum_present

if TYPE_CHECKING:
    from probcl.retrieval.approximation import Approximation
    from probcl.retrieval.index import Index


class Library:
    """Items of one modality, embedded once, to be searched with queries of the other.

    Everything is computed a shard (8 MB of embeddings) at a time. An item has an id: its place, from 0, in the order in
    which items were ever added. Ids do not change when other items are removed, and none is given twice.

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

        What is added or removed is written to the folder at once; one process at a time may do so.

        Parameters
        ----------
        path
            What `create` or `save` was given.
        model
            A model with the encoder that embedded the items. The rest of it may have changed: the other encoder, the
            temperature, the gauge.
        batch_size
            How many items or queries to encode at a time.
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
            As for the class, and if the encoder has been trained on since it embedded the first items.
        """
        self._require_encoder("what is in the library")
        first = self.collection.next_id
        shards = embedded(self.side, items, self._embed_items, log_prior, self.batch_size, first)
        self._gauge_bias = None
        return self.collection.add(shards)

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
        if require_count("k", k) > len(self):
            raise ValueError(f"k must be at most the {len(self)} items of the library, got {k}")
        return streaming.topk(self.collection, self.scores, self.embed_queries(queries), self.dim, k)

    def log_normalizer(self, queries: Shaped[Tensor, "B *event"]) -> Float[Tensor, " B"]:
        """Return log Σ_j e^{s_j + φ_j} over all items j for each query, in float64; φ = 0 without `log_prior`.

        With weights e^φ that sum to one this is the log Z(v) of ν(u|v) = e^{s(u, v)} μ(u) / Z(v).
        """
        return streaming.log_normalizer(self.collection, self.scores, self.embed_queries(queries), self.dim)

    def sample(
        self, queries: Shaped[Tensor, "B *event"], num_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "num_samples B"]:
        """Draw ids of items, exactly, from ν(·|query): with probabilities proportional to e^{s_j + φ_j}.

        One pass over the library finds its parts' log-sum-exps, and a second look is taken at those parts that draws
        come from.
        """
        z, count = self.embed_queries(queries), require_count("num_samples", num_samples)
        return streaming.sample(self.collection, self.scores, z, self.dim, count, generator)

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
        k
            How many of the most probable items to find.
        tail
            How many items to draw, uniformly and with replacement, the same for all queries.
        index
            Where to find the most probable items; in the library, exactly, by default.
        generator
            For the draws of the tail.
        """
        from probcl.retrieval.approximation import approximate

        return approximate(self, queries, k, tail, index, generator)

    def index(self, kind: Literal["ivf", "hnsw"] = "ivf", **settings: Any) -> "Index":
        """Build an index for approximate search with faiss (``pip install "probcl[faiss]"``).

        Parameters and errors are those of `Index`.
        """
        from probcl.retrieval.index import Index

        return Index(self, kind, **settings)

    @property
    def dim(self) -> Dim:
        """The axis of the scores along which the items run."""
        return 0 if self.side == "u" else 1

    @torch.no_grad()
    def scores(self, shard: Shard, z: Float[Tensor, "B d"], method: Method = "auto") -> Scores:
        """Return the scores of a shard's items, along `dim`, with embedded queries."""
        model, other = self.model, _other(self.side)
        items, bias, given = shard.embeddings.to(z.device), self.bias(shard), model.gauge_bias(other, z)
        bias = None if bias is None else bias.to(z.device)
        if self.side == "u":
            return Scores(items, z, model.alignment, model.temperature(), method, bias_u=bias, bias_v=given)
        return Scores(z, items, model.alignment, model.temperature(), method, bias_u=given, bias_v=bias)

    def matched_scores(self, items: Shard, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return the scores of each item with one embedded query."""
        return self.scores(items, z).diagonal()

    @torch.no_grad()
    def bias(self, shard: Shard) -> Float[Tensor, " n"] | None:
        """Return what log-prior and gauge add to the scores of each item, or None if nothing."""
        gauge = self.model.gauge
        if gauge is None or gauge.over == self.side:
            return shard.log_prior
        if self._gauge_bias is None:
            self._gauge_bias = shard.embeddings.new_zeros(self.collection.next_id)
            for some in self.collection:
                bias = self.model.gauge_bias(self.side, some.embeddings)
                assert bias is not None
                self._gauge_bias[some.ids] = bias
        return sum_present(shard.log_prior, self._gauge_bias[shard.ids])

    def embed_queries(self, queries: Shaped[Tensor, "B *event"]) -> Float[Tensor, "B d"]:
        """Embed queries, of the other modality."""
        require_finite("queries", require_tensor("queries", queries))
        if queries.ndim == 0 or len(queries) == 0:
            raise ValueError(f"queries must have at least one entry along their first axis, got {describe(queries)}")
        return self._embed(_other(self.side), queries)

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
        first = next(iter(self.collection))
        weighted = any(shard.log_prior is not None for shard in self.collection)
        prior = ", with log_prior" if weighted else ""
        place = "" if self.collection.path is None else f", in {self.collection.path}"
        return f"Library({len(self)} items of {self.side}, width {first.embeddings.shape[1]}{prior}{place})"


def _one_of(u: Items | None, v: Items | None) -> tuple[Side, Items]:
    if u is not None and v is None:
        return "u", u
    if v is not None and u is None:
        return "v", v
    raise ValueError(f"give the items as either u or v, got {'neither' if u is None else 'both'}")


def _other(side: Side) -> Side:
    return "v" if side == "u" else "u"


def _record(model: BimodalModel, side: Side) -> dict[str, Any]:
    encoder = model.encoder_u if side == "u" else model.encoder_v
    return {"side": side, "encoder": fingerprint(encoder)}
