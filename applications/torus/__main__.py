"""``python -m applications.torus``: retrieval of flows by their trajectories, and posteriors; tables and a figure."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from applications.tables import Row, report
from applications.torus import posterior, recall
from applications.torus.config import Config
from applications.torus.figure import draw_flows, draw_recall
from applications.torus.posterior import Posterior, Problem

CONFIG = Path(__file__).with_name("config.toml")
RECALL_NOTE = """\
{pairs:,} pairs to fit to, a gallery of {gallery:,} others, seed {seed}. g_u, g_v: the encoders. u: R@k, the potential
found for a trajectory; v: R@k, the trajectory found for a potential; ±: half of the 95% bootstrap interval over
queries."""
POSTERIOR_NOTE = """\
{pairs:,} pairs to fit to, {test:,} to judge by, seed {seed}. grid, path: root mean square error of the velocity over
that of the velocity itself, on 8 × 8 points halfway in time and along the true trajectory from (.75, .75); ±: half of
the 95% bootstrap interval over cases. CRPS: fair, on the grid. spread/skill, and regions (central, of each component):
of the velocity along that trajectory, {draws} draws a case. SBC p: of the velocity at (.75, .75). nats: mean
log-density of the true potential less that of the prior."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    config = Config.read(options.config, quick=options.quick)
    began = time.perf_counter()

    for part, run in {"recall": _run_recall, "posterior": _run_posteriors}.items():
        if options.only in (None, part):
            run(config, options.output)
    Console().print(f"Wrote {options.output}/ in {time.perf_counter() - began:.0f} s")


def _run_recall(config: Config, output: Path) -> None:
    settings, (train, test) = config.recall, recall.load(config)
    retrieved = [recall.retrieve(variant, train, test, config) for variant in track(recall.VARIANTS, "recall")]
    note = RECALL_NOTE.format(pairs=settings.n_pairs, gallery=max(settings.galleries), seed=config.seed)
    rows = [recall.measure(one, settings) for one in retrieved]
    report("Potentials and trajectories: recall", rows, output / "recall", note)
    draw_recall(retrieved, output / "recall.png")


def _run_posteriors(config: Config, output: Path) -> None:
    settings = config.posterior
    rows: list[Row] = []
    cases: list[tuple[Problem, list[Posterior]]] = []
    for noise, n_starts in track(settings.settings, "posteriors"):
        problem = Problem.of(noise, n_starts, config)
        answers = posterior.posteriors(problem, config)
        cases.append((problem, answers))
        rows += [posterior.measure(one, problem, config) for one in answers]
    note = POSTERIOR_NOTE.format(pairs=settings.n_pairs, test=settings.n_test, draws=settings.n_draws, seed=config.seed)
    report("Potentials given noisy trajectories", rows, output / "posterior", note)
    draw_flows(cases, output / "flows.png")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m applications.torus", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and short fits, in seconds")
    parser.add_argument("--config", type=Path, default=CONFIG, help="another configuration file")
    parser.add_argument("--only", choices=("recall", "posterior"), help="one of the two experiments")
    parser.add_argument("--output", type=Path, default=Path("results/torus"), help="results/torus by default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
