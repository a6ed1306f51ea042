"""Features of a simulated person without images: drawn from the record as images of it would show them.

Means and spreads are those measured on images of the simulated cohort (32 visits at 2 mm): brain and fluid together
1960 ml, parenchymal fraction .78, ventricles 21 ml, a third of the lesions periventricular but nine tenths of the
volume. Atrophy shrinks tissue and widens ventricles; lesions follow the record's burden and pattern. Each scanner
shifts what it measures: volumes by 3%, signal and texture by one spread between persons, lesion volume and count by
10%.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.feature_catalogue import FEATURES, LOBES, NUCLEI, SIDES, ZONES, with_unit
from msfl_server.research.simulated_cohort.clinical import LOAD_LN_ML, ClinicalRecord

_REGIONS_ML = {  # mean volume of a side's region
    **dict(zip(LOBES, (115.0, 75.0, 75.0, 37.5, 16.8, 10.5), strict=True)),
    **dict(zip(NUCLEI, (10.4, 4.2, 8.15, 2.58, 5.55, 1.8), strict=True)),
}
_MIDLINE_ML = {"cerebellum": 141.0, "brainstem": 25.1, "corpus_callosum": 3.04}
_SIGNALS = {  # mean, spread between persons and scanners, change with a spread of ln(lesion volume)
    "t1w_gm_median": (0.86, 0.03, 0.0),
    "t1w_wm_median": (1.256, 0.05, -0.01),
    "t1w_lesion_wm_ratio": (0.75, 0.04, 0.0),
    "t1w_wm_glcm_contrast": (0.99, 0.25, 0.05),
    "t1w_wm_glcm_homogeneity": (0.725, 0.04, -0.008),
    "t1w_wm_glcm_correlation": (0.70, 0.05, 0.0),
    "t1w_wm_glcm_entropy": (4.07, 0.45, 0.1),
    "flair_gm_median": (1.03, 0.03, 0.0),
    "flair_wm_median": (0.98, 0.025, 0.005),
    "flair_lesion_wm_ratio": (1.44, 0.09, 0.0),
    "flair_wm_glcm_contrast": (0.60, 0.13, 0.03),
    "flair_wm_glcm_homogeneity": (0.77, 0.035, -0.006),
    "flair_wm_glcm_correlation": (0.87, 0.05, 0.0),
    "flair_wm_glcm_entropy": (4.27, 0.4, 0.1),
}
# Shares of the lesions, and relative volume of one, by zone in the order of `ZONES`: infratentorial, periventricular,
# juxtacortical, deep white.
_COUNT_SHARES = {"ms": (0.04, 0.30, 0.44, 0.22), "nmosd": (0.35, 0.10, 0.15, 0.40), "spots": (0.02, 0.13, 0.35, 0.50)}
_SIZES = {"ms": (0.2, 6.0, 0.4, 0.25), "nmosd": (1.2, 0.8, 0.6, 1.0), "spots": (1.0, 1.0, 1.0, 1.0)}
_SCANNER_VOLUME, _SCANNER_LESIONS = 0.03, 0.10
_MEASURED = 0.015  # relative error of a volume from one scan to the next


@dataclass(frozen=True)
class ScannerEffect:
    """What a scanner adds: relative for volumes and lesions, in spreads for signals."""

    shifts: Mapping[str, float]
    lesions: float


@dataclass(frozen=True)
class Head:
    """What does not change in a person between two scans, in spreads from what is expected."""

    inside_ml: float
    deviations: Mapping[str, float]
    count_shares: NDArray[np.float64]
    detected: float


def draw_scanner_effect(rng: np.random.Generator) -> ScannerEffect:
    """Draw a scanner's shifts."""
    return ScannerEffect(dict(zip(FEATURES, rng.normal(size=len(FEATURES)), strict=True)), float(rng.normal()))


def draw_head(rng: np.random.Generator, record: ClinicalRecord) -> Head:
    """Draw a person's anatomy."""
    inside_ml = float(rng.normal(2060 if record.sex == "M" else 1920, 140))
    deviations = dict(zip(FEATURES, rng.normal(size=len(FEATURES)), strict=True))
    shares = rng.dirichlet(20 * np.array(_COUNT_SHARES[record.burden.pattern]))
    return Head(inside_ml, deviations, shares, 0.85 * float(np.exp(rng.normal(0, 0.1))))


