"""``python -m applications.robustness --data digits``: shuffle pairs, fit two losses, write table and figure."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import probcl as pcl
from applications.files import write_text
from applications.robustness.experiment import Config, fit_setting, settings, views
from applications.robustness.figure import draw
from applications.robustness.measures import Outcome, best, measure, row
from applications.tables import as_csv, report
from probcl.datasets import Split

NOTE = """\
Means over {seeds} seed(s), both directions, on {test:,} clean held-out pairs, each to find its partner among all.
InfoNCE at the best of τ = {temperatures} for each share, chosen on these very pairs; RINCE with q = {q}. NLL: −log ν of
the true partner, in nats. ECE: of the probability of the first guess. 90% region: how often it holds the true partner.
after: with τ refitted on the other half of these pairs."""

OVERRIDES = ("epochs", "seeds", "noise", "temperatures")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    here, began = Path(__file__).parent, time.perf_counter()
    overrides = {name: getattr(options, name) for name in OVERRIDES}
    config = Config.read(here / f"{options.data}.toml", **overrides)
    output = options.output or Path("results") / f"robustness-{options.data}"
    outcomes = run(options, config)
    kept = [best(outcomes, loss, noise) for noise in config.noise for loss in ("InfoNCE", "RINCE")]
    note = NOTE.format(
        seeds=len(config.seeds),
        test=config.n_test,
        temperatures=", ".join(map(str, config.temperatures)),
        q=config.q,
    )
    report(f"Shuffled pairs: {options.data}", [row(group) for group in kept], output / "table", note)
    runs = [{"seed": str(outcome.setting.seed), **row([outcome])} for outcome in outcomes]
    write_text(output / "runs.csv", as_csv(runs))
    draw(outcomes, config, output / "figure.png")
    Console().print(
        f"Wrote {output}/ (table.md, table.csv, runs.csv, figure.png) in {time.perf_counter() - began:.0f} s"
    )


def run(options: argparse.Namespace, config: Config) -> list[Outcome]:
    """Fit and measure every setting."""
    outcomes = []
    for setting in settings(config):
        train, test = views(_load(options, config, setting.seed), config, setting.seed)
        outcomes.append(measure(setting, fit_setting(setting, train, config), test))
        Console().print(
            f"{setting.noise:.0%} shuffled, {setting.loss}, τ = {setting.temperature}, seed {setting.seed}: "
            f"R@1 {outcomes[-1].recall:.3f}",
            highlight=False,
        )
    return outcomes


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m applications.robustness", description=__doc__)
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="directory of MNIST's IDX files; by default mnist/ in the folder that PROBCL_DATA names",
    )
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the configuration's")
    parser.add_argument("--noise", type=float, nargs="+", help="shares of shuffled pairs, instead of those")
    parser.add_argument("--temperatures", type=float, nargs="+", help="of InfoNCE, instead of those")
    parser.add_argument("--output", type=Path, help="results/robustness-DATA by default")
    options = parser.parse_args(arguments)
    if options.data == "mnist" and options.data_dir is None:
        if not os.environ.get("PROBCL_DATA"):
            parser.error("--data mnist needs --data-dir, or PROBCL_DATA set to a folder with mnist/ in it")
        options.data_dir = Path(os.environ["PROBCL_DATA"]) / "mnist"
    return options


def _load(options: argparse.Namespace, config: Config, seed: int) -> Split:
    if options.data == "digits":
        return pcl.datasets.load_digits(config.n_test / 1797, validation_fraction=0, seed=seed)
    return pcl.datasets.load_mnist(options.data_dir, seed=seed)


if __name__ == "__main__":
    main()
