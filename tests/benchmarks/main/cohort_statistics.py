"""The simulated lesions beside 20 real consensus masks, at 1 mm."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from msfl_server.research.simulated_cohort.statistics import (
    ZONES,
    SizeTable,
    lesion_statistics,
    simulate_lesion_mask,
    size_table,
)
from tests.benchmarks.figure import Figure

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "open_ms" / "derivatives" / "lesion_shapes"
NUM_CASES = 20


def measure() -> list[Figure]:
    """Counts, volumes and places of lesions; the baseline is the same figure of the real masks."""
    simulated = [simulate_lesion_mask((11, case)) for case in range(NUM_CASES)]
    found = _rows(size_table([lesion_statistics(mask, grid.spacing_mm, grid.affine) for mask, grid in simulated]))
    real = _rows(_real()) if REAL.is_dir() else {}
    how = f"{NUM_CASES} simulated cases at 1 mm"
    return [
        Figure(
            f"lesions: {name}",
            value,
            unit,
            None,
            "at_least",
            f"{real[name][0]:.3g} in 20 real masks" if real else "real masks not at hand",
            how,
        )
        for name, (value, unit) in found.items()
    ]


def _real() -> SizeTable:
    images = [nib.as_closest_canonical(nib.load(path)) for path in sorted(REAL.glob("*.nii.gz"))]
    return size_table([lesion_statistics(np.asarray(i.dataobj) > 0, i.header.get_zooms(), i.affine) for i in images])


def _rows(table: SizeTable) -> dict[str, tuple[float, str]]:
    quartiles = ("first quartile", "median", "third quartile")
    rows = {f"count a case, {name}": (float(v), "") for name, v in zip(quartiles, table.count_quartiles, strict=True)}
    rows |= {
        f"total volume, {name}": (float(v), "ml") for name, v in zip(quartiles, table.total_ml_quartiles, strict=True)
    }
    rows |= {
        f"single lesion, {name}": (float(v), "mm3")
        for name, v in zip(quartiles, table.single_mm3_quartiles, strict=True)
    }
    rows["share of 3-10 mm3"] = (table.share_3_to_10_mm3, "")
    rows["largest over total, median"] = (table.largest_share, "")
    return rows | {f"share {zone}": (float(table.zone_fractions[k]), "") for k, zone in enumerate(ZONES)}
