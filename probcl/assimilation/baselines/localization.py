"""Gaspari-Cohn's taper, with which a small ensemble's covariances are cut off at a distance."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from probcl.checks import require_positive
from probcl.sphere import EARTH_RADIUS, Frame


def gaspari_cohn(distance: Float[np.ndarray, "*shape"], radius: float) -> Float[np.ndarray, "*shape"]:
    """Return the fifth-order piecewise rational taper (Gaspari & Cohn 1999, eq. 4.10).

    It resembles a Gaussian of standard deviation `radius` √(3/40), is positive definite in space (so on the sphere too,
    with straight-line distances), and zero from `radius` on: twice the paper's c.

    Raises
    ------
    TypeError, ValueError
        If `radius` is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.assimilation.baselines import gaspari_cohn
    >>> gaspari_cohn(np.array([0.0, 50e3, 100e3, 200e3]), radius=200e3).round(3)
    array([1.   , 0.685, 0.208, 0.   ])
    """
    require_positive("radius", radius)
    z = 2 * np.abs(distance) / radius
    near = 1 - 5 / 3 * z**2 + 5 / 8 * z**3 + 1 / 2 * z**4 - 1 / 4 * z**5
    far = 4 - 5 * z + 5 / 3 * z**2 + 5 / 8 * z**3 - 1 / 2 * z**4 + 1 / 12 * z**5 - 2 / (3 * np.maximum(z, 1))
    return np.where(z <= 1, near, np.where(z < 2, far, 0.0)).clip(min=0)


def taper(a: Frame, b: Frame, radius: float) -> Float[np.ndarray, "n m"]:
    """Return the taper between points, `radius` in metres."""
    return gaspari_cohn(EARTH_RADIUS * cdist(a.position, b.position), radius)
