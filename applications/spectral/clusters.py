"""Clusters of embeddings, against those of scikit-learn on the same graphs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.linalg import subspace_angles
from sklearn.cluster import KMeans, SpectralClustering, SpectralCoclustering
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from applications.spectral.embedding import Descent, Space, embed
from applications.spectral.graphs import Labelled, bipartite, distributions, laplacian

RESTARTS = 20


class Clustered(NamedTuple):
    """Clusters that a method has found, and the embedding they were found in; scikit-learn's is its own."""

    graph: str
    method: str
    partition: Int[np.ndarray, " nodes"]
    accuracy: float  # adjusted Rand index with the classes
    agreement: float  # adjusted Rand index with scikit-learn's partition
    angles: Sequence[float]  # in degrees, to the eigenvectors of the graph Laplacian
    z: Float[Tensor, "nodes d"] | None


def cluster(name: str, graph: Labelled, spaces: Sequence[Space], descent: Descent, seed: int) -> Iterator[Clustered]:
    """Cluster a graph by scikit-learn, and by InfoNCE and k-means in each of the spaces."""
    classes = int(graph.labels.max()) + 1
    theirs = reference_partition(graph, classes, seed)
    accuracy = float(adjusted_rand_score(graph.labels.numpy(), theirs))
    yield Clustered(name, "scikit-learn", theirs, accuracy, 1.0, (), None)
    vectors = eigenvectors(graph, max(space.dim for space in spaces))
    for space in spaces:
        z = embed(graph, space, descent, seed)
        ours = KMeans(classes, n_init=RESTARTS, random_state=seed).fit_predict(z.numpy())
        yield Clustered(
            name,
            space.title,
            ours,
            float(adjusted_rand_score(graph.labels.numpy(), ours)),
            float(adjusted_rand_score(theirs, ours)),
            angles_between(z, vectors[:, : space.dim]),
            z,
        )


def reference_partition(graph: Labelled, classes: int, seed: int) -> Int[np.ndarray, " nodes"]:
    """Return the clusters that scikit-learn finds."""
    adjacency = graph.adjacency.numpy()
    if graph.is_bipartite:
        found = SpectralCoclustering(classes, random_state=seed).fit(adjacency)
        return np.concatenate([found.row_labels_, found.column_labels_])
    return SpectralClustering(classes, affinity="precomputed", random_state=seed).fit_predict(adjacency)


def eigenvectors(graph: Labelled, count: int) -> Float[Tensor, "nodes count"]:
    """Return the eigenvectors of L next to the constant one, whose eigenvalues are the smallest."""
    pi = bipartite(graph.adjacency) if graph.is_bipartite else distributions(graph.adjacency)
    return torch.linalg.eigh(laplacian(pi.double())).eigenvectors[:, 1 : count + 1]


def angles_between(z: Float[Tensor, "nodes d"], vectors: Float[Tensor, "nodes e"]) -> list[float]:
    """Return the angles, in degrees, between the spaces that the columns span, those of z less their means."""
    centred = (z - z.mean(0)).double()
    return np.rad2deg(subspace_angles(centred.numpy(), vectors.numpy())).tolist()
