"""The figure: what each objective says about doubtful images, and what it draws for each label."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import probcl as pcl
from applications.files import save_figure
from applications.mnist.experiment import (
    FEW,
    LABELS,
    Fitted,
    image_given_label,
    label_given_image,
    label_prior,
)
from probcl.datasets import Split
from probcl.plotting import mosaic, probability_table

N_DOUBTFUL = 5

# A re-gauge changes only the conditional that was not fitted, so each panel shows the one it can repair.
IN_GENERATIONS = ("two-sided", "label|image", "label|image, re-gauged", "image|label")
IN_DOUBTFUL = ("two-sided", "label|image", "image|label", "image|label, re-gauged")


def draw(models: Sequence[Fitted], data: Split, path: Path, seed: int = 0) -> None:
    """Write the figure for one seed's models."""
    by_title = {fitted.title: fitted for fitted in models}
    figure = plt.figure(figsize=(10, 10.6), layout="constrained")
    top, bottom = cast(np.ndarray, figure.subfigures(2, 1, height_ratios=[1.9, 1]))
    _draw_generations(top, [by_title[title] for title in IN_GENERATIONS], data, seed)
    _draw_doubtful(bottom, [by_title[title] for title in IN_DOUBTFUL], data)
    save_figure(figure, path, dpi=130)


def _draw_generations(figure: Figure, models: Sequence[Fitted], data: Split, seed: int) -> None:
    figure.suptitle(f"{FEW} images drawn from ν(image | label), a row for each label", fontsize=12, weight="bold")
    for ax, fitted in zip(figure.subplots(2, 2).flat, models, strict=True):
        conditional = image_given_label(fitted.model, data.test.u)
        draws = pcl.generation.resample(conditional, FEW, seed=seed)
        mosaic(ax, draws.values.movedim(0, 1)[:, :, 0], row_names=[str(label) for label in LABELS.tolist()])
        ax.set_title(f"{fitted.title} (effective sample size {conditional.ess().mean():.0f})", fontsize=10)


def _draw_doubtful(figure: Figure, models: Sequence[Fitted], data: Split) -> None:
    figure.suptitle(f"The {N_DOUBTFUL} most doubtful test images: ν(label | image) in %", fontsize=12, weight="bold")
    prior = label_prior(data.train.v)
    rows = _most_doubtful(label_given_image(models[0].model, prior, data.test.u).probs)
    images, labels = data.test.u[rows], data.test.v[rows]
    probabilities = [label_given_image(fitted.model, prior, images).probs for fitted in models]
    grid = figure.subplots(2, N_DOUBTFUL, height_ratios=[1, 1.5], sharey="row")
    for column in range(N_DOUBTFUL):
        picture, table = grid[:, column]
        mosaic(picture, images[column][None])
        picture.set_title(f"labelled {int(labels[column])}", fontsize=10)
        names = [fitted.title for fitted in models]
        probability_table(table, torch.stack([p[column] for p in probabilities]), names, [str(k) for k in range(10)])


def _most_doubtful(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(1).topk(N_DOUBTFUL).indices
