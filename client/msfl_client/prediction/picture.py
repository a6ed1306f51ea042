"""One picture of a predicted case: the image with the borders of its lesions, where there is most of them.

Legend: I/J/K voxels (right, front, up); W/H pixels.
"""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from msfl_client.imaging.volumes import Volume

NUM_AXIAL = 6
PANEL = 240  # pixels, each way
COLUMNS = 4
BORDER, _WORDS = (255, 40, 40), (255, 255, 255)
_GREYS = 63
MARGIN = 14  # pixels around a slice, where letters stand
APART_MM = 6.0  # of two axial slices that are shown
_BRIGHTEST = 99.5  # percentile of the head that is white
SIDES = (("P", "A"), ("R", "L"), ("R", "L"))  # left and right in a sagittal, coronal and axial picture


def draw(image: Volume, mask_IJK: NDArray[np.bool_]) -> bytes:
    """A PNG of axial slices through the largest lesions, and a coronal and a sagittal one through the largest.

    The patient's right is on the left. Without lesions the slices are spread evenly over the head.

    Args:
        image: what the lesions were outlined on, in any orientation.
        mask_IJK: lesions in its grid.
    """
    turned = nib.as_closest_canonical(nib.Nifti1Image(image.filled().voxels_IJK, image.affine))
    voxels_IJK = np.asarray(turned.dataobj)
    lesion_IJK = np.asarray(
        nib.as_closest_canonical(nib.Nifti1Image(mask_IJK.astype(np.uint8), image.affine)).dataobj
    ).astype(bool)
    spacing_mm = voxel_sizes(turned.affine)
    shown_IJK = brightness(voxels_IJK)
    axial, coronal, sagittal = _places(voxels_IJK, lesion_IJK, float(spacing_mm[2]))
    slices = [(2, place, f"axial {number}") for number, place in enumerate(axial, start=1)]
    slices += [(1, coronal, "coronal"), (0, sagittal, "sagittal")]
    num_rows = -(-len(slices) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * PANEL, num_rows * PANEL))
    for number, (axis, place, name) in enumerate(slices):
        panel = _panel(shown_IJK, lesion_IJK, axis, place, np.delete(spacing_mm, axis))
        label(panel, name, SIDES[axis])
        sheet.paste(panel, (number % COLUMNS * PANEL, number // COLUMNS * PANEL))
    small = io.BytesIO()  # a page holds hundreds of them: greys and one colour take a third of the room
    sheet.quantize(palette=_palette(), dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def _palette() -> Image.Image:
    greys = np.linspace(0, 255, _GREYS).round().astype(np.uint8)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*np.repeat(greys, 3).tolist(), *BORDER])
    return palette


def brightness(voxels_IJK: NDArray[np.float32]) -> NDArray[np.uint8]:
    """From black at the border's value, which is the background, to white."""
    dark = float(np.median(voxels_IJK[[0, -1]]))
    inside = voxels_IJK[voxels_IJK != dark]
    bright = float(np.percentile(inside, _BRIGHTEST)) if inside.size else dark
    low = min(dark, bright) if bright > dark else float(voxels_IJK.min())
    reach = max(1.15 * (bright - low), 1e-12)
    return (255 * np.clip((voxels_IJK - low) / reach, 0, 1)).astype(np.uint8)


def _places(
    voxels_IJK: NDArray[np.float32], lesion_IJK: NDArray[np.bool_], thickness_mm: float
) -> tuple[list[int], int, int]:
    """Axial slices from below upwards, and the coronal and sagittal one."""
    if not lesion_IJK.any():
        head_IJK = voxels_IJK != np.median(voxels_IJK[[0, -1]])
        inside = np.nonzero(head_IJK.any(axis=(0, 1)))[0] if head_IJK.any() else np.arange(voxels_IJK.shape[2])
        spread = np.quantile(inside, np.linspace(0.2, 0.85, NUM_AXIAL)).round().astype(int)
        middle = [int(size // 2) for size in voxels_IJK.shape]
        return sorted({int(place) for place in spread}), middle[1], middle[0] + max(1, middle[0] // 12)
    labels_IJK, num = ndimage.label(lesion_IJK, np.ones((3, 3, 3)))
    sizes = np.bincount(labels_IJK.ravel(), minlength=num + 1)[1:]
    chosen: list[int] = []
    boxes = ndimage.find_objects(labels_IJK)
    for number in np.argsort(-sizes, kind="stable"):
        box = boxes[number]
        area_K = (labels_IJK[box] == number + 1).sum(axis=(0, 1))
        place = int(box[2].start + area_K.argmax())
        if all(abs(place - other) * thickness_mm >= APART_MM for other in chosen):
            chosen.append(place)
        if len(chosen) == NUM_AXIAL:
            break
    largest = labels_IJK == int(sizes.argmax()) + 1
    coronal, sagittal = (int(largest.sum(axis=others).argmax()) for others in ((0, 2), (1, 2)))
    return sorted(chosen), coronal, sagittal


def _panel(
    shown_IJK: NDArray[np.uint8], lesion_IJK: NDArray[np.bool_], axis: int, place: int, spacing_mm: NDArray[np.float64]
) -> Image.Image:
    """A slice at its true proportions, with the lesions' borders a pixel wide outside of them."""
    image_HW, lesion_HW = (np.take(one, place, axis=axis).T[::-1] for one in (shown_IJK, lesion_IJK))
    if axis != 0:  # the patient's right to the left
        image_HW, lesion_HW = image_HW[:, ::-1], lesion_HW[:, ::-1]
    height_mm, width_mm = image_HW.shape[0] * spacing_mm[1], image_HW.shape[1] * spacing_mm[0]
    scale = (PANEL - 2 * MARGIN) / max(height_mm, width_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    picture = Image.fromarray(np.ascontiguousarray(image_HW)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    large = Image.fromarray(np.ascontiguousarray(lesion_HW.astype(np.uint8) * 255)).resize(
        size, Image.Resampling.NEAREST
    )
    lesion = np.asarray(large) > 0
    border = ndimage.binary_dilation(lesion) & ~lesion
    pixels = np.array(picture)
    pixels[border] = BORDER
    panel = Image.new("RGB", (PANEL, PANEL))
    panel.paste(Image.fromarray(pixels), ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2))
    return panel


def label(panel: Image.Image, name: str, sides: tuple[str, str]) -> None:
    """Write on a panel what it shows, and which sides of the body are left and right in it."""
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(12)
    pen.text((4, 2), name, fill=_WORDS, font=font)
    for letter, x, anchor in ((sides[0], 4, "lm"), (sides[1], PANEL - 4, "rm")):
        pen.text((x, PANEL // 2), letter, fill=_WORDS, font=font, anchor=anchor)
