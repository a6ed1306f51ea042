"""One case from raw scans to the common space, voxels resampled once.

Orientation is RAS. Legend: D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.data.bids import Case
from msfl_client.imaging.bias_field import correct_bias
from msfl_client.imaging.brain_extraction import CPU, extract_brain
from msfl_client.imaging.brain_signal import Signal, signal_of
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.imaging.denoising import denoised
from msfl_client.imaging.masks import Grid, Mask, carry_labels, drawn_on
from msfl_client.imaging.registration import (
    Registration,
    load_template,
    register_to_template,
    template_brain,
)
from msfl_client.imaging.resampling import read_image, read_mask, resample
from msfl_client.imaging.skull_strip_detection import brain_of, dice, recognise
from msfl_client.preprocessing.co_registration import brain_on, co_register
from msfl_common.config.base import Preprocessed
from msfl_common.config.contrasts import Contrast, anchor_of, facts_of
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError

BRAIN_MEDIAN = 1000  # what a contrast's median in the brain is scaled to
_BRIGHTEST = 32_000  # fits the 16-bit integers that images are kept as
_LEAST_OVERLAP = 0.75  # Dice with the template's brain, below which the registration has failed
_STAYS = Registration(np.eye(4), None)

Images = Mapping[Contrast, nib.Nifti1Image]


@dataclass(frozen=True)
class PreprocessedCase:
    """A case in the common space, and how it got there.

    Attributes:
        case: the case; its `native_to_mni` starts from the anchor contrast.
        anchor: the contrast that the brain and the template were matched on.
        found: what the images were before.
        to_anchor: for each contrast, where it lies on the anchor.
        to_template: where the anchor lies on the template.
        native: the images as signals.
        native_brains: the brain on the grid of each.
    """

    case: CommonSpaceCase
    anchor: Contrast
    found: Preprocessed
    to_anchor: Mapping[Contrast, Registration]
    to_template: Registration
    native: Images
    native_brains: Mapping[Contrast, Mask]

    def native_to_mni(self, contrast: Contrast) -> NDArray[np.float64]:
        """4 x 4, millimetres of a contrast's own file to MNI152 millimetres."""
        matrix: NDArray[np.float64] = self.to_template.matrix @ self.to_anchor[contrast].matrix
        return matrix


def anchor_contrast(inputs: Inputs) -> Contrast:
    """The contrast that brain extraction and the template know best: T1w where the study uses it."""
    return anchor_of(inputs.contrasts)


def preprocess_case(
    case: Case, inputs: Inputs, found: Preprocessed | None = None, device: torch.device = CPU
) -> PreprocessedCase:
    """Skull stripping, co-registration of the contrasts, N4 bias correction, and registration to MNI152.

    Denoising, where the study asks for it, comes before them all.

    Args:
        case: the case; a mask must lie on the grid of one of its images.
        inputs: contrasts and spacing.
        found: what the images are; None: to be recognised. What was done already is not done again.
        device: where to look for the brain.

    Raises:
        CaseError: an image cannot be read, no brain was found, or the images do not lie on one another.
    """
    signals = _read(case, inputs)
    native: Images = {contrast: signal.image for contrast, signal in signals.items()}
    found = found or recognise(native)
    native = denoised(native, inputs.denoising)
    anchor = anchor_contrast(inputs)
    brain_DHW = extract_brain(native[anchor], device) if found == "none" else brain_of(native[anchor])
    if not brain_DHW.any():
        raise CaseError(f"{anchor}: expected a brain, found an empty image")
    to_anchor = co_register(case, native, anchor, brain_DHW, found)
    brain = nib.Nifti1Image(brain_DHW.astype(np.float32), native[anchor].affine)
    brains = {contrast: brain_on(native[contrast], brain, to_anchor[contrast].matrix) for contrast in native}
    even = even_out(native, brains) if found == "none" else native
    to_template = _STAYS if found == "common-space" else register_to_template(even[anchor], brain_DHW)
    to_mni = {contrast: to_template.matrix @ to_anchor[contrast].matrix for contrast in native}
    done = _in_common_space(even, brain, to_mni, to_template.matrix, inputs, _lesions(case, native, inputs))
    done = replace(done, without_black=frozenset(name for name, signal in signals.items() if not signal.knows_black))
    return PreprocessedCase(done, anchor, found, to_anchor, to_template, native, brains)


def recognise_case(case: Case, inputs: Inputs, visits: Sequence[Case] = ()) -> Preprocessed:
    """What a case's images are, so that all visits of its patient are brought to the template in one way.

    One visit taken as it is and another registered would differ in size, and every lesion would seem to change:
    skull-stripped images count as in the common space only where those of all visits do.

    Args:
        case: the case.
        inputs: which images are looked at.
        visits: the patient's visits, this one among them or not; what cannot be read is passed over.

    Raises:
        CaseError: an image of the case itself cannot be read.
    """
    found = recognise(_images(case, inputs))
    for other in visits:
        if found == "common-space" and other != case:
            with suppress(CaseError, OSError, KeyError):
                found = found if recognise(_images(other, inputs)) == found else "brain"
    return found


def _read(case: Case, inputs: Inputs) -> Mapping[Contrast, Signal]:
    signals = {}
    for contrast, image in _images(case, inputs).items():
        try:
            signal = signal_of(image)
        except CaseError as error:
            raise CaseError(f"{contrast}: {error}") from None
        signals[contrast] = (
            replace(signal, image=_as_measured(image, signal)) if _is_measured(contrast, signal) else signal
        )
    return signals


