"""World T2: the upper layer of two-layer quasi-geostrophic turbulence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
import xarray as xr
from jaxtyping import Complex, Float, Int

from probcl.checks import require_positive
from probcl.datasets.ocean.box import Box, dates, member_generator, member_labels
from probcl.datasets.ocean.two_layer import QGIntegration, TwoLayerQG

_MEMBERS_AT_ONCE = 25
_SHORTEST_START, _LONGEST_START = 2, 5
_START_SPEED = 0.2


@dataclass(frozen=True)
class Turbulence:
    """Members of statistically steady turbulence, each from a random start of its own.

    Parameters
    ----------
    model : TwoLayerQG
        On n nodes over `size` metres.
    latitude, longitude : float
        Centre, in degrees.
    spin_up : float
        Days before day 0.
    step : float
        Time step, in hours.

    Examples
    --------
    >>> from probcl.datasets.ocean import Turbulence, TwoLayerQG
    >>> world = Turbulence(TwoLayerQG(n=16), spin_up=5.0)  # a real one is spun up for 300 days
    >>> dict(world.archive(2, days=[0, 10]).u.sizes)
    {'member': 2, 'time': 2, 'latitude': 16, 'longitude': 16}
    """

    model: TwoLayerQG = field(default_factory=TwoLayerQG)
    latitude: float = 35.0
    longitude: float = -40.0
    spin_up: float = 300.0
    step: float = 2.0

    def __post_init__(self) -> None:
        require_positive("spin_up", self.spin_up)
        require_positive("step", self.step)

    @property
    def box(self) -> Box:
        """Where the world is."""
        return Box(self.model.n, self.model.size, self.latitude, self.longitude)

    def archive(
        self,
        n_members: int,
        days: Sequence[float] | Float[np.ndarray, " time"] = tuple(range(0, 100, 10)),
        *,
        seed: int = 0,
        first_member: int = 0,
    ) -> xr.Dataset:
        """Run members, and record u, v and the stream function `psi` (m²/s) of the upper layer, float32.

        The mean flow, U₁ = `model.shear` to the east, is in u but not in psi, which is that of the eddies.
        The box is periodic, but drifters that reach its edge leave the archive. Times are rounded to time steps.

        Member i is a function of the seed and of i up to rounding, which turbulence amplifies. Members with other
        labels are independent, so that archives with disjoint ranges of members are a split.
        """
        members = member_labels(n_members, first_member)
        dates(days)  # to be refused before the run, not after
        record = np.empty((n_members, len(days), 3, self.model.n, self.model.n), np.float32)
        for first in range(0, n_members, _MEMBERS_AT_ONCE):
            block = slice(first, first + _MEMBERS_AT_ONCE)
            with np.errstate(over="ignore", invalid="ignore"):  # an unstable run is refused below, by name
                self._record(members[block], np.asarray(days, np.float64), seed, record[block])
        if not np.isfinite(record).all():
            raise ValueError(f"step must be short enough for the integration to be stable, got {self.step} hours")
        psi, u, v = np.moveaxis(record, 2, 0)
        u = u + np.float32(self.model.shear)
        v = (v * self.box.stretch(self.box.latitudes)[:, None]).astype(np.float32)
        extra = {"psi": (psi, {"long_name": "stream function of the eddies of the upper layer", "units": "m2 s-1"})}
        return self.box.archive(u, v, days, members, "Two-layer quasi-geostrophic turbulence (world T2)", extra)

    def _record(
        self,
        members: Int[np.ndarray, " member"],
        days: Float[np.ndarray, " time"],
        seed: int,
        out: Float[np.ndarray, "member time 3 n n"],
    ) -> None:
        steps = np.round((self.spin_up + days) * 24 / self.step).astype(int)
        start = np.stack([self._start(member_generator(seed, member)) for member in members.tolist()])
        run, done = QGIntegration(self.model, start, self.step * 3600), 0
        for time, step in enumerate(steps):
            psi = self.model.stream_function(run.advance(int(step) - done))[:, 0]
            done = int(step)
            out[:, time, 0] = self.model.on_grid(psi)
            out[:, time, 1], out[:, time, 2] = self.model.velocity(psi)

    def _start(self, generator: np.random.Generator) -> Complex[np.ndarray, "2 n half"]:
        """Draw eddies of a few wavelengths to a side, the same in both layers but for a little noise."""
        model = self.model
        k, l = model.wavenumbers  # noqa: E741
        waves = np.hypot(k, l) * model.size / (2 * np.pi)
        band = (waves >= _SHORTEST_START) & (waves <= _LONGEST_START) & model.kept
        noise = generator.standard_normal((2, model.n, model.n))
        noise[1] = noise[0] + 0.3 * noise[1]
        psi = band * scipy.fft.rfft2(noise)
        u, _ = model.velocity(psi[0])
        return model.vorticity(psi * (_START_SPEED / u.std()))
