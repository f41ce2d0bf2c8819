"""What the figures of the diagnostics share."""

import numpy as np
from matplotlib.axes import Axes

from probcl.plotting import PALETTE

Limits = tuple[float, float]


def axes_or_new(ax: Axes | None) -> Axes:
    """Return these axes, or those of a new figure."""
    if ax is not None:
        return ax
    # Imported only here, because pyplot chooses a backend for the whole process.
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]


def draw_histogram(ax: Axes, values: np.ndarray, bins: int | str = "auto", limits: Limits | None = None) -> None:
    """Draw how many values fall into each bin."""
    ax.hist(values, bins=bins, range=limits, color=PALETTE[0], alpha=0.75, edgecolor="white", linewidth=0.5)


def draw_curves(ax: Axes, x: np.ndarray, curves: np.ndarray) -> None:
    """Draw the columns of an array: each in a colour of its own if there are few, thin and alike if there are many."""
    count = curves.shape[1]
    few = count <= len(PALETTE)
    for index in range(count):
        ax.plot(
            x,
            curves[:, index],
            color=PALETTE[index if few else 0],
            linewidth=1.5 if few else 0.7,
            alpha=1 if few else 0.4,
            label=f"component {index}" if few and count > 1 else None,
        )
    if few and count > 1:
        ax.legend(frameon=False, fontsize=8)
