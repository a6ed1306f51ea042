"""Gyri and sulci of an individual: no two people share them, and an average brain has hardly any.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).

Sulci are the zero surfaces of a random field of one wavelength, carried inwards along the normals of the brain's
surface, so that they stand upright on it and end at a depth that varies. The pattern resembles that of models of
cortical folding as a reaction and diffusion (Lefevre and Mangin 2010, doi 10.1371/journal.pcbi.1000749).
"""

import numpy as np
from scipy import ndimage

from msfl_server.research.simulated_cohort.fields import Grid, Volume, banded_field, smooth_field

KNOTS_MM = 7.5  # knots of the folding field: neighbouring sulci lie about twice as far apart
SULCUS_MM = (13.0, 4.0)  # depth of a sulcus: mean and standard deviation
WIDTH_MM = 1.7  # mean width of a sulcus without atrophy
FOLDED_MM = 20.0  # depth from which on the average brain alone decides


def pial_distance(
    rng: np.random.Generator, grid: Grid, mni_mm: tuple[Volume, Volume, Volume], brain_mm_DHW: Volume, *, atrophy: float
) -> tuple[Volume, Volume]:
    """Draw a person's sulci.

    Args:
        rng: Source of randomness.
        grid: The simulation grid, of cubic voxels.
        mni_mm: Position of each voxel in the template.
        brain_mm_DHW: Distance to the brain's surface, mm, positive inside.
        atrophy: Loss of tissue in standard deviations; widens the sulci.

    Returns:
        Signed distance to the cortex's surface, mm, positive in tissue, and how much it says of a voxel, 0-1: nothing
        far inside the brain.
    """
    surface_mm = np.minimum(brain_mm_DHW, _medial_wall(mni_mm))
    across_mm = _to_zero(banded_field(rng, grid, KNOTS_MM), surface_mm, grid)
    deepest_mm = np.clip(SULCUS_MM[0] + SULCUS_MM[1] * smooth_field(rng, grid, 15), 3, FOLDED_MM)
    sheet_mm = np.hypot(across_mm, np.maximum(surface_mm - deepest_mm, 0))
    width_mm = np.clip(WIDTH_MM + 0.5 * atrophy, 0.6, 4.0) * np.clip(1 + 0.5 * smooth_field(rng, grid, 12), 0.3, 2)
    open_mm = width_mm * np.clip(1.4 - surface_mm / FOLDED_MM, 0.6, 1.4)  # wider towards the surface
    pial_mm = np.minimum(surface_mm, sheet_mm - open_mm / 2)
    weight = np.clip((FOLDED_MM + 4 - surface_mm) / 4, 0, 1)
    return pial_mm.astype(np.float32), weight.astype(np.float32)


def _medial_wall(mni_mm: tuple[Volume, Volume, Volume]) -> Volume:
    """Distance to the fissure between the hemispheres, large below and inside the callosum."""
    x, y, z = mni_mm
    outside = np.maximum(np.maximum(np.abs(y + 5) - 42, z - 32), 0)
    return np.asarray(np.abs(x) + 4 * np.maximum(4 - outside, 0), np.float32)


def _to_zero(field_DHW: Volume, surface_mm_DHW: Volume, grid: Grid) -> Volume:
    """Distance of each voxel to the zeros of a field that is taken from the surface along its normals, mm."""
    step_mm = grid.spacing_mm[0]
    smooth = ndimage.gaussian_filter(surface_mm_DHW, 2.0)
    normal = np.gradient(smooth, step_mm)
    near = (surface_mm_DHW > -3) & (surface_mm_DHW < FOLDED_MM + 8)
    depth = np.clip(surface_mm_DHW[near], 0, FOLDED_MM + 8)
    index = [where - part[near] * depth / step_mm for where, part in zip(np.nonzero(near), normal, strict=True)]
    carried = np.full(grid.shape, 10.0, np.float32)
    carried[near] = ndimage.map_coordinates(field_DHW, index, order=1, mode="nearest")
    slope = np.sqrt(sum(part**2 for part in np.gradient(carried, step_mm)))
    return np.asarray(np.abs(carried) / np.maximum(slope, 0.03), np.float32)
