"""The MNI152 template as tissue maps and distances: the anatomy that every simulated head starts from.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
Source: MNI ICBM152 non-linear 2009a, shipped with nilearn
(Fonov et al. 2011, doi 10.1016/j.neuroimage.2010.07.033).
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from nilearn import datasets
from numpy.typing import NDArray
from scipy import ndimage

from msfl_server.research.simulated_cohort.fields import Volume

# Ventricle parts too thin to survive the template's averaging, as MNI polylines of the right side with a
# radius, all in mm: temporal horn (trigone to tip) and occipital horn.
THIN_HORNS_MM = (
    (((28, -42, 8), (35, -36, -4), (35, -26, -12), (31, -12, -18)), 1.2),
    (((26, -56, 10), (24, -70, 8), (21, -80, 6)), 0.8),
)
COARSE_MM = 2


@dataclass(frozen=True, eq=False)
class Template:
    """Maps of the average brain.

    Attributes:
        origin_mm: MNI position of voxel (0, 0, 0) of every map.
        wm_DHW: White matter probability at 1 mm.
        gm_DHW: Grey matter probability at 1 mm.
        depth_mm_DHW: Distance to white matter at 2 mm; larger than cortex is thick inside a sulcus.
        ventricle_mm_DHW: Signed distance to the lateral ventricles' wall at 2 mm, negative inside.
        brain_mm_DHW: Signed distance to the brain's surface at 2 mm, positive inside.
    """

    origin_mm: tuple[float, float, float]
    wm_DHW: Volume
    gm_DHW: Volume
    depth_mm_DHW: Volume
    ventricle_mm_DHW: Volume
    brain_mm_DHW: Volume


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Load the template once per process (about 3 s)."""
    wm_image = datasets.load_mni152_wm_template(resolution=1)
    wm_DHW = wm_image.get_fdata(dtype=np.float32)
    gm_DHW = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
    brain_DHW = datasets.load_mni152_brain_mask(resolution=1).get_fdata(dtype=np.float32) > 0.5
    t1w_DHW = datasets.load_mni152_template(resolution=1).get_fdata(dtype=np.float32)
    origin_mm = tuple(float(value) for value in wm_image.affine[:3, 3])
    coarse = (slice(None, None, COARSE_MM),) * 3
    ventricle_mm_DHW = _ventricle_distance(t1w_DHW[coarse], brain_DHW[coarse], origin_mm)
    brain_mm_DHW = -_signed_distance(brain_DHW[coarse])
    return Template(
        (origin_mm[0], origin_mm[1], origin_mm[2]),
        _without_wall_artefact(wm_DHW, gm_DHW, ventricle_mm_DHW, origin_mm),
        gm_DHW,
        _white_matter_distance(wm_DHW)[coarse],
        ventricle_mm_DHW,
        brain_mm_DHW,
    )


def _signed_distance(inside_DHW: NDArray[np.bool_]) -> Volume:
    """Distance to the surface in mm, negative inside, smoothed so that its gradient is usable."""
    outside = ndimage.distance_transform_edt(~inside_DHW)
    within = ndimage.distance_transform_edt(inside_DHW)
    distance = (np.maximum(outside - 0.5, 0) - np.maximum(within - 0.5, 0)) * COARSE_MM
    return np.asarray(ndimage.gaussian_filter(distance.astype(np.float32), 0.6), np.float32)


def _white_matter_distance(wm_DHW: Volume) -> Volume:
    """Distance to white matter in mm, at 1 mm."""
    distance = ndimage.distance_transform_edt(wm_DHW < 0.5)
    return np.asarray(ndimage.gaussian_filter(distance.astype(np.float32), 0.7), np.float32)


def _ventricle_distance(t1w_DHW: Volume, brain_DHW: NDArray[np.bool_], origin_mm: tuple[float, ...]) -> Volume:
    """Distance to the lateral ventricles: dark T1w voxels joined to their bodies, and the thin horns."""
    x, y, z = _positions_mm(t1w_DHW.shape, origin_mm)
    box = (np.abs(x) < 40) & (y > -62) & (y < 38) & (z > 0) & (z < 34)
    # Below the callosum's splenium the cistern is as dark as the ventricle: cut along a slanted plane.
    box = box & ~((np.abs(x) < 12) & (y < -32)) & ~((np.abs(x) < 5) & (z < 8))
    labels, _ = ndimage.label((t1w_DHW < 0.5) & brain_DHW & box)
    seeds = [(10, 5, 20), (-10, 5, 20), (14, -20, 26), (-14, -20, 26), (25, -42, 14), (-25, -42, 14)]
    indices = np.round((np.array(seeds) - np.array(origin_mm)) / COARSE_MM).astype(int)
    kept = {int(labels[tuple(index)]) for index in indices} - {0}
    distance = _signed_distance(np.isin(labels, list(kept)))
    for points, radius_mm in THIN_HORNS_MM:
        for start, end in pairwise(points):
            tube = _segment_distance((np.abs(x), y, z), start, end) - radius_mm
            distance = np.minimum(distance, tube.astype(np.float32))
    return distance


def _segment_distance(
    position_mm: tuple[Volume, Volume, Volume], start: tuple[int, ...], end: tuple[int, ...]
) -> Volume:
    """Distance of each position to a line segment, mm."""
    a, b = np.array(start, np.float32), np.array(end, np.float32)
    along = b - a
    offset = [axis - a[k] for k, axis in enumerate(position_mm)]
    t = np.clip(sum(o * along[k] for k, o in enumerate(offset)) / (along @ along), 0, 1)
    squared: Volume = np.asarray(sum((o - t * along[k]) ** 2 for k, o in enumerate(offset)), np.float32)
    return np.sqrt(squared)


def _positions_mm(shape: tuple[int, ...], origin_mm: tuple[float, ...]) -> tuple[Volume, Volume, Volume]:
    """MNI positions of the coarse voxels along each axis, shaped to broadcast."""
    x, y, z = ((o + COARSE_MM * np.arange(n)).astype(np.float32) for o, n in zip(origin_mm, shape, strict=True))
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _without_wall_artefact(
    wm_DHW: Volume, gm_DHW: Volume, ventricle_mm_DHW: Volume, origin_mm: tuple[float, ...]
) -> Volume:
    """Turn the grey rim that partial volume draws around the ventricles white; grey matter edited in place.

    The caudate nucleus, in front and below, is left as it is.
    """
    near = ndimage.zoom(ventricle_mm_DHW, COARSE_MM, order=1, grid_mode=False)
    near = np.pad(near, [(0, max(0, n - m)) for n, m in zip(gm_DHW.shape, near.shape, strict=True)], mode="edge")
    near = near[: gm_DHW.shape[0], : gm_DHW.shape[1], : gm_DHW.shape[2]]
    y = (origin_mm[1] + np.arange(gm_DHW.shape[1]))[None, :, None]
    z = (origin_mm[2] + np.arange(gm_DHW.shape[2]))[None, None, :]
    rim = (near < 4) & ((z > 24) | ((y < -32) & (z > 0)))
    moved = np.where(rim, gm_DHW, 0)
    gm_DHW -= moved
    return np.asarray(wm_DHW + moved * (near > 0.5), np.float32)
