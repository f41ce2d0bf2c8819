"""The Earth as a sphere: metres to degrees and back."""

import numpy as np
from jaxtyping import Float

EARTH_RADIUS = 6_371_000.0
"""Mean radius, in metres."""

METRES_PER_DEGREE = EARTH_RADIUS * np.pi / 180
"""Length of a degree of latitude."""


def metres_per_degree_east(latitude: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Length in metres of a degree of longitude at these latitudes, given in degrees."""
    return METRES_PER_DEGREE * np.cos(np.radians(latitude))
