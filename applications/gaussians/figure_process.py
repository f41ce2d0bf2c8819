"""The figure of the Gaussian process: errors against rank, batch size and number of pairs, and their floors."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from applications.files import save_figure
from applications.gaussians.experiment_process import DIRECTIONS, SYMBOLS, Config, yardstick
from probcl.plotting import PALETTE

STYLES = ("o-", "s-", "D-", "^:")
LABELS = {"rank": "rank r of the encoders", "batch_size": "batch size", "n_pairs": "number of pairs N"}
TITLES = {"u|v": "error of E[u|v]", "v|u": "error of E[v|u]"}
LINE: dict[str, Any] = {"markersize": 5, "linewidth": 1.4}
FLOOR = "0.2"
TOLERANCE = 0.1


def draw(sweeps: xr.Dataset, config: Config, path: Path) -> None:
    """Write the figure: a row for each direction, a column for each sweep."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.8), sharex="col", sharey="row", layout="constrained")
    scales = yardstick(config, config.full_rank)
    for row, (direction, scale) in enumerate(zip(DIRECTIONS, scales, strict=True)):
        for ax, sweep in zip(axes[row], LABELS, strict=True):
            _draw_curves(ax, sweeps[f"error_by_{sweep}"].sel(direction=direction), sweep)
            if sweep == "rank":
                _draw_floors(ax, sweeps["floor"].sel(direction=direction))
            else:
                _draw_yardstick(ax, scale)
        axes[row, 0].set_ylabel(TITLES[direction])
    base = config.curves[0].base
    for column, (sweep, label) in enumerate(LABELS.items()):
        axes[-1, column].set_xlabel(label)
        fixed = ", ".join(f"{SYMBOLS[name]} = {value:,}" for name, value in base.items() if name != sweep)
        axes[0, column].set_title(fixed, fontsize=10, color="0.25")
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9.5)
    save_figure(figure, path, dpi=110)


def _draw_curves(ax: Axes, errors: xr.DataArray, sweep: str) -> None:
    seeds = f"seed_by_{sweep}"
    for curve, style, colour in zip(errors, STYLES, PALETTE, strict=False):
        present = curve.dropna(sweep, how="all")
        ax.plot(present[sweep], present.mean(seeds), style, color=colour, label=curve["curve"].item(), **LINE)
        if present.sizes[seeds] > 1:
            ax.plot(present[sweep], present, ".", color=colour, markersize=4, alpha=0.6)
    ax.set_yscale("log")
    values = errors[sweep].values
    if sweep != "rank":
        ax.set_xscale("log")
    ax.xaxis.set(major_locator=FixedLocator(values.tolist()), minor_locator=NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(_in_thousands))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.92")


def _in_thousands(value: float, position: int | None = None) -> str:
    return f"{value:g}" if value % 1000 else f"{value / 1000:g}k"


def _draw_floors(ax: Axes, floor: xr.DataArray) -> None:
    above = floor.where(floor > floor.max() * 1e-6, drop=True)
    ax.hlines(above, above["rank"] - 0.32, above["rank"] + 0.32, color=FLOOR, linewidth=2, label="floor: theory")


def _draw_yardstick(ax: Axes, last: float) -> None:
    ax.axhline(last, color=FLOOR, linewidth=1, linestyle=(0, (5, 3)), label="floor at r = 4 (at r = 5: zero)")
    ax.axhline(TOLERANCE * last, color=FLOOR, linewidth=1, linestyle=":", label="a tenth of it")
