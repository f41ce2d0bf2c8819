"""Make docs/figures/ocean-worlds.png: the synthetic oceans and the torus flow, with drifters in them.

Run it as ``python docs/figures/make_ocean_worlds.py``; it takes about ten seconds. It prints the standard deviation of
a component of the currents of each ocean, and how many drifters are left on the grid at the end of the window.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probcl.assimilation import simulate_tracks
from probcl.datasets.ocean import GaussianOcean, TorusFlow, Turbulence, Vortices

SEED, DRIFTERS, MEMBERS = 5, 16, 100
FASTEST = 0.9


def draw_ocean(ax: Axes, title: str, archive: xr.Dataset, days: int) -> object:
    tracks = simulate_tracks(archive, n_drifters=DRIFTERS, window=f"{days}D", fix_interval="3h", seed=SEED)
    left = (tracks.fate == 0).mean().item()
    speed = np.sqrt((archive.u.var() + archive.v.var()).item() / 2)
    print(f"{title}: {speed:.3f} m/s, {left:.0%} of the drifters on the grid after {days} days")
    fields, rows = archive.isel(member=0), tracks.isel(trajectory=tracks.member == 0)
    middle = fields.sel(time=fields.time[0] + np.timedelta64(24 * days // 2, "h"), method="nearest")
    colours = ax.pcolormesh(
        middle.longitude, middle.latitude, np.hypot(middle.u, middle.v), cmap="Blues", vmin=0, vmax=FASTEST
    )
    every = middle.isel(latitude=slice(None, None, 2), longitude=slice(None, None, 2))
    ax.quiver(every.longitude, every.latitude, every.u, every.v, color="0.35", scale=14, width=0.003)
    ax.plot(rows.longitude.T, rows.latitude.T, color="C3", lw=1.2)
    ax.plot(rows.longitude[:, 0], rows.latitude[:, 0], "o", color="C3", ms=3)
    ax.set(title=f"{title}, {days} days", xlabel="longitude", ylabel="latitude")
    ax.set_aspect(1 / np.cos(np.radians(35)))
    ax.set_xlim(middle.longitude[[0, -1]])
    ax.set_ylim(middle.latitude[[0, -1]])
    ax.locator_params(nbins=5)
    return colours


def draw_torus(ax: Axes) -> None:
    world = TorusFlow(starts=tuple((x, y) for x in (0.125, 0.375, 0.625, 0.875) for y in (0.125, 0.375, 0.625, 0.875)))
    u, v = world.sample(1, seed=SEED)
    nodes = (torch.arange(24, dtype=torch.float64) + 0.5) / 24
    x, y = torch.meshgrid(nodes, nodes, indexing="xy")
    places = torch.stack([x, y], -1).reshape(1, -1, 2)
    psi = world.stream_function(u.double(), places, world.duration / 2).reshape(24, 24)
    w = world.velocity(u.double(), places, world.duration / 2).reshape(24, 24, 2)
    ax.contour(x, y, psi, levels=14, cmap="RdBu_r", linewidths=0.8)
    ax.quiver(x[::2, ::2], y[::2, ::2], w[::2, ::2, 0], w[::2, ::2, 1], color="0.35", scale=45, width=0.003)
    for track in v[0]:
        ax.plot(*track.T, color="C3", lw=1.2)
        ax.plot(*track[0], "o", color="C3", ms=3)
    ax.set(title="torus flow, T = 0.1", xlabel="$x_1$", ylabel="$x_2$", aspect=1, xlim=(0, 1), ylim=(0, 1))


def main() -> None:
    figure = Figure(figsize=(10, 8.6), layout="constrained")
    (gaussian, vortices), (turbulence, torus) = figure.subplots(2, 2)
    draw_ocean(gaussian, "T0, Gaussian", GaussianOcean().archive(MEMBERS, seed=SEED), 10)
    draw_ocean(vortices, "T1, three vortices", Vortices(3).archive(MEMBERS, seed=SEED), 5)
    colours = draw_ocean(turbulence, "T2, turbulence", Turbulence().archive(MEMBERS // 4, range(11), seed=SEED), 10)
    draw_torus(torus)
    figure.colorbar(colours, ax=[gaussian, vortices, turbulence, torus], label="speed, m/s", shrink=0.6)
    figure.savefig(Path(__file__).with_name("ocean-worlds.png"), dpi=110)


if __name__ == "__main__":
    main()
