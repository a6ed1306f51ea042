"""In which part of the brain each lesion lies.

The regions of the 2017 McDonald criteria (Thompson et al. 2018, doi 10.1016/S1474-4422(17)30470-2), each put into a
rule that a program can follow, and deep white matter for the rest. Distances are those of the common space.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.features.atlas import Atlas
from msfl_client.features.tissues import Tissues
from msfl_common.config.feature_catalogue import ZONES, Zone

Mask = NDArray[np.bool_]

PERIVENTRICULAR_MM = 3.0  # from the ventricles' fluid, centre to centre: touching, or within 3 mm
JUXTACORTICAL_MM = 2.0  # from the cortex
VENTRICLE_REACH_MM = 6.0  # how far outside the atlas's ventricles a patient's widened ones are looked for
_MOSTLY = 0.5


@dataclass(frozen=True)
class Landmarks:
    """What lesions lie near to or in.

    Attributes:
        ventricles_DHW: fluid of the patient's own lateral and third ventricles.
        cortex_DHW: the patient's own cortex, cerebrum alone.
        infratentorial_DHW: cerebellum, brainstem and fourth ventricle by the atlas.
    """

    ventricles_DHW: Mask
    cortex_DHW: Mask
    infratentorial_DHW: Mask


def find_landmarks(tissues: Tissues, atlas: Atlas, spacing_mm: tuple[float, float, float]) -> Landmarks:
    """The patient's ventricles and cortex.

    Ventricles are mostly fluid, near the atlas's and in one piece with fluid inside them; cortex is mostly grey,
    within reach of the atlas's cortex.
    """
    near_DHW = _distance_mm(atlas.ventricles_DHW, spacing_mm) <= VENTRICLE_REACH_MM
    pieces_DHW, _ = ndimage.label((tissues.csf_DHW > _MOSTLY) & near_DHW & ~atlas.infratentorial_DHW)
    inside = np.unique(pieces_DHW[atlas.ventricles_DHW])
    return Landmarks(
        ventricles_DHW=np.isin(pieces_DHW, inside[inside > 0]),
        cortex_DHW=(tissues.gm_DHW > _MOSTLY) & np.any(list(atlas.cortex.values()), axis=0),
        infratentorial_DHW=atlas.infratentorial_DHW,
    )


def zone_of_each(
    labels_DHW: NDArray[np.int32], num_lesions: int, landmarks: Landmarks, spacing_mm: tuple[float, float, float]
) -> list[Zone]:
    """The zone of lesions 1 to `num_lesions`; of several that apply, the first of `ZONES`.

    Infratentorial: at least half of the lesion in cerebellum or brainstem. Periventricular: a voxel within 3 mm of
    the ventricles. Juxtacortical: a voxel within 2 mm of the cortex. Deep white: none of these.
    """
    if num_lesions == 0:
        return []
    numbers = np.arange(1, num_lesions + 1)
    applies: dict[Zone, NDArray[np.bool_]] = {
        "infratentorial": ndimage.mean(landmarks.infratentorial_DHW, labels_DHW, numbers) >= _MOSTLY,
        "periventricular": _nearest_mm(landmarks.ventricles_DHW, labels_DHW, numbers, spacing_mm) <= PERIVENTRICULAR_MM,
        "juxtacortical": _nearest_mm(landmarks.cortex_DHW, labels_DHW, numbers, spacing_mm) <= JUXTACORTICAL_MM,
        "deep_white": np.ones(num_lesions, bool),
    }
    return [next(zone for zone in ZONES if applies[zone][index]) for index in range(num_lesions)]


def _nearest_mm(
    mask_DHW: Mask, labels_DHW: NDArray[np.int32], numbers: NDArray[np.int64], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Distance of each lesion's nearest voxel to the mask."""
    return np.asarray(ndimage.minimum(_distance_mm(mask_DHW, spacing_mm), labels_DHW, numbers)) - 1e-6


def _distance_mm(mask_DHW: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance of each voxel's centre to the nearest centre in the mask; infinite when there is none."""
    if not mask_DHW.any():
        return np.full(mask_DHW.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask_DHW, sampling=spacing_mm))
