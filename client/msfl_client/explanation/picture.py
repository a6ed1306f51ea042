"""One picture of a relevance map: the image with what speaks for the answer in red and what speaks against it in blue.

Legend: I/J/K voxels (right, front, up); W/H pixels.
"""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from msfl_client.imaging.volumes import Volume
from msfl_client.prediction.picture import (
    APART_MM,
    BORDER,
    COLUMNS,
    MARGIN,
    NUM_AXIAL,
    PANEL,
    SIDES,
    brightness,
    label,
)

_FOR, _AGAINST = (255, 70, 20), (40, 130, 255)
_STRONGEST = 99.8  # percentile of the map's absolute values in full colour
_OPAQUE = 0.85


def draw_relevance(image: Volume, map_IJK: NDArray[np.float32], outline_IJK: NDArray[np.bool_] | None = None) -> bytes:
    """A PNG of axial slices where most speaks for the answer, and a coronal and a sagittal one where most does.

    The patient's right is on the left.

    Args:
        image: what the map lies on, in any orientation.
        map_IJK: relevance in its grid.
        outline_IJK: lesions in its grid, whose borders are drawn.
    """
    outline_IJK = np.zeros(map_IJK.shape, bool) if outline_IJK is None else outline_IJK
    turned = nib.as_closest_canonical(nib.Nifti1Image(image.filled().voxels_IJK, image.affine))
    map_IJK, lesion_IJK = (
        np.asarray(nib.as_closest_canonical(nib.Nifti1Image(one.astype(np.float32), image.affine)).dataobj)
        for one in (map_IJK, outline_IJK)
    )
    shown_IJK = brightness(np.asarray(turned.dataobj))
    spacing_mm = voxel_sizes(turned.affine)
    colours_IJK3 = _coloured(shown_IJK, map_IJK)
    slices = [
        (2, place, f"axial {n}") for n, place in enumerate(_most_relevant(map_IJK, float(spacing_mm[2])), start=1)
    ]
    speaks_IJK = map_IJK.clip(min=0)
    for axis, name in ((1, "coronal"), (0, "sagittal")):
        others = tuple(other for other in range(3) if other != axis)
        slices.append((axis, int(speaks_IJK.sum(axis=others).argmax()), name))
    sheet = Image.new("RGB", (COLUMNS * PANEL, -(-len(slices) // COLUMNS) * PANEL))
    for number, (axis, place, name) in enumerate(slices):
        panel = _panel(colours_IJK3, lesion_IJK > 0, axis, place, np.delete(spacing_mm, axis))
        label(panel, name, SIDES[axis])
        sheet.paste(panel, (number % COLUMNS * PANEL, number // COLUMNS * PANEL))
    drawn = io.BytesIO()
    sheet.save(drawn, format="png", optimize=True)
    return drawn.getvalue()


def _coloured(shown_IJK: NDArray[np.uint8], map_IJK: NDArray[np.float32]) -> NDArray[np.uint8]:
    strength = np.abs(map_IJK[map_IJK != 0])
    full = float(np.percentile(strength, _STRONGEST)) if strength.size else 1.0
    opaque_IJK1 = (_OPAQUE * np.clip(np.abs(map_IJK) / max(full, 1e-12), 0, 1))[..., None]
    colour_IJK3 = np.where(map_IJK[..., None] > 0, np.array(_FOR), np.array(_AGAINST))
    mixed = (1 - opaque_IJK1) * shown_IJK[..., None] + opaque_IJK1 * colour_IJK3
    return np.asarray(mixed.round().astype(np.uint8))


def _most_relevant(map_IJK: NDArray[np.float32], thickness_mm: float) -> list[int]:
    """Axial slices in which most speaks for the answer, some way from each other, from below upwards."""
    chosen: list[int] = []
    for place in np.argsort(-map_IJK.clip(min=0).sum(axis=(0, 1)), kind="stable"):
        if all(abs(int(place) - other) * thickness_mm >= APART_MM for other in chosen):
            chosen.append(int(place))
        if len(chosen) == NUM_AXIAL:
            break
    return sorted(chosen)


def _panel(
    colours_IJK3: NDArray[np.uint8],
    lesion_IJK: NDArray[np.bool_],
    axis: int,
    place: int,
    spacing_mm: NDArray[np.float64],
) -> Image.Image:
    """A slice at its true proportions, with the lesions' borders a pixel wide outside of them."""
    image_HW3 = np.swapaxes(np.take(colours_IJK3, place, axis=axis), 0, 1)[::-1]
    lesion_HW = np.take(lesion_IJK, place, axis=axis).T[::-1]
    if axis != 0:  # the patient's right to the left
        image_HW3, lesion_HW = image_HW3[:, ::-1], lesion_HW[:, ::-1]
    height_mm, width_mm = image_HW3.shape[0] * spacing_mm[1], image_HW3.shape[1] * spacing_mm[0]
    scale = (PANEL - 2 * MARGIN) / max(height_mm, width_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    pixels = np.array(Image.fromarray(np.ascontiguousarray(image_HW3)).resize(size, Image.Resampling.BICUBIC))
    outlined = Image.fromarray(np.ascontiguousarray(lesion_HW.astype(np.uint8) * 255))
    lesion = np.asarray(outlined.resize(size, Image.Resampling.NEAREST)) > 0
    pixels[ndimage.binary_dilation(lesion) & ~lesion] = BORDER
    panel = Image.new("RGB", (PANEL, PANEL))
    panel.paste(Image.fromarray(pixels), ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2))
    return panel
