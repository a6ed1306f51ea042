"""Simulated patients whose tissues, lesions and changes are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.imaging.masks import carry_mask
from msfl_client.imaging.registration import load_template as load_mni152
from msfl_client.imaging.resampling import resample
from msfl_common.config.base import Contrast
from msfl_server.research.simulated_cohort.anatomy import Anatomy, make_anatomy
from msfl_server.research.simulated_cohort.cases import SiteStyle, draw_site, simulate_case
from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, sample_clinical
from msfl_server.research.simulated_cohort.fields import Grid, Volume, head_grid
from msfl_server.research.simulated_cohort.lesions import make_lesions
from msfl_server.research.simulated_cohort.scanner import averaged, outline
from msfl_server.research.simulated_cohort.template import load_template

SPACING_MM = 2.0


@dataclass(frozen=True)
class SimulatedPatient:
    """A patient's first context and what is true of it.

    Attributes:
        case: as a site would have it in the common space.
        anatomy: the brain that was scanned.
        csf_ml: true fluid inside the brain mask.
        gm_ml: true grey matter.
        wm_ml: true white matter.
    """

    case: CommonSpaceCase
    anatomy: Anatomy
    csf_ml: float
    gm_ml: float
    wm_ml: float

    @property
    def bpf(self) -> float:
        """True brain parenchymal fraction."""
        return (self.gm_ml + self.wm_ml) / (self.csf_ml + self.gm_ml + self.wm_ml)


def simulate_patient(seed: int, index: int) -> SimulatedPatient:
    """Patient `index`, each from a hospital of its own; every third has thick slices."""
    site = draw_site(seed, index, SPACING_MM)
    _, (context, _) = simulate_case(site, (seed, index, 0), SPACING_MM)
    _, _, anatomy = _brain(site, seed, index)
    brain_DHW = context.t1w_DHW > 0
    voxel_ml = float(np.prod(context.grid.spacing_mm)) / 1000
    csf_ml, gm_ml, wm_ml = (
        float(averaged(tissue, anatomy.grid, context.grid)[brain_DHW].sum(dtype=np.float64)) * voxel_ml
        for tissue in (anatomy.csf_DHW, anatomy.gm_DHW, anatomy.wm_DHW)
    )
    images = {"T1w": _image(context.t1w_DHW, context.grid), "FLAIR": _image(context.flair_DHW, context.grid)}
    case = _place(images, _image(context.mask_DHW, context.grid))
    return SimulatedPatient(case, anatomy, csf_ml, gm_ml, wm_ml)


def simulate_follow_up(seed: int, index: int, new: int, enlarging: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Lesion masks of a patient before and after a year, as a rater outlines them, in the common space."""
    site = draw_site(seed, index, SPACING_MM)
    record, streams, anatomy = _brain(site, seed, index)
    burden = replace(record.burden, new_lesions=new, enlarging_lesions=enlarging)
    stored = head_grid(site.scanners[0].stored_spacing_mm)
    masks = [
        outline(np.random.default_rng(streams[4].integers(2**63)), maps.extent_DHW, anatomy.grid, stored, site.rater)
        for maps in make_lesions(streams[3], anatomy, burden)
    ]
    before, after = (carry_mask(_image(mask, stored), template_grid()) for mask in masks)
    return before, after


def in_common_space(volume_DHW: Volume, grid: Grid) -> NDArray[np.float32]:
    """A map of the simulation on the template's grid."""
    return resample(_image(volume_DHW, grid), template_grid())


def template_grid() -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine of the template at `SPACING_MM`."""
    template = load_mni152(SPACING_MM)
    return template.shape, np.asarray(template.affine, np.float64)


def _place(images: Mapping[Contrast, nib.Nifti1Image], mask: nib.Nifti1Image) -> CommonSpaceCase:
    """Images on the template's grid where they lie, without a registration that would hide their true size."""
    resampled = {name: resample(image, template_grid()) for name, image in images.items()}
    positive = nib.Nifti1Image((np.asarray(images["T1w"].dataobj) > 0).astype(np.float32), images["T1w"].affine)
    brain_DHW = ndimage.binary_fill_holes(resample(positive, template_grid()) >= 0.5)
    return CommonSpaceCase(
        images_DHW={name: np.where(brain_DHW, image_DHW, 0) for name, image_DHW in resampled.items()},
        brain_DHW=brain_DHW,
        lesion_DHW=carry_mask(mask, template_grid()) & brain_DHW,
        affine=template_grid()[1],
        native_to_mni=np.eye(4),
    )


def _brain(site: SiteStyle, seed: int, index: int) -> tuple[ClinicalRecord, list[np.random.Generator], Anatomy]:
    """The brain that `simulate_case` draws for the same seed."""
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence((seed, index, 0)).spawn(5)]
    record = sample_clinical(streams[0], site.prevalence)
    grid = head_grid((max(1.0, 0.8 * SPACING_MM),) * 3)
    return record, streams, make_anatomy(streams[1], load_template(), grid, atrophy=record.atrophy)


def _image(volume_DHW: NDArray[np.generic], grid: Grid) -> nib.Nifti1Image:
    return nib.Nifti1Image(volume_DHW.astype(np.float32), grid.affine)
