"""Shape, intensity and texture of a region as the Image Biomarker Standardisation Initiative (IBSI) defines them.

Zwanenburg et al. 2020, doi 10.1148/radiol.2020191145; the manual with each definition is arXiv:1612.07003, and its
chapters are named here. Tests hold the values of its digital phantom.

Legend: D, H, W are voxels towards right, anterior and superior (RAS); L grey levels; N voxels of the region.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

Levels = NDArray[np.int64]
Mask = NDArray[np.bool_]

_EVERY_NEIGHBOUR = np.ones((3, 3, 3), bool)
# One of each pair of opposite directions to the 26 neighbours.
_DIRECTIONS = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


def intensity_statistics(values_N: NDArray[np.float64]) -> dict[str, float]:
    """Chapter 3.3: moments of a population, and percentiles; kurtosis is that above a normal distribution's.

    Of a region of one value, skewness and kurtosis are 0.
    """
    flat = float(np.ptp(values_N)) == 0
    p10, p25, p75, p90 = (float(value) for value in np.percentile(values_N, (10, 25, 75, 90)))
    return {
        "mean": float(values_N.mean()),
        "variance": float(values_N.var()),
        "skewness": 0.0 if flat else float(stats.skew(values_N)),
        "kurtosis": 0.0 if flat else float(stats.kurtosis(values_N)),
        "p10": p10,
        "p90": p90,
        "interquartile_range": p75 - p25,
    }


def intensity_histogram(levels_N: Levels) -> dict[str, float]:
    """Chapter 3.4: entropy (bits) and uniformity of the grey levels of a region, which count from 1."""
    share_L = np.bincount(levels_N) / len(levels_N)
    return {"entropy": _entropy(share_L), "uniformity": float((share_L**2).sum())}


def cooccurrence(levels_DHW: Levels) -> dict[str, float]:
    """Chapter 3.6: grey levels of neighbouring voxels, all 13 directions merged, at a distance of one voxel.

    Args:
        levels_DHW: grey levels from 1; 0 outside of the region.

    Returns:
        Nothing where no two voxels of the region are neighbours. Of a region of one level, correlation is 1.
    """
    share_LL = _pairs(levels_DHW)
    if share_LL is None:
        return {}
    levels_L = np.arange(1, len(share_LL) + 1)
    marginal_L = share_LL.sum(axis=0)
    mean = float((levels_L * marginal_L).sum())
    variance = float(((levels_L - mean) ** 2 * marginal_L).sum())
    from_mean_L = levels_L - mean
    apart_LL = np.abs(levels_L[:, None] - levels_L)
    covariance = float((np.outer(from_mean_L, from_mean_L) * share_LL).sum())
    return {
        "joint_maximum": float(share_LL.max()),
        "joint_entropy": _entropy(share_LL),
        "angular_second_moment": float((share_LL**2).sum()),
        "contrast": float((apart_LL**2 * share_LL).sum()),
        "inverse_difference": float((share_LL / (1 + apart_LL)).sum()),
        "correlation": covariance / variance if variance > 0 else 1.0,
        "cluster_shade": float((np.add.outer(from_mean_L, from_mean_L) ** 3 * share_LL).sum()),
    }


def size_zones(levels_DHW: Levels) -> dict[str, float]:
    """Chapter 3.8: zones of one grey level (26-connected), their sizes and levels.

    Args:
        levels_DHW: grey levels from 1; 0 outside of the region, which holds a voxel at least.
    """
    from skimage.measure import label  # slow to import

    zones_DHW = label(levels_DHW, background=0, connectivity=3)
    sizes = np.bincount(zones_DHW.ravel())[1:].astype(np.float64)
    _, first = np.unique(zones_DHW.ravel(), return_index=True)
    levels = levels_DHW.ravel()[first[-len(sizes) :]].astype(np.float64)
    _, counts = np.unique(np.stack([levels, sizes]), axis=1, return_counts=True)
    _, of_level = np.unique(levels, return_counts=True)
    return {
        "small_zone_emphasis": float((1 / sizes**2).mean()),
        "high_grey_level_zone_emphasis": float((levels**2).mean()),
        "normalised_grey_level_nonuniformity": float((of_level / len(sizes)) @ (of_level / len(sizes))),
        "zone_percentage": len(sizes) / float(sizes.sum()),
        "zone_size_entropy": _entropy(counts / len(sizes)),
    }


def morphology(region_DHW: Mask, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Chapter 3.1: surface and axes of a region, whose surface is a mesh halfway between its voxels and the next.

    Args:
        region_DHW: two voxels or more.
        spacing_mm: size of a voxel.
    """
    from skimage.measure import marching_cubes, mesh_surface_area  # slow to import

    padded_DHW = np.pad(region_DHW[ndimage.find_objects(region_DHW.astype(np.uint8))[0]], 1)
    vertices, faces, _, _ = marching_cubes(padded_DHW.astype(np.float32), 0.5, spacing=spacing_mm)
    surface_mm2 = float(mesh_surface_area(vertices, faces))
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    volume_mm3 = abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum())) / 6
    points_mm = np.argwhere(region_DHW) * np.asarray(spacing_mm)
    least, minor, major = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(points_mm.T, bias=True)), 0))
    return {
        "surface_to_volume": surface_mm2 / volume_mm3,
        "sphericity": (36 * np.pi * volume_mm3**2) ** (1 / 3) / surface_mm2,
        "elongation": float(minor / major),
        "flatness": float(least / major),
    }


def _pairs(levels_DHW: Levels) -> NDArray[np.float64] | None:
    """Share of each pair of levels among all neighbours in the region, in either order; None without any."""
    num_levels = int(levels_DHW.max(initial=0))
    padded_DHW = np.pad(levels_DHW, 1)
    core = padded_DHW[1:-1, 1:-1, 1:-1]
    counts = np.zeros((num_levels + 1) ** 2, np.int64)
    for step in _DIRECTIONS:
        other = padded_DHW[tuple(slice(1 + by, 1 + by + size) for by, size in zip(step, core.shape, strict=True))]
        both = (core > 0) & (other > 0)
        counts += np.bincount(core[both] * (num_levels + 1) + other[both], minlength=len(counts))
    counts_LL = counts.reshape(num_levels + 1, num_levels + 1)[1:, 1:]
    total = 2 * int(counts_LL.sum())
    return (counts_LL + counts_LL.T) / total if total else None


def _entropy(shares: NDArray[np.float64]) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log2(present)).sum())
