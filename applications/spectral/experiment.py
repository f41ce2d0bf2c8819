"""What is run: graphs and their clusters, and the kernels on digits."""

from collections.abc import Iterator
from statistics import mean, stdev

import probcl as pcl
from applications.spectral.clusters import Clustered, cluster
from applications.spectral.config import Config
from applications.spectral.graphs import Labelled, block_bipartite, block_graph, neighbour_graph
from applications.spectral.kernels import KERNELS, kernel
from applications.spectral.views import neighbour_accuracy, train
from applications.tables import Row


def graphs(config: Config, seed: int) -> dict[str, Labelled]:
    """Draw the graphs of a seed."""
    digits = pcl.datasets.load_digits(test_fraction=config.digits["fraction"], validation_fraction=0, seed=seed).test
    return {
        "blocks": block_graph(**config.blocks, seed=seed),
        "bipartite": block_bipartite(**config.bipartite, seed=seed),
        "digits": neighbour_graph(digits.u.flatten(1), digits.v, config.digits["neighbours"]),
    }


def clusters(config: Config, seed: int) -> Iterator[Clustered]:
    """Cluster each graph by each method."""
    for name, graph in graphs(config, seed).items():
        yield from cluster(name, graph, config.spaces[name], config.descent, seed)


def cluster_table(by_seed: dict[int, list[Clustered]]) -> list[Row]:
    """Return a row for each graph and method, over the seeds."""
    rows: list[Row] = []
    for same in zip(*by_seed.values(), strict=True):
        angles = [angle for one in same for angle in one.angles]
        rows.append(
            {
                "graph": same[0].graph,
                "method": same[0].method,
                "angles": f"{min(angles):.0f}–{max(angles):.0f}°" if angles else "",
                "ARI": mean(one.accuracy for one in same),
                "lowest": min(one.accuracy for one in same),
                "agreement": mean(one.agreement for one in same),
            }
        )
    return rows


def kernel_runs(config: Config, seed: int) -> Iterator[Row]:
    """Train on views of digits with each kernel at each temperature."""
    data = pcl.datasets.load_digits(seed=seed)
    for name in KERNELS:
        for tau in config.taus:
            encoder = train(data.train.u, *kernel(name, tau), config.views, seed)
            validation, test = (
                neighbour_accuracy(encoder, data.train, part, config.views.neighbours)
                for part in (data.validation, data.test)
            )
            yield {"seed": str(seed), "kernel": name, "τ": str(tau), "validation": validation, "test": test}


def kernel_table(runs: list[Row], reference: float) -> list[Row]:
    """Return, for each kernel, the test accuracy at a temperature common to all, and at its own best on validation."""
    rows: list[Row] = []
    for name in KERNELS:
        own = [run for run in runs if run["kernel"] == name]
        by_tau = {tau: [run for run in own if run["τ"] == tau] for tau in dict.fromkeys(str(run["τ"]) for run in own)}
        best = max(by_tau, key=lambda tau: mean(float(run["validation"]) for run in by_tau[tau]))
        common, tuned = ([float(run["test"]) for run in by_tau[tau]] for tau in (str(reference), best))
        rows.append(
            {
                "kernel": name,
                "best τ": best,
                f"at τ = {reference}": mean(common),
                "lowest": min(common),
                "at its best τ": mean(tuned),
                "s.d.": stdev(tuned) if len(tuned) > 1 else 0.0,
            }
        )
    return rows
