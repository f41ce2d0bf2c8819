"""``python -m applications.mixtures``: fit linear maps to pairs from Gaussian mixtures; tables and a figure."""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from applications.files import write_text
from applications.mixtures.clusters import digits_row, mixture_row
from applications.mixtures.experiment import Config, Found, methods
from applications.mixtures.figure import draw
from applications.tables import Row, as_csv, means, report

CONFIG = Path(__file__).with_name("config.toml")
SUBSPACES_NOTE = """\
Seeds {seeds}. Angles: largest angle, in degrees, of the learned subspace to the Fisher subspace; of CLIP, of the
directions that both modalities show. Gap: the last singular value that should not vanish over the next, the smallest of
all seeds."""
CLUSTERS_NOTE = """\
Seeds {seeds}: means. Adjusted Rand index of k-means on what each map keeps. Mixture: {n:,} points, fitted to
and clustered. Digits: fitted to same-class pairs of the training images, clustered on the 359 test images."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    config = Config.read(CONFIG, quick=options.quick)
    began = time.perf_counter()
    console = Console()
    found: dict[int, list[Found]] = {}
    clusters: list[Row] = []
    for seed in config.seeds:
        found[seed] = list(methods(config, seed))
        clusters += [mixture_row(config, seed), digits_row(config, seed)]
        console.print(f"seed {seed}: {time.perf_counter() - began:.0f} s", highlight=False)
    _write(config, found, clusters, options.output)
    draw(config, found, options.output / "figure.png")
    console.print(f"Wrote {options.output}/ in {time.perf_counter() - began:.0f} s")


def _write(config: Config, found: dict[int, list[Found]], clusters: list[Row], output: Path) -> None:
    seeds = ", ".join(map(str, config.seeds))
    report(
        "Gaussian mixtures: the Fisher subspace",
        summary(found),
        output / "subspaces",
        SUBSPACES_NOTE.format(seeds=seeds),
    )
    note = CLUSTERS_NOTE.format(seeds=seeds, n=config.n_clustered)
    report("Gaussian mixtures: clusters", means(clusters, by=["data"]), output / "clusters", note)
    write_text(output / "subspaces-seeds.csv", as_csv(_by_seed(found)))
    write_text(output / "clusters-seeds.csv", as_csv(clusters))


def summary(found: dict[int, list[Found]]) -> list[Row]:
    """Return a row for each method, over the seeds."""
    rows: list[Row] = []
    for same in zip(*found.values(), strict=True):
        angles = [one.angle for one in same]
        gap = min(one.gap for one in same)
        rows.append(
            {
                "method": same[0].method,
                "gap": "" if math.isnan(gap) else f"{gap:.1f}",
                "mean angle": sum(angles) / len(angles),
                "largest angle": max(angles),
            }
        )
    return rows


def _by_seed(found: dict[int, list[Found]]) -> list[Row]:
    return [
        {
            "seed": str(seed),
            "method": one.method,
            "angle": one.angle,
            "gap": one.gap,
            "singular values": " ".join(f"{value:.6g}" for value in one.singular_values.tolist()),
        }
        for seed, several in found.items()
        for one in several
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m applications.mixtures", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and few pairs, in seconds")
    parser.add_argument("--output", type=Path, default=Path("results/mixtures"), help="results/mixtures by default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
