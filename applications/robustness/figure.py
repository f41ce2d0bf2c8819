"""The figure: recall against the share of shuffled pairs, and how far the conditionals can be believed."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from applications.files import save_figure
from applications.robustness.experiment import Config
from applications.robustness.measures import Conditionals, Outcome, best, mean
from probcl.plotting import PALETTE

COLOURS = {"InfoNCE": PALETTE[1], "RINCE": PALETTE[0]}
LABELS = {"InfoNCE": "InfoNCE, best τ", "RINCE": "RINCE"}
SHOWN = (0.0, 0.4, 0.6)


def draw(outcomes: Sequence[Outcome], config: Config, path: Path) -> None:
    """Write the figure."""
    shown = [noise for noise in SHOWN if noise in config.noise] or config.noise[:1]
    figure, axes = plt.subplots(1, 1 + len(shown), figsize=(3.0 * (1 + len(shown)), 3.3), layout="constrained")
    _draw_recall(axes[0], outcomes, config)
    for ax, noise in zip(axes[1:], shown, strict=True):
        _draw_coverage(ax, outcomes, noise)
    axes[1].set_ylabel("regions that hold the true partner")
    axes[-1].legend(frameon=False, fontsize=8, loc="lower right")
    save_figure(figure, path, dpi=130)


def _draw_recall(ax: Axes, outcomes: Sequence[Outcome], config: Config) -> None:
    others: str | None = "InfoNCE at each τ"
    for temperature in config.temperatures:
        group = [o for o in outcomes if o.setting.loss == "InfoNCE" and o.setting.temperature == temperature]
        recalls = [mean([o.recall for o in group if o.setting.noise == noise]) for noise in config.noise]
        ax.plot(config.noise, recalls, color=COLOURS["InfoNCE"], linewidth=0.8, alpha=0.5, label=others)
        others = None
        ax.annotate(
            f"τ = {temperature}", (config.noise[-1], recalls[-1]), (3, 0), textcoords="offset points", fontsize=6
        )
    for loss, colour in COLOURS.items():
        recalls = [mean([outcome.recall for outcome in best(outcomes, loss, noise)]) for noise in config.noise]
        ax.plot(
            config.noise,
            recalls,
            "o-",
            color=colour,
            markersize=4,
            label=LABELS[loss],
        )
    ax.set(xlabel="pairs shuffled", ylabel="R@1 on clean held-out pairs", ylim=(0, 1.03))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(frameon=False, fontsize=7, loc="lower left")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_coverage(ax: Axes, outcomes: Sequence[Outcome], noise: float) -> None:
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for loss, colour in COLOURS.items():
        group = best(outcomes, loss, noise)
        for style, name, parts in (
            ("--", "", [outcome.before for outcome in group]),
            ("-", ", τ refitted", [outcome.after for outcome in group]),
        ):
            ax.plot(*_coverage(parts), style, color=colour, linewidth=1.3, label=f"{loss}{name}")
    ax.set(xlabel="mass of the region", xlim=(0, 1), ylim=(0, 1.01))
    ax.set_title(f"{noise:.0%} shuffled", fontsize=9)
    ax.set_aspect("equal")
    ax.spines[["top", "right"]].set_visible(False)


def _coverage(parts: Sequence[Conditionals]) -> tuple[np.ndarray, np.ndarray]:
    """Return masses of regions, and how often the true partner lies in them."""
    masses = torch.cat([part.masses.values[:, 0] for part in parts]).numpy()
    levels = np.linspace(0, 1, 201)
    return levels, np.searchsorted(np.sort(masses), levels, side="right") / len(masses)
