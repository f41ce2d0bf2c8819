"""``python -m applications.inference``: fit two simulators, and compare the posteriors with the exact ones."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from applications.inference.experiment import SIMULATORS, Config, infer, learn, measure
from applications.inference.figure import draw
from applications.tables import report

CONFIG = Path(__file__).with_name("config.toml")
NOTE = """\
{pairs:,} pairs, seed {seed}. C2ST: mean accuracy, over {observations} observations of {draws:,} draws each, of telling
learned from exact draws, by a network and by boosted trees; of exact: exact draws from others, by the network.
p-values, regions (highest density) and smallest ESS behind their draws: {calibration} fresh simulations."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    config = Config.read(options.config, quick=options.quick)
    began = time.perf_counter()
    rows, results = [], []
    for name in SIMULATORS:
        learned = learn(name, config)
        posteriors = infer(learned, config)
        rows.append(measure(learned, posteriors, config))
        results.append((learned, posteriors))
    note = NOTE.format(
        pairs=config.n_pairs,
        seed=config.seed,
        observations=config.n_observations,
        draws=config.n_draws,
        calibration=config.n_calibration,
    )
    report("Simulation-based inference", rows, options.output / "table", note)
    draw(results, options.output / "figure.png")
    Console().print(f"Wrote {options.output}/ in {time.perf_counter() - began:.0f} s")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m applications.inference", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short fits and few draws, in seconds")
    parser.add_argument("--config", type=Path, default=CONFIG, help="another configuration file")
    parser.add_argument("--output", type=Path, default=Path("results/inference"), help="results/inference by default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
