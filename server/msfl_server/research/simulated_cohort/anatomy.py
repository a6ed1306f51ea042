"""An individual brain: the template deformed, aged and given back the sharp folds that averaging took away.

Legend: D, H, W are voxels towards right, anterior and superior (RAS); C the three tissues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from msfl_server.research.simulated_cohort.fields import Grid, Volume, smooth_field
from msfl_server.research.simulated_cohort.folding import pial_distance
from msfl_server.research.simulated_cohort.template import COARSE_MM, Template

# Spread of the individual deformation: (knot distance, standard deviation), mm.
DEFORMATION_MM = ((45.0, 3.0), (18.0, 1.6), (9.0, 0.8))
SHARPNESS = 2.6  # exponent on the tissue odds: 1 keeps the blur of the average brain
OUTSIDE_MM = 6.0  # distance from the brain beyond which a voxel is background
CORTEX_MM = 2.6  # thickness of cortex
ROUGHNESS = 0.5  # standard deviation of the random log odds that make borders uneven
AVERAGE_LOST = 0.7  # how much of the average is given up where the person's own folds are drawn


@dataclass(frozen=True)
class Anatomy:
    """One head on the simulation grid.

    Attributes:
        grid: The simulation grid.
        wm_DHW: White matter fraction, 0-1.
        gm_DHW: Grey matter fraction, 0-1.
        csf_DHW: Cerebrospinal fluid fraction, 0-1.
        deep_DHW: How much of a voxel's grey matter is a deep nucleus, 0-1.
        ventricle_mm_DHW: Signed distance to the lateral ventricles, negative inside.
        brain_mm_DHW: Signed distance to the brain's surface, positive inside.
        mni_mm: Position of each voxel in the undeformed template (R, A, S), mm.
    """

    grid: Grid
    wm_DHW: Volume
    gm_DHW: Volume
    csf_DHW: Volume
    deep_DHW: Volume
    ventricle_mm_DHW: Volume
    brain_mm_DHW: Volume
    mni_mm: tuple[Volume, Volume, Volume]


def make_anatomy(rng: np.random.Generator, template: Template, grid: Grid, *, atrophy: float) -> Anatomy:
    """Draw an individual brain.

    Args:
        rng: Source of randomness.
        template: The average brain.
        grid: The simulation grid.
        atrophy: Loss of tissue in standard deviations around the young average; widens ventricles and sulci.

    Returns:
        The anatomy on `grid`.
    """
    mni_mm = _deformed_positions(
        rng, template, grid, ventricle_growth_mm=float(np.clip(1.2 + 1.3 * atrophy, -0.8, 6.0))
    )
    brain_mm_DHW = _sampled(template.brain_mm_DHW, template, mni_mm, COARSE_MM)
    # Beyond the brain nothing but the distance to it matters, so that the rest need not be interpolated.
    near = brain_mm_DHW > -OUTSIDE_MM
    inner_mm = [axis[near] for axis in mni_mm]
    wm_DHW, gm_DHW, ventricle_mm_DHW = (np.full(grid.shape, value, np.float32) for value in (0, 0, OUTSIDE_MM * 10))
    wm_DHW[near] = _sampled(template.wm_DHW, template, inner_mm, 1)
    gm_DHW[near] = _sampled(template.gm_DHW, template, inner_mm, 1)
    ventricle_mm_DHW[near] = _sampled(template.ventricle_mm_DHW, template, inner_mm, COARSE_MM)
    depth_mm_DHW = np.zeros(grid.shape, np.float32)
    depth_mm_DHW[near] = _sampled(template.depth_mm_DHW, template, inner_mm, COARSE_MM)
    deep_DHW = _deep_nuclei(mni_mm)
    folded_DHW = _folded(mni_mm)
    sulcus_DHW = np.clip(depth_mm_DHW - CORTEX_MM, 0, 3) * folded_DHW
    pial_mm_DHW, weight_DHW = pial_distance(rng, grid, mni_mm, brain_mm_DHW, atrophy=atrophy)
    wm_DHW, gm_DHW, csf_DHW = _individual_tissues(
        rng,
        grid,
        (wm_DHW, gm_DHW),
        deep_DHW,
        brain_mm_DHW,
        sulcus_DHW,
        (pial_mm_DHW, weight_DHW * folded_DHW),
        sulcal_log_odds=float(np.clip(0.4 * atrophy, -0.5, 1.2)),
    )
    # The distance map gives the ventricles a crisp wall that the averaged tissue maps lack.
    in_ventricle = 1 / (1 + np.exp(np.clip(ventricle_mm_DHW / 0.45, -30, 30)))
    body = np.where(mni_mm[2] > -4, in_ventricle, 0.5 * in_ventricle).astype(np.float32)
    csf_DHW = np.maximum(csf_DHW, body)
    rest = (1 - csf_DHW) / np.maximum(wm_DHW + gm_DHW, 1e-6)
    wm_DHW, gm_DHW = wm_DHW * rest, gm_DHW * rest
    return Anatomy(grid, wm_DHW, gm_DHW, csf_DHW, deep_DHW, ventricle_mm_DHW, brain_mm_DHW, mni_mm)


def bump(
    mni_mm: tuple[Volume, Volume, Volume],
    centre_mm: tuple[float, float, float],
    width_mm: tuple[float, float, float],
) -> Volume:
    """A Gaussian bump in template space, mirrored to both hemispheres.

    Args:
        mni_mm: Positions (R, A, S), each (D, H, W).
        centre_mm: Centre on the right side.
        width_mm: Standard deviation along each axis.

    Returns:
        Values 0-1, float32 (D, H, W).
    """
    x, y, z = mni_mm
    squared = ((np.abs(x) - centre_mm[0]) / width_mm[0]) ** 2
    squared = squared + ((y - centre_mm[1]) / width_mm[1]) ** 2 + ((z - centre_mm[2]) / width_mm[2]) ** 2
    return np.asarray(np.exp(-0.5 * np.minimum(squared, 60)), np.float32)


def _deformed_positions(
    rng: np.random.Generator, template: Template, grid: Grid, *, ventricle_growth_mm: float
) -> tuple[Volume, Volume, Volume]:
    """Where in the template each voxel comes from: affine, ventricle growth and smooth displacement."""
    size = 1 + 0.035 * rng.standard_normal() + 0.02 * rng.standard_normal(3)
    shear = 0.02 * rng.standard_normal((3, 3))
    matrix = np.diag(1 / np.clip(size, 0.88, 1.07)) + shear * (1 - np.eye(3))
    shift_mm = rng.normal(0, 1.0, 3)
    axes = grid.axes_mm()
    growth = _ventricle_growth(template, grid)
    positions = []
    for k in range(3):
        position = sum(np.float32(matrix[k, j]) * axes[j] for j in range(3)) - np.float32(shift_mm[k])
        for scale_mm, spread_mm in DEFORMATION_MM:
            position = position + np.float32(spread_mm) * smooth_field(rng, grid, scale_mm)
        positions.append(position - np.float32(ventricle_growth_mm) * growth[k])
    return positions[0], positions[1], positions[2]


def _sampled(map_DHW: Volume, template: Template, positions_mm: Sequence[Volume], map_spacing_mm: int) -> Volume:
    """Values of a template map at MNI positions, interpolated linearly."""
    index = [(axis - np.float32(o)) / map_spacing_mm for axis, o in zip(positions_mm, template.origin_mm, strict=True)]
    return np.asarray(ndimage.map_coordinates(map_DHW, index, order=1, mode="nearest"), np.float32)


@lru_cache(maxsize=2)
def _ventricle_growth(template: Template, grid: Grid) -> list[Volume]:
    """Unit displacement away from the ventricles, fading over 12 mm, on the simulation grid."""
    distance = ndimage.gaussian_filter(template.ventricle_mm_DHW, 1.0)
    fade = np.exp(-np.maximum(distance, 0) / 12)
    index = [(axis.ravel() - o) / COARSE_MM for axis, o in zip(grid.axes_mm(), template.origin_mm, strict=True)]
    coordinates = np.meshgrid(*index, indexing="ij", copy=False)
    return [
        ndimage.map_coordinates((gradient / COARSE_MM * fade).astype(np.float32), coordinates, order=1, mode="nearest")
        for gradient in np.gradient(distance)
    ]


def _deep_nuclei(mni_mm: tuple[Volume, Volume, Volume]) -> Volume:
    """Basal ganglia, thalamus, midbrain and brainstem, where tissue maps are mixtures and have no folds."""
    nuclei = 1.6 * bump(mni_mm, (17, -6, 5), (11, 16, 10)) + 1.6 * bump(mni_mm, (0, -28, -26), (10, 9, 22))
    return np.minimum(nuclei + bump(mni_mm, (20, -56, -34), (6, 5, 4)), 1)


def _folded(mni_mm: tuple[Volume, Volume, Volume]) -> Volume:
    """1 where grey matter is cortex with sulci, 0 in the cerebellum and the medial temporal nuclei."""
    _, y, z = mni_mm
    cerebellum = 1 / (1 + np.exp(np.clip((z + 18) / 2, -30, 30))) / (1 + np.exp(np.clip((y + 38) / 2, -30, 30)))
    medial = np.minimum(1.5 * bump(mni_mm, (24, -14, -20), (8, 13, 7)), 1)
    return np.asarray((1 - cerebellum) * (1 - medial), np.float32)


def _individual_tissues(
    rng: np.random.Generator,
    grid: Grid,
    average: tuple[Volume, Volume],
    deep_DHW: Volume,
    brain_mm_DHW: Volume,
    sulcus_DHW: Volume,
    folds: tuple[Volume, Volume],
    *,
    sulcal_log_odds: float,
) -> tuple[Volume, Volume, Volume]:
    """Sharpen the averaged tissue odds and perturb them where an individual's folds would differ."""
    wm_DHW, gm_DHW = (np.clip(tissue, 0.004, 1) for tissue in average)
    csf_DHW = np.clip(1 - wm_DHW - gm_DHW, 0.004, 1)
    pial_mm_DHW, weight_DHW = folds
    folded = weight_DHW * (1 - deep_DHW)
    power = 1 + (SHARPNESS - 1) * (1 - deep_DHW) * (1 - AVERAGE_LOST * folded)
    rough = smooth_field(rng, grid, 3.0)
    near_surface = np.exp(-np.maximum(brain_mm_DHW, 0) / 14) * (1 - deep_DHW) * (1 - folded)
    wm_odds = power * np.log(wm_DHW / gm_DHW) + folded * np.clip((pial_mm_DHW - CORTEX_MM) / 0.5, -6, 5)
    wm_odds = wm_odds + ROUGHNESS * (1 - deep_DHW) * rough
    csf_odds = (power - 0.8 * folded) * np.log(csf_DHW / gm_DHW) + folded * np.clip(-pial_mm_DHW / 0.3, -5, 9)
    csf_odds = csf_odds + (2.1 + 3 * sulcal_log_odds) * near_surface
    csf_odds = csf_odds + (1 - deep_DHW) * (2.0 + 2 * sulcal_log_odds) * sulcus_DHW
    csf_odds = np.where(brain_mm_DHW < 0, 8, csf_odds)
    wm, csf = np.exp(np.clip(wm_odds, -12, 12)), np.exp(np.clip(csf_odds, -12, 12))
    total = 1 + wm + csf
    return (wm / total).astype(np.float32), (1 / total).astype(np.float32), (csf / total).astype(np.float32)
