r"""Covariances of currents on the sphere and in time, in closed form.

A scalar field of covariance s² ρ(d²/ℓ²) ρ(τ²/T²), d the straight-line distance between two points of the sphere, is
valid for any ρ that is positive definite in space. Of a stream function ψ the currents are w = n × ∇ψ, so that
u = −∂_north ψ and v = ∂_east ψ, and with k(r) the covariance of ψ, r = x − x′,

.. math:: \mathrm{Cov}(a \cdot \nabla\psi(x), b \cdot \nabla\psi(x'))
    = -\frac{2}{\ell^2} \rho'\, a \cdot b - \frac{4}{\ell^4} \rho''\, (a \cdot r)(b \cdot r)

for tangents a at x and b at x′. Nothing is projected: currents are non-divergent on the sphere itself, anywhere on it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from probcl.checks import require_positive
from probcl.sphere import EARTH_RADIUS, Frame

Shape = Literal["gaussian", "matern52", "matern72"]
SHAPES: tuple[Shape, ...] = ("gaussian", "matern52", "matern72")


class Profile(NamedTuple):
    """ρ and its first two derivatives with respect to the squared distance."""

    value: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray


def profile(shape: Shape, squared: Float[np.ndarray, "*shape"]) -> Profile:
    """Return ρ, ρ′ and ρ″ at squared distances in units of the scale.

    ``"gaussian"``: e^{−s/2}. ``"matern52"``, ``"matern72"``: Matérn's with ν = 5/2, 7/2 (Rasmussen & Williams 2006,
    eq. 4.16), whose currents are once and twice differentiable.

    Raises
    ------
    ValueError
        If `shape` is none of these.
    """
    if shape == "gaussian":
        value = np.exp(-0.5 * squared)
        return Profile(value, -0.5 * value, 0.25 * value)
    if shape == "matern52":
        a = np.sqrt(5 * squared)
        decay = np.exp(-a)
        return Profile((1 + a + a**2 / 3) * decay, -5 / 6 * (1 + a) * decay, 25 / 12 * decay)
    if shape == "matern72":
        a = np.sqrt(7 * squared)
        decay = np.exp(-a)
        value = (1 + a + 0.4 * a**2 + a**3 / 15) * decay
        return Profile(value, -0.7 * (1 + a + a**2 / 3) * decay, 49 / 60 * (1 + a) * decay)
    raise ValueError(f"shape must be 'gaussian', 'matern52' or 'matern72', got {shape!r}")


class Points(NamedTuple):
    """Where and when: a frame of n points and their times in days, shape (n,)."""

    frame: Frame
    days: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Covariance(ABC):
    """Covariance of currents of unit variance, homogeneous in space and time.

    Parameters
    ----------
    length
        ℓ, in metres.
    period
        T, in days.
    shape
        ρ, the same in space and in time.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation.baselines import Covariance, IsotropicCovariance
    >>> from probcl.assimilation.baselines.covariance import Points
    >>> from probcl.sphere import frame
    >>> issubclass(IsotropicCovariance, Covariance)
    True
    >>> here = Points(frame(np.array([35.0]), np.array([-40.0])), np.array([0.0]))
    >>> IsotropicCovariance(length=50e3, period=10.0)(here, here)  # of u and v at one point
    array([[1., 0.],
           [0., 1.]])
    """

    length: float
    period: float
    shape: Shape = "gaussian"

    def __post_init__(self) -> None:
        require_positive("length", self.length)
        require_positive("period", self.period)
        profile(self.shape, np.zeros(1))

    def __call__(self, a: Points, b: Points) -> Float[np.ndarray, "two_n two_m"]:
        """Return the covariance of (u at all of a, v at all of a) with the same of b."""
        lag = (a.days[:, None] - b.days[None, :]) / self.period
        together = profile(self.shape, lag**2).value
        covariance: np.ndarray = self._in_space(a.frame, b.frame) * together[None, :, None, :]
        return covariance.reshape(2 * len(a.days), 2 * len(b.days))

    @abstractmethod
    def _in_space(self, a: Frame, b: Frame) -> Float[np.ndarray, "2 n 2 m"]:
        """Covariance at the same time."""

    def _profile(self, a: Frame, b: Frame) -> Profile:
        return profile(self.shape, cdist(a.position, b.position, "sqeuclidean") * (EARTH_RADIUS / self.length) ** 2)


class IsotropicCovariance(Covariance):
    """u and v independent, each of covariance ρ(d²/ℓ²) ρ(τ²/T²).

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation.baselines import IsotropicCovariance
    >>> from probcl.assimilation.baselines.covariance import Points
    >>> from probcl.sphere import frame
    >>> there = Points(frame(np.array([35.0, 35.5]), np.array([-40.0, -40.0])), np.zeros(2))
    >>> IsotropicCovariance(length=50e3, period=10.0)(there, there).round(2)  # u at both, v at both
    array([[1.  , 0.54, 0.  , 0.  ],
           [0.54, 1.  , 0.  , 0.  ],
           [0.  , 0.  , 1.  , 0.54],
           [0.  , 0.  , 0.54, 1.  ]])
    """

    def _in_space(self, a: Frame, b: Frame) -> Float[np.ndarray, "2 n 2 m"]:
        value = self._profile(a, b).value
        covariance: np.ndarray = np.einsum("ij,nm->injm", np.eye(2), value)
        return covariance


class StreamFunctionCovariance(Covariance):
    """Non-divergent currents, of a stream function of covariance s² ρ(d²/ℓ²) ρ(τ²/T²).

    s is `amplitude`, such that u and v have unit variance.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation.baselines import StreamFunctionCovariance
    >>> from probcl.assimilation.baselines.covariance import Points
    >>> from probcl.sphere import frame
    >>> there = Points(frame(np.array([35.0, 35.5]), np.array([-40.0, -40.0])), np.zeros(2))
    >>> StreamFunctionCovariance(length=50e3, period=10.0)(there, there).round(2)  # u changes its sign to the north
    array([[ 1.  , -0.13,  0.  ,  0.  ],
           [-0.13,  1.  ,  0.  ,  0.  ],
           [ 0.  ,  0.  ,  1.  ,  0.54],
           [ 0.  ,  0.  ,  0.54,  1.  ]])
    """

    @property
    def amplitude(self) -> float:
        """Standard deviation of ψ in m, for currents of variance one."""
        return float(self.length / np.sqrt(-2 * profile(self.shape, np.zeros(1)).slope[0]))

    def of_stream_function(self, a: Points, b: Points) -> Float[np.ndarray, "n m"]:
        """Return the covariance of ψ, in m²."""
        lag = (a.days[:, None] - b.days[None, :]) / self.period
        in_space = self.amplitude**2 * self._profile(a.frame, b.frame).value
        covariance: np.ndarray = in_space * profile(self.shape, lag**2).value
        return covariance

    def _in_space(self, a: Frame, b: Frame) -> Float[np.ndarray, "2 n 2 m"]:
        rho, scale = self._profile(a, b), EARTH_RADIUS / self.length
        # u = −∂_north ψ, v = ∂_east ψ.
        left, right = (np.stack([-points.north, points.east]) for points in (a, b))
        along = np.einsum("inx,jmx->injm", left, right)
        # Tangents are orthogonal to their own point, so that a·(x − x′) = −a·x′ and b·(x − x′) = b·x.
        across = -np.einsum("inx,mx->inm", left, b.position)[:, :, None, :]
        across = across * np.einsum("jmx,nx->njm", right, a.position)[None]
        rise, bend = -2 * rho.slope[:, None, :], 4 * scale**2 * rho.curvature[:, None, :]
        covariance: np.ndarray = (self.amplitude / self.length) ** 2 * (rise * along - bend * across)
        return covariance
