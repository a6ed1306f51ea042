"""Lesions of one patient: discrete ones of many sizes, and bands that run together along the ventricles.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).

Sizes and volumes follow 30 consensus masks (Lesjak et al. 2017, doi 10.1007/s12021-017-9348-7).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msfl_server.research.simulated_cohort.anatomy import Anatomy, bump
from msfl_server.research.simulated_cohort.fields import Volume, smooth_field

SINGLE_LN_MM3 = (3.05, 1.37)  # mean and standard deviation of ln(volume of one discrete lesion)
SINGLE_MM3 = (3.0, 4000.0)
EDGE_MM = 0.42  # half width of the soft border
# Periventricular, deep white, juxtacortical and infratentorial lesions, relative to those of MS.
PATTERNS = {"ms": (1.0, 1.0, 1.0, 1.0), "nmosd": (0.2, 1.0, 0.3, 6.0), "spots": (0.1, 1.0, 0.8, 0.0)}


@dataclass(frozen=True)
class LesionBurden:
    """What a patient carries, before it is placed in a brain.

    Attributes:
        volume_ml: Volume of all lesions at baseline.
        num_lesions: Discrete lesions at baseline, besides the periventricular band.
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
    """

    extent_DHW: Volume
    flair_DHW: Volume
    t1w_loss_DHW: Volume


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


def make_lesions(rng: np.random.Generator, anatomy: Anatomy, burden: LesionBurden) -> tuple[LesionMaps, LesionMaps]:
    """Place a patient's lesions in the brain, at baseline and one year later.

    Args:
        rng: Source of randomness.
        anatomy: The patient's brain.
        burden: How many lesions, how large, how many of them change.

    Returns:
        Maps of the baseline and of the follow-up; the follow-up contains the baseline's lesions.
    """
    habit = float(np.clip(rng.normal(0.0, 0.08), -0.14, 0.2))  # some patients' lesions are brighter throughout
    volumes_mm3 = _discrete_volumes(rng, burden)
    texture = smooth_field(rng, anatomy.grid, 2.5) + 0.6 * smooth_field(rng, anatomy.grid, 5.0)
    prior = placement_prior(rng, anatomy, burden.pattern)
    lesions = _place(rng, anatomy, prior, volumes_mm3, habit)
    band_ml = burden.volume_ml - volumes_mm3.sum() / 1000
    band = _band(rng, anatomy, max(band_ml, 0.0) if burden.pattern == "ms" else 0.0, habit)
    baseline = _finish(anatomy, _render(anatomy, lesions, texture, band), texture)

    grown = rng.permutation(len(lesions))[: burden.enlarging_lesions]
    later = [replace(lesions[i], radius_mm=lesions[i].radius_mm * 1.5 + 0.7) for i in grown]
    new_mm3 = np.clip(np.exp(rng.normal(4.3, 0.8, burden.new_lesions)), 25, 1500)
    fresh = _place(rng, anatomy, prior, new_mm3, habit + 0.1)
    raw = _render(anatomy, lesions + later + fresh, texture, band)
    return baseline, _finish(anatomy, raw, texture)


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
    weight = 0.9 * taste[0] * periventricular + 0.22 * taste[1] * deep + 0.09 * taste[2] * juxtacortical
    tissue = anatomy.wm_DHW + 0.04 * anatomy.gm_DHW
    weight = tissue * (weight + 0.02) + 0.18 * taste[3] * infratentorial * (1 - anatomy.csf_DHW)
    inner = (anatomy.brain_mm_DHW > 2) & (anatomy.ventricle_mm_DHW > 0.2) & (anatomy.csf_DHW < 0.3)
    return np.where(inner, weight, 0).astype(np.float32)


def _discrete_volumes(rng: np.random.Generator, burden: LesionBurden) -> NDArray[np.float64]:
    """Volumes of the discrete lesions, mm3, at most the burden in all, largest first."""
    if not burden.num_lesions:
        return np.zeros(0)
    mean, spread = SINGLE_LN_MM3
    volumes = np.clip(np.exp(rng.normal(mean, spread, burden.num_lesions)), *SINGLE_MM3)
    share = float(rng.uniform(0.45, 1.0)) if burden.volume_ml < 4 else float(rng.uniform(0.1, 0.5))
    share = share if burden.pattern == "ms" else 1.0
    allowed = share * burden.volume_ml * 1000
    volumes = volumes[np.cumsum(volumes) <= allowed]
    return np.asarray(np.sort(volumes)[::-1] if len(volumes) else np.array([allowed]), np.float64)


def _place(
    rng: np.random.Generator, anatomy: Anatomy, prior: Volume, volumes_mm3: NDArray[np.float64], habit: float
) -> list[Lesion]:
    """Draw a position, shape and brightness for each lesion; large ones keep to the densest places."""
    if not len(volumes_mm3):
        return []
    flat = prior.ravel()
    everywhere = np.cumsum(flat, dtype=np.float64)
    dense = np.cumsum(flat.astype(np.float64) ** 1.7)
    lesions = []
    for volume in volumes_mm3:
        cumulative = dense if volume > 150 else everywhere
        voxel = int(np.searchsorted(cumulative, rng.random() * cumulative[-1]))
        centre = np.array(np.unravel_index(min(voxel, flat.size - 1), prior.shape))
        near = anatomy.ventricle_mm_DHW[tuple(centre)] < 7
        radius_mm = float((3 * volume / (4 * np.pi)) ** (1 / 3))
        lesions.append(
            Lesion(
                centre=centre,
                radius_mm=radius_mm,
                axes=_axes(rng, anatomy, centre, perivenular=bool(near)),
                elongation=float(rng.uniform(1.0, 2.4 if near else 1.8)),
                flair=float(np.clip(rng.normal(0.82 + habit, 0.18), 0.35, 1.25)),
                t1w_loss=_t1w_loss(rng, volume),
                sharpness=float(np.clip(rng.normal(0.9, 0.25), 0.35, 1.3)),
            )
        )
    return lesions


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
    anatomy: Anatomy, lesions: list[Lesion], texture: Volume, band: tuple[Volume, Volume, Volume]
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
        ragged = lesion.radius_mm * (1 + 0.30 * texture[box])
        height = 1 / (1 + np.exp(np.clip((distance - ragged) * lesion.sharpness / EDGE_MM, -30, 30)))
        extent[box] = np.maximum(extent[box], height)
        flair[box] = np.maximum(flair[box], height * lesion.flair)
        loss[box] = np.maximum(loss[box], height * lesion.t1w_loss)
    return extent, flair, loss


def _band(rng: np.random.Generator, anatomy: Anatomy, volume_ml: float, habit: float) -> tuple[Volume, Volume, Volume]:
    """Ragged confluent lesions around horns, bodies and callosum: a random field cut at the volume."""
    empty = np.zeros(anatomy.grid.shape, np.float32)
    voxel_ml = float(np.prod(anatomy.grid.spacing_mm)) / 1000
    if volume_ml < 0.05:
        return empty, empty, empty
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
    candidates = score[allowed]
    count = int(np.clip(volume_ml / voxel_ml, 1, candidates.size - 1))
    threshold = np.partition(candidates, candidates.size - count)[candidates.size - count]
    margin = np.where(allowed, score - threshold, -1)
    extent = (1 / (1 + np.exp(-np.clip(margin / 0.06, -30, 30)))).astype(np.float32)
    brightness = np.clip(0.76 + habit + 0.15 * smooth_field(rng, grid, 7), 0.4, 1.1)
    loss = np.clip(0.40 + 0.12 * smooth_field(rng, grid, 8), 0.1, 0.65)
    return extent, (extent * brightness).astype(np.float32), (extent * loss).astype(np.float32)


def _finish(anatomy: Anatomy, raw: tuple[Volume, Volume, Volume], texture: Volume) -> LesionMaps:
    """Keep lesions out of CSF, let them fade in cortex, and give them an uneven inside."""
    extent, flair, loss = raw
    room = np.clip(1.15 * anatomy.wm_DHW + anatomy.gm_DHW * (0.55 + 0.45 * anatomy.deep_DHW), 0, 1)
    uneven = np.clip(1 + 0.10 * texture, 0.6, 1.4)
    return LesionMaps(
        (extent * room).astype(np.float32),
        (flair * room * uneven).astype(np.float32),
        np.clip(loss * room * uneven, 0, 0.6).astype(np.float32),
    )
