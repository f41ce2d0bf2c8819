"""
Currents from drifters
======================

A sea of one vortex, four drifters, and what their tracks tell of the currents. The model learns from an archive of maps
and the tracks that drifters would have in them; it is told no covariance and no law of observation.
"""

import matplotlib.pyplot as plt
import numpy as np

from probcl.assimilation import Assimilator, simulate_tracks
from probcl.datasets.ocean import Box, Vortices
from probcl.plotting import currents

# %%
# An archive
# ----------
# Eight hundred maps of a vortex somewhere in a box of 160 km, and one more to be found.

world = Vortices(1, box=Box(n=24, size=160e3))
archive = world.archive(800, days=[0, 2.5, 5], seed=0)
truth = world.archive(1, days=[0, 2.5, 5], seed=11, first_member=1)

# %%
# What is learned
# ---------------
# Four drifters, whose places are known every day to 100 m. The posterior is Gaussian in thirty modes of the archive, in
# closed form (``method="information"``), and its members are drawn from it.

campaign = {"window": "5D", "fix_interval": "24h", "n_drifters": 4, "position_error": 100.0}
learned = Assimilator.fit(archive, **campaign, method="information", rank=30, maps=1, pairs=2500, epochs=12, seed=0)
tracks = simulate_tracks(truth, **campaign, seed=0)
found = learned.assimilate(tracks, members=50, seed=0).isel(time=0)

# %%
# What is found
# -------------

middle = truth.isel(member=0, time=1)
mean = found[["u_mean", "v_mean"]].rename(u_mean="u", v_mean="v")
error = float(np.sqrt(((mean.u - middle.u) ** 2 + (mean.v - middle.v) ** 2).mean()))
size = float(np.sqrt((middle.u**2 + middle.v**2).mean()))
print(f"{learned}\nerror of the mean {error:.3f} m/s, of currents of {size:.3f} m/s")

# %%
# The truth with the drifters, the posterior mean, one member, and the standard deviation of the members.

figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), sharex=True, sharey=True, layout="constrained")
fastest = 0.5
maps = {"truth": middle, "posterior mean": mean, "a member": found[["u", "v"]].isel(realization=0)}
for ax, (title, shown) in zip(axes, maps.items(), strict=False):
    speed = currents(ax, shown, fastest, tracks, arrows=12)
    ax.tick_params(labelsize=8)
    ax.set_title(title, fontsize=10)
spread = np.hypot(found.u_stddev, found.v_stddev)
deviation = axes[3].pcolormesh(spread.longitude, spread.latitude, spread, cmap="Oranges", vmin=0, vmax=0.2)
axes[3].set_aspect(axes[0].get_aspect())
axes[3].tick_params(labelsize=8)
axes[3].set_title("standard deviation", fontsize=10)
figure.colorbar(speed, ax=axes[:3], label="m/s", shrink=0.8, aspect=30, orientation="horizontal")
figure.colorbar(deviation, ax=axes[3], label="m/s", shrink=0.9, aspect=12, orientation="horizontal")
