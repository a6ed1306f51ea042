from __future__ import annotations

import numpy as np
import pytest

from msfl_client.imaging import geometry


def rotation(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def test_spacing_of_a_turned_and_flipped_grid():
    affine = rotation(30) @ np.diag([-1.0, 2.0, 3.0, 1.0])
    np.testing.assert_allclose(geometry.spacing_mm(affine), [1, 2, 3])


@pytest.mark.parametrize(("degrees", "tilt"), [(0, 0), (10, 10), (80, 10), (90, 0), (-170, 10)])
def test_tilt_is_to_the_nearest_world_axis(degrees, tilt):
    assert geometry.tilt_degrees(rotation(degrees) @ np.diag([2.0, 3.0, -1.0, 1.0])) == pytest.approx(tilt)


def test_shear_is_the_lost_right_angle():
    sheared = np.eye(4)
    sheared[0, 1] = np.tan(np.radians(5))
    assert geometry.shear_degrees(sheared) == pytest.approx(5)
    assert geometry.shear_degrees(rotation(33) @ np.diag([1.0, 5.0, 2.0, 1.0])) == pytest.approx(0, abs=1e-6)


def test_turn_sees_a_flip_and_displacement_takes_the_worst_corner():
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    assert geometry.turn_degrees(np.eye(4), flipped) == pytest.approx(180)
    assert geometry.displacement_mm(np.eye(4), flipped, (11, 5, 5)) == pytest.approx(20)


def test_shared_field_of_shifted_boxes():
    shape = (24, 24, 24)
    moved = np.eye(4)
    for shift, share in ((0, 1.0), (6, 0.75), (12, 0.5), (24, 0.0), (100, 0.0)):
        moved[0, 3] = shift
        assert geometry.shared_field(shape, np.eye(4), shape, moved) == pytest.approx(share)


def test_small_field_within_a_large_one_is_shared_whole():
    slab = np.diag([2.0, 2.0, 4.0, 1.0])
    slab[:3, 3] = 10
    assert geometry.shared_field((200, 200, 200), np.eye(4), (50, 50, 20), slab) == 1.0
