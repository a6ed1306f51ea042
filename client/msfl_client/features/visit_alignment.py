"""Two visits of a patient, which must lie on one another before their lesions are compared.

Each visit is brought to the template by itself, or was before it came here. Legend: D/H/W voxels.
"""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib

from msfl_client.data.aligned_images import placed
from msfl_client.imaging.alignment import align
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.imaging.fit import thin_image
from msfl_client.imaging.masks import carry_mask
from msfl_common.config.contrasts import outlined_on
from msfl_common.errors import CaseError

MOVED_MM = 2.0  # what is less is left to `compare_lesions`, which takes a voxel for alignment
FAR_MM = 5.0  # two good registrations to the template are not that far apart


def on_earlier_visit(earlier: CommonSpaceCase, later: CommonSpaceCase) -> CommonSpaceCase:
    """The later visit, its lesions where the brain of the earlier one has them.

    Args:
        earlier: a visit.
        later: another of the patient, on the same grid.

    Raises:
        CaseError: the two do not fit: another patient, a mirrored image, or one that is not on the template.
    """
    shared = [contrast for contrast in later.images_DHW if contrast in earlier.images_DHW]
    if not shared or later.lesion_DHW is None:
        return later
    contrast = outlined_on(shared)
    brains = [
        thin_image(nib.Nifti1Image(visit.images_DHW[contrast], visit.affine), visit.brain_DHW)
        for visit in (later, earlier)
    ]
    if brains[0] is None or brains[1] is None:
        return later
    found = align(brains[0], brains[1])
    if found.verdict == "mirrored":
        raise CaseError(f"{contrast} fits that of the visit before only with left and right exchanged: one is mirrored")
    if found.verdict == "apart" or found.moved_mm > FAR_MM:
        where = f"{found.moved_mm:.0f} mm off" if found.moved_mm else "nowhere on"
        raise CaseError(
            f"{contrast} lies {where} that of the visit before: another patient, or one of the two is not on the "
            "template; look at both in a viewer"
        )
    if found.moved_mm < MOVED_MM:
        return later
    lesions = placed(nib.Nifti1Image(later.lesion_DHW.astype("float32"), later.affine), found.matrix)
    return replace(later, lesion_DHW=carry_mask(lesions, (later.brain_DHW.shape, later.affine)))
