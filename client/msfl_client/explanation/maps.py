"""Relevance maps as files, in the space and on the grid of the image that they explain.

Legend: D/H/W voxels of what the network sees, I/J/K voxels of a file, whatever its orientation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfl_client.explanation.methods import METHODS
from msfl_client.explanation.page import picture_path
from msfl_client.explanation.picture import draw_relevance
from msfl_client.imaging.nifti_writer import save_image
from msfl_client.imaging.volumes import Volume
from msfl_client.segmentation.own_grid import on_grid
from msfl_common.models.model_card import NOTICE, ModelCard
from msfl_common.system.files import write_bytes, write_json


@dataclass(frozen=True)
class Place:
    """Where maps lie.

    Attributes:
        image: the patient's own, whose grid the files get.
        affine: 4 x 4, voxels of a map to RAS mm of the image.
    """

    image: Volume
    affine: NDArray[np.float64]

    def on_image(self, map_DHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map on the image's grid, by linear interpolation; 0 beyond its field of view."""
        return on_grid(map_DHW, self.affine, (self.image.shape, self.image.affine))


def write_maps(
    output: Path,
    subject: str,
    visit: str | None,
    method: str,
    maps: Mapping[str, NDArray[np.float32]],
    place: Place,
    card: ModelCard,
    meaning: str,
    outline_DHW: NDArray[np.bool_] | None = None,
) -> tuple[Path, ...]:
    """Write a visit's maps, each with a JSON file that says what it holds, and a picture of their sum.

    Args:
        output: the BIDS derivative folder.
        subject: "sub-001".
        visit: "ses-01", if there are visits.
        method: of `METHODS`.
        maps: map_DHW by contrast.
        place: where they lie.
        card: the model's.
        meaning: what is explained, for people.
        outline_DHW: lesions whose borders the picture shows.
    """
    stem, name = "_".join(part for part in (subject, visit) if part), METHODS[method].in_file_names
    about = {
        "Notice": NOTICE,
        "Description": METHODS[method].in_words,
        "Explained": meaning,
        "Grid": "that of the image; values are interpolated from what the network sees: do not sum this file, "
        "relevance_sum in relevance.tsv is the sum",
        "ModelWeightsSHA256": card.weights_sha256,
    }
    files, total_IJK = [], np.zeros(place.image.shape, np.float32)
    for contrast, map_DHW in maps.items():
        path = output / subject / (visit or "") / "anat" / f"{stem}_desc-{name}_{contrast}.nii.gz"
        map_IJK = place.on_image(map_DHW)
        save_image(path, map_IJK, place.image.affine)
        write_json(path.with_name(path.name.replace(".nii.gz", ".json")), {**about, "Contrast": contrast})
        files.append(path)
        total_IJK += map_IJK
    outline = None if outline_DHW is None else place.on_image(outline_DHW.astype(np.float32)) >= 0.5
    drawn = draw_relevance(place.image, total_IJK, outline)
    write_bytes(picture_path(output, stem, method), drawn, secret=True)
    return tuple(files)
