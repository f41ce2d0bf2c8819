"""The figure: what each map keeps of the data, its singular values, and its angle to the Fisher subspace."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from applications.files import save_figure
from applications.mixtures.experiment import Config, Found, draw_world, principal_directions
from applications.mixtures.mixture import labelled
from probcl.datasets import Pairs
from probcl.plotting import PALETTE

N_SHOWN = 1500
SPECTRA = ("InfoNCE, wide", "CLIP, image", "CLIP, text")
PROJECTED = ("PCA", "InfoNCE", "SimSiam", "CLIP, image")


def draw(config: Config, found: dict[int, list[Found]], path: Path) -> None:
    """Write the figure: projections and spectra of the first seed, angles of all."""
    seed = config.seeds[0]
    maps = {one.method: one for one in found[seed]}
    image, _, generator = draw_world(config, seed)
    data = labelled(image, N_SHOWN, generator)
    figure = plt.figure(figsize=(12.5, 6.6), layout="constrained")
    top, bottom = cast(np.ndarray, figure.subfigures(2, 1, height_ratios=[1, 1.2]))
    for ax, (title, z) in zip(top.subplots(1, len(PROJECTED) + 1), _projections(maps, data), strict=True):
        _scatter(ax, title, z, data.v)
    spectra, angles = bottom.subplots(1, 2, width_ratios=[1, 1.25])
    _draw_spectra(spectra, [maps[name] for name in SPECTRA])
    _draw_angles(angles, found)
    save_figure(figure, path, dpi=110)


def _projections(maps: dict[str, Found], data: Pairs) -> Iterator[tuple[str, Tensor]]:
    for name in PROJECTED:
        yield name, data.u @ maps[name].A.to(data.u)
    lda = LinearDiscriminantAnalysis().fit(data.u.numpy(), data.v.numpy())
    yield "LDA (knows the labels)", torch.from_numpy(lda.transform(data.u.numpy()))


def _scatter(ax: Axes, title: str, z: Float[Tensor, "n r"], components: Tensor) -> None:
    """Draw the two leading principal components of an embedding."""
    second, first = (z.double() @ principal_directions(z, 2)).unbind(1)
    colours = [PALETTE[k] for k in components.tolist()]
    ax.scatter(first, second, s=4, c=colours, alpha=0.5, linewidths=0)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_spectra(ax: Axes, shown: Sequence[Found]) -> None:
    width = 0.8 / len(shown)
    for number, one in enumerate(shown):
        values = one.singular_values / one.singular_values[0]
        shift = (number - (len(shown) - 1) / 2) * width
        places = [place + shift for place in range(1, len(values) + 1)]
        label = f"{one.method}: {one.visible} to be found"
        ax.bar(places, values.tolist(), width, color=PALETTE[number], label=label)
    ax.set(xlabel="singular value of A", ylabel="relative to the largest")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)


def _draw_angles(ax: Axes, found: dict[int, list[Found]]) -> None:
    columns = list(zip(*found.values(), strict=True))
    for place, same in enumerate(columns):
        angles = [one.angle for one in same]
        ax.scatter(angles, [place] * len(angles), s=22, color=PALETTE[0], alpha=0.7, linewidths=0)
    ax.set_yticks(range(len(columns)), [same[0].method for same in columns])
    ax.invert_yaxis()
    ticks = [0.1, 1, 3, 10, 90]
    ax.set(
        xscale="log", xlabel="largest angle to the Fisher subspace, degrees (a point for each seed)", xlim=(0.01, 120)
    )
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
