"""The figure: graphs, their embeddings, Laplacian eigenvectors, and kernels over temperature."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from applications.files import save_figure
from applications.spectral.clusters import Clustered, eigenvectors
from applications.spectral.graphs import Labelled
from applications.spectral.kernels import KERNELS
from applications.tables import Row
from probcl.plotting import PALETTE


def draw(graphs: dict[str, Labelled], clustered: Sequence[Clustered], runs: Sequence[Row], path: Path) -> None:
    """Write the figure, of one seed's graphs and all runs of the kernels."""
    free = _find(clustered, "blocks", "free, Gaussian")
    sphere = _find(clustered, "bipartite", "sphere, Gaussian")
    figure, axes = plt.subplots(2, 3, figsize=(11.5, 7.4), layout="constrained")
    (graph, embedding, vectors), (pairs, both, kernels) = axes
    blocks, bipartite = graphs["blocks"], graphs["bipartite"]
    n = len(bipartite.adjacency)
    _draw_adjacency(graph, blocks.adjacency, free.partition, free.partition)
    graph.set(title="a graph, ordered by the clusters found", xlabel="node", ylabel="node")
    _draw_points(embedding, _leading(free.z), blocks.labels)
    embedding.set(title="its embedding by InfoNCE (d = 3)", xlabel="first principal component", ylabel="second")
    _draw_points(vectors, eigenvectors(blocks, 2), blocks.labels)
    vectors.set(title="its Laplacian eigenvectors", xlabel="second eigenvector", ylabel="third")
    _draw_adjacency(pairs, bipartite.adjacency, sphere.partition[:n], sphere.partition[n:])
    pairs.set(
        title="a bipartite graph, ordered the same way",
        xlabel="node of the other modality",
        ylabel="node of one modality",
    )
    _draw_points(both, _leading(sphere.z), bipartite.labels, n)
    both.set(
        title="its embedding on the sphere (crosses: the other)", xlabel="first principal component", ylabel="second"
    )
    _draw_kernels(kernels, runs)
    for ax in axes.flat:
        ax.title.set_fontsize(10)
        ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, dpi=110)


def _find(clustered: Sequence[Clustered], graph: str, method: str) -> Clustered:
    return next(one for one in clustered if (one.graph, one.method) == (graph, method))


def _leading(z: Float[Tensor, "nodes d"] | None) -> Float[Tensor, "nodes 2"]:
    """Project an embedding on its two leading principal components."""
    if z is None:
        raise ValueError("a figure of an embedding needs one, got a method without")
    centred = z - z.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].mT


def _draw_adjacency(
    ax: Axes, adjacency: Float[Tensor, "n m"], rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " m"]
) -> None:
    ordered = adjacency.numpy()[np.argsort(rows, kind="stable")][:, np.argsort(columns, kind="stable")]
    ax.imshow(ordered, cmap="gray_r", interpolation="nearest", aspect="auto")


def _draw_points(ax: Axes, points: Float[Tensor, "nodes 2"], labels: Tensor, first: int | None = None) -> None:
    """Draw nodes in the colours of their classes: circles, and crosses from node `first` on."""
    circles = len(points) if first is None else first
    colours = np.array(PALETTE)[labels.numpy()]
    x, y = points.unbind(1)
    ax.scatter(x[:circles], y[:circles], s=16, c=colours[:circles], alpha=0.8, linewidths=0)
    ax.scatter(x[circles:], y[circles:], s=20, c=colours[circles:], alpha=0.8, marker="x", linewidths=1)


def _draw_kernels(ax: Axes, runs: Sequence[Row]) -> None:
    taus = list(dict.fromkeys(str(run["τ"]) for run in runs))
    for number, name in enumerate(KERNELS):
        groups = [[float(run["test"]) for run in runs if (run["kernel"], run["τ"]) == (name, tau)] for tau in taus]
        spread = [stdev(group) if len(group) > 1 else 0.0 for group in groups]
        places = [float(tau) * (1 + 0.03 * (number - 1.5)) for tau in taus]
        ax.errorbar(
            places,
            [mean(group) for group in groups],
            spread,
            label=name,
            color=PALETTE[number],
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=1.2,
        )
    ax.set(
        xscale="log", title="digits without labels: mean ± s.d. over seeds", xlabel="τ", ylabel="accuracy by neighbours"
    )
    ax.set_xticks([float(tau) for tau in taus], taus)
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=9)
