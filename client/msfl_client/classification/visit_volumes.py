"""From a visit's images to what deep models see (Barulina et al. 2026, section 2.3), cached.

Legend: C contrast, D slices upwards, H pixels to the front, W pixels to the right; I/J/K voxels of an image in RAS
order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy import ndimage

from msfl_client.data.aligned_images import AlignedCase, read_aligned
from msfl_client.data.bids import Case
from msfl_client.data.cache_limits import mark_used
from msfl_client.imaging.brain_signal import WITHOUT_BLACK
from msfl_client.imaging.masks import carry_mask
from msfl_client.imaging.resampling import CLIP_PERCENTILES
from msfl_common.config.base import Contrast
from msfl_common.config.classification import DeepModel
from msfl_common.config.inputs import Inputs
from msfl_common.errors import CaseError
from msfl_common.models.deep_models.visit_classifier import FIELD_MM
from msfl_common.system.files import write_bytes

VOLUME_FORMAT = 3  # raise it whenever this module's results change
BRIGHTEST = 255
_FWHM_PER_SIGMA = 2.3548
_KEY = "volume"


@dataclass(frozen=True)
class SliceGrid:
    """Where the slices of a volume lie in the image that they are of.

    Attributes:
        shape: pixels to the right, pixels to the front, slices of the brain.
        affine: 4 x 4, indices of these to RAS mm of the image.
        picked: the slices that the volume holds.
        first: place of the first of them in the volume.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    picked: NDArray[np.int64]
    first: int

    def on_slices(self, volume_DHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of a volume on every slice of the brain, each that of the nearest slice in the volume, W x H x D."""
        nearest = np.abs(np.arange(self.shape[2])[:, None] - self.picked).argmin(axis=1)
        return np.ascontiguousarray(volume_DHW[self.first + nearest].transpose())


def slice_grid(image: nib.Nifti1Image, model: DeepModel) -> SliceGrid:
    """The grid of `visit_volume` in a brain-extracted RAS image.

    Raises:
        CaseError: it holds nothing.
    """
    shape, affine = _slices_of_brain(image, model.pixels)
    picked = _pick(shape[2], model.slices)
    return SliceGrid(shape, affine, picked, (model.slices - len(picked)) // 2)


def refuse_too_coarse(image: nib.Nifti1Image, model: DeepModel) -> None:
    """Refuse an image that has less than half of the slices or pixels that a model takes.

    Raises:
        CaseError: says what is expected and found.
    """
    grid = slice_grid(image, model)
    coarsest_mm, pixel_mm = voxel_sizes(image.affine)[:2].max(), FIELD_MM / model.pixels
    if 2 * grid.shape[2] < model.slices:
        thick_mm = voxel_sizes(image.affine)[2]
        found = f"{grid.shape[2]} of {thick_mm:.2g} mm"
        raise CaseError(f"expected a brain of {model.slices // 2} slices or more, found {found}: too coarse")
    if coarsest_mm > 2 * pixel_mm:
        raise CaseError(f"expected pixels of {2 * pixel_mm:.2g} mm or less, found {coarsest_mm:.2g} mm: too coarse")


def visit_volume(
    images: Mapping[Contrast, nib.Nifti1Image],
    contrasts: Sequence[Contrast],
    model: DeepModel,
    mask: nib.Nifti1Image | None = None,
) -> NDArray[np.uint8]:
    """Axial slices of the brain, each contrast scaled by itself.

    Slices are the image's own, from the brain's lowest to its highest: all of them with as many empty ones below and
    above where there are fewer than the model takes, and evenly spaced ones where there are more. Within a slice,
    pixels are those of a square of `FIELD_MM` about the brain's middle; the paper does not say of what field its
    128 x 128 pixels are.

    Args:
        images: brain-extracted, RAS, background 0; contrasts may be missing. The first that is there gives the
            slices, and the others are brought onto them.
        contrasts: the study's, in channel order.
        model: number of slices and pixels.
        mask: the lesion mask, where the model sees it: one more channel, 255 in lesions.

    Returns:
        volume_CDHW of whole numbers from 0 to 255, zeros for a contrast that is missing.

    Raises:
        CaseError: there is no image, or none holds anything.
    """
    volume_CDHW = np.zeros((len(contrasts) + (mask is not None), model.slices, model.pixels, model.pixels), np.uint8)
    there = [contrast for contrast in contrasts if contrast in images]
    if not there:
        raise CaseError(f"expected an image of {' or '.join(contrasts)}, found none")
    grid = slice_grid(images[there[0]], model)
    for contrast in there:
        slices_WHD = _scaled(_in_plane(images[contrast], grid.shape, grid.affine))[:, :, grid.picked]
        volume_CDHW[contrasts.index(contrast), grid.first : grid.first + len(grid.picked)] = slices_WHD.transpose()
    if not volume_CDHW.any():
        raise CaseError("expected positive intensities, found none")
    if mask is not None:
        lesion_WHD = carry_mask(mask, (grid.shape, grid.affine))[:, :, grid.picked]
        volume_CDHW[-1, grid.first : grid.first + len(grid.picked)] = BRIGHTEST * lesion_WHD.transpose()
    return volume_CDHW


def _slices_of_brain(image: nib.Nifti1Image, pixels: int) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """The grid of a square field about the brain, in the image's own slices: its shape and affine."""
    foreground_IJK = np.asarray(image.dataobj) > 0
    if not foreground_IJK.any():
        raise CaseError("expected positive intensities, found none")
    box = ndimage.find_objects(foreground_IJK.astype(np.uint8))[0]
    steps = FIELD_MM / pixels / voxel_sizes(image.affine)[:2]
    middle = np.array([(axis.start + axis.stop - 1) / 2 for axis in box[:2]])
    to_voxels = np.diag([*steps, 1.0, 1.0])
    to_voxels[:3, 3] = [*(middle - steps * (pixels - 1) / 2), box[2].start]
    return (pixels, pixels, box[2].stop - box[2].start), np.asarray(image.affine @ to_voxels)


def _in_plane(image: nib.Nifti1Image, shape: tuple[int, int, int], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Linear resampling after a blur within slices, which keeps coarser pixels free of aliasing."""
    source_mm, pixel_mm = voxel_sizes(image.affine), voxel_sizes(affine)[0]
    fwhm = np.sqrt(np.maximum(pixel_mm**2 - source_mm[:2] ** 2, 0.0)) / source_mm[:2]
    smooth = ndimage.gaussian_filter(np.asarray(image.dataobj, np.float32), (*(fwhm / _FWHM_PER_SIGMA), 0.0))
    moved = resample_from_to(nib.Nifti1Image(smooth, image.affine), (shape, affine), order=1)
    return np.asarray(moved.dataobj, np.float32)


def _scaled(voxels_IJK: NDArray[np.float32]) -> NDArray[np.uint8]:
    """To 0 to 255 by a scan's own brightest voxels; a single hot voxel, which the maximum would be, has no say."""
    inside = voxels_IJK > 0
    if not inside.any():
        return np.zeros(voxels_IJK.shape, np.uint8)
    brightest = np.percentile(voxels_IJK[inside], CLIP_PERCENTILES[1])
    scaled: NDArray[np.uint8] = np.rint(np.clip(voxels_IJK / brightest, 0.0, 1.0) * BRIGHTEST).astype(np.uint8)
    return scaled


def _pick(num_found: int, num_wanted: int) -> NDArray[np.int64]:
    """Which slices to take: all, or evenly spaced ones with the first and the last among them."""
    picked: NDArray[np.int64] = np.rint(np.linspace(0, num_found - 1, min(num_found, num_wanted))).astype(np.int64)
    return picked


def cached_volume(case: Case, inputs: Inputs, model: DeepModel, cache: Path) -> Path:
    """The file with a visit's volume, made unless it is there already and whole.

    Raises:
        CaseError: an image cannot be read or holds nothing, there is no mask that the model sees, or the images do not
            lie on one another.
        OSError: a file cannot be opened.
    """
    path = _slot(case, inputs, model, cache)
    try:
        load_volume(path)
        mark_used(path)
    except (FileNotFoundError, SafetensorError, KeyError):
        read = _read(case, inputs)
        volume_CDHW = visit_volume(read.images, inputs.contrasts, model, read.mask)
        write_bytes(path, save({_KEY: np.ascontiguousarray(volume_CDHW)}))
    return path


def _read(case: Case, inputs: Inputs) -> AlignedCase:
    """Brains whose brightness can be scaled by its brightest voxels: what 0 was is known."""
    contrasts = [contrast for contrast in inputs.contrasts if contrast in case.images]
    if not contrasts:
        return AlignedCase({}, None)
    if inputs.masks and case.mask is None:
        raise CaseError("expected a manual lesion mask, found none")
    seen = case if inputs.masks else replace(case, mask=None)
    read = read_aligned(seen, contrasts, contrasts[0], inputs.denoising)
    if read.without_black:
        names = ", ".join(read.without_black)
        raise CaseError(f"{names}: {WITHOUT_BLACK}; give images whose background is 0 and whose brain is brighter")
    return read


def load_volume(path: Path) -> NDArray[np.float32]:
    """volume_CDHW from a file of `cached_volume`, 0 to 255."""
    return np.asarray(load_file(path)[_KEY], np.float32)


def _slot(case: Case, inputs: Inputs, model: DeepModel, cache: Path) -> Path:
    """Where a volume lies under `cache`: named by a hash of its files' identity and what it depends on."""
    files = {contrast: case.images[contrast] for contrast in inputs.contrasts if contrast in case.images}
    files |= {"mask": case.mask} if inputs.masks and case.mask else {}
    identity = [
        (contrast, str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for contrast, file in files.items()
    ]
    denoised = [] if inputs.denoising == "none" else [inputs.denoising]
    text = json.dumps([VOLUME_FORMAT, list(inputs.network_channels), model.slices, model.pixels, identity, *denoised])
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
