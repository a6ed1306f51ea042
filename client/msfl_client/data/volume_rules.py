"""The rules a single image or mask is held to; each rule is one function that yields findings.

IJK are voxel indices as stored; world is RAS in mm. Findings carry no case yet: `checks` adds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.data.findings import Finding, Level
from msfl_client.imaging import geometry
from msfl_client.imaging.skull_strip_detection import apart_from_background, is_brain_alone
from msfl_client.imaging.volumes import Volume

VOXEL_SIZE_MM = (0.3, 8.0)
MIN_SLICES = 10
MAX_SHEAR_DEGREES = 1.0
OBLIQUE_DEGREES = 1.0
FORMS_MM = 0.5
FORMS_DEGREES = 0.5
APART_MM = 5.0  # a lesion is some 4 mm wide (median 22 mm3): it would lie elsewhere
HEAD_ML = (500.0, 8000.0)
# Beyond these there is no head: less than a slab of a brain; more than noise all over the largest field of view, or
# than a head before a background of one value.
NO_HEAD_ML = (300.0, 20_000.0)
NO_PLAIN_HEAD_ML = 10_000.0
_PLAIN_SHARE = 0.9
LESIONS_ML = 150.0
UNSAID = 1e-5  # of a value of a mask that nobody is told of
ROUNDING = 1e-3  # of a mask that was stored with a scale, or resampled onto its own grid
MIN_LESION_MM3 = 3.0
_LABELS_SHOWN = 6


def grid_rules(volume: Volume) -> Iterator[Finding]:
    """Dimensions, affine, voxel size, number of slices, and whether sform and qform agree."""
    if volume.squeezed:
        yield _finding("warn", "dimensions", "4D with a single volume; read as 3D")
    affine = volume.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        text = "its affine does not place voxels in space (zero or not finite)"
        if int(volume.header["sform_code"]) > 0 and _qform(volume) is not None:
            text = (
                "its sform does not place voxels in space (zero or not finite), its qform does: copy it over the sform"
            )
        yield _finding("fail", "affine", text)
        return
    shear = geometry.shear_degrees(affine)
    if shear > MAX_SHEAR_DEGREES:
        yield _finding("fail", "affine", f"sheared: voxel axes are {shear:.1f} degrees off a right angle")
    yield from _units(volume)
    sizes = geometry.spacing_mm(affine)
    if sizes.min() < VOXEL_SIZE_MM[0] or sizes.max() > VOXEL_SIZE_MM[1]:
        low, high = VOXEL_SIZE_MM
        yield _finding("fail", "voxel-size", f"voxels of {size_text(sizes)} mm; expected {low} to {high:g} mm")
    if min(volume.shape) < MIN_SLICES:
        yield _finding("fail", "slices", f"only {min(volume.shape)} slices; expected at least {MIN_SLICES}")
    tilt = geometry.tilt_degrees(affine)
    if tilt > OBLIQUE_DEGREES:
        yield _finding("pass", "oblique", f"slices are oblique by {tilt:.0f} degrees")
    yield from _forms(volume)


def image_rules(volume: Volume) -> Iterator[Finding]:
    """Not constant, and a foreground about as large as a head or a brain; values are finite."""
    if volume.voxels_IJK.min() == volume.voxels_IJK.max():
        yield _finding("fail", "constant", "every voxel has the same value; there is no image in it")
        return
    head_ml = _foreground_ml(volume)
    if not HEAD_ML[0] <= head_ml <= HEAD_ML[1]:
        low, high = (value / 1000 for value in HEAD_ML)
        text = f"about {head_ml / 1000:.2f} l of head or brain; expected {low} to {high:g} l"
        largest_ml = NO_PLAIN_HEAD_ML if _has_plain_border(volume) else NO_HEAD_ML[1]
        no_head = not NO_HEAD_ML[0] <= head_ml <= largest_ml
        yield _finding("warn", "no-head" if no_head else "head-volume", text)


def mask_rules(volume: Volume, classes: Sequence[str] = ()) -> Iterator[Finding]:
    """Finite values, 0 and those of lesions alone, and a plausible volume of them; no lesion at all is legal.

    Args:
        volume: the mask.
        classes: of lesions, that it tells apart, in the order of their values; none: lesions are 1.
    """
    voxels = volume.voxels_IJK
    broken = list(finite_rule(volume))
    if broken:
        yield from broken
        return
    values = np.unique(voxels)
    if (
        not np.isclose(values, np.rint(values), rtol=0, atol=ROUNDING).all()
        or not np.isin(np.rint(values), range(1 + max(1, len(classes)))).all()
    ):
        shown = ", ".join(f"{value:g}" for value in values[:_LABELS_SHOWN])
        more = f" and {values.size - _LABELS_SHOWN} more" if values.size > _LABELS_SHOWN else ""
        yield _finding("fail", "mask-labels", f"expected the values {_values(classes)}, found {shown}{more}")
        return
    off = np.abs(values - np.rint(values))
    if off.max() > UNSAID:
        furthest = values[off.argmax()]
        yield _finding("warn", "mask-rounding", f"values such as {furthest:g} are taken as {np.rint(furthest):g}")
    lesion_ml, _ = measure_lesions(volume)
    if lesion_ml == 0:
        yield _finding("pass", "mask-empty", "a case without lesions: its mask is all zero")
    elif (share := float((voxels >= 0.5).mean())) > 0.5:
        text = f"{100 * share:.0f}% of the voxels are lesion; the mask is inverted or filled"
        yield _finding("fail", "lesion-volume", text)
    elif lesion_ml > LESIONS_ML:
        yield _finding("warn", "lesion-volume", f"{lesion_ml:.0f} ml of lesions; more than {LESIONS_ML:g} is rare")


def classes_in_words(classes: Sequence[str]) -> str:
    """Values of a mask, from 1 on, and what they stand for: 1 (lesion), 2 (black-hole)."""
    return ", ".join(f"{value} ({name})" for value, name in enumerate(classes, start=1))


def _values(classes: Sequence[str]) -> str:
    return f"0, {classes_in_words(classes)}" if classes else "0 and 1"


def finite_rule(volume: Volume) -> Iterator[Finding]:
    """No NaN, no infinity."""
    bad = volume.voxels_IJK.size - int(np.isfinite(volume.voxels_IJK).sum())
    if bad:
        share = 100 * bad / volume.voxels_IJK.size
        yield _finding("fail", "values", f"{bad:,} voxels ({share:.2g}%) are NaN or infinite")


def measure_lesions(volume: Volume) -> tuple[float, int]:
    """Total lesion volume in ml and the number of lesions: 26-connected, each of 3 mm3 or more."""
    lesion_IJK = volume.voxels_IJK >= 0.5
    voxel_mm3 = float(abs(np.linalg.det(volume.affine[:3, :3])))
    if not lesion_IJK.any():
        return 0.0, 0
    box = ndimage.find_objects(lesion_IJK.astype(np.int8))[0]
    labels, _ = ndimage.label(lesion_IJK[box], structure=np.ones((3, 3, 3)))
    sizes_mm3 = np.bincount(labels.ravel())[1:] * voxel_mm3
    return float(sizes_mm3.sum()) / 1000, int((sizes_mm3 >= MIN_LESION_MM3).sum())


def size_text(sizes: NDArray[Any]) -> str:
    """Voxel sizes for a line of text: 0.72 x 0.72 x 3."""
    return " x ".join(f"{size:.3g}" for size in sizes)


def _forms(volume: Volume) -> Iterator[Finding]:
    header = volume.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        yield _finding(
            "warn", "forms", "neither sform nor qform is set; left and right are a guess, and so is its place"
        )
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) > 0:
        yield from _sizes_apart(volume)
    if int(header["sform_code"]) == 0 or int(header["qform_code"]) == 0:
        return
    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except ValueError as error:  # a quaternion longer than 1
        yield _finding("warn", "forms", f"the qform is invalid ({error}); the sform is used")
        return
    if abs(np.linalg.det(qform[:3, :3])) < 1e-9:
        yield _finding("warn", "forms", "the qform is degenerate; the sform is used")
        return
    apart_mm = geometry.displacement_mm(volume.affine, qform, volume.shape)
    turned = geometry.turn_degrees(volume.affine, qform)
    if apart_mm > FORMS_MM or turned > FORMS_DEGREES:
        text = f"sform and qform differ by up to {apart_mm:.1f} mm and {turned:.1f} degrees; the sform is used"
        yield _finding("warn", "forms-apart" if apart_mm > APART_MM else "forms", text)


def _units(volume: Volume) -> Iterator[Finding]:
    """Sizes and places are taken as mm, as nearly all software does."""
    unit = volume.header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        text = f"its header says that sizes are in {unit}s (xyzt_units); they are taken as mm"
        yield _finding("warn", "units", text)


def _sizes_apart(volume: Volume) -> Iterator[Finding]:
    """Voxel sizes by pixdim against those by the sform, where no qform is set that could differ."""
    by_sform, by_pixdim = geometry.spacing_mm(volume.affine), np.asarray(volume.header["pixdim"][1:4], np.float64)
    apart_mm = float((np.abs(by_sform - np.abs(by_pixdim)) * (np.array(volume.shape) - 1)).max())
    if not apart_mm <= FORMS_MM:
        text = f"voxels of {size_text(by_sform)} mm by its sform, of {size_text(by_pixdim)} mm by its pixdim; "
        yield _finding("warn", "forms-apart" if apart_mm > APART_MM else "forms", text + "the sform is used")


def _qform(volume: Volume) -> NDArray[np.float64] | None:
    """Where the qform places voxels, if it is set and does."""
    if int(volume.header["qform_code"]) <= 0:
        return None
    try:
        qform = np.asarray(volume.header.get_qform(), dtype=np.float64)
    except ValueError:  # a quaternion longer than 1
        return None
    return qform if np.isfinite(qform).all() and abs(np.linalg.det(qform[:3, :3])) > 1e-9 else None


def _foreground_ml(volume: Volume) -> float:
    """Volume that differs from the background: at all, of a brain alone; else by over a tenth of the range, ml."""
    voxels = volume.voxels_IJK
    if is_brain_alone(voxels, volume.affine):
        foreground = apart_from_background(voxels, volume.affine)
    else:
        low, high = np.percentile(voxels.ravel(order="K")[::11], (0.5, 99.5))
        foreground = np.abs(voxels - np.median(_border(volume))) > max(0.1 * float(high - low), 1e-6)
    return float(foreground.sum() * abs(np.linalg.det(volume.affine[:3, :3]))) / 1000


def _has_plain_border(volume: Volume) -> bool:
    border = _border(volume)
    return float((border == np.median(border)).mean()) >= _PLAIN_SHARE


def _border(volume: Volume) -> NDArray[np.float32]:
    """Some voxels of the six outermost planes."""
    return np.concatenate([np.take(volume.voxels_IJK, (0, -1), axis=axis).ravel()[::7] for axis in range(3)])


def _finding(level: Level, rule: str, text: str) -> Finding:
    return Finding(level, None, rule, text)
