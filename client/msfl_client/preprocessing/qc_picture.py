"""One picture of a preprocessed case: is the border the brain's, and does the brain lie on the template?

Legend: D/H/W voxels (right, front, up).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel.affines import voxel_sizes
from nibabel.spaces import vox2out_vox
from numpy.typing import NDArray
from PIL import Image

from msfl_client.imaging.masks import Mask
from msfl_client.imaging.registration import template_brain
from msfl_client.imaging.resampling import resample
from msfl_client.preprocessing.pipeline import PreprocessedCase
from msfl_client.preprocessing.qc_measures import tissues

_BRAIN, _TEMPLATE, _WHITE = "#ff4d4d", "#39d0ff", "#ffd23f"
_NATIVE_MM = 1.0
_EDGES = {"left": 0.01, "right": 0.99, "bottom": 0.04, "top": 0.91, "wspace": 0.04, "hspace": 0.2}
_SLICES = ("axial", "coronal", "sagittal")
_DPI, _COLOURS = 80, 96


def draw(done: PreprocessedCase, title: str) -> bytes:
    """A PNG: the anchor before skull stripping with the brain's border, every contrast on the template, and brightness.

    Red: border of the brain. Blue: border of the template's brain. Yellow: the template's white matter.
    """
    contrasts = list(done.case.images_DHW)
    is_head = done.found == "none"
    num_rows = is_head + len(contrasts)
    figure = Figure(figsize=(11.0, 2.75 * num_rows), facecolor="black")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, 4, squeeze=False, gridspec_kw=_EDGES)
    figure.text(0.01, 0.99, title, color="white", fontsize=10, verticalalignment="top")
    if is_head:
        _draw_native(axes[0], done)
    for row, contrast in zip(axes[is_head:], contrasts, strict=True):
        _draw_common(row[:3], done, contrast)
        _draw_brightness(row[3], done, contrast)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png", dpi=_DPI, facecolor="black")
    small = io.BytesIO()  # a page holds hundreds of them: a palette takes a third of the room
    Image.open(buffer).convert("RGB").quantize(_COLOURS).save(small, format="png", optimize=True)
    return small.getvalue()


def _draw_native(row: Sequence[Any], done: PreprocessedCase) -> None:
    """The anchor in its own space, where scalp and skull can still be seen."""
    image = done.native[done.anchor]
    grid = vox2out_vox(image, (_NATIVE_MM,) * 3)
    brain = nib.Nifti1Image(done.native_brains[done.anchor].astype(np.float32), image.affine)
    brain_DHW = resample(brain, grid) >= 0.5
    _draw_slices(row[:3], resample(image, grid), brain_DHW, [(brain_DHW, _BRAIN)], f"{done.anchor}, own space")
    row[3].axis("off")


def _draw_common(row: Sequence[Any], done: PreprocessedCase, contrast: str) -> None:
    case = done.case
    spacing_mm = float(voxel_sizes(case.affine)[0])
    outlines = [
        (template_brain(spacing_mm), _TEMPLATE),
        (tissues(spacing_mm)[1], _WHITE),
        (case.brain_DHW, _BRAIN),
    ]
    image_DHW = case.images_DHW[contrast]
    _draw_slices(row, image_DHW, case.brain_DHW, outlines, f"{contrast}, MNI152")


def _draw_slices(
    row: Sequence[Any], image_DHW: NDArray[Any], brain_DHW: Mask, outlines: list[tuple[Mask, str]], label: str
) -> None:
    """Through the middle of the brain along each axis; sagittal a little beside it, where there is white matter."""
    places = [round(float(np.median(index))) for index in np.nonzero(brain_DHW)]
    places[0] += max(1, round(0.08 * image_DHW.shape[0]))
    dark, bright = 0.0, 1.2 * float(np.percentile(image_DHW[brain_DHW], 99))
    for axis, place, name, panel in zip((2, 1, 0), reversed(places), _SLICES, row, strict=True):
        panel.imshow(np.take(image_DHW, place, axis=axis).T, cmap="gray", vmin=dark, vmax=bright, origin="lower")
        for mask_DHW, colour in outlines:
            outline = np.take(mask_DHW, place, axis=axis).T
            if outline.any() and not outline.all():
                panel.contour(outline, levels=[0.5], colors=[colour], linewidths=0.7)
        panel.set_title(f"{label}, {name}", color="white", fontsize=8)
        panel.axis("off")


def _draw_brightness(panel: Any, done: PreprocessedCase, contrast: str) -> None:
    """Histograms in the brain before and after, each over its own median."""
    own_DHW = np.asarray(done.native[contrast].dataobj)[done.native_brains[contrast]]
    after_DHW = done.case.images_DHW[contrast][done.case.brain_DHW]
    for values, colour, name in ((own_DHW, "#999999", "before"), (after_DHW, "white", "after")):
        middle = max(float(np.median(values)), 1e-6)
        counts, edges = np.histogram(values / middle, bins=80, range=(0, 2.5), density=True)
        panel.plot((edges[1:] + edges[:-1]) / 2, counts, color=colour, linewidth=1, label=name)
    panel.set_facecolor("black")
    panel.tick_params(colors="white", labelsize=7)
    panel.set_yticks([])
    panel.set_title(f"{contrast}: brightness over its median", color="white", fontsize=8)
    panel.legend(fontsize=7, facecolor="black", labelcolor="white", edgecolor="black")
