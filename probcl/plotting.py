"""Matplotlib figures of conditionals and currents, drawn into the `ax` that is given; what was drawn is returned."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from xarray import Dataset

# Colours that stay apart for colour-blind readers and in print (Okabe and Ito, 2008).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def mosaic(
    ax: Axes,
    images: Float[Tensor, "rows columns height width"],
    row_names: Sequence[str] | None = None,
    gap: int = 1,
) -> AxesImage:
    """Draw a grid of grey-level images, dark on light, values from 0 to 1.

    Parameters
    ----------
    ax
        Where to draw.
    images
        Shape (rows, columns, height, width).
    row_names
        Written beside the rows.
    gap
        Pixels left blank around each image.
    """
    rows, columns, height, width = images.shape
    framed = torch.nn.functional.pad(images.detach().cpu(), (0, gap, 0, gap))
    sheet = framed.permute(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + gap)).numpy()
    middles = [(height + gap) * row + height / 2 for row in range(rows)]
    ax.set_yticks(middles if row_names else [], row_names)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax.imshow(sheet[:-gap, :-gap] if gap else sheet, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")


def probability_table(
    ax: Axes, probabilities: Float[Tensor, "rows classes"], row_names: Sequence[str], class_names: Sequence[str]
) -> AxesImage:
    """Draw probabilities as a shaded table, a row for each distribution; values of at least 1% are written in."""
    values = probabilities.detach().cpu().numpy()
    image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(class_names)), class_names)
    ax.set_yticks(range(len(row_names)), row_names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if value >= 0.01:
            shade = "white" if value > 0.5 else "black"
            ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=shade, fontsize=7)
    return image


def gaussian_ellipse(
    ax: Axes,
    covariance: Float[Tensor, "2 2"],
    radii: Sequence[float] = (1.0, 2.0),
    mean: Float[Tensor, "2"] | None = None,
    *,
    fill: bool = False,
    **style: Any,
) -> list[Polygon]:
    """Draw contours of a bivariate Gaussian density, or fill them.

    Parameters
    ----------
    ax
        Where to draw; its limits grow to hold the contours, unless they were set.
    covariance
        Shape (2, 2), positive definite; the first coordinate is horizontal.
    radii
        Mahalanobis radii of the contours. A fraction p of the mass is within the radius √(−2 log(1 − p)).
    mean
        Shape (2,); zero by default.
    fill
        Whether to fill: with a transparent `style`, ``alpha=0.3`` say, inner regions come out darker.
    **style
        For `matplotlib.patches.Polygon`, such as ``color`` and ``linewidth``.

    Raises
    ------
    ValueError
        If the covariance is not a positive definite 2 × 2 matrix.
    """
    factor, info = torch.linalg.cholesky_ex(covariance.detach().cpu())
    if factor.shape != (2, 2) or info != 0:
        raise ValueError(f"covariance must be a positive definite 2 × 2 matrix, got {covariance.tolist()}")
    angle = torch.linspace(0, 2 * torch.pi, 200, dtype=factor.dtype)
    ellipse = torch.stack([angle.cos(), angle.sin()], dim=1) @ factor.mT
    centre = torch.zeros(2, dtype=factor.dtype) if mean is None else mean.detach().cpu()
    contours = [Polygon((centre + radius * ellipse).numpy(), closed=True, fill=fill, **style) for radius in radii]
    for contour in contours:
        ax.add_patch(contour)
    ax.autoscale_view()
    return contours


def currents(
    ax: Axes,
    maps: Dataset,
    fastest: float,
    tracks: Dataset | None = None,
    *,
    arrows: int = 16,
    cmap: str = "Blues",
) -> QuadMesh:
    """Draw currents as arrows over their speed, land grey, with tracks of drifters if there are any.

    Parameters
    ----------
    ax
        Where to draw; its axes become degrees.
    maps
        `u` and `v` (latitude, longitude) in m/s, NaN on land.
    fastest
        Speed at the end of the colour scale, and with which an arrow reaches the next; share it between panels.
    tracks
        Padded trajectories, `latitude` and `longitude` on (trajectory, obs): lines from a ring, with a dot a fix.
    arrows
        On the longer side, about.
    cmap
        Of the speed.

    Returns
    -------
    QuadMesh
        For a colour bar.
    """
    longitude, latitude = maps["longitude"].values, maps["latitude"].values
    ax.set_facecolor("0.85")
    u, v = (maps[name].transpose("latitude", "longitude").values for name in ("u", "v"))
    mesh = ax.pcolormesh(longitude, latitude, np.hypot(u, v), cmap=cmap, vmin=0, vmax=fastest, shading="nearest")
    every = max(1, round(max(u.shape) / arrows))
    few = slice(every // 2, None, every)
    scale = fastest * len(longitude[few]) / 1.5
    ax.quiver(longitude[few], latitude[few], u[few, few], v[few, few], color="0.25", scale=scale, width=0.0035)
    if tracks is not None:
        drifters(ax, tracks)
    ax.set_aspect(1 / np.cos(np.radians(latitude.mean())))
    edges = [
        (axis[0] - 0.5 * (axis[1] - axis[0]), axis[-1] + 0.5 * (axis[-1] - axis[-2])) for axis in (longitude, latitude)
    ]
    ax.set(xlim=edges[0], ylim=edges[1])
    degrees(ax)
    return mesh


def drifters(ax: Axes, tracks: Dataset, color: str = PALETTE[1]) -> list[Line2D]:
    """Draw padded trajectories: lines from a ring, with a dot a fix, smaller where there are many."""
    east, north = (tracks[name].transpose("trajectory", "obs").values for name in ("longitude", "latitude"))
    size = 5.0 if np.isfinite(east).sum() <= 60 else 2.5
    lines: list[Line2D] = ax.plot(east.T, north.T, ".-", color=color, lw=0.28 * size, ms=size)
    lines += ax.plot(east[:, 0], north[:, 0], "o", color=color, mfc="white", ms=size + 1, mew=0.28 * size)
    return lines


def degrees(ax: Axes) -> None:
    """Label the axes of a map in degrees: longitude east or west, latitude north or south."""
    for axis, positive, negative in ((ax.xaxis, "E", "W"), (ax.yaxis, "N", "S")):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(partial(_with_direction, positive, negative))


def _with_direction(positive: str, negative: str, value: float, _: object) -> str:
    side = positive if value > 0 else negative if value < 0 else ""
    return f"{abs(value):.4g}°{side}"