def _is_measured(contrast: Contrast, signal: Signal) -> bool:
    return facts_of(contrast).is_quantity and signal.knows_black


def _as_measured(image: nib.Nifti1Image, signal: Signal) -> nib.Nifti1Image:
    """A quantity's own numbers where there is a brain, or head."""
    voxels_DHW = np.asarray(image.dataobj, dtype=np.float32)
    return nib.Nifti1Image(np.where(np.asarray(signal.image.dataobj) > 0, voxels_DHW, 0), image.affine)


def _images(case: Case, inputs: Inputs) -> Images:
    return {contrast: read_image(case.images[contrast]) for contrast in inputs.channels}


def _lesions(case: Case, native: Images, inputs: Inputs) -> tuple[Contrast, nib.Nifti1Image] | None:
    """The manual mask and the contrast on whose grid it was drawn."""
    if case.mask is None:
        return None
    mask = read_mask(case.mask, inputs.num_classes)
    contrast = drawn_on(mask, native)
    if contrast is None:
        raise CaseError("the mask is on no image's grid")
    return contrast, mask


def _in_common_space(
    even: Images,
    brain: nib.Nifti1Image,
    to_mni: Mapping[Contrast, NDArray[np.float64]],
    native_to_mni: NDArray[np.float64],
    inputs: Inputs,
    lesions: tuple[Contrast, nib.Nifti1Image] | None,
) -> CommonSpaceCase:
    """The one resampling: every image straight from its own grid, cut to the brain that all contrasts show."""
    template = load_template(inputs.spacing_mm)
    grid = (template.shape, template.affine)
    brain_DHW = resample(moved(brain, native_to_mni), grid) >= 0.5
    resampled = {}
    for contrast, image in even.items():
        resampled[contrast] = resample(moved(image, to_mni[contrast]), grid)
        brain_DHW &= in_field(image, to_mni[contrast], grid)
    if not brain_DHW.any():
        raise CaseError("its contrasts show no common part of the brain")
    overlap = dice(brain_DHW, template_brain(inputs.spacing_mm))
    if overlap < _LEAST_OVERLAP:
        raise CaseError(f"the brain does not fit the template: their Dice coefficient is {overlap:.2f}")
    factors = {contrast: _factor(image_DHW[brain_DHW]) for contrast, image_DHW in resampled.items()}
    images_DHW = {name: _scaled(image_DHW, brain_DHW, factors[name]) for name, image_DHW in resampled.items()}
    scales = {name: factor for name, factor in factors.items() if facts_of(name).is_quantity}
    lesion_DHW, label_DHW = None, None
    if lesions is not None:
        label_DHW = carry_labels(moved(lesions[1], to_mni[lesions[0]]), grid, inputs.num_classes)
        lesion_DHW = label_DHW > 0
    affine = np.asarray(template.affine, np.float64)
    return CommonSpaceCase(images_DHW, brain_DHW, lesion_DHW, affine, native_to_mni, scales=scales, label_DHW=label_DHW)


def even_out(native: Mapping[str, nib.Nifti1Image], brains: Mapping[str, Mask]) -> dict[str, nib.Nifti1Image]:
    """Images corrected for their bias fields, each within its brain; quantities have none and stay as they are."""
    return {
        name: image if facts_of(name).is_quantity else nib.Nifti1Image(correct_bias(image, brains[name]), image.affine)
        for name, image in native.items()
    }


def moved(image: nib.Nifti1Image, matrix: NDArray[np.float64]) -> nib.Nifti1Image:
    """The same voxels at another place: header arithmetic, nothing is interpolated."""
    return nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), matrix @ image.affine)


def in_field(image: nib.Nifti1Image, matrix: NDArray[np.float64], grid: Grid) -> Mask:
    """Which voxels of a grid an image reaches, to half a voxel beyond its outermost centres."""
    to_voxel = np.linalg.inv(matrix @ image.affine) @ grid[1]
    inside = np.ones(grid[0], dtype=bool)
    axes = [np.arange(size).reshape([-1 if axis == k else 1 for k in range(3)]) for axis, size in enumerate(grid[0])]
    for row, size in zip(to_voxel[:3], image.shape, strict=True):
        index = sum(weight * axis for weight, axis in zip(row[:3], axes, strict=True)) + row[3]
        inside &= (index >= -0.5) & (index <= size - 0.5)
    return inside


def _factor(inside: NDArray[np.float32]) -> float:
    """What brings the median of a brain's voxels to `BRAIN_MEDIAN`."""
    positive = inside[inside > 0]
    if positive.size < inside.size / 2:
        share = 100 * positive.size / inside.size
        raise CaseError(f"expected brightness above 0 in the brain, found it in {share:.0f}% of its voxels")
    return float(BRAIN_MEDIAN / np.median(positive))


def _scaled(image_DHW: NDArray[np.float32], brain_DHW: Mask, factor: float) -> NDArray[np.float32]:
    """Whole numbers, positive in the brain with a median of about `BRAIN_MEDIAN`, 0 outside."""
    scaled = np.clip(np.rint(image_DHW * factor), 1, _BRIGHTEST)
    return np.where(brain_DHW, scaled, 0).astype(np.float32)
