"""World T1: a few Gaussian vortices, a law of few parameters that is far from Gaussian."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Complex, Float

from probcl.checks import require_count, require_positive
from probcl.datasets.ocean.box import Box, member_generator, member_labels

# The swirl A/ρ · r/ρ · exp(−r²/2ρ²) of a Gaussian stream function is fastest at r = ρ.
_PEAK = math.exp(-0.5)


@dataclass(frozen=True)
class Vortices:
    r"""Steady Gaussian vortices: ψ(x) = Σ_i A_i exp(−|x − c_i|² / 2ρ_i²), in a box.

    A vortex has four parameters: its centre (x, y) and radius ρ, in metres, and its greatest swirl −A e^{-1/2}/ρ, in
    m/s, positive for counterclockwise. A priori they are independent: the centre uniform in the box, the radius
    uniform, and the swirl uniform in magnitude with either sign. The order of the vortices means nothing.

    Parameters
    ----------
    n_vortices : int
    box : Box
    radius : tuple of float
        Least and greatest, in metres.
    swirl : tuple of float
        Least and greatest magnitude, in m/s.

    Examples
    --------
    >>> from probcl.datasets.ocean import Vortices
    >>> world = Vortices(n_vortices=2)
    >>> parameters = world.sample(5, seed=0)
    >>> parameters.shape, world.log_prior(parameters).shape
    ((5, 2, 4), (5,))
    >>> dict(world.archive(5, days=[0, 5]).u.sizes)
    {'member': 5, 'time': 2, 'latitude': 32, 'longitude': 32}
    """

    n_vortices: int = 1
    box: Box = field(default_factory=lambda: Box(n=32, size=160e3))
    radius: tuple[float, float] = (25e3, 50e3)
    swirl: tuple[float, float] = (0.2, 0.6)

    def __post_init__(self) -> None:
        require_count("n_vortices", self.n_vortices)
        for name in ("radius", "swirl"):
            low, high = getattr(self, name)
            require_positive(name, low)
            if not low < high < math.inf:
                raise ValueError(f"{name} must be (least, greatest), got {(low, high)}")

    def sample(
        self, n_members: int, *, seed: int = 0, first_member: int = 0
    ) -> Float[np.ndarray, "member n_vortices 4"]:
        """Draw parameters from the prior; member i is a function of the seed and of i."""
        members = member_labels(n_members, first_member)
        z = np.stack([member_generator(seed, m).random((self.n_vortices, 5)) for m in members.tolist()])
        half = self.box.size / 2
        low = np.array([-half, -half, self.radius[0], self.swirl[0]])
        high = np.array([half, half, self.radius[1], self.swirl[1]])
        parameters: np.ndarray = low + (high - low) * z[..., :4]
        parameters[..., 3] *= np.where(z[..., 4] < 0.5, -1, 1)
        return parameters

    def log_prior(self, parameters: Float[np.ndarray, "*batch n_vortices 4"]) -> Float[np.ndarray, "*batch"]:
        """Log-density of parameters, −∞ where they cannot be."""
        x, y, radius, swirl = np.moveaxis(parameters, -1, 0)
        half = self.box.size / 2
        possible = (abs(x) <= half) & (abs(y) <= half)
        for value, (low, high) in ((radius, self.radius), (abs(swirl), self.swirl)):
            possible &= (low <= value) & (value <= high)
        volume = self.box.size**2 * (self.radius[1] - self.radius[0]) * 2 * (self.swirl[1] - self.swirl[0])
        density: np.ndarray = np.where(possible, -math.log(volume), -np.inf).sum(-1)
        return density

    def velocity(
        self,
        parameters: Float[np.ndarray, "member n_vortices 4"],
        latitude: Float[np.ndarray, "member n"],
        longitude: Float[np.ndarray, "member n"],
    ) -> Complex[np.ndarray, "member n"]:
        """Evaluate u + iv, in m/s, at places in degrees, a row for each member, without a grid."""
        x, y = self.box.plane(latitude, longitude)
        slope_x, slope_y = np.zeros_like(x), np.zeros_like(y)
        for centre_x, centre_y, radius, swirl in np.moveaxis(parameters, 0, -1)[..., None]:
            along, across = (x - centre_x) / radius, (y - centre_y) / radius
            fall = swirl / _PEAK * np.exp(-0.5 * (along**2 + across**2))
            slope_x, slope_y = slope_x + fall * along, slope_y + fall * across
        velocity: np.ndarray = -slope_y + 1j * slope_x * self.box.stretch(latitude)
        return velocity

    def archive_of(
        self,
        parameters: Float[np.ndarray, "member n_vortices 4"],
        days: Sequence[float] | Float[np.ndarray, " time"] = (0.0, 5.0),
        first_member: int = 0,
    ) -> xr.Dataset:
        """Put the currents of parameters into an archive, float32, the same at every time."""
        latitude, longitude = (g.ravel() for g in np.meshgrid(self.box.latitudes, self.box.longitudes, indexing="ij"))
        shape = (len(parameters), len(days), self.box.n, self.box.n)
        w = np.empty((shape[0], shape[2], shape[3]), np.complex64)
        for member, row in enumerate(parameters):
            w[member] = self.velocity(row[None], latitude[None], longitude[None]).reshape(shape[2:])
        u, v = (np.repeat(part[:, None], len(days), 1) for part in (w.real, w.imag))
        title = f"Steady Gaussian vortices, {self.n_vortices} at a time (world T1)"
        return self.box.archive(u, v, days, member_labels(len(parameters), first_member), title)

    def archive(
        self,
        n_members: int,
        days: Sequence[float] | Float[np.ndarray, " time"] = (0.0, 5.0),
        *,
        seed: int = 0,
        first_member: int = 0,
    ) -> xr.Dataset:
        """Draw independent members from the prior; see `sample` for how they are split, `archive_of` for the rest."""
        parameters = self.sample(n_members, seed=seed, first_member=first_member)
        return self.archive_of(parameters, days, first_member)
