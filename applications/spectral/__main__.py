"""``python -m applications.spectral``: embed graphs by InfoNCE, cluster them, and hold both against spectral theory."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from applications.files import write_text
from applications.spectral import identity
from applications.spectral.clusters import Clustered
from applications.spectral.config import DEFAULT, Config
from applications.spectral.experiment import cluster_table, clusters, graphs, kernel_runs, kernel_table
from applications.spectral.figure import draw
from applications.tables import Row, as_csv, report

REFERENCE_TAU = 0.1
IDENTITY_NOTE = """\
Seed {seed}, float64. Brute force: the cross-entropy, summed over all graphs in which every node has one neighbour.
Loss: from probcl.Scores, its self-pairs masked. Closed form: tr(ZᵀLZ)/τ plus the log-normalisers; for the Hessian, of
which the table has the norm, (2/τ)[L − n/(n−1)(I − 11ᵀ/n)]."""
CLUSTERS_NOTE = """\
Seeds {seeds}. ARI: adjusted Rand index of the clusters (of k-means, in the embeddings) with the classes, its mean and
the lowest; agreement: with the partition of scikit-learn. Angles: between the span of the embedding's columns and that
of as many Laplacian eigenvectors. Planted: each class started at a place of its own."""
KERNELS_NOTE = """\
Seeds {seeds}. Share of 359 test images whose {k} nearest training images vote for the right label. The best τ is chosen
on the validation images among {taus}; s.d.: over the seeds, at the best τ."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    config = Config.read(options.config, quick=options.quick)
    output, began = options.output, time.perf_counter()
    _identity(config, output)
    clustered = {seed: list(clusters(config, seed)) for seed in config.seeds}
    _clusters(config, clustered, output)
    runs = [run for seed in config.view_seeds for run in kernel_runs(config, seed)]
    _kernels(config, runs, output)
    first = config.seeds[0]
    draw(graphs(config, first), clustered[first], runs, output / "figure.png")
    Console().print(f"Wrote {output}/ in {time.perf_counter() - began:.0f} s")


def _identity(config: Config, output: Path) -> None:
    seed = config.seeds[0]
    rows = identity.check(seed)
    report("InfoNCE is a cross-entropy of graphs", rows, output / "identity", IDENTITY_NOTE.format(seed=seed))


def _clusters(config: Config, clustered: dict[int, list[Clustered]], output: Path) -> None:
    note = CLUSTERS_NOTE.format(seeds=_listed(config.seeds))
    report("Clusters of graphs", cluster_table(clustered), output / "clusters", note)


def _kernels(config: Config, runs: list[Row], output: Path) -> None:
    note = KERNELS_NOTE.format(seeds=_listed(config.view_seeds), k=config.views.neighbours, taus=_listed(config.taus))
    report("Kernels on two views of digits", kernel_table(runs, REFERENCE_TAU), output / "kernels", note)
    write_text(output / "kernels-runs.csv", as_csv(runs))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m applications.spectral", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and short fits, in seconds")
    parser.add_argument("--config", type=Path, default=DEFAULT, help="another configuration file")
    parser.add_argument("--output", type=Path, default=Path("results/spectral"), help="results/spectral by default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
