"""The figure: draws of the exact and of the learned posterior, side by side."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from applications.files import save_figure
from applications.inference.experiment import Learned, Posteriors
from probcl.plotting import PALETTE

N_SHOWN = 2
EXACT, LEARNED = "0.35", PALETTE[0]


def draw(results: Sequence[tuple[Learned, Posteriors]], path: Path) -> None:
    """Write the figure: a row for each task, and two panels for each of the first observations."""
    size = (2.6 * 2 * N_SHOWN, 2.75 * len(results))
    figure, axes = plt.subplots(len(results), 2 * N_SHOWN, figsize=size, layout="constrained", squeeze=False)
    for row, (learned, posteriors) in zip(axes, results, strict=True):
        for shown in range(min(N_SHOWN, len(posteriors.x))):
            exact, fitted = row[2 * shown : 2 * shown + 2]
            _scatter(exact, posteriors.exact[:, shown], EXACT)
            _scatter(fitted, posteriors.learned[:, shown], LEARNED)
            _share_limits(exact, fitted, posteriors.exact[:, shown])
            place = ", ".join(f"{value:.2f}" for value in posteriors.x[shown].tolist())
            exact.set_title(f"exact, x = ({place})", fontsize=9)
            fitted.set_title("learned", fontsize=9, color=LEARNED)
        row[0].set_ylabel(f"{learned.name}\n\nθ₂")
    for ax in axes[-1]:
        ax.set_xlabel("θ₁")
    save_figure(figure, path, dpi=110)


def _scatter(ax: Axes, draws: Tensor, colour: str) -> None:
    first, second = draws.unbind(1)
    ax.scatter(first, second, s=3, color=colour, alpha=0.4, linewidths=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def _share_limits(first: Axes, second: Axes, draws: Tensor) -> None:
    """Show a square around the exact draws in both panels."""
    low, high = draws.amin(0), draws.amax(0)
    x, y = ((low + high) / 2).tolist()
    reach = 0.6 * float((high - low).max())
    for ax in (first, second):
        ax.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach), aspect="equal")
