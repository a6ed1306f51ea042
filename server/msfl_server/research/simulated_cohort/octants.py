"""A coarse parcellation beside a simulated scan: the octants of the brain, a label image and its look-up table.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from itertools import product
from pathlib import Path

import numpy as np

from msfl_server.research.simulated_cohort.bids import write_json, write_nifti, write_table
from msfl_server.research.simulated_cohort.fields import Grid, Volume

NAME = "octants"
OCTANTS = {
    number: "_".join(words)
    for number, words in enumerate(
        product(("left", "right"), ("posterior", "anterior"), ("inferior", "superior")), start=1
    )
}
"""Label to name."""
_CENTRE_MM = (0.0, -18.0, 8.0)  # of the brain in MNI152 space


def write_octants(site_folder: Path, subject: str, visit: str, grid: Grid, brain_DHW: Volume) -> None:
    """Write a visit's label image, 0 where `brain_DHW` is 0."""
    x, y, z = (axis_mm > centre for axis_mm, centre in zip(grid.axes_mm(), _CENTRE_MM, strict=True))
    labels_DHW = np.where(brain_DHW > 0, 1 + 4 * x + 2 * y + z, 0).astype(np.uint8)
    name = f"{subject}_{visit}_seg-{NAME}_dseg.nii.gz"
    write_nifti(site_folder / "derivatives" / NAME / subject / visit / "anat" / name, labels_DHW, grid)


def write_octants_table(site_folder: Path) -> None:
    """Write the look-up table, and what the derivative is."""
    folder = site_folder / "derivatives" / NAME
    write_table(
        folder / f"seg-{NAME}_dseg.tsv", [{"index": n, "name": name} for n, name in OCTANTS.items()], ("index", "name")
    )
    write_json(
        folder / "dataset_description.json",
        {"Name": "Octants of the brain", "BIDSVersion": "1.10.0", "DatasetType": "derivative"},
    )
