"""The features of a case, from its images in the common space. `msfl_common.config.feature_catalogue` lists them.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.features.atlas import Atlas, atlas_on
from msfl_client.features.lesion_change import compare_lesions
from msfl_client.features.lesion_zones import Landmarks, find_landmarks, zone_of_each
from msfl_client.features.own_regions import OwnRegions, own_region_means
from msfl_client.features.radiomics import radiomics_features
from msfl_client.features.regions import region_means
from msfl_client.features.texture import glcm_features
from msfl_client.features.tissues import Tissues, segment_tissues
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_common.config.bids_suffixes import SUFFIXES
from msfl_common.config.contrasts import CONTRASTS, Contrast
from msfl_common.config.feature_catalogue import ZONES, feature_prefix, in_order, with_unit
from msfl_common.metrics.segmentation import label_lesions

FORMAT = 4  # raise it whenever a feature's value changes
MOSTLY = 0.75  # share of a voxel from which its signal is taken for the tissue's own


def case_features(case: CommonSpaceCase, radiomics: bool = False, own: OwnRegions | None = None) -> dict[str, float]:
    """The features of one case on its own, in the order of `in_order`.

    Those of lesions need a mask, those of a contrast its image; what cannot be measured is not there.

    Args:
        case: with a T1w.
        radiomics: whether they are among them.
        own: regions of the site's own, over which means are among them, too.

    Raises:
        CaseError: there is no T1w, or no brain; or the regions lie elsewhere.
    """
    atlas = atlas_on(case.brain_DHW.shape, case.affine)
    tissues = segment_tissues(case, atlas)
    landmarks = find_landmarks(tissues, atlas, spacing_mm(case))
    found = dict(_volumes(case, tissues, atlas, landmarks))
    if case.lesion_DHW is not None:
        found |= _lesions(case, case.lesion_DHW, landmarks)
    for contrast, facts in CONTRASTS.items():
        if facts.has_features and contrast in case.images_DHW and contrast not in case.without_black:
            found |= _signals(contrast, case, tissues)
    for contrast in case.scales:
        if contrast in SUFFIXES and contrast not in case.without_black:
            found |= region_means(contrast, case, tissues, atlas, _normal_appearing(case, tissues))
    if radiomics:
        found |= radiomics_features(case, tissues, _normal_appearing(case, tissues), tissues.gm_DHW >= MOSTLY)
    if own is not None:
        found |= own_region_means(own, case, tissues)
    return {name: float(found[name]) for name in in_order(found)}


def change_features(earlier: CommonSpaceCase, later: CommonSpaceCase) -> dict[str, float]:
    """What happened to a patient's lesions between two visits; empty unless both have a mask.

    Raises:
        ValueError: the cases lie on different grids.
    """
    if earlier.brain_DHW.shape != later.brain_DHW.shape or not np.allclose(earlier.affine, later.affine):
        raise ValueError("expected two visits on one grid; prepare both at the same spacing")
    if earlier.lesion_DHW is None or later.lesion_DHW is None:
        return {}
    lesions = compare_lesions(earlier.lesion_DHW, later.lesion_DHW, spacing_mm(later), later.voxel_ml * 1000)
    new = [lesion.num_voxels for lesion in lesions if lesion.change == "new"]
    return {
        "new_lesion_count": float(len(new)),
        "new_lesion_volume_ml": sum(new) * later.voxel_ml,
        "enlarging_lesion_count": float(sum(lesion.change == "enlarging" for lesion in lesions)),
    }


def spacing_mm(case: CommonSpaceCase) -> tuple[float, float, float]:
    """Voxel size in the common space."""
    d, h, w = (float(size) for size in voxel_sizes(case.affine))
    return d, h, w


def _volumes(
    case: CommonSpaceCase, tissues: Tissues, atlas: Atlas, landmarks: Landmarks
) -> Iterator[tuple[str, float]]:
    tissue_DHW = tissues.gm_DHW + tissues.wm_DHW

    def volume_ml(amount_DHW: NDArray[np.float32]) -> float:
        return float(amount_DHW.sum(dtype=np.float64)) * case.voxel_ml

    brain_ml, csf_ml = volume_ml(tissue_DHW), volume_ml(tissues.csf_DHW)
    yield "brain_volume_ml", brain_ml
    yield "gm_volume_ml", volume_ml(tissues.gm_DHW)
    yield "wm_volume_ml", volume_ml(tissues.wm_DHW)
    yield "csf_volume_ml", csf_ml
    yield "ventricle_volume_ml", volume_ml(tissues.csf_DHW[landmarks.ventricles_DHW])
    yield "bpf", brain_ml / (brain_ml + csf_ml)
    for name, region_DHW in atlas.cortex.items():
        yield f"{name}_gm_ml", volume_ml(tissues.gm_DHW[region_DHW])
    for name, region_DHW in atlas.nuclei.items():
        yield f"{name}_ml", volume_ml(tissue_DHW[region_DHW])
    yield "cerebellum_ml", volume_ml(tissue_DHW[atlas.cerebellum_DHW])
    yield "brainstem_ml", volume_ml(tissue_DHW[atlas.brainstem_DHW])
    yield "corpus_callosum_ml", volume_ml(tissue_DHW[atlas.corpus_callosum_DHW])


def _lesions(case: CommonSpaceCase, lesion_DHW: NDArray[np.bool_], landmarks: Landmarks) -> dict[str, float]:
    labels_DHW, num_lesions = label_lesions(lesion_DHW, spacing_mm(case))
    volumes_ml = np.bincount(labels_DHW.ravel(), minlength=num_lesions + 1)[1:] * case.voxel_ml
    zones = np.array(zone_of_each(labels_DHW, num_lesions, landmarks, spacing_mm(case)), dtype=str)
    found = _with_log("lesion_volume", "ml", volumes_ml.sum()) | _with_log("lesion_count", "", num_lesions)
    for zone in ZONES:
        in_zone_ml = volumes_ml[zones == zone]
        found |= _with_log(f"lesion_volume_{zone}", "ml", in_zone_ml.sum())
        found |= _with_log(f"lesion_count_{zone}", "", len(in_zone_ml))
    found |= _with_log("largest_lesion", "ml", volumes_ml.max(initial=0.0))
    return found | _with_log("median_lesion", "mm3", np.median(volumes_ml) * 1000 if num_lesions else 0.0)


def _with_log(name: str, unit: str, value: float) -> dict[str, float]:
    return {with_unit(name, unit): float(value), f"log_{name}": math.log1p(value)}


def _normal_appearing(case: CommonSpaceCase, tissues: Tissues) -> NDArray[np.bool_]:
    """White matter a voxel away from lesions."""
    wm_DHW: NDArray[np.bool_] = tissues.wm_DHW >= MOSTLY
    if case.lesion_DHW is not None:
        wm_DHW &= ~ndimage.binary_dilation(case.lesion_DHW, np.ones((3, 3, 3), bool))
    return wm_DHW


def _signals(contrast: Contrast, case: CommonSpaceCase, tissues: Tissues) -> dict[str, float]:
    """Medians and texture of a contrast; white matter is what is left of it a voxel away from lesions."""
    image_DHW, name = case.images_DHW[contrast], feature_prefix(contrast)
    lesion_DHW = case.lesion_DHW if case.lesion_DHW is not None else np.zeros_like(case.brain_DHW)
    wm_DHW = _normal_appearing(case, tissues)
    gm = _median(image_DHW[tissues.gm_DHW >= MOSTLY])
    wm = _median(image_DHW[wm_DHW])
    brain = _median(image_DHW[case.brain_DHW & (tissues.csf_DHW < 0.5)])
    found = {
        f"{name}_gm_median": gm / brain,
        f"{name}_wm_median": wm / brain,
        f"{name}_gm_wm_ratio": gm / wm,
        f"{name}_lesion_wm_ratio": _median(image_DHW[lesion_DHW]) / wm,
    }
    found |= {f"{name}_wm_glcm_{measure}": value for measure, value in glcm_features(image_DHW, wm_DHW).items()}
    return {feature: value for feature, value in found.items() if math.isfinite(value)}


def _median(values: NDArray[np.float32]) -> float:
    """The median; not a number without a value or a signal, so that what rests on it is left out."""
    median = float(np.median(values)) if values.size else math.nan
    return median if median > 0 else math.nan
