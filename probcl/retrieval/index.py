"""`Index`: approximate search of a library with faiss."""

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probcl.checks import require_count
from probcl.retrieval.euclidean import Features, Space, features
from probcl.scores import TopK

if TYPE_CHECKING:
    from probcl.retrieval.library import Library

# Items to learn the cells of an IVF index from, for each cell: faiss warns below 39 and uses at most 256.
_TRAINING_ITEMS = 64


class Index:
    """A library's items where faiss finds most of the best ones without looking at all of them.

    What is found gets its exact scores. How much is missed is a matter of the data: measure it with `recall_at_k`.

    Parameters
    ----------
    library
        What to search. Once items are added or removed, the index is of no more use.
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
        self._version = library.collection.version
        self._space = Space.of(library.model.alignment, (some for some, _ in self._features()))
        self._positions = torch.cat([positions for _, positions in self._features()])
        width = self._space.items(next(self._features())[0]).shape[1]
        if kind == "ivf":
            cells = max(1, min(round(4 * len(self) ** 0.5), len(self) // _TRAINING_ITEMS))
            cells = cells if nlist is None else require_count("nlist", nlist)
            self._faiss = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, cells)
            self._faiss.nprobe = require_count("nprobe", nprobe)
            self._faiss.train(self._training_items(cells))
        elif kind == "hnsw":
            self._faiss = faiss.IndexHNSWFlat(width, require_count("m", m, 2))
            self._faiss.hnsw.efConstruction = require_count("ef_construction", ef_construction)
            self._faiss.hnsw.efSearch = require_count("ef_search", ef_search)
        else:
            raise ValueError(f"kind must be 'ivf' or 'hnsw', got {kind!r}")
        for some, _ in self._features():
            self._faiss.add(_array(self._space.items(some)))

    def topk(self, queries: Shaped[Tensor, "B *event"], k: int = 5) -> TopK:
        """Return most of the `k` items with the largest scores for each query, best first.

        As `Library.topk`; where fewer than `k` were found, what is missing has the id −1 and the value −inf.

        Raises
        ------
        ValueError
            If the library has changed, `k` is larger than the number of items, or the queries are not finite.
        """
        z = self.library.embed_queries(queries)
        positions = self.positions(z, k)
        found = self.library.collection.at(positions.clamp(min=0).flatten())
        values = self.library.matched_scores(found, z.repeat_interleave(k, 0)).view(positions.shape)
        ids = found.ids.to(z.device).view(positions.shape)
        missing = positions.to(z.device) < 0
        best = values.masked_fill(missing, -torch.inf).sort(dim=1, descending=True)
        return TopK(best.values, ids.masked_fill(missing, -1).gather(1, best.indices))

    def positions(self, z: Float[Tensor, "B d"], k: int) -> Int[Tensor, "B k"]:
        """Return positions in the collection of what is nearest to embedded queries, −1 where nothing was found."""
        if self._version != self.library.collection.version:
            raise ValueError("items were added to the library, or removed, since the index was built: build it anew")
        if require_count("k", k) > len(self):
            raise ValueError(f"k must be at most the {len(self)} items of the index, got {k}")
        queries = self._space.queries(features(self.library.model.alignment, z))
        _, found = self._faiss.search(_array(queries), k)
        found = torch.from_numpy(found)
        return torch.where(found < 0, -1, self._positions[found.clamp(min=0)])

    def recall_at_k(self, queries: Shaped[Tensor, "B *event"], k: int = 10) -> float:
        """Return which fraction of the exact `k` best items the index finds, in [0, 1], averaged over queries."""
        exact, found = self.library.topk(queries, k).indices, self.topk(queries, k).indices
        return float((exact[:, :, None] == found[:, None, :]).any(2).double().mean())

    def _features(self) -> Iterator[tuple[Features, Int[Tensor, " n"]]]:
        """Features and positions of the items that can be found at all, some at a time."""
        first = 0
        model = self.library.model
        for shard in self.library.collection:
            of_shard = features(model.alignment, shard.embeddings)
            bias = self.library.bias(shard)
            offset = of_shard.offset if bias is None else of_shard.offset + bias * model.temperature()
            possible = offset.isfinite().nonzero()[:, 0]
            if len(possible):
                yield Features(of_shard.vectors[possible], offset[possible]), first + possible.cpu()
            first += len(shard)

    def _training_items(self, cells: int) -> np.ndarray:
        """Return a sample of the items."""
        share = min(1.0, _TRAINING_ITEMS * cells / len(self))
        generator = torch.Generator().manual_seed(0)
        parts = []
        for some, positions in self._features():
            chosen = torch.randperm(len(positions), generator=generator)[: -int(-share * len(positions) // 1)]
            parts.append(self._space.items(Features(some.vectors[chosen], some.offset[chosen])))
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
