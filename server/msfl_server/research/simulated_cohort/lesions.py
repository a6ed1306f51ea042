"""Lesions of one patient: discrete ones of many sizes, and bands that run together along the ventricles.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).

Sizes and volumes follow 30 consensus masks (Lesjak et al. 2017, doi 10.1007/s12021-017-9348-7).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from msfl_server.research.simulated_cohort.anatomy import Anatomy, bump
from msfl_server.research.simulated_cohort.bands import FLAIR_PEAK, draw_band
from msfl_server.research.simulated_cohort.fields import Volume, smooth_field

SINGLE_LN_MM3 = (2.7, 1.4)  # mean and standard deviation of ln(volume of one discrete lesion)
SINGLE_MM3 = (4.0, 4000.0)
LARGEST_SINGLE = 0.25  # of the whole volume: the largest discrete lesion's share, at most
APART_MM = 2.5  # room between two lesions when they appear
TRIES = 12  # places that are tried for a lesion
_DIRECTIONS = np.array([[0, 0, 0], *np.eye(3), *-np.eye(3), *np.array(list(product((-1, 1), repeat=3))) / np.sqrt(3)])
RAGGED_SIZE = 0.9  # mean radius of a ragged lesion over that of a sphere of its volume
EDGE_MM = 0.42  # half width of the soft border
# Periventricular, deep white, juxtacortical and infratentorial lesions, relative to those of MS.
PATTERNS = {"ms": (1.0, 1.0, 1.0, 1.0), "nmosd": (0.2, 1.0, 0.3, 6.0), "spots": (0.1, 1.0, 0.8, 0.0)}


@dataclass(frozen=True)
class LesionBurden:
    """What a patient carries, before it is placed in a brain.

    Attributes:
        volume_ml: Volume of all lesions at baseline.
        num_lesions: Lesions at baseline, pieces of the periventricular band included.
        new_lesions: Lesions that appear within the year of follow-up.
        enlarging_lesions: Discrete lesions that grow within that year.
        pattern: Where they lie, a key of `PATTERNS`; only those of MS run together along the ventricles.
    """

    volume_ml: float
    num_lesions: int
    new_lesions: int = 0
    enlarging_lesions: int = 0
    pattern: str = "ms"


@dataclass(frozen=True)
class LesionMaps:
    """Lesions of one visit on the simulation grid.

    Attributes:
        extent_DHW: 1 inside a lesion, 0 outside, 0.5 at the half-height border that a rater outlines.
        flair_DHW: Added FLAIR signal, in units of normal white matter.
        t1w_loss_DHW: Fraction of the T1w signal that is lost.
        new_DHW: Extent of the lesions that appeared since the visit before; 0 everywhere at baseline.
    """

    extent_DHW: Volume
    flair_DHW: Volume
    t1w_loss_DHW: Volume
    new_DHW: Volume


@dataclass(frozen=True)
class Lesion:
    """One discrete lesion.

    Attributes:
        centre: Voxel indices on the simulation grid.
        radius_mm: Radius of the sphere of the same volume.
        axes: Rotation (3, 3) whose rows are the lesion's axes, the long one first.
        elongation: Length over width.
        flair: Peak FLAIR signal added, in units of normal white matter.
        t1w_loss: Fraction of T1w signal lost at the peak.
        sharpness: 1 for an ordinary border, less for a diffuse one.
    """

    centre: NDArray[np.int64]
    radius_mm: float
    axes: NDArray[np.float64]
    elongation: float
    flair: float
    t1w_loss: float
    sharpness: float


@dataclass(frozen=True)
class LesionScene:
    """A patient's lesions at baseline, and what later ones are drawn from.

    Attributes:
        habit: How much brighter the patient's lesions are than others'.
        texture_DHW: Unevenness of their borders and insides.
        prior_DHW: As of `placement_prior`.
        band: Extent, FLAIR signal and T1w loss of what runs together along the ventricles.
        lesions: The discrete ones.
    """

    habit: float
    texture_DHW: Volume
    prior_DHW: Volume
    band: tuple[Volume, Volume, Volume]
    lesions: tuple[Lesion, ...]


def make_lesions(rng: np.random.Generator, anatomy: Anatomy, burden: LesionBurden) -> tuple[LesionMaps, LesionMaps]:
    """Place a patient's lesions in the brain, at baseline and one year later.

    Args:
        rng: Source of randomness.
        anatomy: The patient's brain.
        burden: How many lesions, how large, how many of them change.

    Returns:
        Maps of the baseline and of the follow-up; the follow-up contains the baseline's lesions.
    """
    scene = place_lesions(rng, anatomy, burden)
    changing = rng.permutation(len(scene.lesions))[: burden.enlarging_lesions]
    present = [*scene.lesions, *(enlarged(scene.lesions[i]) for i in changing)]
    fresh = new_lesions(rng, anatomy, scene, present, burden.new_lesions)
    return draw_lesions(anatomy, scene, scene.lesions), draw_lesions(anatomy, scene, [*present, *fresh], fresh)


def place_lesions(rng: np.random.Generator, anatomy: Anatomy, burden: LesionBurden) -> LesionScene:
    """Place the lesions of the baseline.

    Args:
        rng: Source of randomness.
        anatomy: The patient's brain.
        burden: How many lesions and how large; its changes have no part in it.
    """
    habit = float(np.clip(rng.normal(0.0, 0.05), -0.1, 0.12))  # some patients' lesions are brighter throughout
    texture = smooth_field(rng, anatomy.grid, 2.5) + 0.6 * smooth_field(rng, anatomy.grid, 5.0)
    prior = placement_prior(rng, anatomy, burden.pattern)
    volumes_mm3 = _discrete_volumes(rng, burden)
    band_ml = burden.volume_ml - volumes_mm3.sum() / 1000 if burden.pattern == "ms" else 0.0
    band, num_pieces = draw_band(rng, anatomy, band_ml, habit)
    discrete = max(len(volumes_mm3) - num_pieces, 1)
    volumes_mm3 = np.sort(rng.permutation(volumes_mm3)[:discrete])[::-1]
    lesions = _place(rng, anatomy, (prior, band[0]), [], volumes_mm3, habit)
    return LesionScene(habit, texture, prior, band, tuple(lesions))


def enlarged(lesion: Lesion) -> Lesion:
    """The same lesion after a year in which it grew."""
    return replace(lesion, radius_mm=lesion.radius_mm * 1.5 + 0.7)


def new_lesions(
    rng: np.random.Generator, anatomy: Anatomy, scene: LesionScene, present: Sequence[Lesion], count: int
) -> list[Lesion]:
    """Lesions that appear within a year, where there is room apart from those that are present."""
    new_mm3 = np.clip(np.exp(rng.normal(4.3, 0.8, count)), 25, 1500)
    return _place(rng, anatomy, (scene.prior_DHW, scene.band[0]), present, new_mm3, scene.habit + 0.1)


def draw_lesions(
    anatomy: Anatomy, scene: LesionScene, lesions: Sequence[Lesion], new: Sequence[Lesion] = ()
) -> LesionMaps:
    """Maps of a visit.

    Args:
        anatomy: The brain at the visit.
        scene: The patient's.
        lesions: All discrete lesions of the visit.
        new: Those of them that appeared since the visit before.
    """
    nothing = np.zeros_like(scene.band[0])
    extent, _, _ = _render(anatomy, new, scene.texture_DHW, (nothing, nothing, nothing))
    raw = _render(anatomy, lesions, scene.texture_DHW, scene.band)
    return _finish(anatomy, raw, scene.texture_DHW, extent)


def placement_prior(rng: np.random.Generator, anatomy: Anatomy, pattern: str = "ms") -> Volume:
    """Relative density of lesion centres: periventricular, deep white, juxtacortical and infratentorial.

    Args:
        rng: Source of randomness, for the patient's own preferences.
        anatomy: The patient's brain.
        pattern: A key of `PATTERNS`.

    Returns:
        Weights (D, H, W), not normalised.
    """
    distance = np.maximum(anatomy.ventricle_mm_DHW, 0)
    above = anatomy.mni_mm[2] > -22
    periventricular = np.exp(-distance / 5.0) * above
    deep = np.exp(-(((distance - 8) / 12) ** 2)) * (anatomy.mni_mm[2] > 0)
    juxtacortical = 4 * anatomy.wm_DHW * anatomy.gm_DHW * (1 - anatomy.deep_DHW) * (distance > 6)
    infratentorial = bump(anatomy.mni_mm, (6, -30, -26), (8, 10, 14)) + 0.5 * bump(
        anatomy.mni_mm, (20, -56, -34), (9, 9, 7)
    )
    taste = np.exp(rng.normal(0, 0.5, 4)) * np.array(PATTERNS[pattern])
    weight = 0.9 * taste[0] * periventricular + 0.32 * taste[1] * deep + 0.035 * taste[2] * juxtacortical
    tissue = anatomy.wm_DHW + 0.04 * anatomy.gm_DHW
    weight = tissue * (weight + 0.02) + 0.22 * taste[3] * infratentorial * (1 - anatomy.csf_DHW)
    inner = (anatomy.brain_mm_DHW > 2) & (anatomy.ventricle_mm_DHW > 0.2) & (anatomy.csf_DHW < 0.3)
    return np.where(inner, weight, 0).astype(np.float32)


def _discrete_volumes(rng: np.random.Generator, burden: LesionBurden) -> NDArray[np.float64]:
    """Volumes of the discrete lesions, mm3, largest first; together at most the burden, unless that is tiny."""
    if not burden.num_lesions:
        return np.zeros(0)
    mean, spread = SINGLE_LN_MM3
    whole_mm3 = 1000 * burden.volume_ml
    low = min(SINGLE_MM3[0], whole_mm3 / burden.num_lesions)
    high = min(SINGLE_MM3[1], max(LARGEST_SINGLE * whole_mm3, 2 * low))
    volumes = np.clip(np.exp(rng.normal(mean, spread, burden.num_lesions)), low, high)
    allowed = whole_mm3 * (float(rng.uniform(0.75, 1.0)) if burden.pattern == "ms" else 1.0)
    while volumes.sum() > allowed * 1.001 and volumes.max() > low:
        volumes = np.maximum(volumes * max(allowed / volumes.sum(), 0.5), low)
    return np.asarray(np.sort(volumes)[::-1], np.float64)


def _place(
    rng: np.random.Generator,
    anatomy: Anatomy,
    where: tuple[Volume, Volume],
    present: Sequence[Lesion],
    volumes_mm3: NDArray[np.float64],
    habit: float,
) -> list[Lesion]:
    """Draw a position, shape and brightness for each lesion, where there is room apart from the band and the others.

    Args:
        rng: Source of randomness.
        anatomy: The patient's brain.
        where: Density of centres, and the band's extent.
        present: Lesions that are there already.
        volumes_mm3: Volumes, mm3; large ones keep to the densest places.
        habit: The patient's brightness.
    """
    if not len(volumes_mm3):
        return []
    prior, band = where
    flat = prior.ravel()
    everywhere = np.cumsum(flat, dtype=np.float64)
    dense = np.cumsum(flat.astype(np.float64) ** 1.7)
    lesions: list[Lesion] = []
    step = np.array(anatomy.grid.spacing_mm)
    for volume in volumes_mm3:
        cumulative = dense if volume > 150 else everywhere
        radius_mm = float((3 * volume / (4 * np.pi)) ** (1 / 3))
        voxels = np.searchsorted(cumulative, rng.random(TRIES) * cumulative[-1])
        centres = np.stack(np.unravel_index(np.minimum(voxels, flat.size - 1), prior.shape), 1)
        centre = centres[_roomiest(centres, step, 1.2 * radius_mm, [*present, *lesions], band)]
        near = anatomy.ventricle_mm_DHW[tuple(centre)] < 7
        lesions.append(
            Lesion(
                centre=centre,
                radius_mm=radius_mm,
                axes=_axes(rng, anatomy, centre, perivenular=bool(near)),
                elongation=float(rng.uniform(1.0, 2.4 if near else 1.8)),
                flair=float(np.clip(rng.normal(FLAIR_PEAK[0] + habit, FLAIR_PEAK[1]), 0.3, 1.05)),
                t1w_loss=_t1w_loss(rng, volume),
                sharpness=float(np.clip(rng.normal(0.9, 0.25), 0.35, 1.3)),
            )
        )
    return lesions


def _roomiest(
    centres: NDArray[np.int64], step_mm: NDArray[np.float64], radius_mm: float, others: list[Lesion], band: Volume
) -> int:
    """The first of the centres with room around it; without one, the one that is furthest from the others."""
    room_mm = np.full(len(centres), np.inf)
    if others:
        theirs = np.stack([other.centre for other in others])
        reach_mm = np.array([1.2 * other.radius_mm for other in others])
        apart_mm = np.linalg.norm((centres[:, None] - theirs[None]) * step_mm, axis=-1) - reach_mm
        room_mm = apart_mm.min(axis=1) - radius_mm
    around = np.rint((radius_mm + APART_MM) * _DIRECTIONS / step_mm).astype(np.int64)
    points = np.clip(centres[:, None] + around[None], 0, np.array(band.shape) - 1)
    touches = (band[tuple(np.moveaxis(points, -1, 0))] > 0.3).any(axis=1)
    room_mm = np.where(touches, np.minimum(room_mm, 0) - 100, room_mm)
    free = np.flatnonzero(room_mm > APART_MM)
    return int(free[0]) if len(free) else int(np.argmax(room_mm))


def _t1w_loss(rng: np.random.Generator, volume_mm3: float) -> float:
    """T1w loss of one lesion: mild in most, a black hole in some of the larger ones."""
    if rng.random() < (0.18 if volume_mm3 > 60 else 0.05):
        return float(rng.uniform(0.40, 0.60))
    return float(np.clip(rng.normal(0.33 + 0.02 * np.log(volume_mm3 / 20), 0.08), 0.02, 0.45))


def _axes(
    rng: np.random.Generator, anatomy: Anatomy, centre: NDArray[np.int64], *, perivenular: bool
) -> NDArray[np.float64]:
    """Axes of a lesion: along the veins, that run away from the ventricle, or in any direction."""
    first = rng.standard_normal(3)
    if perivenular:
        low = np.maximum(centre - 2, 0)
        high = np.minimum(centre + 2, np.array(anatomy.grid.shape) - 1)
        outward = np.array(
            [
                anatomy.ventricle_mm_DHW[tuple(np.where(np.arange(3) == k, high, centre))]
                - anatomy.ventricle_mm_DHW[tuple(np.where(np.arange(3) == k, low, centre))]
                for k in range(3)
            ],
            np.float64,
        )
        first = outward / (np.linalg.norm(outward) + 1e-6) + 0.3 * first
    basis, _ = np.linalg.qr(np.column_stack([first, rng.standard_normal((3, 2))]))
    return np.asarray(basis.T, np.float64)


def _render(
    anatomy: Anatomy, lesions: Sequence[Lesion], texture: Volume, band: tuple[Volume, Volume, Volume]
) -> tuple[Volume, Volume, Volume]:
    """Draw the lesions over the band; where two meet the brighter wins. Returns extent, FLAIR, T1w loss."""
    extent, flair, loss = (part.copy() for part in band)
    step = np.array(anatomy.grid.spacing_mm)
    for lesion in lesions:
        reach = np.ceil((lesion.radius_mm * lesion.elongation * 1.5 + 3) / step).astype(int)
        low = np.maximum(lesion.centre - reach, 0)
        high = np.minimum(lesion.centre + reach + 1, extent.shape)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        offsets = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
        offset_mm = (offsets - lesion.centre) * step @ lesion.axes.T
        width = lesion.elongation ** (-1 / 3)
        distance = np.linalg.norm(offset_mm / np.array([width * lesion.elongation, width, width]), axis=-1)
        ragged = lesion.radius_mm * (RAGGED_SIZE + 0.30 * texture[box])
        height = 1 / (1 + np.exp(np.clip((distance - ragged) * lesion.sharpness / EDGE_MM, -30, 30)))
        extent[box] = np.maximum(extent[box], height)
        flair[box] = np.maximum(flair[box], height * lesion.flair)
        loss[box] = np.maximum(loss[box], height * lesion.t1w_loss)
    return extent, flair, loss


def _finish(anatomy: Anatomy, raw: tuple[Volume, Volume, Volume], texture: Volume, new: Volume) -> LesionMaps:
    """Keep lesions out of CSF, let them fade in cortex, and give them an uneven inside."""
    extent, flair, loss = raw
    room = np.clip(1.15 * anatomy.wm_DHW + anatomy.gm_DHW * (0.55 + 0.45 * anatomy.deep_DHW), 0, 1)
    uneven = np.clip(1 + 0.10 * texture, 0.6, 1.4)
    return LesionMaps(
        (extent * room).astype(np.float32),
        (flair * room * uneven).astype(np.float32),
        np.clip(loss * room * uneven, 0, 0.6).astype(np.float32),
        (new * room).astype(np.float32),
    )
