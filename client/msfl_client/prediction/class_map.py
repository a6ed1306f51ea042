"""The classes of a predicted case's lesions, as BIDS writes discrete segmentations: `seg-lesion_dseg`.

Legend: I/J/K voxels of a file, whatever its orientation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from msfl_client.imaging.nifti_writer import save_image
from msfl_common.metrics.segmentation import label_lesions
from msfl_common.system.files import write_json, write_text
from msfl_common.system.tab_separated import tsv_text


def write_classes(
    path: Path,
    label_IJK: NDArray[np.uint8],
    affine: NDArray[np.float64],
    labels: Mapping[int, str],
    about: Mapping[str, object],
) -> None:
    """Write a label map, the table of its values, and count and volume of the lesions of each class.

    Args:
        path: of the map; the two others lie beside it.
        label_IJK: 0, or the number of a class.
        affine: 4 x 4, of the file.
        labels: what the values stand for, 0 among them.
        about: what goes with the case's mask.
    """
    stem = path.name.removesuffix(".nii.gz")
    x_mm, y_mm, z_mm = (float(size) for size in voxel_sizes(affine))
    lesions = {}
    for value, name in labels.items():
        if value:
            of_class_IJK = label_IJK == value
            _, count = label_lesions(of_class_IJK, (x_mm, y_mm, z_mm))
            volume_ml = round(float(of_class_IJK.sum() * x_mm * y_mm * z_mm / 1000), 4)
            lesions[name] = {"LesionCount": count, "LesionVolumeMl": volume_ml}
    save_image(path, label_IJK, affine)
    write_text(
        path.with_name(f"{stem}.tsv"), tsv_text([["index", "name"], *([value, labels[value]] for value in labels)])
    )
    write_json(path.with_name(f"{stem}.json"), {**about, "Lesions": lesions})
