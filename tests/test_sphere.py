import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probcl.sphere import EARTH_RADIUS, METRES_PER_DEGREE, frame, longitude_difference, metres_per_degree_east

LATITUDE, LONGITUDE = np.array([-60.0, -10.0, 0.0, 35.0, 80.0]), np.array([-170.0, 20.0, 90.0, 181.0, 359.0])


def test_a_frame_is_orthonormal_and_right_handed() -> None:
    axes = np.stack(frame(LATITUDE, LONGITUDE), 1)
    np.testing.assert_allclose(axes @ axes.swapaxes(1, 2), np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-15)
    np.testing.assert_allclose(np.linalg.det(axes), 1)


def test_east_and_north_are_the_directions_in_which_degrees_grow_and_metres_are_their_lengths() -> None:
    here, step = frame(LATITUDE, LONGITUDE), 1e-5
    east = EARTH_RADIUS * (frame(LATITUDE, LONGITUDE + step).position - here.position) / step
    north = EARTH_RADIUS * (frame(LATITUDE + step, LONGITUDE).position - here.position) / step
    np.testing.assert_allclose(east, metres_per_degree_east(LATITUDE)[:, None] * here.east, atol=0.1)
    np.testing.assert_allclose(north, METRES_PER_DEGREE * here.north, atol=0.1)


@given(st.floats(-360, 360), st.floats(-360, 360))
def test_a_difference_of_longitudes_goes_the_short_way_round(longitude: float, origin: float) -> None:
    difference = longitude_difference(np.array([longitude]), origin)
    assert -180 <= difference[0] < 180 + 1e-9
    turns = (longitude - origin - difference[0]) / 360
    assert turns == pytest.approx(round(turns), abs=1e-9)
