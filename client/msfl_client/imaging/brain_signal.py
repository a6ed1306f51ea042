"""Where the brain is in an image, and what its brightness means: asked once, on the image's own grid.

Everything that follows (resampling, normalisation, features, deep models) takes a signal: above 0 in the brain, 0
outside, linear in the brightness that was measured. A shift or a scale of intensities, a brain z-scored before a
background of 0, at its minimum or far below, all give the signal of the plain image but for a factor; an image whose
brain is darker than what surrounds it is refused. An image before a background of 0 with no value below is its own
signal, to the bit.

Legend: D/H/W voxels of an image in RAS order, IJK of one in any orientation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.imaging.geometry import spacing_mm
from msfl_client.imaging.resampling import CLIP_PERCENTILES, read_image
from msfl_client.imaging.skull_strip_detection import apart_from_background, background_of, is_brain_alone
from msfl_common.errors import CaseError

# Of the brain's own range (0.5 to 99.95%): how far below it a background can lie and be what black is (0.01 to 0.5 in
# real and simulated scans), and how far below the brain's darkest voxel can lie and be no fault.
FARTHEST_BLACK, FARTHEST_DARKEST = 1.0, 0.1
_SAME_AS_BACKGROUND = 0.05  # share of the brain: fluid cut off at 0 is less
_DARKEST_OF_HEAD = 0.01  # percentile of a whole head that counts as black: air
_LOOKED_AT_MM = 2.0
_RIM, _CORE = 1, 3  # voxels of about 2 mm from the brain's surface
_RIM_OF_INVERTED = {"dark": 0.5, "bright": 0.2}  # standard deviations, by how bright fluid is
WITHOUT_BLACK = "its background is none of a scan's (z-scored, perhaps): how bright the brain was cannot be told"
INVERTED = "inverted, of the other sign"


@dataclass(frozen=True)
class Signal:
    """An image as a signal.

    Attributes:
        image: above 0 in the brain, or head; 0 outside of a brain.
        knows_black: whether ratios of brightness mean something: no, where the background was replaced after the brain
            was z-scored.
    """

    image: nib.Nifti1Image
    knows_black: bool = True


def read_brain(path: Path) -> Signal:
    """A skull-stripped image in RAS order, as a signal.

    Raises:
        CaseError: the file cannot be read as a 3D image, holds nothing, or is inverted.
        OSError: the file cannot be opened.
    """
    return brain_signal(read_image(path))


def brain_signal(image: nib.Nifti1Image) -> Signal:
    """`read_brain` for an image in memory.

    Raises:
        CaseError: it holds nothing, or is inverted.
    """
    voxels_DHW = np.asarray(image.dataobj, dtype=np.float32)
    background, brain_DHW = background_of(voxels_DHW), apart_from_background(voxels_DHW, image.affine)
    if not brain_DHW.any():
        raise CaseError("expected a brain, found an image of one value")
    values = voxels_DHW[brain_DHW]
    low, high = (float(value) for value in np.percentile(values, CLIP_PERCENTILES))
    if background >= high:
        raise CaseError(f"expected a brain brighter than its background, found one {INVERTED}")
    span = max(high - low, 1e-6 * abs(high), 1e-12)
    knows_black = low - FARTHEST_BLACK * span <= background <= low
    if background > low:
        num_same = int(ndimage.binary_fill_holes(brain_DHW).sum()) - values.size
        if num_same > _SAME_AS_BACKGROUND * values.size:
            share = 100 * num_same / (values.size + num_same)
            raise CaseError(f"its background, {background:g}, is also the value of {share:.0f}% of the brain")
    black = background if knows_black else max(float(values.min()), low - FARTHEST_DARKEST * span)
    signal_DHW = np.where(brain_DHW, np.maximum(voxels_DHW - np.float32(black), np.float32(1e-6 * span)), 0)
    return Signal(nib.Nifti1Image(signal_DHW.astype(np.float32), image.affine), knows_black)


def signal_of(image: nib.Nifti1Image) -> Signal:
    """The signal of an image that may be a brain alone, or a whole head, where black is the darkest of the air.

    Raises:
        CaseError: it holds nothing, or is inverted.
    """
    voxels_DHW = np.asarray(image.dataobj, dtype=np.float32)
    if is_brain_alone(voxels_DHW, image.affine):
        return brain_signal(image)
    apart_DHW = apart_from_background(voxels_DHW, image.affine, of_brain=False)
    if not apart_DHW.any():
        raise CaseError("expected a head, found an image of one value")
    if np.median(voxels_DHW[apart_DHW]) < background_of(voxels_DHW):
        raise CaseError(f"expected a head brighter than air, found one {INVERTED}")
    black = np.float32(np.percentile(voxels_DHW, _DARKEST_OF_HEAD))
    return Signal(nib.Nifti1Image(np.maximum(voxels_DHW - black, 0), image.affine))


def seems_inverted(image: nib.Nifti1Image, fluid: Literal["dark", "bright"]) -> bool:
    """Whether a brain has the rim and the tail of its own negative.

    The surface is cortex and fluid: in T1w and FLAIR darker than the core by 0.7 standard deviations and more, in T2w
    brighter by 0.3; and the distribution has its tail towards fluid.

    Args:
        image: skull-stripped.
        fluid: how bright fluid is in its contrast, against white matter.

    Raises:
        CaseError: it holds nothing.
    """
    towards = 1.0 if fluid == "dark" else -1.0
    signal_DHW = np.asarray(brain_signal(image).image.dataobj)
    steps = tuple(slice(None, None, max(1, round(_LOOKED_AT_MM / float(size)))) for size in spacing_mm(image.affine))
    signal_DHW = signal_DHW[steps]
    brain_DHW = ndimage.binary_fill_holes(signal_DHW > 0)
    rim_DHW = brain_DHW & ~ndimage.binary_erosion(brain_DHW, iterations=_RIM)
    core_DHW = ndimage.binary_erosion(brain_DHW, iterations=_CORE)
    if not core_DHW.any():
        return False
    values: NDArray[np.float64] = signal_DHW[brain_DHW].astype(np.float64)
    values = np.clip(values, *np.percentile(values, CLIP_PERCENTILES))
    spread = max(float(values.std()), 1e-12)
    skewness = float((((values - values.mean()) / spread) ** 3).mean())
    rim = float(np.median(signal_DHW[rim_DHW]) - np.median(signal_DHW[core_DHW])) / spread
    return towards * rim > _RIM_OF_INVERTED[fluid] and towards * skewness > 0
