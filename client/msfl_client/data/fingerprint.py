"""What a network's plan needs to know of an image: its voxels, its size, how bright lesions are (Isensee et al. 2021).

That is nnU-Net's fingerprint of a data set (doi 10.1038/s41592-020-01008-z), image by image. IJK are voxel indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from msfl_client.data.bids import Case
from msfl_client.imaging.geometry import spacing_mm
from msfl_client.imaging.volumes import Volume, read_volume
from msfl_common.config.contrasts import outlined_on
from msfl_common.errors import CaseError


@dataclass(frozen=True)
class Fingerprint:
    """Of one image, the one that lesions are outlined on.

    Attributes:
        voxel_mm: cube root of a voxel's volume.
        slice_mm: longest edge of a voxel.
        extent_mm: shortest edge of the box around all that is above 0.
        lesion_sd: median intensity in the manual mask, in standard deviations above the mean of what is above 0; None
            without a mask on the image's own grid.
    """

    voxel_mm: float
    slice_mm: float
    extent_mm: float
    lesion_sd: float | None


def fingerprint_of(case: Case) -> Fingerprint | None:
    """A case's fingerprint; None of an image that cannot be read or is empty: `msfl-client check` says why."""
    image = _read(case.images[outlined_on(case.images)])
    if image is None:
        return None
    edges_mm, inside_IJK = spacing_mm(image.affine), image.voxels_IJK > 0
    boxes = ndimage.find_objects(inside_IJK.astype(np.uint8))
    if not boxes or not edges_mm.all():
        return None
    extents_mm = [(axis.stop - axis.start) * edge for axis, edge in zip(boxes[0], edges_mm, strict=True)]
    return Fingerprint(
        voxel_mm=float(np.prod(edges_mm)) ** (1 / 3),
        slice_mm=float(edges_mm.max()),
        extent_mm=float(min(extents_mm)),
        lesion_sd=_lesion_sd(image, _read(case.mask) if case.mask else None),
    )


def _lesion_sd(image: Volume, mask: Volume | None) -> float | None:
    if mask is None or mask.shape != image.shape or not np.allclose(mask.affine, image.affine, atol=1e-3):
        return None
    inside, lesions = (image.voxels_IJK[where] for where in (image.voxels_IJK > 0, mask.voxels_IJK > 0))
    spread = float(inside.std(dtype=np.float64))
    if not lesions.size or not spread:
        return None
    return (float(np.median(lesions)) - float(inside.mean(dtype=np.float64))) / spread


def _read(path: Path) -> Volume | None:
    try:
        return read_volume(path).filled()
    except (CaseError, OSError):
        return None
