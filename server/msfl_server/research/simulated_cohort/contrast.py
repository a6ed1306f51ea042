"""Signal of a brain on FLAIR and T1w, with what looks like a lesion and is none.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
Signals are in units of normal white matter.
"""

from dataclasses import dataclass

import numpy as np

from msfl_server.research.simulated_cohort.anatomy import Anatomy, bump
from msfl_server.research.simulated_cohort.fields import Volume, smooth_field
from msfl_server.research.simulated_cohort.lesions import LesionMaps


@dataclass(frozen=True)
class SequenceContrast:
    """Tissue signals of a scanner's two sequences, white matter = 1.

    Attributes:
        flair_gm: FLAIR signal of cortex.
        flair_csf: FLAIR signal of cerebrospinal fluid.
        flair_lesion: Factor on the lesions' added FLAIR signal.
        t1w_gm: T1w signal of cortex.
        t1w_csf: T1w signal of cerebrospinal fluid.
        t1w_lesion: Factor on the lesions' T1w loss.
    """

    flair_gm: float
    flair_csf: float
    flair_lesion: float
    t1w_gm: float
    t1w_csf: float
    t1w_lesion: float


@dataclass(frozen=True)
class Mimics:
    """Bright structures that a rater leaves alone, fixed for a patient.

    Attributes:
        tissue_DHW: FLAIR signal added to tissue: ventricle lining, caps, dirty white matter, tracts, texture.
        fluid_DHW: FLAIR signal added to CSF: pulsation and choroid plexus.
        plexus_DHW: Choroid plexus fraction; it is grey on T1w.
        cortex_DHW: Factor on the cortex's FLAIR signal: limbic cortex is brighter.
        t1w_texture_DHW: Factor on the T1w signal.
    """

    tissue_DHW: Volume
    fluid_DHW: Volume
    plexus_DHW: Volume
    cortex_DHW: Volume
    t1w_texture_DHW: Volume


def make_mimics(rng: np.random.Generator, anatomy: Anatomy) -> Mimics:
    """Draw a patient's lesion mimics.

    Args:
        rng: Source of randomness.
        anatomy: The patient's brain.

    Returns:
        Maps on the simulation grid.
    """
    grid, mni_mm = anatomy.grid, anatomy.mni_mm
    slow, quick = smooth_field(rng, grid, 16), smooth_field(rng, grid, 4)
    wall_mm = anatomy.ventricle_mm_DHW
    lining = rng.uniform(0.05, 0.45) * np.exp(-(((wall_mm - 0.6) / 1.0) ** 2)) * np.clip(0.7 + 0.5 * quick, 0, 1.6)
    caps = bump(mni_mm, (17, 29, 8), (5, 4, 6)) + bump(mni_mm, (27, -56, 14), (5, 6, 6))
    caps = rng.uniform(0.0, 0.25) * caps * np.exp(-np.maximum(wall_mm, 0) / 3)
    dirty = rng.uniform(0.0, 0.13) * bump(mni_mm, (29, -48, 22), (9, 15, 11)) * np.clip(1 + 0.4 * slow, 0, 2)
    tracts = rng.uniform(0.02, 0.16) * (
        bump(mni_mm, (23, -20, 10), (3, 4, 9)) + bump(mni_mm, (22, -24, 34), (5, 6, 11))
    )
    tissue = (lining + caps + dirty + tracts) * (1 - anatomy.csf_DHW)
    tissue = tissue + 0.04 * slow + 0.03 * quick + 0.03 * smooth_field(rng, grid, 2.2)
    plexus = np.clip(bump(mni_mm, (22, -42, 11), (4, 5, 5)) + 0.6 * bump(mni_mm, (8, -8, 20), (3, 9, 3)), 0, 1)
    plexus = np.clip(plexus * (1 + 0.6 * quick), 0, 1) * anatomy.csf_DHW * rng.uniform(0.3, 1.0)
    cisterns = bump(mni_mm, (0, -12, -14), (16, 16, 12)) + bump(mni_mm, (0, -44, -32), (6, 6, 9))
    cisterns = cisterns + 0.8 * bump(mni_mm, (0, -8, 2), (4, 14, 8)) + 0.25
    pulsation = np.clip(smooth_field(rng, grid, 3) - rng.uniform(0.7, 1.8), 0, 1.5) * cisterns * rng.uniform(0.3, 1.3)
    limbic = bump(mni_mm, (26, -14, -20), (9, 14, 9)) + 0.8 * bump(mni_mm, (38, 4, 0), (6, 18, 10))
    limbic = limbic + 0.8 * bump(mni_mm, (4, 10, 34), (6, 26, 14)) + 0.8 * bump(mni_mm, (6, 8, -8), (7, 9, 6))
    cortex = 1 + rng.uniform(0.0, 0.28) * limbic + 0.05 * smooth_field(rng, grid, 12)
    t1w_texture = 1 + 0.02 * smooth_field(rng, grid, 14) + 0.02 * smooth_field(rng, grid, 2.5)
    parts = (tissue, pulsation + rng.uniform(0.8, 1.5) * plexus, plexus, cortex, t1w_texture)
    return Mimics(*(np.asarray(part, np.float32) for part in parts))


def signals(anatomy: Anatomy, mimics: Mimics, lesions: LesionMaps, contrast: SequenceContrast) -> tuple[Volume, Volume]:
    """Noise-free T1w and FLAIR of a brain.

    Args:
        anatomy: The patient's brain.
        mimics: The patient's lesion mimics.
        lesions: Lesions of the visit.
        contrast: The scanner's tissue signals.

    Returns:
        T1w and FLAIR, float32 (D, H, W), normal white matter about 1.
    """
    deep = anatomy.deep_DHW
    pallidum = bump(anatomy.mni_mm, (20, -4, 0), (4, 7, 4))
    flair_gm = contrast.flair_gm * mimics.cortex_DHW * (1 - deep) + deep * (0.5 + 0.5 * contrast.flair_gm)
    flair = anatomy.wm_DHW + anatomy.gm_DHW * flair_gm + mimics.tissue_DHW * (1 - anatomy.csf_DHW)
    flair = flair * (1 - 0.18 * pallidum) + anatomy.csf_DHW * (contrast.flair_csf + mimics.fluid_DHW)
    # Dirty white matter under a lesion is part of it: the brighter of the two counts, not their sum.
    flair = flair + np.maximum(contrast.flair_lesion * lesions.flair_DHW - np.maximum(mimics.tissue_DHW, 0), 0)
    t1w_gm = contrast.t1w_gm * (1 - deep) + deep * (0.45 + 0.55 * contrast.t1w_gm)
    plexus = mimics.plexus_DHW
    t1w = anatomy.wm_DHW + anatomy.gm_DHW * t1w_gm + (anatomy.csf_DHW - plexus) * contrast.t1w_csf
    t1w = (t1w + plexus * contrast.t1w_gm * 0.85) * mimics.t1w_texture_DHW
    t1w = t1w * (1 - np.clip(contrast.t1w_lesion * lesions.t1w_loss_DHW, 0, 0.75))
    return t1w.astype(np.float32), flair.astype(np.float32)
