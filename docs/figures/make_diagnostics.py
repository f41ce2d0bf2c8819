"""Make docs/figures/diagnostics.png: four posteriors of a Gaussian mean, and what each diagnostic says of them.

Run it as ``python docs/figures/make_diagnostics.py``; it takes a few seconds.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from probcl.diagnostics import coverage, local_coverage, sbc, tarp

PAIRS, DRAWS, SEED = 1000, 200, 0


def posteriors() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return truths u ~ N(0, 1), their v = u + N(0, 1), and draws of four answers to what u|v is."""
    generator = torch.Generator().manual_seed(SEED)
    u, noise = torch.randn(2, PAIRS, generator=generator, dtype=torch.float64)
    v = u + noise
    standard = torch.randn(DRAWS, PAIRS, generator=generator, dtype=torch.float64)
    deviation = 0.5**0.5
    answers = {
        "right": v / 2 + deviation * standard,
        "too narrow": v / 2 + 0.7 * deviation * standard,
        "right on average": v / 2 + torch.where(v > 0, 0.75, 1.3) * deviation * standard,
        "prior for every v": standard,
    }
    return u, v, answers


def main() -> None:
    u, v, answers = posteriors()
    figure = Figure(figsize=(11, 10), layout="constrained")
    for row, (name, samples) in zip(figure.subplots(4, 4), answers.items(), strict=True):
        central = coverage(samples, u, region="central", seed=SEED)
        balls = tarp(samples, u, references=v, seed=SEED)
        ranks = sbc(samples, u, seed=SEED)
        local = local_coverage(central, v)
        for ax, result in zip(row, (ranks, central, balls, local), strict=True):
            result.plot(ax)
            ax.set_title(f"p = {result.p_value:.2g}" if result.p_value > 1e-9 else "p < 1e-9", fontsize=9)
        row[3].set_ylim(0.4, 1.02)
        row[0].set_ylabel(f"{name}\n\npairs", fontsize=10)
    for ax, title in zip(
        figure.axes[:4], ("SBC ranks", "central coverage", "TARP, references v", "coverage against v"), strict=True
    ):
        ax.set_title(f"{title}\n\n{ax.get_title()}", fontsize=10)
    figure.savefig(Path(__file__).with_name("diagnostics.png"), dpi=110)


if __name__ == "__main__":
    main()
