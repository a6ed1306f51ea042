"""Where voxels lie in the world.

IJK are voxel indices as stored, world is RAS in mm, an affine is 4x4 and maps the first to the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.floating[Any]]

_SAMPLES_PER_AXIS = 12


def spacing_mm(affine: Affine) -> NDArray[np.float64]:
    """Voxel size along I, J, K, mm."""
    sizes: NDArray[np.float64] = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return sizes


def shear_degrees(affine: Affine) -> float:
    """How far the least orthogonal pair of voxel axes is from a right angle, degrees."""
    axes = _directions(affine)
    cosines = [abs(float(axes[:, a] @ axes[:, b])) for a, b in ((0, 1), (0, 2), (1, 2))]
    return float(np.degrees(np.arcsin(min(max(cosines), 1.0))))


def tilt_degrees(affine: Affine) -> float:
    """Largest angle between a voxel axis and the world axis nearest to it, degrees."""
    nearest = np.abs(_directions(affine)).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(nearest, 0.0, 1.0))).max())


def turn_degrees(a: Affine, b: Affine) -> float:
    """Largest angle between the same voxel axis of two affines, degrees."""
    cosines = (_directions(a) * _directions(b)).sum(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))).max())


def displacement_mm(a: Affine, b: Affine, shape: Sequence[int]) -> float:
    """Largest distance between the places two affines give to a corner voxel of a grid, mm."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in shape))), dtype=np.float64)
    return float(np.linalg.norm(_apply(a, corners) - _apply(b, corners), axis=1).max())


def shared_field(shape_a: Sequence[int], affine_a: Affine, shape_b: Sequence[int], affine_b: Affine) -> float:
    """Share of the smaller field of view that lies in the other: 0 (apart) to 1 (within).

    Taken at 12 x 12 x 12 points spread evenly over a field, so to within about 4%.
    """
    return max(
        _share_inside(shape_a, affine_a, shape_b, affine_b),
        _share_inside(shape_b, affine_b, shape_a, affine_a),
    )


def _share_inside(shape: Sequence[int], affine: Affine, other_shape: Sequence[int], other: Affine) -> float:
    centres = (np.arange(_SAMPLES_PER_AXIS) + 0.5) / _SAMPLES_PER_AXIS
    points = np.array(list(itertools.product(centres, repeat=3))) * np.asarray(shape) - 0.5
    seen = _apply(np.linalg.inv(np.asarray(other, dtype=np.float64)), _apply(affine, points))
    inside = (seen >= -0.5) & (seen <= np.asarray(other_shape) - 0.5)
    return float(inside.all(axis=1).mean())


def _apply(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)
    moved: NDArray[np.float64] = points @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def _directions(affine: Affine) -> NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    directions: NDArray[np.float64] = matrix / np.linalg.norm(matrix, axis=0)
    return directions
