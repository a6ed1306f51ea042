"""Whether a lesion mask lies in the brain that it is of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from nibabel.affines import apply_affine

from msfl_client.data.findings import Finding
from msfl_client.imaging.fit import ThinImage
from msfl_client.imaging.volumes import Volume

MOSTLY, NEARLY_ALL = 0.5, 0.9


def mask_place_rule(mask: Volume, brain: ThinImage) -> Iterator[Finding]:
    """A mask that lies mostly outside of the brain is refused, one that lies partly outside is said.

    Args:
        mask: of 0 and 1.
        brain: of the image that it was drawn on.
    """
    lesions = np.argwhere(mask.voxels_IJK > 0.5)
    if not len(lesions):
        return
    share = float(brain.shows(apply_affine(mask.affine, lesions)).mean())
    if share < NEARLY_ALL:
        text = f"{100 * (1 - share):.0f}% of its lesions' volume lies outside of the brain"
        yield Finding("warn" if share >= MOSTLY else "fail", None, "mask-place", text)
