r"""InfoNCE of a similarity graph, from the reductions of `probcl.Scores`.

.. math:: \sum_i \Bigl[\log \sum_{j ≠ i} e^{s_{ij}} - \sum_j π_{ij} s_{ij}\Bigr]

and, between two modalities, the same over the edges of a bipartite graph (Tan, Zhang, Yang & Yuan 2024, arXiv
2303.15103).
"""

from jaxtyping import Float
from torch import Tensor

import probcl as pcl
from applications.spectral.graphs import Edges


def graph_info_nce(
    z: Float[Tensor, "n d"], edges: Edges, alignment: pcl.Alignment, temperature: float
) -> Float[Tensor, ""]:
    """Return the sum over nodes; a node is no candidate for itself."""
    scores = pcl.Scores(z, z, alignment, temperature)
    return scores.logsumexp(dim=1, diagonal=False).sum() - _attraction(z, z, edges, alignment, temperature)


def graph_clip(
    z_u: Float[Tensor, "n d"],
    z_v: Float[Tensor, "m d"],
    edges: Edges,
    alignment: pcl.Alignment,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the sum over the nodes of both modalities; an edge weighs π_ij + π_ji."""
    scores = pcl.Scores(z_u, z_v, alignment, temperature)
    candidates = scores.logsumexp(dim=1).sum() + scores.logsumexp(dim=0).sum()
    return candidates - _attraction(z_u, z_v, edges, alignment, temperature)


def _attraction(x: Tensor, y: Tensor, edges: Edges, alignment: pcl.Alignment, temperature: float) -> Tensor:
    matched = alignment.matched(x[edges.rows], y[edges.columns])
    return (edges.weights * matched).sum() / temperature
