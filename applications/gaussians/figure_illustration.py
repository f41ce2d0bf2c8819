"""The figure of the illustration: each learned law on top of the truth."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from applications.files import save_figure
from applications.gaussians.experiment_illustration import Learned, Numbers
from probcl.plotting import PALETTE, gaussian_ellipse

# Mahalanobis radii of the regions that hold half and nine tenths of a bivariate Gaussian.
RADII = [(-2 * torch.tensor(1 - mass).log()).sqrt().item() for mass in (0.5, 0.9)]
LIMIT = 4.0
TRUTH, DASHES = "0.25", (0, (4, 3))
COLOURS = {"inner": PALETTE[0], "l2": PALETTE[1], "potentials": PALETTE[2]}


def draw(learned: Sequence[Learned], truth: Numbers, path: Path) -> None:
    """Write the figure: a panel for each objective."""
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 8.2), sharex=True, sharey=True, layout="compressed")
    for ax, one in zip(axes.flat, learned, strict=True):
        _draw_panel(ax, one, truth)
    for ax in axes[-1]:
        ax.set_xlabel("v")
    for ax in axes[:, 0]:
        ax.set_ylabel("u", rotation=0, va="center")
    _draw_legend(figure)
    save_figure(figure, path, dpi=100)


def _draw_panel(ax: Axes, one: Learned, truth: Numbers) -> None:
    colour = COLOURS[one.objective.row[0]]
    gaussian_ellipse(ax, _v_first(truth), RADII, fill=True, color="0.5", alpha=0.25, linewidth=0)
    _draw_conditional(ax, one.trained, colour)
    _draw_true_conditional(ax, truth)
    gaussian_ellipse(ax, _v_first(one.trained), RADII, color=colour, linewidth=1.5)
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=range(-4, 5, 2), yticks=range(-4, 5, 2))
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(f"{one.objective.name}\n", loc="left", fontsize=11, weight="bold", color=colour)
    ax.text(0, 1.03, f"recovers {one.objective.recovers}", transform=ax.transAxes, fontsize=9.5, color="0.25")
    slope, variance = one.trained.slope, one.trained.var_u_given_v
    numbers = f"slope {slope:.2f} (truth {truth.slope:.2f})\nvar u|v {variance:.2f} (truth {truth.var_u_given_v:.2f})"
    ax.text(0.99, 0.02, numbers, transform=ax.transAxes, ha="right", fontsize=8.5, color="0.25")


def _draw_true_conditional(ax: Axes, law: Numbers) -> None:
    v = torch.tensor([-LIMIT, LIMIT])
    ax.plot(v, law.slope * v, color=TRUTH, linestyle=DASHES, linewidth=1.4)
    for deviation in (-(law.var_u_given_v**0.5), law.var_u_given_v**0.5):
        ax.plot(v, law.slope * v + deviation, color=TRUTH, linestyle=":", linewidth=1)


def _draw_conditional(ax: Axes, law: Numbers, colour: str) -> None:
    """Draw the mean of u given v, and a band of one standard deviation to both sides."""
    v = torch.tensor([-LIMIT, LIMIT])
    mean, deviation = law.slope * v, law.var_u_given_v**0.5
    ax.fill_between(v, mean - deviation, mean + deviation, color=colour, alpha=0.13, linewidth=0)
    ax.plot(v, mean, color=colour, linewidth=1.8)


def _draw_legend(figure: Figure) -> None:
    entries = [
        (Patch(color="0.5", alpha=0.4, linewidth=0), "true joint law (50%, 90%)"),
        (Line2D([], [], color=TRUTH, linestyle=DASHES), "true E[u|v] (dots: ± one s.d.)"),
        (Line2D([], [], color="black", linewidth=1.5), "learned joint law (50%, 90%)"),
        ((Patch(color="black", alpha=0.13), Line2D([], [], color="black", linewidth=1.8)), "learned E[u|v] ± one s.d."),
    ]
    handles, labels = zip(*entries, strict=True)
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9.5)


def _v_first(law: Numbers) -> torch.Tensor:
    return law.covariance.flip(0, 1)
