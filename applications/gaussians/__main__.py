"""``python -m applications.gaussians``: fit Gaussian pairs, and compare what was learned with the closed forms."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from applications.family import LOSSES
from applications.files import replacing
from applications.gaussians import (
    comparison,
    experiment_illustration,
    experiment_process,
    figure_illustration,
    figure_process,
    results_process,
)
from applications.gaussians.config import DEFAULT, Config
from applications.gaussians.experiment_illustration import Numbers
from applications.gaussians.experiment_process import Result
from applications.tables import report

ILLUSTRATION_NOTE = (
    "{n:,} pairs spread evenly over the true law (scrambled Sobol', seed {seed}); one latent dimension; L-BFGS."
)
PROCESS_NOTE = (
    "Mean squared errors of conditional means over {n_draws:,} draws, those of u|v in thousandths; means over samples "
    "where there are several (seeds from {seed}). excess: error less floor, over the same draws, as a multiple of the "
    "floor; from r = {full} on, where the floor is zero, of the floor before."
)
COMPARISON_NOTE = (
    "population: the minimum over quadratic scores, by quadrature. training: {n:,} Sobol' pairs (seed {seed}), L-BFGS. "
    "constant: a learned constant is added to the score. RINCE's scores are taken 1 − q times, which makes them a log "
    "ratio; at q = 1 nothing does. MMD: Gaussian kernels of bandwidth {bandwidth:.3f}."
)
TITLES = {"rank": "rank of the encoders", "batch_size": "batch size", "n_pairs": "number of pairs"}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    config = Config.read(options.config, quick=options.quick, long=options.long)
    began = time.perf_counter()
    if options.compare or options.loss or options.alignment:
        compare(config.comparison, options.loss, options.alignment, options.output)
    else:
        if options.only != "process":
            illustrate(config.illustration, options.output)
        if options.only != "illustration":
            process(config.process, options.output)
    Console().print(f"Wrote {options.output}/ in {time.perf_counter() - began:.0f} s")


def illustrate(config: experiment_illustration.Config, output: Path) -> None:
    """Write illustration.csv, .md and .png."""
    learned = experiment_illustration.run(config)
    rows = experiment_illustration.table(learned, config)
    note = ILLUSTRATION_NOTE.format(n=config.n_pairs, seed=config.seed)
    report("Six objectives and one Gaussian", rows, output / "illustration", note)
    figure_illustration.draw(learned, Numbers.of_truth(config.C), output / "illustration.png")


def compare(config: comparison.Config, loss: str | None, alignment: str | None, output: Path) -> None:
    """Write comparison.csv and .md, of all losses and alignments or of one."""
    losses = comparison.names() if loss is None else (loss,)
    rows = comparison.compare(losses, comparison.QUADRATIC if alignment is None else (alignment,), config)
    note = COMPARISON_NOTE.format(n=config.n_pairs, seed=config.seed, bandwidth=config.kernel.bandwidth)
    report("The conditional of u given v that each loss learns", rows, output / "comparison", note)


def process(config: experiment_process.Config, output: Path) -> None:
    """Write process-rank.csv and .md, the same for the other sweeps, process.nc and process.png."""
    results = experiment_process.run(config, _show)
    note = PROCESS_NOTE.format(n_draws=config.n_draws, seed=config.seed, full=config.full_rank)
    sweeps = results_process.dataset(results, config)
    for sweep, title in TITLES.items():
        rows = results_process.table(sweeps, sweep, config)
        report(f"A Gaussian process: errors against the {title}", rows, output / f"process-{sweep}", note)
    with replacing(output / "process.nc") as temporary:
        sweeps.to_netcdf(temporary)
    figure_process.draw(sweeps, config, output / "process.png")


def _show(result: Result, seconds: float) -> None:
    setting, (u_given_v, v_given_u) = result.setting, result.errors.error
    Console().print(
        f"{result.curve}: r = {setting.rank}, batch {setting.batch_size}, N = {setting.n_pairs:,}: "
        f"u|v {u_given_v:.5f}, v|u {v_given_u:.4f} ({seconds:.0f} s)",
        highlight=False,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m applications.gaussians", description=__doc__)
    parser.add_argument("--only", choices=("illustration", "process"), help="one of the two experiments")
    parser.add_argument("--compare", action="store_true", help="instead: all losses and alignments on one Gaussian")
    parser.add_argument("--loss", choices=tuple(LOSSES), help="of the comparison, this loss only")
    parser.add_argument("--alignment", choices=comparison.QUADRATIC, help="of the comparison, this alignment only")
    lengths = parser.add_mutually_exclusive_group()
    lengths.add_argument("--quick", action="store_true", help="few and short fits, under a minute")
    lengths.add_argument("--long", action="store_true", help="also the published setting, and ranks with large batches")
    parser.add_argument("--config", type=Path, default=DEFAULT, help="another configuration file")
    parser.add_argument("--output", type=Path, default=Path("results/gaussians"), help="results/gaussians by default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
