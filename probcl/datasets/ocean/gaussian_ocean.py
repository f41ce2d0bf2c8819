"""World T0: a Gaussian stream function, of which everything is known exactly."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from scipy.stats import norm, qmc

from probcl.checks import require_count, require_positive
from probcl.datasets.ocean.box import SECONDS_PER_DAY, Box, dates, member_generator, member_labels, seconds

_MEMBERS_AT_ONCE = 500


@dataclass(frozen=True)
class GaussianOcean:
    r"""Currents of a Gaussian stream function that is a sum of travelling waves with random amplitudes.

    .. math:: ψ(x, t) = c \sum_{j=1}^{J} a_j \cos(k_j·x − ω_j t) + b_j \sin(k_j·x − ω_j t),

    with independent standard normal a and b. The wave vectors are spread over N(0, I/length²) and the frequencies
    over N(0, 1/time_scale²), so that ψ has nearly the covariance exp(−r²/2 length² − t²/2 time_scale²). Given the
    waves, ψ and its currents are Gaussian and stationary in the plane, with a covariance of rank 2J that is known
    exactly: the exact posterior given velocities is that of a linear regression on `features`.

    Parameters
    ----------
    box : Box
    speed : float
        Standard deviation of each component, in m/s (on average over the two).
    length : float
        In metres. Across its own direction a component is uncorrelated with itself at the distance `length`, and
        least correlated, negatively, at √3 times that; along it the correlation is exp(−r²/2 length²).
    time_scale : float
        In days.
    n_waves : int
        J, a power of two.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.datasets.ocean import Box, GaussianOcean
    >>> ocean = GaussianOcean(Box(n=8), n_waves=64)
    >>> dict(ocean.archive(3, days=[0, 1]).u.sizes)
    {'member': 3, 'time': 2, 'latitude': 8, 'longitude': 8}
    >>> point = (np.array(["2000-01-01"], dtype="datetime64[ns]"), np.array([35.0]), np.array([-40.0]))
    >>> np.sqrt(ocean.covariance(point, point)[0, :, 0, :].diagonal()).round(1)  # u and v, in m/s
    array([0.3, 0.3])
    """

    box: Box = field(default_factory=lambda: Box(n=32, size=800e3))
    speed: float = 0.3
    length: float = 50e3
    time_scale: float = 20.0
    n_waves: int = 256

    def __post_init__(self) -> None:
        for name in ("speed", "length", "time_scale"):
            require_positive(name, getattr(self, name))
        require_count("n_waves", self.n_waves)
        if self.n_waves & (self.n_waves - 1):
            raise ValueError(f"n_waves must be a power of two, got {self.n_waves}")

    @cached_property
    def waves(self) -> Float[np.ndarray, "n_waves 3"]:
        """Wave vectors, in 1/m, and frequencies, in 1/s: a Sobol sequence pushed through the normal law."""
        points = qmc.Sobol(3, scramble=True, rng=np.random.default_rng(0)).random(self.n_waves)
        scale = [self.length, self.length, self.time_scale * SECONDS_PER_DAY]
        waves: np.ndarray = norm.ppf(points) / np.array(scale)
        return waves

    def features(
        self,
        time: Shaped[np.ndarray, " n"],
        latitude: Float[np.ndarray, " n"],
        longitude: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, "n 2 modes"]:
        """Linear map from amplitudes (a, b) ~ N(0, I) to (u, v) at points: the covariance is F Fᵀ.

        Parameters
        ----------
        time : datetime64 array
        latitude, longitude : array
            Degrees.
        """
        x, y = self.box.plane(latitude, longitude)
        k, l, omega = self.waves.T  # noqa: E741 - the field's name for the second wavenumber
        phase = x[:, None] * k + y[:, None] * l - seconds(time)[:, None] * omega
        slope = self._amplitude * np.concatenate([-np.sin(phase), np.cos(phase)], 1)
        k, l = np.tile(k, 2), np.tile(l, 2)  # noqa: E741
        return np.stack([-l * slope, k * slope * self.box.stretch(latitude)[:, None]], 1)

    def covariance(
        self,
        a: tuple[Shaped[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
        b: tuple[Shaped[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]],
    ) -> Float[np.ndarray, "n 2 m 2"]:
        """Exact covariance of (u, v) between points, each given as (time, latitude, longitude), in m²/s²."""
        covariance: np.ndarray = np.einsum("nij,mkj->nimk", self.features(*a), self.features(*b), optimize=True)
        return covariance

    def archive(
        self,
        n_members: int,
        days: Sequence[float] | Float[np.ndarray, " time"] = tuple(range(11)),
        *,
        seed: int = 0,
        first_member: int = 0,
    ) -> xr.Dataset:
        """Draw independent members, float32, at days since the epoch of the worlds.

        Member i is a function of the seed and of i, so that archives with disjoint ranges of members are independent
        parts of one: ``archive(1000)`` to learn from and ``archive(200, first_member=1000)`` to judge by.
        """
        members, times = member_labels(n_members, first_member), dates(days)
        where = np.meshgrid(times, self.box.latitudes, self.box.longitudes, indexing="ij")
        features = self.features(*(axis.ravel() for axis in where)).astype(np.float32)
        basis = features.reshape(-1, features.shape[-1]).T
        amplitudes = np.stack(
            [member_generator(seed, m).standard_normal(len(basis), np.float32) for m in members.tolist()]
        )
        velocity = np.empty((n_members, basis.shape[1] // 2, 2), np.float32)
        for first in range(0, n_members, _MEMBERS_AT_ONCE):
            block = slice(first, first + _MEMBERS_AT_ONCE)
            np.matmul(amplitudes[block], basis, out=velocity.reshape(n_members, -1)[block])
        u, v = np.moveaxis(velocity, -1, 0).reshape(2, n_members, len(times), self.box.n, self.box.n)
        return self.box.archive(u, v, days, members, "Gaussian random-Fourier currents (world T0)")

    @cached_property
    def _amplitude(self) -> float:
        return self.speed / float(np.sqrt(np.square(self.waves[:, :2]).sum() / 2))
