"""The Earth as a sphere: points and directions in space, metres and degrees."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

EARTH_RADIUS = 6_371_000.0
"""Mean radius, in metres."""

METRES_PER_DEGREE = EARTH_RADIUS * np.pi / 180
"""Length of a degree of latitude."""


def metres_per_degree_east(latitude: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Length in metres of a degree of longitude at these latitudes, given in degrees."""
    metres: np.ndarray = METRES_PER_DEGREE * np.cos(np.radians(latitude))
    return metres


class Frame(NamedTuple):
    """Points of the unit sphere and the directions of u and v there, each of shape (n, 3)."""

    position: Float[np.ndarray, "n 3"]
    east: Float[np.ndarray, "n 3"]
    north: Float[np.ndarray, "n 3"]


def frame(latitude: Float[np.ndarray, " n"], longitude: Float[np.ndarray, " n"]) -> Frame:
    """Return points given in degrees, with east and north at each."""
    phi, theta = np.deg2rad(latitude.astype(float)), np.deg2rad(longitude.astype(float))
    up = np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=1)
    east = np.stack([-np.sin(theta), np.cos(theta), np.zeros_like(theta)], axis=1)
    return Frame(up, east, np.cross(up, east))


def longitude_difference(
    longitude: Float[np.ndarray, "*shape"], origin: Float[np.ndarray, "*other"] | float
) -> Float[np.ndarray, "*result"]:
    """Return longitude − origin in degrees, the short way round: within [−180, 180)."""
    return np.mod(longitude - origin + 180, 360) - 180


def longitude_near(
    longitude: Float[np.ndarray, "*shape"], origin: float | Float[np.ndarray, ""]
) -> Float[np.ndarray, "*shape"]:
    """Return longitudes in the turn about an origin: within 180 degrees of it."""
    return origin + longitude_difference(longitude, origin)
