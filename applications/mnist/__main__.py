"""``python -m applications.mnist --data digits``: fit the objectives, write the table and the figure.

With ``--loss``, ``--alignment`` or ``--compare``: fit others of the family of losses instead, and write their table.
With ``--generate``: draw images that are in no bank, and judge them; see GENERATE.md.
"""

import argparse
import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import probcl as pcl
from applications.family import ALIGNMENTS, EXCLUDED, LOSSES, VARIANTS
from applications.files import write_text
from applications.mnist import generation
from applications.mnist.experiment import OBJECTIVES, Config, Fitted, Objective, by_name, fit_objective, measure
from applications.mnist.figure import draw
from applications.tables import Row, as_csv, means, report
from probcl.datasets import Split

NOTE = """\
Means over {seeds} seed(s) on {test:,} test images. accuracy, NLL, ECE: of p(label|image), with the training labels'
frequencies as prior. R@k: a label retrieved for an image; an image of the right label retrieved for a label. ESS,
purity, distinct: of images drawn given each label from the test images."""

COMPARISON_NOTE = """\
Seed {seed}, columns as in the table of the objectives. RINCE with q > 0 and the spectral loss determine a transform of
the density ratio, so that their probabilities are none that the theory vouches for."""


def main() -> None:
    arguments = _parse()
    if arguments.generate:
        _generate(arguments)
    elif arguments.compare or arguments.loss or arguments.alignment:
        _compare(arguments)
    else:
        _fit(arguments)


def _fit(arguments: argparse.Namespace) -> None:
    config, output = _config(arguments), _output(arguments)
    data, began = _load(arguments.data, arguments.data_dir), time.perf_counter()
    runs: list[Row] = []
    shown: list[Fitted] = []
    for seed, objective in itertools.product(config.seeds, OBJECTIVES):
        fits = list(fit_objective(objective, data, config, seed))
        runs += [{"seed": str(seed), **measure(fitted, data, seed)} for fitted in fits]
        shown += fits if seed == config.seeds[0] else []
    note = NOTE.format(seeds=len(config.seeds), test=data.test.n_pairs)
    rows = ({name: value for name, value in run.items() if name != "seed"} for run in runs)
    report(f"Images and labels: {arguments.data}", means(rows, by=["objective", "re-gauge"]), output / "table", note)
    write_text(output / "table-seeds.csv", as_csv(runs))
    draw(shown, data, output / "figure.png")
    Console().print(
        f"Wrote {output}/ (table.md, table.csv, table-seeds.csv, figure.png) in {time.perf_counter() - began:.0f} s"
    )


def _compare(arguments: argparse.Namespace) -> None:
    losses = (
        [name for name in LOSSES if name not in EXCLUDED + VARIANTS] if arguments.loss is None else [arguments.loss]
    )
    alignment = arguments.alignment or "inner"
    config, output = _config(arguments), _output(arguments)
    data, began = _load(arguments.data, arguments.data_dir), time.perf_counter()
    runs = {loss: _measured(by_name(loss, alignment), data, config) for loss in losses}
    diverged = [loss for loss, run in runs.items() if run is None]
    title, note = f"Images and labels: {arguments.data}, {alignment}", COMPARISON_NOTE.format(seed=config.seeds[0])
    if diverged:
        note += f" Diverged, and so not in the table: {', '.join(diverged)}."
    if len(diverged) == len(runs):
        raise SystemExit(f"no fit stayed finite: {', '.join(diverged)}")
    report(title, [run for run in runs.values() if run is not None], output / f"comparison-{alignment}", note)
    Console().print(f"Wrote {output}/comparison-{alignment}.md and .csv in {time.perf_counter() - began:.0f} s")


def _measured(objective: Objective, data: Split, config: Config) -> Row | None:
    seed = config.seeds[0]
    try:
        (fitted,) = fit_objective(objective, data, config, seed)
    except FloatingPointError as error:
        Console().print(f"{objective.name}: {error}", highlight=False)
        return None
    row = measure(fitted, data, seed)
    Console().print(f"{objective.name}: accuracy {row['accuracy']:.3f}", highlight=False)
    return {"loss": objective.name} | {
        name: value for name, value in row.items() if name not in ("objective", "re-gauge")
    }


def _generate(arguments: argparse.Namespace) -> None:
    here, began = Path(__file__).parent, time.perf_counter()
    (seed,) = arguments.seeds or (0,)
    fits = Config.read(here / f"{arguments.data}.toml")
    if arguments.epochs is not None:
        fits = replace(fits, epochs=min(fits.epochs, arguments.epochs))
    path = here / "generation" / f"{arguments.data}.toml"
    config = generation.Config.read(path, seed=seed, most_epochs=arguments.epochs)
    output = arguments.output or Path("results") / f"mnist-{arguments.data}-generate"
    generation.run(_load(arguments.data, arguments.data_dir), fits, config, output)
    Console().print(
        f"Wrote {output}/ (table.md, table.csv, halves.md, halves.csv, figure.png) in "
        f"{time.perf_counter() - began:.0f} s"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m applications.mnist", description=__doc__)
    parser.add_argument("--generate", action="store_true", help="draw images from a learned prior, and judge them")
    parser.add_argument("--compare", action="store_true", help="fit every loss of the family, the seed's first only")
    parser.add_argument("--loss", choices=tuple(LOSSES), help="fit this loss instead of the three objectives")
    parser.add_argument(
        "--alignment", choices=tuple(ALIGNMENTS), help="fit with this alignment; the inner product by default"
    )
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="directory of MNIST's IDX files; by default mnist/ in the folder named by the environment variable "
        "PROBCL_DATA, and where that is not set either, the files are downloaded",
    )
    parser.add_argument("--epochs", type=int, help="instead of the configuration's; with --generate, at most")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the configuration's")
    parser.add_argument("--output", type=Path, help="directory for tables and figure; results/mnist-DATA by default")
    arguments = parser.parse_args()
    if arguments.data == "digits" and arguments.data_dir is not None:
        parser.error(
            "--data-dir holds MNIST's files; the digits come with scikit-learn: add --data mnist or leave it out"
        )
    if arguments.generate and len(arguments.seeds or [0]) != 1:
        parser.error("--generate runs one seed at a time")
    return arguments


def _config(arguments: argparse.Namespace) -> Config:
    path = Path(__file__).with_name(f"{arguments.data}.toml")
    return Config.read(path, epochs=arguments.epochs, seeds=arguments.seeds)


def _output(arguments: argparse.Namespace) -> Path:
    return arguments.output or Path("results") / f"mnist-{arguments.data}"


def _load(name: str, directory: Path | None) -> Split:
    if name == "digits":
        return pcl.datasets.load_digits()
    local = os.environ.get("PROBCL_DATA")
    if directory is None and local:
        directory = Path(local) / "mnist"
    return pcl.datasets.load_mnist(directory, download=directory is None)


if __name__ == "__main__":
    main()
