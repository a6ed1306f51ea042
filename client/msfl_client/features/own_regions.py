"""Means of contrasts over the regions of a site's own label image.

A mean is over all voxels of the brain that have the region's label; of fewer than `FEWEST` there is none. That of a
quantity is in its own unit, that of another contrast a share of the brain's median. Legend: D, H, W are voxels
towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from numpy.typing import NDArray

from msfl_client.data.bids_tables import several
from msfl_client.features.regions import FEWEST
from msfl_client.features.table import FeatureRow
from msfl_client.features.tissues import Tissues
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_common.config.bids_suffixes import SUFFIXES
from msfl_common.config.inputs import Inputs
from msfl_common.config.parcellation import Parcellation, roi_name
from msfl_common.errors import CaseError

_LEAST_INSIDE = 0.5  # share of the regions that lies in the brain


@dataclass(frozen=True)
class OwnRegions:
    """A label image in the space of the patient's T1w, and what its labels mean."""

    labels: nib.Nifti1Image
    parcellation: Parcellation

    def on_grid(self, case: CommonSpaceCase) -> NDArray[np.int32]:
        """The label of each voxel of the brain on the case's grid, by nearest neighbour; 0 of none.

        Raises:
            CaseError: most of the regions lie beside the brain.
        """
        shape = case.brain_DHW.shape
        moved = nib.Nifti1Image(np.asarray(self.labels.dataobj), case.native_to_mni @ self.labels.affine)
        carried = resample_from_to(moved, (shape, case.affine), order=0)
        labels_DHW = np.where(case.brain_DHW, np.asarray(carried.dataobj), 0).astype(np.int32)
        voxels_mm3 = [abs(float(np.linalg.det(affine[:3, :3]))) for affine in (moved.affine, case.affine)]
        there_mm3 = np.count_nonzero(np.asarray(moved.dataobj)) * voxels_mm3[0]
        inside = np.count_nonzero(labels_DHW) * voxels_mm3[1] / there_mm3
        if inside < _LEAST_INSIDE:
            raise CaseError(
                f"{100 * inside:.0f}% of the label image's regions lie in the brain; expected one in the space of T1w"
            )
        return labels_DHW


def own_region_means(own: OwnRegions, case: CommonSpaceCase, tissues: Tissues) -> dict[str, float]:
    """The means of a case's contrasts, but for those with entities in their names, over the regions that are there.

    Raises:
        CaseError: the label image lies elsewhere.
    """
    labels_DHW = own.on_grid(case)
    labels, place_DHW, counts = np.unique(labels_DHW, return_inverse=True, return_counts=True)
    measured: dict[str, float] = {}
    for contrast, image_DHW in case.images_DHW.items():
        if contrast not in SUFFIXES or contrast in case.without_black:
            continue
        unit = case.scales.get(contrast) or float(np.median(image_DHW[case.brain_DHW & (tissues.csf_DHW < 0.5)]))
        sums = np.bincount(place_DHW.ravel(), weights=image_DHW.ravel())
        measured |= {
            roi_name(contrast, own.parcellation.names[int(label)]): float(total / count / unit)
            for label, total, count in zip(labels, sums, counts, strict=True)
            if label and count >= FEWEST
        }
    return measured


def says_of_regions(rows: Sequence[FeatureRow], inputs: Inputs) -> Iterator[str]:
    """Which regions a case has no mean over, a line each case."""
    wanted: Mapping[str, str] = {}
    if inputs.parcellation is not None:
        wanted = {name: name.partition("_roi_")[2] for name in inputs.parcellation.features(inputs.contrasts)}
    for row in rows:
        lacking = list(dict.fromkeys(region for name, region in wanted.items() if name not in row.features))
        if lacking:
            text = f"no mean over {len(lacking)} of its regions, {several(lacking)}"
            yield f"{row.key}: {text}: fewer than {FEWEST} voxels of the brain, at {inputs.spacing_mm:g} mm, are theirs"
