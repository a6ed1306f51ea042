"""The bands into which lesions run together along the ventricles' horns and bodies and the callosum.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_server.research.simulated_cohort.anatomy import Anatomy, bump
from msfl_server.research.simulated_cohort.fields import Volume, smooth_field

FLAIR_PEAK = (0.68, 0.14)  # mean and standard deviation of the FLAIR signal that a lesion adds
BAND_FROM_ML = 0.15  # less than this beside the discrete lesions is no band
BAND_PIECE_MM3 = 60.0  # smaller crumbs of the band are left out: small lesions are the discrete ones


def draw_band(
    rng: np.random.Generator, anatomy: Anatomy, volume_ml: float, habit: float
) -> tuple[tuple[Volume, Volume, Volume], int]:
    """Draw ragged confluent lesions around horns, bodies and callosum: a random field cut at the volume.

    Args:
        rng: Source of randomness.
        anatomy: The patient's brain.
        volume_ml: Volume of the band.
        habit: The patient's brightness.

    Returns:
        Extent, FLAIR signal and T1w loss; and the number of its pieces.
    """
    empty = np.zeros(anatomy.grid.shape, np.float32)
    if volume_ml < BAND_FROM_ML:
        return (empty, empty, empty), 0
    grid = anatomy.grid
    score, allowed = _band_score(rng, anatomy, volume_ml)
    candidates = score[allowed]
    count = int(np.clip(1000 * volume_ml / np.prod(grid.spacing_mm), 1, candidates.size - 1))
    threshold = np.partition(candidates, candidates.size - count)[candidates.size - count]
    pieces, num_pieces = pieces_of(allowed & (score > threshold), float(np.prod(grid.spacing_mm)))
    margin = np.where(pieces, score - threshold, -1)
    extent = (1 / (1 + np.exp(-np.clip(margin / 0.06, -30, 30)))).astype(np.float32)
    brightness = np.clip(FLAIR_PEAK[0] + habit + 0.11 * smooth_field(rng, grid, 7), 0.35, 0.95)
    loss = np.clip(0.40 + 0.12 * smooth_field(rng, grid, 8), 0.1, 0.65)
    return (extent, (extent * brightness).astype(np.float32), (extent * loss).astype(np.float32)), num_pieces


def _band_score(rng: np.random.Generator, anatomy: Anatomy, volume_ml: float) -> tuple[Volume, NDArray[np.bool_]]:
    """How readily each voxel belongs to the band, and where it may."""
    grid, mni_mm = anatomy.grid, anatomy.mni_mm
    distance = np.maximum(anatomy.ventricle_mm_DHW, 0)
    horns = bump(mni_mm, (20, 30, 8), (9, 9, 10)) + 1.2 * bump(mni_mm, (29, -52, 16), (9, 14, 11))
    horns = horns + 1.1 * bump(mni_mm, (25, -10, 30), (9, 24, 9)) + 0.8 * bump(mni_mm, (36, -28, -12), (7, 14, 7))
    ragged = 0.55 * smooth_field(rng, grid, 7) + 0.5 * smooth_field(rng, grid, 3.5) + 0.25 * smooth_field(rng, grid, 2)
    spread_mm = 4.5 + 1.6 * np.log1p(volume_ml)
    lining = 0.08 * volume_ml**0.6 * np.exp(-distance / 1.5)  # a heavy load lines the whole wall
    score = lining + 1.6 * np.exp(-distance / spread_mm) + 0.8 * horns + 0.75 * ragged
    score = score - 4 * np.maximum(0.55 - anatomy.wm_DHW, 0) - 3.0 * (mni_mm[2] < -22)
    allowed = (anatomy.csf_DHW < 0.5) & (anatomy.ventricle_mm_DHW > -0.3) & (anatomy.brain_mm_DHW > 3)
    return np.asarray(score, np.float32), allowed


def pieces_of(extent: NDArray[np.bool_], voxel_mm3: float) -> tuple[NDArray[np.bool_], int]:
    """The band and its soft border without crumbs, and the number of pieces left; the largest always stays."""
    box = ndimage.find_objects(extent.astype(np.uint8))[0]
    labels, num_labels = ndimage.label(extent[box], np.ones((3, 3, 3)))
    sizes_mm3 = np.bincount(labels.ravel(), minlength=num_labels + 1) * voxel_mm3
    kept = sizes_mm3 >= min(BAND_PIECE_MM3, float(sizes_mm3[1:].max()))
    kept[0] = False
    pieces = np.zeros(extent.shape, np.bool_)
    pieces[box] = kept[labels]
    return ndimage.binary_dilation(pieces), int(kept.sum())
