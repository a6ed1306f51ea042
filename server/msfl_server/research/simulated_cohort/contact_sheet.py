"""One picture of the whole cohort: slices of several cases of each site, lesions outlined in red.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

CASES_PER_SITE = 3
SLICES_MM = (2.0, 18.0, 32.0)


def write_contact_sheet(cohort: Path, sites: list[str], name: str = "contact_sheet.png") -> Path:
    """Draw baseline FLAIR and T1w of the first cases of each site.

    Args:
        cohort: Folder of the cohort.
        sites: Names of its sites; at most the first eight are shown.
        name: File name of the picture.

    Returns:
        The picture's path.
    """
    shown = [(site, sorted((cohort / site).glob("sub-*"))[:CASES_PER_SITE]) for site in sites[:8]]
    num_rows = sum(len(cases) for _, cases in shown)
    num_columns = 2 * len(SLICES_MM)
    figure = Figure(figsize=(1.7 * num_columns, 2.15 * num_rows), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    rows = [(site, case) for site, cases in shown for case in cases]
    for row, (site, case) in zip(axes, rows, strict=True):
        _draw_case(row, cohort / site, case.name)
        row[0].text(0.03, 0.97, f"{site} {case.name}", color="white", size=7, va="top", transform=row[0].transAxes)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    path = cohort / name
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _draw_case(row: NDArray[np.object_], site_folder: Path, subject: str) -> None:
    """FLAIR slices, then the same slices of T1w."""
    stem = f"{subject}_ses-01"
    mask = nib.load(
        site_folder / "derivatives" / "lesions" / subject / "ses-01" / "anat" / f"{stem}_label-lesion_mask.nii.gz"
    )
    for first, modality in ((0, "FLAIR"), (len(SLICES_MM), "T1w")):
        image = nib.load(site_folder / subject / "ses-01" / "anat" / f"{stem}_{modality}.nii.gz")
        image_DHW = np.asarray(image.dataobj, np.float32)
        white = float(np.percentile(image_DHW[image_DHW > 0], 99.5))
        aspect = image.header.get_zooms()[1] / image.header.get_zooms()[0]
        for column, height_mm in enumerate(SLICES_MM, start=first):
            k = round((height_mm - float(image.affine[2, 3])) / float(image.affine[2, 2]))
            _draw_slice(row[column], image_DHW[:, :, k], np.asarray(mask.dataobj)[:, :, k], white, aspect)


def _draw_slice(
    axes: Axes, image_DH: NDArray[np.float32], mask_DH: NDArray[np.uint8], white: float, aspect: float
) -> None:
    """One slice, front up, patient's right on the picture's right."""
    axes.imshow(image_DH.T, origin="lower", cmap="gray", vmin=0, vmax=white, aspect=aspect)
    if mask_DH.any():
        axes.contour(mask_DH.T, [0.5], colors="red", linewidths=0.6)
    axes.set_axis_off()
