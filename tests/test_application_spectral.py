"""The application of similarity graphs: the identities hold, the clusters are right, and it writes what it promises."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from small_models import normal, seeded
from tables_read import rows_of

import probcl as pcl
from applications.spectral import identity
from applications.spectral.__main__ import main
from applications.spectral.clusters import cluster
from applications.spectral.config import Config
from applications.spectral.embedding import Descent, Space, embed, loss_of
from applications.spectral.experiment import graphs
from applications.spectral.graphs import (
    Labelled,
    across,
    bipartite,
    bipartite_edges,
    block_graph,
    distributions,
    edges_of,
    laplacian,
    neighbour_graph,
    off_diagonal,
)
from applications.spectral.kernels import KERNELS, kernel
from applications.spectral.losses import graph_clip, graph_info_nce
from applications.spectral.views import Views, augmented, neighbour_accuracy, train

F64 = torch.float64
CONFIG = Config.read()
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


def random_pi(n: int, seed: int = 0) -> torch.Tensor:
    return distributions(normal(n, n, seed=seed).exp().masked_fill(~off_diagonal(n), 0))


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.1, 10), dim=st.integers(1, 4))
def test_info_nce_is_the_cross_entropy_over_all_graphs_and_the_trace_form(seed, temperature, dim):
    pi, z, allowed = random_pi(5, seed), normal(5, dim, seed=seed), off_diagonal(5)
    loss = graph_info_nce(z, edges_of(pi), pcl.L2(), temperature)
    brute_force = identity.cross_entropy(identity.gaussian_log_kernel(z, temperature), pi, allowed)
    assert abs(loss - brute_force) < 1e-10
    assert abs(loss - identity.trace_form(z, pi, allowed, temperature)) < 1e-10


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.1, 10))
def test_clip_is_the_cross_entropy_over_all_bipartite_graphs_and_the_trace_form(seed, temperature):
    adjacency, z_u, z_v = normal(3, 2, seed=seed).exp(), normal(3, 2, seed=seed), normal(2, 2, seed=seed + 1)
    z, pi, allowed = torch.cat([z_u, z_v]), bipartite(adjacency), across(3, 2)
    loss = graph_clip(z_u, z_v, bipartite_edges(adjacency), pcl.L2(), temperature)
    brute_force = identity.cross_entropy(identity.gaussian_log_kernel(z, temperature), pi, allowed)
    assert abs(loss - brute_force) < 1e-10
    assert abs(loss - identity.trace_form(z, pi, allowed, temperature)) < 1e-10


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_hessian_at_collapse_is_the_laplacian_less_a_centring(temperature):
    pi = random_pi(9)
    edges = edges_of(pi)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return graph_info_nce(z, edges, pcl.L2(), temperature)

    found = torch.autograd.functional.hessian(loss, torch.zeros(9, 2, dtype=F64))
    expected = identity.collapse_hessian(pi, temperature)
    assert (found[:, 0, :, 0] - expected).abs().max() < 1e-9
    assert (found[:, 1, :, 1] - expected).abs().max() < 1e-9
    assert found[:, 0, :, 1].abs().max() < 1e-9


def test_the_identities_are_checked_on_every_run():
    rows = identity.check(seed=3)
    assert [row["identity"] for row in rows] == [
        "InfoNCE, 4⁵ graphs",
        "CLIP, 4³ · 3⁴ graphs",
        "Hessian at collapse",
    ]
    assert all(float(row["difference"]) < 1e-10 for row in rows)
    assert all(row["loss"] == pytest.approx(row["closed form"], abs=1e-10) for row in rows)


def test_the_cross_entropy_of_graphs_is_least_at_the_kernel_that_is_the_similarity():
    pi, allowed = random_pi(4), off_diagonal(4)
    best = identity.cross_entropy(pi.log(), pi, allowed)
    entropy = -torch.special.xlogy(pi, pi).sum()
    assert best == pytest.approx(float(entropy), abs=1e-12)
    for seed in range(5):
        other = pi.log().masked_fill(~allowed, 0) + 0.3 * normal(4, 4, seed=seed)
        assert identity.cross_entropy(other, pi, allowed) > best


def test_the_laplacian_is_the_quadratic_form_of_squared_distances():
    pi, z = random_pi(6), normal(6, 2)
    distances = (z[:, None] - z).square().sum(-1)
    torch.testing.assert_close((z.mT @ laplacian(pi) @ z).trace(), (pi * distances).sum() / 2)
    torch.testing.assert_close(laplacian(pi).sum(1), torch.zeros(6, dtype=F64), rtol=0, atol=1e-14)


def test_a_node_without_neighbours_is_refused():
    with pytest.raises(ValueError, match="node 1 has none"):
        distributions(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_what_they_are_called(name):
    x, y, tau = normal(4, 3), normal(5, 3, seed=1), 0.3
    distance = torch.cdist(x, y)
    powers = {"Gaussian": [2.0], "Laplace": [1.0], "Power(½)": [0.5], "sum": [2.0, 1.0]}[name]
    expected = sum((-(distance**power) / tau).exp() for power in powers)
    torch.testing.assert_close(pcl.Scores(x, y, *kernel(name, tau)).matrix().exp(), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sphere", [False, True])
def test_info_nce_finds_the_blocks_of_a_graph_as_spectral_clustering_does(seed, sphere):
    spaces = (Space("Gaussian", 3, 0.5, sphere),)
    theirs, ours = cluster("blocks", graphs(CONFIG, seed)["blocks"], spaces, CONFIG.descent, seed)
    assert theirs.accuracy >= 0.97
    assert ours.accuracy >= 0.97
    assert ours.agreement >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_blocks_are_found_under_every_kernel(seed):
    _, *ours = cluster("blocks", graphs(CONFIG, seed)["blocks"], CONFIG.spaces["blocks"], CONFIG.descent, seed)
    assert {one.method for one in ours} >= {f"free, {name}" for name in KERNELS}
    assert all(one.accuracy >= 0.97 for one in ours)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_embedding_is_not_the_matrix_of_laplacian_eigenvectors(seed):
    spaces = (Space("Gaussian", 3, 0.5),)
    _, ours = cluster("blocks", graphs(CONFIG, seed)["blocks"], spaces, CONFIG.descent, seed)
    assert all(10 < angle < 40 for angle in ours.angles)


@pytest.mark.parametrize("seed", SEEDS)
def test_clip_finds_the_blocks_of_a_bipartite_graph_on_the_sphere(seed):
    spaces = (Space("Gaussian", 3, 1.0, sphere=True),)
    _, ours = cluster("bipartite", graphs(CONFIG, seed)["bipartite"], spaces, CONFIG.descent, seed)
    assert ours.accuracy >= 0.90


@pytest.mark.slow
def test_free_vectors_of_a_bipartite_graph_leave_the_classes_they_started_at_for_a_lower_loss():
    graph, space = graphs(CONFIG, 0)["bipartite"], Space("Gaussian", 3, 1.0, planted=True)
    z = [embed(graph, space, Descent(steps, 0.05, 0.1), 0) for steps in (20, 100, 500)]
    losses = [float(loss_of(graph, space)(one)) for one in z]
    found = [adjusted_rand_score(graph.labels, KMeans(4, n_init=20, random_state=0).fit_predict(one)) for one in z]
    assert found[0] > 0.9
    assert found[-1] < 0.7
    assert all(later < earlier for earlier, later in pairwise(losses))
    on_sphere = embed(graph, Space("Gaussian", 3, 1.0, sphere=True), CONFIG.descent, 0)
    assert losses[-1] < float(loss_of(graph, space)(on_sphere))


def test_a_neighbour_graph_joins_in_both_directions_and_never_a_point_with_itself():
    graph = neighbour_graph(normal(30, 2), torch.zeros(30, dtype=torch.int64), 4)
    assert torch.equal(graph.adjacency, graph.adjacency.mT)
    assert graph.adjacency.diagonal().sum() == 0
    assert graph.adjacency.sum(1).min() >= 4


def test_block_graphs_have_their_probabilities():
    graph = block_graph(n=400, blocks=4, p_in=0.3, p_out=0.02, seed=0)
    same = graph.labels[:, None] == graph.labels
    assert graph.adjacency[same & off_diagonal(400)].mean() == pytest.approx(0.3, abs=0.01)
    assert graph.adjacency[~same].mean() == pytest.approx(0.02, abs=0.002)


def test_views_are_shifted_masked_and_noisy_copies():
    images = torch.rand(50, 1, 8, 8)
    settings = {"hidden": (8,), "dim": 2, "epochs": 1, "batch_size": 8, "lr": 1e-3, "neighbours": 1}
    same = augmented(images, Views(shift=0, masked=0, noise=0, **settings), seeded())
    assert torch.equal(same, images)
    moved = augmented(images, Views(shift=1, masked=0, noise=0, **settings), seeded())
    framed = torch.nn.functional.pad(images, (1, 1, 1, 1))
    candidates = [framed[..., row : row + 8, column : column + 8] for row in range(3) for column in range(3)]
    matches = torch.stack([(moved == candidate).flatten(1).all(1) for candidate in candidates])
    assert torch.equal(matches.sum(0), torch.ones(50, dtype=torch.int64))
    assert (matches.sum(1) > 0).all()
    masked = augmented(images, Views(shift=0, masked=0.25, noise=0, **settings), seeded())
    assert (masked == 0).float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_learns_the_digits_without_labels(name):
    data = pcl.datasets.load_digits()
    encoder = train(data.train.u, *kernel(name, 0.1), CONFIG.views, seed=0)
    assert neighbour_accuracy(encoder, data.train, data.test, CONFIG.views.neighbours) >= 0.92


def test_the_clusters_of_an_embedding_do_not_depend_on_the_order_of_the_nodes():
    graph = block_graph(n=40, blocks=2, p_in=0.6, p_out=0.02, seed=0)
    order = torch.randperm(40, generator=seeded())
    shuffled = Labelled(graph.adjacency[order][:, order], graph.labels[order])
    spaces = (Space("Gaussian", 2, 0.5),)
    descent = Descent(steps=100, lr=0.05, start=0.1)
    found = [list(cluster("g", one, spaces, descent, 0))[1] for one in (graph, shuffled)]
    assert adjusted_rand_score(found[0].partition[order], found[1].partition) == 1


def test_the_module_writes_tables_and_a_figure(tmp_path, process_state):
    state, random_state = process_state(), torch.get_rng_state()
    main(["--quick", "--output", str(tmp_path)])
    tables = [f"{name}.{kind}" for name in ("identity", "clusters", "kernels") for kind in ("csv", "md")]
    assert {path.name for path in tmp_path.iterdir()} == {*tables, "kernels-runs.csv", "figure.png"}
    rows = rows_of(tmp_path / "clusters.csv")
    assert [row["graph"] for row in rows] == ["blocks"] * 6 + ["bipartite"] * 4 + ["digits"] * 3
    assert all(-1 <= float(row[name]) <= 1 for row in rows for name in ("ARI", "lowest", "agreement"))
    assert [row["kernel"] for row in rows_of(tmp_path / "kernels.csv")] == list(KERNELS)
    assert plt.imread(tmp_path / "figure.png").std() > 0
    assert not plt.get_fignums()
    assert process_state() == state
    assert torch.equal(torch.get_rng_state(), random_state)
