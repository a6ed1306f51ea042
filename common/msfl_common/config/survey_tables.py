"""What a survey counts: the same tables, with the same edges, for whatever study asks.

They are fixed here, and nobody who asks can choose them: two surveys of other bins or criteria would be subtracted.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Final

from msfl_common.config.contrasts import CONTRASTS

AGE_YEARS: Final = (0, 20, 30, 40, 50, 60, 70)  # from here up to the next; the last has no end
EDSS: Final = (0.0, 2.0, 4.0, 6.0)
LESION_ML: Final = (0, 1, 5, 10, 20, 50)
VOXEL_MM: Final = (0, 0.6, 0.9, 1.1, 1.4, 1.8, 2.4, 3.6)
SLICE_MM: Final = (0, 1.5, 2.5, 3.5, 4.5, 6)
EXTENT_MM: Final = (0, 60, 90, 110, 130, 150, 180, 220)
LESION_SD: Final = (-1, 0, 0.5, 1, 1.5, 2, 3)
MOST_VISITS: Final = 5  # the last bin holds whoever has as many or more
MOST_PATIENTS: Final = 1_000_000

SETS: Final = tuple(one for size in range(1, len(CONTRASTS) + 1) for one in combinations(CONTRASTS, size))


def _bins(edges: tuple[float, ...], unit: str) -> tuple[str, ...]:
    inner = tuple(f"{low:g} to below {high:g} {unit}".strip() for low, high in pairwise(edges))
    return (*inner, f"{edges[-1]:g} {unit} or more".replace("  ", " "))


_SET_NAMES = tuple("+".join(one) for one in SETS)
TABLES: Final[dict[str, tuple[str, ...]]] = {
    "patients": ("all",),
    "contrasts": _SET_NAMES,
    "masks": _SET_NAMES,
    "visits": (*(str(number) for number in range(1, MOST_VISITS)), f"{MOST_VISITS} or more"),
    "records": ("age", "sex", "EDSS", "EDSS at two visits or more"),
    "age": _bins(AGE_YEARS, "years"),
    "edss": _bins(EDSS, ""),
    "lesion_load": _bins(LESION_ML, "ml"),
    "voxel": _bins(VOXEL_MM, "mm"),
    "slices": _bins(SLICE_MM, "mm"),
    "extent": _bins(EXTENT_MM, "mm"),
    "lesion_intensity": _bins(LESION_SD, "SD"),
}
TITLES: Final[dict[str, str]] = {
    "patients": "Patients",
    "contrasts": "With a visit that has these contrasts",
    "masks": "With a visit that has these contrasts and a manual lesion mask",
    "visits": "By their number of visits with images",
    "records": "Of whom is known",
    "age": "Age at the first visit",
    "edss": "EDSS at the first visit",
    "lesion_load": "Lesion load of the first manual mask",
    "voxel": "Voxel of the first image that lesions are outlined on: cube root of its volume",
    "slices": "Its longest edge",
    "extent": "Shortest edge of what is above 0 in that image",
    "lesion_intensity": "Median in the first manual mask, from the mean of what is above 0",
}


def middle_of(edges: tuple[float, ...], number: int) -> float:
    """The value that stands for a bin: its middle; of the last, which has no end, its edge."""
    return (edges[number] + edges[number + 1]) / 2 if number + 1 < len(edges) else float(edges[number])


def bin_of(edges: tuple[float, ...], value: float) -> int:
    """The number of the bin that a value is in; below the first edge, the first."""
    return max(0, sum(value >= edge for edge in edges) - 1)
