"""Lesion counts, sizes and zones of a mask, to hold simulated lesions against real ones.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_server.research.simulated_cohort.anatomy import make_anatomy
from msfl_server.research.simulated_cohort.clinical import SitePrevalence, sample_clinical
from msfl_server.research.simulated_cohort.fields import Grid, head_grid
from msfl_server.research.simulated_cohort.lesions import make_lesions
from msfl_server.research.simulated_cohort.template import COARSE_MM, load_template

ZONES = ("periventricular", "juxtacortical", "infratentorial", "deep white matter")
SMALLEST_MM3 = 3.0
PERIVENTRICULAR_MM = 3.0
JUXTACORTICAL_GM = 0.35
INFRATENTORIAL_MM = -14.0


@dataclass(frozen=True)
class LesionStatistics:
    """Lesions of one mask, 26-connected, of at least 3 mm3.

    Attributes:
        num_lesions: Lesions.
        total_ml: Their volume.
        volumes_mm3: Volume of each lesion.
        zone_fractions: Share of lesions in each of `ZONES`; empty without an affine or lesions.
    """

    num_lesions: int
    total_ml: float
    volumes_mm3: NDArray[np.float64]
    zone_fractions: tuple[float, ...]


def lesion_statistics(
    mask_DHW: NDArray[np.uint8] | NDArray[np.bool_],
    spacing_mm: Sequence[float],
    affine: NDArray[np.float64] | None = None,
) -> LesionStatistics:
    """Measure a lesion mask.

    Args:
        mask_DHW: Mask, nonzero inside lesions.
        spacing_mm: Edge lengths of a voxel.
        affine: Matrix (4, 4) to MNI millimetres; needed for the zones.

    Returns:
        The statistics.

    Raises:
        ValueError: If the mask is not three-dimensional.
    """
    if mask_DHW.ndim != 3:
        raise ValueError(f"expected a mask with 3 dimensions, found shape {mask_DHW.shape}")
    labels, num_labels = ndimage.label(mask_DHW, np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel(), minlength=num_labels + 1)[1:] * float(np.prod(spacing_mm))
    kept = np.flatnonzero(volumes >= SMALLEST_MM3)
    zones: tuple[float, ...] = ()
    if affine is not None and len(kept):
        zones = _zone_fractions(labels, kept + 1, affine)
    return LesionStatistics(len(kept), float(volumes[kept].sum() / 1000), volumes[kept].astype(np.float64), zones)


def _zone_fractions(
    labels_DHW: NDArray[np.int32], kept: NDArray[np.int64], affine: NDArray[np.float64]
) -> tuple[float, ...]:
    """Share of lesions in each zone of the template.

    A lesion is periventricular when it comes within 3 mm of a lateral ventricle; else infratentorial when its
    centre lies in the brainstem or cerebellum; else juxtacortical when it touches cortex; else deep.
    """
    template = load_template()
    voxels = np.argwhere(labels_DHW)
    which = labels_DHW[tuple(voxels.T)]
    position_mm = positions_mm(affine, voxels)
    fine = (position_mm - np.array(template.origin_mm)).T
    ventricle_mm = ndimage.map_coordinates(template.ventricle_mm_DHW, fine / COARSE_MM, order=1, mode="nearest")
    gm = ndimage.map_coordinates(template.gm_DHW, fine, order=1)
    nearest_mm = ndimage.minimum(ventricle_mm, which, kept)
    most_gm = ndimage.maximum(gm, which, kept)
    centre_mm = np.stack([ndimage.mean(axis, which, kept) for axis in position_mm.T], 1)
    low = (centre_mm[:, 2] < INFRATENTORIAL_MM) & (np.abs(centre_mm[:, 0]) < 50)
    behind = (centre_mm[:, 1] < -20) & ((np.abs(centre_mm[:, 0]) < 16) | (centre_mm[:, 2] < -24))
    periventricular = nearest_mm < PERIVENTRICULAR_MM
    infratentorial = ~periventricular & low & behind
    juxtacortical = ~periventricular & ~infratentorial & (most_gm > JUXTACORTICAL_GM)
    deep = ~(periventricular | infratentorial | juxtacortical)
    return tuple(float(zone.mean()) for zone in (periventricular, juxtacortical, infratentorial, deep))


def positions_mm(affine: NDArray[np.float64], voxels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Positions (N, 3) in mm of voxel indices (N, 3)."""
    return np.asarray(voxels @ affine[:3, :3].T + affine[:3, 3])


@dataclass(frozen=True)
class SizeTable:
    """Statistics over several cases.

    Attributes:
        count_quartiles: Quartiles of the lesions in a case.
        total_ml_quartiles: Quartiles of a case's lesion volume.
        ln_ml_mean: Mean of ln(lesion volume in ml).
        ln_ml_spread: Standard deviation of ln(lesion volume in ml).
        single_mm3_quartiles: Quartiles of the volume of a lesion, over all cases.
        share_3_to_10_mm3: Share of lesions below 10 mm3.
        largest_share: Median over cases of the largest lesion's share of the volume.
        zone_fractions: Mean over cases of the share of lesions in each of `ZONES`.
    """

    count_quartiles: tuple[float, ...]
    total_ml_quartiles: tuple[float, ...]
    ln_ml_mean: float
    ln_ml_spread: float
    single_mm3_quartiles: tuple[float, ...]
    share_3_to_10_mm3: float
    largest_share: float
    zone_fractions: tuple[float, ...]


def size_table(cases: Sequence[LesionStatistics]) -> SizeTable:
    """Summarise cases that have lesions; the others are left out.

    Args:
        cases: Statistics of each case, with zones.

    Returns:
        The summary.

    Raises:
        ValueError: If no case has a lesion.
    """
    with_lesions = [case for case in cases if case.num_lesions]
    if not with_lesions:
        raise ValueError(f"none of {len(cases)} cases has a lesion")
    singles = np.concatenate([case.volumes_mm3 for case in with_lesions])
    ln_ml = np.log([case.total_ml for case in with_lesions])
    return SizeTable(
        _quartiles([case.num_lesions for case in with_lesions]),
        _quartiles([case.total_ml for case in with_lesions]),
        float(ln_ml.mean()),
        float(ln_ml.std()),
        _quartiles(singles),
        float(np.mean(singles < 10)),
        float(np.median([case.volumes_mm3.max() / 1000 / case.total_ml for case in with_lesions])),
        tuple(np.mean([case.zone_fractions for case in with_lesions], axis=0).tolist()),
    )


def simulate_lesion_mask(seed: tuple[int, int], spacing_mm: float = 1.0) -> tuple[NDArray[np.bool_], Grid]:
    """Simulate the lesions of one patient at baseline without scanning them.

    Args:
        seed: Seed and number of the case.
        spacing_mm: Voxel size.

    Returns:
        True border of the lesions (D, H, W), and the grid.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]
    record = sample_clinical(streams[0], SitePrevalence(activity=0.1, progression=0.1))
    grid = head_grid((spacing_mm,) * 3)
    anatomy = make_anatomy(streams[1], load_template(), grid, atrophy=record.atrophy)
    baseline, _ = make_lesions(streams[2], anatomy, record.burden)
    return np.asarray(baseline.extent_DHW > 0.5), grid


def _quartiles(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    """Lower quartile, median and upper quartile."""
    return tuple(np.percentile(values, [25, 50, 75]).tolist())
