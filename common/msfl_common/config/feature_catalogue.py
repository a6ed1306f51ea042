"""The features of a case: the fixed, ordered list that sites compute, harmonize and train on.

Volumes are those of the patient's own head, whatever space they were measured in. `log_x` is the natural logarithm
of 1 + x, in x's own unit. A skewed feature is harmonized through its logarithm. What happened since the visit
before is mostly nothing, and so is what lies in some zones: harmonizing would turn that nothing into something, so it
is left as it is. So is what only cases with lesions have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from msfl_common.config.contrasts import CONTRASTS

Zone = Literal["infratentorial", "periventricular", "juxtacortical", "deep_white"]

# Where a lesion lies; the first that applies. The first three are McDonald's (Thompson et al., Lancet Neurol 2018).
ZONES: tuple[Zone, ...] = ("infratentorial", "periventricular", "juxtacortical", "deep_white")
LOBES = ("frontal", "parietal", "temporal", "occipital", "cingulate", "insula")
NUCLEI = ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala")
SIDES = ("left", "right")


@dataclass(frozen=True)
class Feature:
    """What a reader needs to know of a feature.

    Attributes:
        unit: physical unit; empty for a ratio, a count or a logarithm.
        description: what it is, in one line.
        harmonized: whether it is harmonized across scanners by default.
    """

    unit: str
    description: str
    harmonized: bool = True


def _tissues() -> Iterator[tuple[str, Feature]]:
    yield "brain_volume_ml", Feature("ml", "grey and white matter, with lesions")
    yield "gm_volume_ml", Feature("ml", "grey matter")
    yield "wm_volume_ml", Feature("ml", "white matter, with lesions")
    yield "csf_volume_ml", Feature("ml", "cerebrospinal fluid inside the brain mask")
    yield "ventricle_volume_ml", Feature("ml", "fluid of the lateral and third ventricles")
    yield "bpf", Feature("", "brain parenchymal fraction: brain volume over that of the brain mask")
    for side in SIDES:
        for lobe in LOBES:
            yield f"{side}_{lobe}_gm_ml", Feature("ml", f"grey matter of the {side} {lobe} cortex")
    for side in SIDES:
        for nucleus in NUCLEI:
            yield f"{side}_{nucleus}_ml", Feature("ml", f"grey and white matter in the atlas's {side} {nucleus}")
    for part in ("cerebellum", "brainstem", "corpus_callosum"):
        yield f"{part}_ml", Feature("ml", f"grey and white matter in the atlas's {part.replace('_', ' ')}")


def _lesions() -> Iterator[tuple[str, Feature]]:
    yield from _skewed("lesion_volume", "ml", "volume of the lesions")
    yield from _skewed("lesion_count", "", "number of lesions: connected, at least 3 mm3")
    for zone in ZONES:
        name = zone.replace("_", " ")
        yield from _skewed(f"lesion_volume_{zone}", "ml", f"volume of the {name} lesions", harmonized=False)
        yield from _skewed(f"lesion_count_{zone}", "", f"number of {name} lesions", harmonized=False)
    yield from _skewed("largest_lesion", "ml", "volume of the largest lesion, 0 without one")
    yield from _skewed("median_lesion", "mm3", "median volume of a lesion, 0 without one")


def _skewed(name: str, unit: str, description: str, harmonized: bool = True) -> Iterator[tuple[str, Feature]]:
    """A feature and the logarithm that is harmonized in its place."""
    yield with_unit(name, unit), Feature(unit, description, harmonized=False)
    yield f"log_{name}", Feature("", f"ln(1 + {with_unit(name, unit)})", harmonized)


def with_unit(name: str, unit: str) -> str:
    """A feature's name, which ends with its unit where it has one."""
    return f"{name}_{unit}" if unit else name


def _changes() -> Iterator[tuple[str, Feature]]:
    since = "since the visit before"
    yield "new_lesion_count", Feature("", f"lesions that appeared {since}", harmonized=False)
    yield "new_lesion_volume_ml", Feature("ml", f"volume of the lesions that appeared {since}", harmonized=False)
    yield "enlarging_lesion_count", Feature("", f"lesions that grew {since}", harmonized=False)


def feature_prefix(contrast: str) -> str:
    """How the features of a contrast's signal begin."""
    return contrast.lower().replace("-", "_")


def _intensities() -> Iterator[tuple[str, Feature]]:
    for title, facts in CONTRASTS.items():
        if not facts.has_features:
            continue
        contrast = feature_prefix(title)
        yield f"{contrast}_gm_median", Feature("", f"{title} of grey matter, the brain's median being 1")
        yield (
            f"{contrast}_wm_median",
            Feature("", f"{title} of normal-appearing white matter, the brain's median being 1"),
        )
        yield f"{contrast}_gm_wm_ratio", Feature("", f"{title} of grey matter over that of white matter, medians")
        ratio = f"{title} of lesions over that of white matter, medians; of cases with lesions"
        yield f"{contrast}_lesion_wm_ratio", Feature("", ratio, harmonized=False)
        for measure in ("contrast", "homogeneity", "correlation", "entropy"):
            yield (
                f"{contrast}_wm_glcm_{measure}",
                Feature("", f"{title} texture of normal-appearing white matter: {measure} of grey-level co-occurrence"),
            )


CHANGES = frozenset(name for name, _ in _changes())  # of a visit that follows another
FEATURES: Mapping[str, Feature] = MappingProxyType(dict([*_tissues(), *_lesions(), *_changes(), *_intensities()]))
HARMONIZED: tuple[str, ...] = tuple(name for name, feature in FEATURES.items() if feature.harmonized)
