"""Whether the brightness of an image means what the network and the features take it for."""

from __future__ import annotations

from collections.abc import Iterator

import nibabel as nib
import numpy as np
from scipy import ndimage

from msfl_client.data.findings import Finding
from msfl_client.imaging.brain_signal import INVERTED, WITHOUT_BLACK, seems_inverted, signal_of
from msfl_client.imaging.skull_strip_detection import background_of, is_brain_alone
from msfl_client.imaging.volumes import Volume
from msfl_common.config.contrasts import Contrast, facts_of
from msfl_common.errors import CaseError

_BACKGROUND_SHARE = 0.5  # of the six outermost planes
_HOLES_SHARE = 0.05  # of the brain: fluid that was cut off with the background
_CUT_OFF_SHARE = 0.02  # of what is brighter than the mean; a scan has a voxel or two of its highest value


def finite_rules(volume: Volume) -> Iterator[Finding]:
    """Finite values, but for a background that some tools write as NaN."""
    voxels_IJK = volume.voxels_IJK
    bad_IJK = ~np.isfinite(voxels_IJK)
    num_bad = int(bad_IJK.sum())
    if not num_bad:
        return
    border = np.concatenate([np.take(bad_IJK, (0, -1), axis=axis).ravel() for axis in range(3)])
    num_within = int((ndimage.binary_fill_holes(~bad_IJK) & bad_IJK).sum())
    is_background = border.mean() >= _BACKGROUND_SHARE and not np.isinf(voxels_IJK).any()
    if is_background and num_within <= _HOLES_SHARE * (voxels_IJK.size - num_bad):
        yield Finding("pass", None, "nan-background", "its background is NaN; read as 0")
        return
    text = f"{num_bad:,} voxels ({100 * num_bad / voxels_IJK.size:.2g}%) are NaN or infinite"
    yield Finding("fail", None, "values", text)


def brightness_rules(volume: Volume, contrast: Contrast) -> Iterator[Finding]:
    """A brain, or head, that is brighter than what surrounds it, and whose black is known.

    Args:
        volume: of finite values, not all of them the same.
        contrast: what it shows.
    """
    image = nib.Nifti1Image(volume.voxels_IJK, volume.affine)
    try:
        signal = signal_of(image)
    except CaseError as error:
        yield Finding("fail", None, "inverted" if INVERTED in str(error) else "brightness", str(error))
        return
    bright = volume.voxels_IJK[volume.voxels_IJK > volume.voxels_IJK.mean()]
    if (share := (bright == bright.max()).mean()) > _CUT_OFF_SHARE:
        text = (
            f"{share:.0%} of what is bright in it has its very highest value: it is cut off, and lesions may be missed"
        )
        yield Finding("warn", None, "cut-off", text)
    if not is_brain_alone(volume.voxels_IJK, volume.affine):
        return
    fluid = facts_of(contrast).fluid
    if fluid and seems_inverted(image, fluid):
        text = f"fluid and the brain's rim look {'bright' if fluid == 'dark' else 'dark'}; it may be {INVERTED}"
        yield Finding("fail", None, "inverted", text)
    background = background_of(volume.voxels_IJK)
    if not signal.knows_black:
        yield Finding("warn", None, "brightness", f"{WITHOUT_BLACK}; features of its signal are not measured")
    elif background != 0:
        yield Finding("warn", None, "brightness", f"its background is {background:g}, not 0; it is taken for black")
