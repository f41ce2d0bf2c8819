"""`Index`: approximate search of a library with faiss."""

import importlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probcl.checks import require_count
from probcl.retrieval.euclidean import Features, Space, features
from probcl.retrieval.queries import Queries
from probcl.scores import TopK

if TYPE_CHECKING:
    from probcl.retrieval.library import Library

# Items to learn the cells of an IVF index from, for each cell: faiss warns below 39 and uses at most 256.
_TRAINING_ITEMS = 64
# Items whose exact scores are computed at a time.
_ITEMS_AT_A_TIME = 2**16


class Index:
    """A library's items where faiss finds most of the best ones without looking at all of them.

    What is found gets its exact scores. How much is missed is a matter of the data: measure it with `recall_at_k`.

    Parameters
    ----------
    library
        What to search. Once items are added or removed, or the temperature changes, build the index anew.
    kind
        ``"ivf"``: items in cells, of which those nearest to a query are searched; ``"hnsw"``: a graph to walk on.
    nlist
        Number of cells; by default 4 √N, or fewer for a small library.
    nprobe
        How many of them to search.
    m
        How many neighbours items have in the graph.
    ef_construction, ef_search
        How many candidates to keep while building and while searching the graph.

    Raises
    ------
    ImportError
        Without faiss, which the extra ``probcl[faiss]`` installs.
    ValueError
        If `kind` or a setting is none of these, or the alignment's order is not that of distances
        (`probcl.retrieval.euclidean`): all but `InnerProduct`, `Cosine`, `L2`, and `WithPotentials` of one of them.

    Notes
    -----
    Scores become distances in a space of one or two more dimensions, for biases and norms. The cells are learnt from a
    sample with a fixed seed. faiss uses all cores; ``faiss.omp_set_num_threads`` changes that, for the whole process.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.retrieval import Index, Library
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> library = Library(model, u=torch.linspace(-3, 3, 1001)[:, None])
    >>> index = Index(library, kind="hnsw")  # needs pip install probcl[faiss]
    >>> index.topk(torch.tensor([[0.6]]), k=1).indices
    tensor([[600]])
    """

    def __init__(
        self,
        library: "Library",
        kind: Literal["ivf", "hnsw"] = "ivf",
        *,
        nlist: int | None = None,
        nprobe: int = 16,
        m: int = 32,
        ef_construction: int = 80,
        ef_search: int = 64,
    ) -> None:
        faiss = _faiss()
        self.library, self.kind = library, kind
        self._built_for = self._state()
        positions = [positions for _, positions in self._features()]
        if not positions:
            raise ValueError("log_prior leaves no item that is possible")
        self._positions = torch.cat(positions)
        self._space = Space.of(library.model.alignment, (some for some, _ in self._features()))
        if kind == "ivf":
            cells = self._cells(nlist)
            self._faiss = faiss.IndexIVFFlat(faiss.IndexFlatL2(self._space.width), self._space.width, cells)
            self._faiss.nprobe = require_count("nprobe", nprobe)
            self._faiss.train(self._training_items(cells))
        elif kind == "hnsw":
            self._faiss = faiss.IndexHNSWFlat(self._space.width, require_count("m", m, 2))
            self._faiss.hnsw.efConstruction = require_count("ef_construction", ef_construction)
            self._faiss.hnsw.efSearch = require_count("ef_search", ef_search)
        else:
            raise ValueError(f"kind must be 'ivf' or 'hnsw', got {kind!r}")
        for some, _ in self._features():
            self._faiss.add(_array(self._space.items(some)))

    def _cells(self, nlist: int | None) -> int:
        if nlist is None:
            return max(1, min(round(4 * math.sqrt(len(self))), len(self) // _TRAINING_ITEMS))
        if require_count("nlist", nlist) > len(self):
            raise ValueError(f"nlist must be at most the {len(self)} items of the index, got {nlist}")
        return nlist

    def topk(self, queries: Shaped[Tensor, "B *event"], k: int = 5) -> TopK:
        """Return most of the `k` items with the largest scores for each query, best first.

        As `Library.topk`; where fewer than `k` were found, what is missing has the id −1 and the value −inf.

        Raises
        ------
        ValueError
            If the library or the model's temperature has changed, `k` is larger than the number of items, or the
            queries are not finite.
        """
        return self.search(self.library.embed_queries(queries), k)

    def search(self, queries: Queries, k: int) -> TopK:
        """Return most of the `k` best items for embedded queries, as `topk` does."""
        if self._built_for != self._state():
            raise ValueError("the library or the temperature has changed since the index was built: build it anew")
        if require_count("k", k) > len(self):
            raise ValueError(f"k must be at most the {len(self)} items of the index, got {k}")
        parts = [self._search(few, k) for few in queries.split(max(1, _ITEMS_AT_A_TIME // k))]
        return TopK(torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts]))

    def _search(self, queries: Queries, k: int) -> TopK:
        points = self._space.queries(features(self.library.model.alignment, queries.z))
        _, nearest = self._faiss.search(_array(points), k)
        positions = torch.from_numpy(nearest)
        found = self.library.at(self._positions[positions.clamp(min=0).flatten()])
        of_item = torch.arange(len(queries), device=queries.z.device).repeat_interleave(k)
        missing = positions.to(queries.z.device) < 0
        values = queries.at(of_item).matched(found).view(missing.shape).masked_fill(missing, -torch.inf)
        ids = found.ids.to(values.device).view(missing.shape).masked_fill(missing, -1)
        best = values.sort(dim=1, descending=True)
        return TopK(best.values, ids.gather(1, best.indices))

    def recall_at_k(self, queries: Shaped[Tensor, "B *event"], k: int = 10) -> float:
        """Return which fraction of the exact `k` best items the index finds, in [0, 1], averaged over queries."""
        embedded = self.library.embed_queries(queries)
        exact, found = self.library.search(embedded, k).indices, self.search(embedded, k).indices
        return float((exact[:, :, None] == found[:, None, :]).any(2).double().mean())

    def _state(self) -> tuple[int, float]:
        """Return what the distances depend on."""
        return self.library.collection.version, self.library.model.temperature.value

    def _features(self) -> Iterator[tuple[Features, Int[Tensor, " n"]]]:
        """Features and positions of the items that can be found at all, some at a time."""
        first, model = 0, self.library.model
        for shard in self.library.shards():
            vectors, offset = features(model.alignment, shard.embeddings)
            if shard.log_prior is not None:
                offset = offset + shard.log_prior.to(offset) * model.temperature.value
            possible = offset.isfinite().nonzero()[:, 0]
            if len(possible):
                yield Features(vectors[possible], offset[possible]), first + possible.cpu()
            first += len(shard)

    def _training_items(self, cells: int) -> np.ndarray:
        """Return a sample of the items, those of each shard in proportion."""
        share = min(1.0, _TRAINING_ITEMS * cells / len(self))
        generator = torch.Generator().manual_seed(0)
        parts = []
        for (vectors, offset), _ in self._features():
            chosen = torch.randperm(len(offset), generator=generator)[: math.ceil(share * len(offset))]
            parts.append(self._space.items(Features(vectors[chosen], offset[chosen])))
        return _array(torch.cat(parts))

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return f"Index({self.kind!r}, {len(self)} items of {self.library!r})"


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ImportError('an index needs faiss, an extra: pip install "probcl[faiss]"') from error


def _array(vectors: Float[Tensor, "n q"]) -> np.ndarray:
    return np.ascontiguousarray(vectors.cpu().numpy())
