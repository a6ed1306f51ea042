"""What a survey would tell of sites with such images."""

from __future__ import annotations

from msfl_common.config.survey_tables import EXTENT_MM, SLICE_MM, TABLES, VOXEL_MM, bin_of
from msfl_server.results.survey import Survey

HEADS = (1.0, 1.0, 138.0)


def survey_of_heads(*images: tuple[float, float, float], patients: int = 40) -> Survey:
    """So many patients of each image: its voxel, slices and extent, mm; without one, heads of 1 mm."""
    together = {name: dict.fromkeys(cells, 0) for name, cells in TABLES.items()}
    for image in images or (HEADS,):
        for table, edges, value in zip(
            ("voxel", "slices", "extent"), (VOXEL_MM, SLICE_MM, EXTENT_MM), image, strict=True
        ):
            together[table][TABLES[table][bin_of(edges, value)]] += patients
    return Survey(study="s", asked=("T1w", "FLAIR"), sites=("a",), per_site={}, together=together, failed=())
