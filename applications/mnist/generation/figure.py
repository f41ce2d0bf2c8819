"""The figure: images drawn for each label, and digits completed from one half."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from applications.files import save_figure
from applications.mnist.experiment import LABELS
from applications.mnist.generation.halves import TRUE, Completed
from applications.mnist.generation.labels import REAL, Drawn
from probcl.datasets import Pairs, Split
from probcl.plotting import PALETTE, mosaic

PER_LABEL = PER_DIGIT = 12


def draw(drawn: Sequence[Drawn], completed: Sequence[Completed], data: Split, path: Path) -> None:
    """Write the figure; `completed` are of the first test images."""
    figure = plt.figure(figsize=(13, 12), layout="constrained")
    top, bottom = cast(np.ndarray, figure.subfigures(2, 1, height_ratios=[1.0, 1.0]))
    _draw_labels(top, drawn, data)
    _draw_halves(bottom, completed, data.test)
    save_figure(figure, path, dpi=120)


def _draw_labels(figure: Figure, drawn: Sequence[Drawn], data: Split) -> None:
    figure.suptitle(f"{PER_LABEL} images for each label", fontsize=12, weight="bold")
    shown = {name: images[:PER_LABEL].transpose(0, 1) for name, images, _ in drawn if name != REAL}
    of_each_label = [_padded(data.test.u[data.test.v == label][:PER_LABEL]) for label in LABELS]
    shown[REAL] = torch.stack(of_each_label)
    first = next(iter(shown.values()))
    nearest = torch.cdist(first.flatten(0, 1).flatten(1), data.train.u.flatten(1)).argmin(1)
    shown["training images nearest to the first panel's"] = data.train.u[nearest].unflatten(0, first.shape[:2])
    names = [str(label) for label in LABELS.tolist()]
    for ax, (name, images) in zip(figure.subplots(2, 4).flat, shown.items(), strict=True):
        mosaic(ax, images[:, :, 0], row_names=names)
        ax.set_title(name, fontsize=9)


def _padded(images: Tensor) -> Tensor:
    """Return PER_LABEL images, blank ones where there are fewer."""
    return torch.cat([images, images.new_zeros(PER_LABEL - len(images), *images.shape[1:])])


def _draw_halves(figure: Figure, completed: Sequence[Completed], test: Pairs) -> None:
    title = "A test image of each label, and completions of its half above or below the line"
    figure.suptitle(title, fontsize=12, weight="bold")
    shown = [item for item in completed if item.method != TRUE]
    for ax, item in zip(figure.subplots(2, len(shown) // 2).flat, shown, strict=True):
        _draw_completions(ax, item, test)


def _draw_completions(ax: Axes, item: Completed, test: Pairs) -> None:
    labels = test.v[: item.digits.shape[1]]
    rows = [int((labels == label).nonzero()[0]) for label in labels.unique()]
    true, draws = test.u[rows][:, None], item.digits[:PER_DIGIT, rows].transpose(0, 1)
    images = torch.cat([true, torch.zeros_like(true), draws], dim=1)[:, :, 0]
    mosaic(ax, images)
    height, width = (size + 1 for size in images.shape[-2:])
    for row in range(len(rows)):
        middle = height * row + height // 2 - 0.5
        ax.plot([2 * width, ax.get_xlim()[1]], [middle, middle], color=PALETTE[1], linewidth=0.6)
    ax.set_title(f"{item.direction}: {item.method}", fontsize=9)
