"""A case in the space that all sites share: MNI152, on the grid of the template at the study's spacing.

Orientation is RAS. Legend: D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.base import Contrast


@dataclass(frozen=True)
class CommonSpaceCase:
    """One case after preprocessing, every array on the same grid.

    Attributes:
        images_DHW: each contrast, bias-corrected, positive in the brain and 0 outside; float32.
        brain_DHW: the brain with its ventricles.
        lesion_DHW: the lesion mask, or None without one.
        affine: 4 x 4, voxel indices to MNI152 millimetres.
        native_to_mni: 4 x 4, millimetres in the case's own space to MNI152 millimetres. Its determinant is how
            many times larger the brain is here than it really is: volumes are divided by it.
        without_black: contrasts of which ratios of brightness mean nothing; see `brain_signal.Signal`.
        scales: of each contrast that is a quantity, what its numbers were multiplied with.
        label_DHW: as the lesion mask, with the number of each voxel's class; None where only the mask is known.
    """

    images_DHW: Mapping[Contrast, NDArray[np.float32]]
    brain_DHW: NDArray[np.bool_]
    lesion_DHW: NDArray[np.bool_] | None
    affine: NDArray[np.float64]
    native_to_mni: NDArray[np.float64]
    without_black: frozenset[Contrast] = frozenset()
    scales: Mapping[Contrast, float] = field(default_factory=dict)
    label_DHW: NDArray[np.uint8] | None = None

    @property
    def voxel_ml(self) -> float:
        """Volume that a voxel stands for in the patient's own head, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]) / np.linalg.det(self.native_to_mni[:3, :3]))) / 1000
