"""The exact posterior of world T1 given tracks: a likelihood of ours under tempered sequential Monte Carlo."""

from functools import partial

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

from probcl import GaussianPrior
from probcl.assimilation import advect
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import track_log_likelihood
from probcl.assimilation.baselines.base import Moment, Posterior, as_time, to_dataset
from probcl.datasets.ocean import Vortices
from probcl.randomness import seeded
from probcl.samplers import CrankNicolson, Target, TemperedSMC

# Drifters of the tests feel currents interpolated between the nodes; the formula's end some 500 m away.
_MODEL_ERROR = 500.0
_STEP = 7200.0
_LEAST = -1e9


class VortexPosterior:
    """Draws of the vortices' parameters given tracks, as currents on the grid of the world's archives.

    Parameters are quantiles of standard normals, which is the prior that the likelihood of the tracks tilts.
    """

    def __init__(self, world: Vortices, particles: int = 1024) -> None:
        self.world, self.grid = world, Archive.of(world.archive(1)).grid
        self.prior = GaussianPrior.from_scale(torch.zeros(4 * world.n_vortices), torch.eye(4 * world.n_vortices))
        self.sampler = TemperedSMC(particles, num_islands=16, move=CrankNicolson(repeats=8))

    def analyse(self, tracks: xr.Dataset, time: Moment, members: int, seed: int = 0) -> xr.Dataset:
        tilt = partial(self._log_tilt, tracks.isel(obs=tracks["latitude"].notnull().any("trajectory").values))
        target = Target(self.prior, tilt, lambda z: tilt(z[:, None]), batch_size=1)
        with seeded(seed):
            draws = self.sampler.draw(target, self.sampler.num_particles, seed=seed)
        currents = self.world.archive_of(self._parameters(draws.z[:, 0]), days=[0.0]).isel(time=0)
        maps = np.stack([currents["u"].values[:, self.grid.ocean], currents["v"].values[:, self.grid.ocean]], axis=1)
        posterior = Posterior(
            members=maps[:members],
            mean=maps.mean(0, dtype=float),
            stddev=maps.std(0, dtype=float),
            effective_sample_size=float(draws.ess[0]),
            warning="" if bool(draws.trusted[0]) else "the sampler is not trusted",
        )
        return to_dataset(posterior, self.grid, np.zeros(1, "datetime64[ns]"), as_time(time))

    def _parameters(self, z: Float[Tensor, "n four_vortices"]) -> Float[np.ndarray, "n vortices 4"]:
        share = norm.cdf(z.double().numpy()).reshape(len(z), -1, 4)
        world = self.world
        x, y = np.moveaxis((share[..., :2] - 0.5) * world.box.size, -1, 0)
        radius = world.radius[0] + share[..., 2] * (world.radius[1] - world.radius[0])
        sign, size = np.sign(share[..., 3] - 0.5), np.abs(2 * share[..., 3] - 1)
        return np.stack([x, y, radius, sign * (world.swirl[0] + size * (world.swirl[1] - world.swirl[0]))], axis=-1)

    def _log_tilt(self, tracks: xr.Dataset, z: Float[Tensor, "n 1 four_vortices"]) -> Float[Tensor, "n 1"]:
        parameters = xr.Dataset({"parameters": (("realization", "vortex", "part"), self._parameters(z[:, 0]))})
        found = track_log_likelihood(self._predict, _MODEL_ERROR)(parameters, tracks)
        return torch.from_numpy(found).clamp(min=_LEAST)[:, None]

    def _predict(self, parameters: xr.Dataset, tracks: xr.Dataset) -> xr.Dataset:
        """Carry drifters from their first fix by the formula of the currents."""
        values = parameters["parameters"].values
        times = np.fmax.reduce(tracks["time"].transpose("trajectory", "obs").values)
        seconds = (times - times[0]) / np.timedelta64(1, "s")
        north, east = (np.tile(tracks[name].values[:, 0], (len(values), 1)) for name in ("latitude", "longitude"))
        path = advect(lambda _, *place: self.world.velocity(values, *place), north, east, seconds, _STEP)
        axes = ("realization", "trajectory", "obs")
        return xr.Dataset({"latitude": (axes, path.latitude), "longitude": (axes, path.longitude)})
