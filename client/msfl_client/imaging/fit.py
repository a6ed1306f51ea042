"""How well two images of one brain fit where they lie, whatever their contrasts.

Images are looked at in voxels of about 2 mm: enough to see 2 degrees or 2 mm. Positions are RAS mm. I/J/K are voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msfl_client.imaging.skull_strip_detection import brain_of

Matrix = NDArray[np.float64]
Points = NDArray[np.float64]

LEAST_POINTS = 6000  # of fewer, the shape of a peak is mostly chance
LEAST_FOR_SIDES = 1000  # of fewer, so is whether an image or its mirror image fits better
_MOST_POINTS = 20_000
_LOOKED_AT_MM = 2.0
_SMOOTH_MM = 1.5
_SLOW_MM = 25.0  # a bias field changes over more than this
_RIM_MM = 4.0  # left out: there, brain masks of different tools differ
_LEAST_SHARED = 0.15  # of the points, which have to lie in the other brain
_DARKEST = 0.25  # of the brain; around it is 0
_BINS, _FEW_BINS = 24, 12  # of brightness; the latter for fewer than `LEAST_POINTS`
_STEPS = np.array([3.5, 3.5, 3.5, 3.0, 3.0, 3.0])  # degrees about the three axes, and mm along them


@dataclass(frozen=True)
class ThinImage:
    """A skull-stripped image in voxels of about 2 mm.

    Attributes:
        voxels_IJK: from `_DARKEST` to 1 in the brain, 0 around it.
        brain_IJK: the brain.
        affine: 4 x 4, voxel indices to RAS mm.
    """

    voxels_IJK: NDArray[np.float32]
    brain_IJK: NDArray[np.bool_]
    affine: Matrix

    def moved(self, matrix: Matrix) -> ThinImage:
        """The same voxels at another place."""
        return ThinImage(self.voxels_IJK, self.brain_IJK, matrix @ self.affine)

    def mirrored(self) -> ThinImage:
        """Left and right exchanged, about the middle of the brain."""
        mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
        mirror[0, 3] = 2 * self.centre[0]
        return self.moved(mirror)

    def evened(self) -> ThinImage:
        """Without what is slow in its brightness: divided by the mean around each voxel."""
        sigmas = _SLOW_MM / voxel_sizes(self.affine)
        weight_IJK = ndimage.gaussian_filter(self.brain_IJK.astype(np.float32), sigmas)
        mean_IJK = ndimage.gaussian_filter(self.voxels_IJK, sigmas) / np.maximum(weight_IJK, 1e-3)
        even_IJK = self.voxels_IJK / np.maximum(mean_IJK, 1e-3)
        return ThinImage(_scaled(even_IJK, self.brain_IJK), self.brain_IJK, self.affine)

    @property
    def centre(self) -> Points:
        """Middle of the brain, RAS mm."""
        middle: Points = apply_affine(self.affine, np.argwhere(self.brain_IJK).mean(axis=0))
        return middle

    @property
    def nifti(self) -> nib.Nifti1Image:
        """The same as nibabel has it."""
        return nib.Nifti1Image(self.voxels_IJK, self.affine)

    def shows(self, points: Points) -> NDArray[np.bool_]:
        """Which points lie in the brain."""
        index = apply_affine(np.linalg.inv(self.affine), points).T
        inside: NDArray[np.bool_] = ndimage.map_coordinates(self.brain_IJK.astype(np.float32), index, order=1) >= 0.5
        return inside

    def brightness_at(self, points: Points) -> float:
        """Mean brightness of those points that lie in the brain; 0 where hardly any does."""
        inside = points[self.shows(points)]
        if len(inside) < 0.5 * len(points):
            return 0.0
        index = apply_affine(np.linalg.inv(self.affine), inside).T
        return float(ndimage.map_coordinates(self.voxels_IJK, index, order=1).mean())


def thin_image(image: nib.Nifti1Image, brain_IJK: NDArray[np.bool_] | None = None) -> ThinImage | None:
    """Every second voxel or so of a skull-stripped image, smoothed within the brain.

    Args:
        image: in any orientation.
        brain_IJK: its brain, where that is known already; of an image that is not skull-stripped, too.

    Returns:
        None where no brain is seen.
    """
    step = np.maximum(1, np.floor(_LOOKED_AT_MM / voxel_sizes(image.affine) + 0.25)).astype(int)
    picked = tuple(slice(size // 2, None, size) for size in step)
    to_voxels = np.diag([*step.astype(float), 1.0])
    to_voxels[:3, 3] = step // 2
    affine = np.asarray(image.affine @ to_voxels, np.float64)
    raw_IJK = np.ascontiguousarray(np.asarray(image.dataobj)[picked], dtype=np.float32)
    inside_IJK = brain_of(nib.Nifti1Image(raw_IJK, affine)) if brain_IJK is None else brain_IJK[picked]
    if not inside_IJK.any():
        return None
    sigmas = np.where(voxel_sizes(affine) < 2 * _SMOOTH_MM, _SMOOTH_MM / voxel_sizes(affine), 0.0)
    weight_IJK = ndimage.gaussian_filter(inside_IJK.astype(np.float32), sigmas)
    smooth_IJK = ndimage.gaussian_filter(np.where(inside_IJK, raw_IJK, 0), sigmas) / np.maximum(weight_IJK, 1e-3)
    return ThinImage(_scaled(smooth_IJK, inside_IJK), inside_IJK, affine)


@dataclass(frozen=True)
class Peak:
    """How the fit changes around a place.

    Attributes:
        fit: there; 0 (nothing in common) to 1.
        beside: the best of the fits 3.5 degrees or 3 mm aside.
        offset: degrees about the three axes and mm along them to the top of the parabolas through the three fits on
            each, at most one step.
    """

    fit: float
    beside: float
    offset: NDArray[np.float64]


class Fit:
    """The normalised mutual information of two images, inside the brains of both."""

    def __init__(self, fixed: ThinImage, moving: ThinImage) -> None:
        depth_mm = ndimage.distance_transform_edt(fixed.brain_IJK, sampling=voxel_sizes(fixed.affine))
        index = np.argwhere(depth_mm > _RIM_MM)
        index = index[:: max(1, len(index) // _MOST_POINTS)]
        self.points = np.asarray(apply_affine(fixed.affine, index), np.float64)
        self._bins = _BINS if self.is_possible else _FEW_BINS
        self._fixed = _bins_of(fixed.voxels_IJK[tuple(index.T)], self._bins)
        self._moving, self._to_moving = moving.voxels_IJK, np.linalg.inv(moving.affine)
        self._inside = ndimage.binary_erosion(moving.brain_IJK)

    @property
    def is_possible(self) -> bool:
        """Whether there are enough points to say where an image fits."""
        return len(self.points) >= LEAST_POINTS

    @property
    def tells_sides(self) -> bool:
        """Whether there are enough points to tell an image from its mirror image."""
        return len(self.points) >= LEAST_FOR_SIDES

    def at(self, matrix: Matrix) -> float:
        """The fit where `matrix`, mm of the moving image to mm of the fixed one, puts the moving image."""
        index = apply_affine(self._to_moving @ np.linalg.inv(matrix), self.points).T
        inside = ndimage.map_coordinates(self._inside, index, order=0)
        if inside.mean() < _LEAST_SHARED:
            return 0.0
        bins, values = self._bins, ndimage.map_coordinates(self._moving, index[:, inside], order=1)
        pairs = self._fixed[inside] * bins + _bins_of(values, bins)
        joint = np.bincount(pairs, minlength=bins**2).reshape(bins, bins) / len(pairs)
        alone = _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))
        return 2 * (alone - _entropy(joint)) / alone if alone else 0.0

    def around(self, matrix: Matrix) -> Peak:
        """The fit at a place, and around it."""
        here = self.at(matrix)
        offset, beside = np.zeros(6), 0.0
        for axis, step in enumerate(_STEPS):
            one, other = (self.at(self.step(sign * np.eye(6)[axis] * step) @ matrix) for sign in (-1, 1))
            bend = one + other - 2 * here
            top = 0.5 * (one - other) / bend if bend < 0 else float(np.sign(other - one))
            offset[axis] = step * float(np.clip(top, -1, 1))
            beside = max(beside, one, other)
        return Peak(here, beside, offset)

    def refined(self, matrix: Matrix, most: int = 6) -> tuple[Matrix, Peak]:
        """The top of the peak that a place is on the slope of."""
        peak = self.around(matrix)
        for _ in range(most):
            matrices = [self.step(share * peak.offset) @ matrix for share in (1.0, 0.5)]
            best = max(matrices, key=self.at)
            if self.at(best) <= peak.fit:
                break
            matrix, peak = best, self.around(best)
        return matrix, peak

    def step(self, offset: NDArray[np.float64]) -> Matrix:
        """4 x 4 of degrees about the axes through the middle of the points, and mm along them."""
        matrix, middle = np.eye(4), self.points.mean(axis=0)
        matrix[:3, :3] = Rotation.from_rotvec(offset[:3], degrees=True).as_matrix()
        matrix[:3, 3] = middle - matrix[:3, :3] @ middle + offset[3:]
        return matrix

    def displacement_mm(self, matrix: Matrix) -> float:
        """How far a matrix moves the brain: root mean square over its points."""
        return float(np.sqrt(((apply_affine(matrix, self.points) - self.points) ** 2).sum(axis=1).mean()))


def overlap(fixed: ThinImage, moving: ThinImage) -> float:
    """Dice coefficient of two brains where they lie."""
    shared = moving.shows(apply_affine(fixed.affine, np.argwhere(fixed.brain_IJK))).sum()
    of_fixed, of_moving = (abs(np.linalg.det(image.affine[:3, :3])) for image in (fixed, moving))
    whole = fixed.brain_IJK.sum() * of_fixed + moving.brain_IJK.sum() * of_moving
    return float(2 * shared * of_fixed / whole)


def _scaled(values_IJK: NDArray[np.float32], brain_IJK: NDArray[np.bool_]) -> NDArray[np.float32]:
    """From `_DARKEST` to 1 in the brain, by its own percentiles; 0 around it."""
    low, high = np.percentile(values_IJK[brain_IJK], (1, 99))
    scaled_IJK = np.clip((values_IJK - low) / max(float(high - low), 1e-6), 0, 1)
    voxels_IJK: NDArray[np.float32] = np.where(brain_IJK, _DARKEST + (1 - _DARKEST) * scaled_IJK, 0).astype(np.float32)
    return voxels_IJK


def _bins_of(values: NDArray[np.float32], number: int) -> NDArray[np.int64]:
    scaled = (values - _DARKEST) / (1 - _DARKEST) * number
    bins: NDArray[np.int64] = np.clip(scaled.astype(np.int64), 0, number - 1)
    return bins


def _entropy(shares: NDArray[np.float64]) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())
