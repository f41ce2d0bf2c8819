"""A square of ocean, and the archives that worlds make of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from probcl.assimilation.archive import STANDARD_NAMES
from probcl.checks import require_count, require_positive
from probcl.sphere import METRES_PER_DEGREE

EPOCH = np.datetime64("2000-01-01", "ns")
"""Day 0 of the synthetic worlds."""

SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Box:
    """A square of plane coordinates (x, y) on the sphere, with n × n nodes at the centres of its cells.

    x = R cos φ₀ (λ − λ₀) and y = R (φ − φ₀) in metres, about a centre (φ₀, λ₀). A stream function ψ(x, y) gives
    u = −∂ψ/∂y and v = ∂ψ/∂x cos φ₀ / cos φ, which is free of divergence on the sphere, and along whose streamlines
    drifters on the sphere keep ψ.

    Parameters
    ----------
    n : int
        Nodes on a side, at least 2.
    size : float
        Side, in metres.
    latitude, longitude : float
        Centre, in degrees.

    Examples
    --------
    >>> from probcl.datasets.ocean import Box
    >>> box = Box(n=4, size=400e3, latitude=35.0, longitude=-40.0)
    >>> box.nodes
    array([-150000.,  -50000.,   50000.,  150000.])
    >>> box.latitudes.round(2)
    array([33.65, 34.55, 35.45, 36.35])
    """

    n: int = 32
    size: float = 500e3
    latitude: float = 35.0
    longitude: float = -40.0

    def __post_init__(self) -> None:
        require_count("n", self.n, minimum=2)
        require_positive("size", self.size)
        if not abs(self.latitude) + self.size / 2 / METRES_PER_DEGREE < 80:
            raise ValueError(f"latitude must keep the box within 80 degrees of the equator, got {self.latitude}")

    @property
    def nodes(self) -> Float[np.ndarray, " n"]:
        """Coordinates x, and y, of the nodes in metres."""
        return ((np.arange(self.n) + 0.5) / self.n - 0.5) * self.size

    @property
    def latitudes(self) -> Float[np.ndarray, " n"]:
        """Latitudes of the nodes in degrees."""
        return self.latitude + self.nodes / METRES_PER_DEGREE

    @property
    def longitudes(self) -> Float[np.ndarray, " n"]:
        """Longitudes of the nodes in degrees."""
        return self.longitude + self.nodes / self._metres_per_degree_east

    @property
    def _metres_per_degree_east(self) -> float:
        return METRES_PER_DEGREE * float(np.cos(np.radians(self.latitude)))

    def plane(
        self, latitude: Float[np.ndarray, "*batch"], longitude: Float[np.ndarray, "*batch"]
    ) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
        """Return x and y, in metres, of places in degrees."""
        x = (longitude - self.longitude) * self._metres_per_degree_east
        return x, (latitude - self.latitude) * METRES_PER_DEGREE

    def stretch(self, latitude: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """Return cos φ₀ / cos φ, by which v exceeds ∂ψ/∂x."""
        ratio: np.ndarray = np.cos(np.radians(self.latitude)) / np.cos(np.radians(latitude))
        return ratio

    def archive(
        self,
        u: Float[np.ndarray, "member time n n"],
        v: Float[np.ndarray, "member time n n"],
        days: Sequence[float] | Float[np.ndarray, " time"],
        members: Int[np.ndarray, " member"],
        title: str,
        extra: Mapping[str, tuple[Float[np.ndarray, "member time n n"], dict[str, str]]] | None = None,
    ) -> xr.Dataset:
        """Put velocities (m/s), already on the sphere, into an archive with CF attributes."""
        grid = ("member", "time", "latitude", "longitude")
        fields = {
            "u": (u, {"standard_name": STANDARD_NAMES["u"], "units": "m s-1"}),
            "v": (v, {"standard_name": STANDARD_NAMES["v"], "units": "m s-1"}),
            **(extra or {}),
        }
        north = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
        east = {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}
        return xr.Dataset(
            {name: (grid, values, attributes) for name, (values, attributes) in fields.items()},
            coords={
                "member": ("member", members, {"standard_name": "realization"}),
                "time": ("time", dates(days), {"standard_name": "time", "axis": "T"}),
                "latitude": ("latitude", self.latitudes, north),
                "longitude": ("longitude", self.longitudes, east),
            },
            attrs={"Conventions": "CF-1.8", "title": title},
        )


def dates(days: Sequence[float] | Float[np.ndarray, " time"]) -> Shaped[np.ndarray, " time"]:
    """Turn days since `EPOCH` into datetime64.

    Raises
    ------
    ValueError
        If there are none, or they do not ascend.
    """
    days = np.asarray(days, np.float64)
    if days.ndim != 1 or len(days) == 0 or not np.isfinite(days).all() or (np.diff(days) <= 0).any():
        raise ValueError(f"days must be finite, ascending numbers of days, got {days}")
    return EPOCH + np.round(days * SECONDS_PER_DAY * 1e9).astype("timedelta64[ns]")


def seconds(time: Shaped[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Seconds since `EPOCH`."""
    return (time - EPOCH) / np.timedelta64(1, "s")


def member_labels(n_members: int, first_member: int) -> Int[np.ndarray, " member"]:
    """Return the labels of consecutive members; a member is a function of its label and the seed."""
    require_count("n_members", n_members)
    return require_count("first_member", first_member, minimum=0) + np.arange(n_members)


def member_generator(seed: int, member: int) -> np.random.Generator:
    """Return the generator that belongs to one member."""
    return np.random.default_rng([require_count("seed", seed, minimum=0), member])
