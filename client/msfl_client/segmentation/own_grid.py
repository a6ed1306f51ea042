"""The network's answer on the patient's own grid, that of the manual mask or of the scan.

Orientation is RAS. Legend: D/H/W voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.data.aligned_images import places
from msfl_client.data.bids import Case
from msfl_client.data.derivative import read_sidecar
from msfl_client.imaging.brain_signal import read_brain
from msfl_client.imaging.masks import Grid, Mask, drawn_on
from msfl_client.imaging.resampling import FloatImage, read_image, read_mask
from msfl_common.config.contrasts import outlined_on
from msfl_common.config.site import SiteConfig
from msfl_common.errors import CaseError
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.metrics.segmentation import METRICS, NATIVE, SegmentationMetric, segmentation_metrics
from msfl_common.models.model_folder import LESION_THRESHOLD

_Box = tuple[slice, ...]


@dataclass(frozen=True)
class OwnTruth:
    """A manual mask as it was drawn, cut to its lesions to be kept in memory.

    Attributes:
        truth_DHW: the lesions' part of it.
        start: first voxel of that part.
        grid: shape and affine of the whole.
        to_input: 4 x 4, RAS mm of the mask to RAS mm of what the network sees.
    """

    truth_DHW: Mask
    start: tuple[int, int, int]
    grid: Grid
    to_input: NDArray[np.float64]


def own_truth(case: Case, original: Case, site: SiteConfig) -> OwnTruth:
    """The manual mask of a case that can be trained on.

    Args:
        case: what the network sees, preprocessed or not.
        original: the same case in the site's BIDS folder.
        site: whose.

    Raises:
        CaseError: the mask cannot be read, or it is not known how the case was brought into the common space.
        OSError: a file cannot be opened.
    """
    assert original.mask is not None
    mask, to_input = read_mask(original.mask), np.eye(4)
    contrast = drawn_on(mask, {name: read_image(path) for name, path in original.images.items()})
    target = outlined_on(original.images)
    if case.mask == original.mask and contrast is not None and contrast != target:
        images = {name: read_brain(path).image for name, path in original.images.items()}
        to_input = places(original, images, target)[contrast]
    elif case.mask != original.mask:
        sidecar = read_sidecar(original, site)
        if sidecar is None or contrast not in sidecar.to_anchor:
            raise CaseError(f"{case.key}: the way back from the common space is not known; preprocess it again")
        to_input = np.array(sidecar.native_to_mni) @ np.array(sidecar.to_anchor[contrast])
    truth_DHW = np.asarray(mask.dataobj) > 0.5
    box = next(iter(ndimage.find_objects(truth_DHW.astype(np.uint8))), (slice(0, 0),) * 3)
    start = (box[0].start, box[1].start, box[2].start)
    return OwnTruth(truth_DHW[box].copy(), start, (truth_DHW.shape, mask.affine), to_input)


def on_grid(probability_DHW: FloatImage, affine: NDArray[np.float64], grid: Grid) -> FloatImage:
    """A probability map on another grid, by linear interpolation; 0 beyond its field of view.

    Args:
        probability_DHW: on the grid of the network's input.
        affine: 4 x4, its voxels to millimetres of `grid`.
        grid: shape and affine.
    """
    moved = resample_from_to(nib.Nifti1Image(probability_DHW, affine), grid, order=1)
    return np.asarray(moved.dataobj, dtype=np.float32)


def metrics_on_own_grid(
    probability_DHW: FloatImage,
    affine: NDArray[np.float64],
    own: OwnTruth,
    metrics: Mapping[str, SegmentationMetric] = METRICS,
) -> dict[str, float]:
    """`segmentation_metrics` of what `predict` would write, against the mask as it was drawn.

    Args:
        probability_DHW: on the grid of the network's input.
        affine: 4 x 4, its voxels to RAS mm.
        own: the mask.
        metrics: those of the study's task (`registry.CASE_METRICS`).
    """
    shape, own_affine = own.grid
    to_own = np.linalg.inv(own.to_input) @ affine
    box = _union(_reach(probability_DHW, np.linalg.inv(own_affine) @ to_own, shape), _place(own))
    truth_DHW, start = np.zeros([axis.stop - axis.start for axis in box], dtype=bool), [axis.start for axis in box]
    inner = tuple(slice(a.start - b, a.stop - b) for a, b in zip(_place(own), start, strict=True))
    truth_DHW[inner] = own.truth_DHW
    part_affine = np.asarray(own_affine, dtype=np.float64).copy()
    part_affine[:3, 3] = apply_affine(own_affine, start)
    predicted_DHW = np.zeros(truth_DHW.shape, dtype=bool)
    if truth_DHW.size:
        predicted_DHW = on_grid(probability_DHW, to_own, (truth_DHW.shape, part_affine)) >= LESION_THRESHOLD
    x_mm, y_mm, z_mm = (float(size) for size in voxel_sizes(own_affine))
    measured = segmentation_metrics(predicted_DHW, truth_DHW, (x_mm, y_mm, z_mm), metrics)
    return {f"{name}{NATIVE}": value for name, value in measured.items() if f"{name}{NATIVE}" in ALL_METRICS}


def _place(own: OwnTruth) -> _Box:
    return tuple(slice(first, first + size) for first, size in zip(own.start, own.truth_DHW.shape, strict=True))


def _reach(probability_DHW: FloatImage, to_own: NDArray[np.float64], shape: Sequence[int]) -> _Box:
    """The box of own voxels that can be lesion: between voxels none is more probable than the next ones."""
    found = ndimage.find_objects((probability_DHW >= LESION_THRESHOLD).astype(np.uint8))
    if not found:
        return (slice(0, 0),) * 3
    ends = np.array([[axis.start - 1, axis.stop] for axis in found[0]])
    corners = apply_affine(to_own, np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3))
    low = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _union(one: _Box, other: _Box) -> _Box:
    """The smallest box around both; an empty one counts for nothing."""
    if any(axis.stop <= axis.start for axis in one):
        return other
    if any(axis.stop <= axis.start for axis in other):
        return one
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