def simulate_features(
    rng: np.random.Generator, record: ClinicalRecord, head: Head, scanner: ScannerEffect, *, follow_up: bool
) -> dict[str, float]:
    """Features of one visit.

    Args:
        rng: Source of measurement noise.
        record: Who it is, with the atrophy of the visit; its burden is that of the visit before, with what changed.
        head: The person's anatomy, the same for all visits.
        scanner: The visit's scanner.
        follow_up: Whether there is a visit before, so that it also has what changed since.

    Returns:
        Name to value, finite, of all features that such a visit has.
    """
    lesions = _lesions(rng, record, head, scanner, follow_up)
    found = _tissues(rng, record.atrophy, head, scanner) | lesions
    load = (np.log1p(found["lesion_volume_ml"]) - LOAD_LN_ML[0]) / LOAD_LN_ML[1]
    for name, (mean, spread, slope) in _SIGNALS.items():
        if "lesion" in name and not found["lesion_count"]:
            continue
        noise = 0.7 * head.deviations[name] + 0.3 * rng.normal() + scanner.shifts[name]
        found[name] = mean + slope * load + spread * noise
    for contrast in ("t1w", "flair"):
        found[f"{contrast}_gm_wm_ratio"] = found[f"{contrast}_gm_median"] / found[f"{contrast}_wm_median"]
    if follow_up:
        new, enlarging = record.burden.new_lesions, record.burden.enlarging_lesions
        volume_ml = float(np.exp(rng.normal(4.3, 0.8, new)).sum() / 1000)
        found |= {"new_lesion_count": float(new), "enlarging_lesion_count": float(enlarging)}
        found["new_lesion_volume_ml"] = volume_ml
    return {name: _possible(name, float(found[name])) for name in FEATURES if name in found}


def _possible(name: str, value: float) -> float:
    """A drawn value, or the nearest that the feature can have: a correlation above 1 is none."""
    plausible = FEATURES[name].plausible
    return value if value in plausible else min(max(value, plausible.low), plausible.high)


def _tissues(rng: np.random.Generator, atrophy: float, head: Head, scanner: ScannerEffect) -> dict[str, float]:
    """Volumes of tissues and regions."""

    def seen(name: str, volume_ml: float, between: float) -> float:
        spread = between * head.deviations[name] + _SCANNER_VOLUME * scanner.shifts[name] + _MEASURED * rng.normal()
        return volume_ml * float(np.exp(spread))

    fraction = 0.784 - 0.014 * atrophy + 0.008 * head.deviations["bpf"]
    fraction += 0.005 * scanner.shifts["bpf"] + 0.003 * float(rng.normal())
    brain_ml = head.inside_ml * float(np.clip(fraction, 0.6, 0.95))
    gm_ml = brain_ml * (0.57 - 0.004 * atrophy + 0.008 * head.deviations["gm_volume_ml"])
    gm_ml *= float(np.exp(_SCANNER_VOLUME * scanner.shifts["gm_volume_ml"]))
    found = {"brain_volume_ml": brain_ml, "gm_volume_ml": gm_ml, "wm_volume_ml": brain_ml - gm_ml}
    found |= {"csf_volume_ml": head.inside_ml - brain_ml, "bpf": brain_ml / head.inside_ml}
    found["ventricle_volume_ml"] = seen("ventricle_volume_ml", 20.0 * float(np.exp(0.16 * atrophy)), 0.18)
    size = brain_ml / 1530
    for side in SIDES:
        for lobe in LOBES:
            name = f"{side}_{lobe}_gm_ml"
            found[name] = seen(name, _REGIONS_ML[lobe] * size * (1 - 0.01 * atrophy), 0.12)
        for nucleus in NUCLEI:
            name = f"{side}_{nucleus}_ml"
            found[name] = seen(name, _REGIONS_ML[nucleus] * size * (1 - 0.025 * atrophy), 0.08)
    for part, mean_ml in _MIDLINE_ML.items():
        found[f"{part}_ml"] = seen(f"{part}_ml", mean_ml * size * (1 - 0.02 * atrophy), 0.08)
    return found


def _lesions(
    rng: np.random.Generator, record: ClinicalRecord, head: Head, scanner: ScannerEffect, follow_up: bool
) -> dict[str, float]:
    """Counts and volumes of lesions, by zone and in all, with their logarithms."""
    burden = record.burden
    factor = float(np.exp(_SCANNER_LESIONS * scanner.lesions + 0.05 * rng.normal()))
    merged = head.detected if burden.pattern == "ms" else 1.0  # of those of MS, many run together
    count = max(round(merged * factor * burden.num_lesions), int(burden.num_lesions > 0))
    volume_ml = factor * burden.volume_ml
    if follow_up:
        count += burden.new_lesions
        volume_ml += 0.08 * burden.new_lesions + 0.05 * burden.enlarging_lesions
    counts = rng.multinomial(count, head.count_shares)
    sizes = counts * np.array(_SIZES[burden.pattern]) * np.exp(rng.normal(0, 0.3, len(ZONES)))
    volumes_ml = volume_ml * sizes / sizes.sum() if count else np.zeros(len(ZONES))
    largest_ml = float(volumes_ml.max() * (1 if counts[volumes_ml.argmax()] == 1 else rng.uniform(0.3, 0.95)))
    median_mm3 = min(float(np.exp(rng.normal(3.3, 0.4))), 1000 * volume_ml / count) if count else 0.0
    values = {"lesion_volume": ("ml", float(volumes_ml.sum())), "lesion_count": ("", float(count))}
    for zone, number, zone_ml in zip(ZONES, counts, volumes_ml, strict=True):
        values |= {f"lesion_volume_{zone}": ("ml", float(zone_ml)), f"lesion_count_{zone}": ("", float(number))}
    values |= {"largest_lesion": ("ml", largest_ml), "median_lesion": ("mm3", median_mm3)}
    raw = {with_unit(name, unit): value for name, (unit, value) in values.items()}
    return raw | {f"log_{name}": float(np.log1p(value)) for name, (_, value) in values.items()}
