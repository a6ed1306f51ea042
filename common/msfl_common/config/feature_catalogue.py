"""The features of a case: the fixed, ordered list that sites compute, harmonize and train on.

Volumes are those of the patient's own head, whatever space they were measured in. `log_x` is the natural logarithm
of 1 + x, in x's own unit. A skewed feature is harmonized through its logarithm. What happened since the visit
before is mostly nothing, and so is what lies in some zones: harmonizing would turn that nothing into something, so it
is left as it is. So is what only cases with lesions have.

Each feature has a range that it lies in whoever it is of, a child or a patient with much atrophy; what lies outside is
an error of measurement, of unit, or a missing value written as a number. The ranges are ours and wide; those of texture
follow from the sixteen grey levels that it is computed from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from msfl_common.config.bids_suffixes import SUFFIXES
from msfl_common.config.contrasts import CONTRASTS
from msfl_common.config.feature import Feature as Feature
from msfl_common.config.feature import Plausible as Plausible
from msfl_common.config.feature import feature_prefix as feature_prefix
from msfl_common.config.parcellation import Parcellation, check_regions, roi_feature
from msfl_common.config.radiomics_catalogue import RADIOMICS_FEATURES
from msfl_common.config.spelling import no_such

Zone = Literal["infratentorial", "periventricular", "juxtacortical", "deep_white"]

# Where a lesion lies; the first that applies. The first three are McDonald's (Thompson et al., Lancet Neurol 2018).
ZONES: tuple[Zone, ...] = ("infratentorial", "periventricular", "juxtacortical", "deep_white")
LOBES = ("frontal", "parietal", "temporal", "occipital", "cingulate", "insula")
NUCLEI = ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala")
SIDES = ("left", "right")
# Desikan-Killiany (Desikan et al., NeuroImage 2006), as FreeSurfer numbers its regions.
CORTEX: Mapping[int, str] = MappingProxyType(
    {
        1: "bankssts",
        2: "caudalanteriorcingulate",
        3: "caudalmiddlefrontal",
        5: "cuneus",
        6: "entorhinal",
        7: "fusiform",
        8: "inferiorparietal",
        9: "inferiortemporal",
        10: "isthmuscingulate",
        11: "lateraloccipital",
        12: "lateralorbitofrontal",
        13: "lingual",
        14: "medialorbitofrontal",
        15: "middletemporal",
        16: "parahippocampal",
        17: "paracentral",
        18: "parsopercularis",
        19: "parsorbitalis",
        20: "parstriangularis",
        21: "pericalcarine",
        22: "postcentral",
        23: "posteriorcingulate",
        24: "precentral",
        25: "precuneus",
        26: "rostralanteriorcingulate",
        27: "rostralmiddlefrontal",
        28: "superiorfrontal",
        29: "superiorparietal",
        30: "superiortemporal",
        31: "supramarginal",
        32: "frontalpole",
        33: "temporalpole",
        34: "transversetemporal",
        35: "insula",
    }
)


_LESIONS_ML, _LESIONS = Plausible(0.001, 500, or_zero=True), Plausible(0, 2000)
_MEDIAN_MM3 = Plausible(1, 100_000, or_zero=True)


def _tissues() -> Iterator[tuple[str, Feature]]:
    yield "brain_volume_ml", Feature("ml", "grey and white matter, with lesions", Plausible(300, 2500))
    yield "gm_volume_ml", Feature("ml", "grey matter", Plausible(100, 1800))
    yield "wm_volume_ml", Feature("ml", "white matter, with lesions", Plausible(50, 1500))
    yield "csf_volume_ml", Feature("ml", "cerebrospinal fluid inside the brain mask", Plausible(3, 1800))
    yield "ventricle_volume_ml", Feature("ml", "fluid of the lateral and third ventricles", Plausible(0.7, 800))
    bpf = "brain parenchymal fraction: brain volume over that of the brain mask"
    yield "bpf", Feature("", bpf, Plausible(0.2, 1))
    for side in SIDES:
        for lobe in LOBES:
            text = f"grey matter of the {side} {lobe} cortex"
            yield f"{side}_{lobe}_gm_ml", Feature("ml", text, Plausible(0.5, 400))
    for side in SIDES:
        for nucleus in NUCLEI:
            text = f"grey and white matter in the atlas's {side} {nucleus}"
            yield f"{side}_{nucleus}_ml", Feature("ml", text, Plausible(0.05, 60))
    for part, range_ml in (
        ("cerebellum", Plausible(10, 400)),
        ("brainstem", Plausible(2, 120)),
        ("corpus_callosum", Plausible(0.1, 60)),
    ):
        text = f"grey and white matter in the atlas's {part.replace('_', ' ')}"
        yield f"{part}_ml", Feature("ml", text, range_ml)


def _lesions() -> Iterator[tuple[str, Feature]]:
    yield from _skewed("lesion_volume", "ml", "volume of the lesions", _LESIONS_ML)
    yield from _skewed("lesion_count", "", "number of lesions: connected, at least 3 mm3", _LESIONS)
    for zone in ZONES:
        name = zone.replace("_", " ")
        yield from _skewed(f"lesion_volume_{zone}", "ml", f"volume of the {name} lesions", _LESIONS_ML, False)
        yield from _skewed(f"lesion_count_{zone}", "", f"number of {name} lesions", _LESIONS, False)
    yield from _skewed("largest_lesion", "ml", "volume of the largest lesion, 0 without one", _LESIONS_ML)
    yield from _skewed("median_lesion", "mm3", "median volume of a lesion, 0 without one", _MEDIAN_MM3)


def _skewed(
    name: str, unit: str, description: str, plausible: Plausible, harmonized: bool = True
) -> Iterator[tuple[str, Feature]]:
    """A feature and the logarithm that is harmonized in its place."""
    twin = with_unit(name, unit)
    yield twin, Feature(unit, description, plausible, harmonized=False)
    low, high = math.log1p(plausible.low) * (1 - 1e-9), math.log1p(plausible.high) * (1 + 1e-9)
    yield f"log_{name}", Feature("", f"ln(1 + {twin})", Plausible(low, high, plausible.or_zero), harmonized, twin)


def with_unit(name: str, unit: str) -> str:
    """A feature's name, which ends with its unit where it has one."""
    return f"{name}_{unit}" if unit else name


def _changes() -> Iterator[tuple[str, Feature]]:
    since = "since the visit before"
    volume = f"volume of the lesions that appeared {since}"
    yield "new_lesion_count", Feature("", f"lesions that appeared {since}", _LESIONS, harmonized=False)
    yield "new_lesion_volume_ml", Feature("ml", volume, _LESIONS_ML, harmonized=False)
    yield "enlarging_lesion_count", Feature("", f"lesions that grew {since}", _LESIONS, harmonized=False)


def _intensities() -> Iterator[tuple[str, Feature]]:
    ratio = Plausible(0.02, 50)
    textures = {
        "contrast": Plausible(0, 225),
        "homogeneity": Plausible(0, 1),
        "correlation": Plausible(-1, 1),
        "entropy": Plausible(0, 8),
    }
    for title, facts in CONTRASTS.items():
        if not facts.has_features:
            continue
        contrast = feature_prefix(title)
        white = "normal-appearing white matter"
        yield f"{contrast}_gm_median", Feature("", f"{title} of grey matter, the brain's median being 1", ratio)
        yield f"{contrast}_wm_median", Feature("", f"{title} of {white}, the brain's median being 1", ratio)
        yield (
            f"{contrast}_gm_wm_ratio",
            Feature("", f"{title} of grey matter over that of white matter, medians", ratio),
        )
        text = f"{title} of lesions over that of white matter, medians; of cases with lesions"
        yield f"{contrast}_lesion_wm_ratio", Feature("", text, ratio, harmonized=False)
        for measure, plausible in textures.items():
            text = f"{title} texture of {white}: {measure} of grey-level co-occurrence"
            yield f"{contrast}_wm_glcm_{measure}", Feature("", text, plausible)


CHANGES = frozenset(name for name, _ in _changes())  # of a visit that follows another
FEATURES: Mapping[str, Feature] = MappingProxyType(dict([*_tissues(), *_lesions(), *_changes(), *_intensities()]))
HARMONIZED: tuple[str, ...] = tuple(name for name, feature in FEATURES.items() if feature.harmonized)


# Over what a quantity is averaged, and in words.
REGIONS: Mapping[str, str] = MappingProxyType(
    {
        "gm": "grey matter",
        "wm": "normal-appearing white matter",
        "lesion": "lesions; of cases with lesions",
        "cerebellum": "the cerebellum",
        "brainstem": "the brainstem",
        "corpus_callosum": "the corpus callosum",
        **{f"{side}_{nucleus}": f"the {side} {nucleus}" for side in SIDES for nucleus in NUCLEI},
        **{f"{side}_{name}": f"grey matter of the {side} {name}" for side in SIDES for name in CORTEX.values()},
    }
)


def _of_regions() -> Iterator[tuple[str, Feature]]:
    for suffix, about in SUFFIXES.items():
        if about.unit is None:
            continue
        for region, words in REGIONS.items():
            text = f"mean {about.title} of {words}"
            plausible = Plausible(0, about.high)
            yield region_feature(suffix, region), Feature(about.unit, text, plausible, harmonized=region != "lesion")


def region_feature(contrast: str, region: str) -> str:
    """What the mean of a quantity over a region is called."""
    return f"{feature_prefix(contrast)}_{region}"


REGION_FEATURES: Mapping[str, Feature] = MappingProxyType(dict(_of_regions()))
"""Means of quantities that a study may ask for; a case has those of the quantities among the study's contrasts."""
FEATURES_ASKED_FOR: Mapping[str, Feature] = MappingProxyType({**REGION_FEATURES, **RADIOMICS_FEATURES})
"""Those that a case has where the study asks for them by its `inputs`."""


class _Known(Mapping[str, Feature]):
    """Those that are listed and, by its name, any mean over a region of a parcellation of a study's own."""

    def __init__(self, listed: Mapping[str, Feature]) -> None:
        self._listed = listed

    def __getitem__(self, name: str) -> Feature:
        found = self._listed.get(name) or roi_feature(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


KNOWN_FEATURES: Mapping[str, Feature] = _Known({**FEATURES, **FEATURES_ASKED_FOR})
"""All that a table may have: those of every case, means of quantities, radiomics, and means over regions of a
parcellation of a study's own, which are not listed."""


def in_order(names: Collection[str]) -> list[str]:
    """Features as the columns of a table stand: those that are listed, then others by name and number."""
    others = sorted({*names} - {*KNOWN_FEATURES}, key=lambda name: [part.zfill(9) for part in re.split(r"(\d+)", name)])
    return [*(name for name in KNOWN_FEATURES if name in names), *others]


def features_measured(contrasts: Collection[str], radiomics: bool, parcellation: Parcellation | None) -> list[str]:
    """All features that a case of a study with these `inputs` can have, in the order of a table's columns."""
    of_quantities = [name for name in REGION_FEATURES if quantity_of(name) in contrasts]
    own = parcellation.features(contrasts) if parcellation is not None else ()
    return in_order({*FEATURES, *of_quantities, *(RADIOMICS_FEATURES if radiomics else ()), *own})


def quantity_of(name: str) -> str:
    """The contrast that a mean of a quantity is of."""
    return next(suffix for suffix in SUFFIXES if name in {region_feature(suffix, region) for region in REGIONS})


def check_asked_for(
    names: Collection[str], contrasts: Collection[str], radiomics: bool, parcellation: Parcellation | None = None
) -> None:
    """Refuse features that a study's `inputs` do not ask for.

    Raises:
        ValueError: names the first, and what to add.
    """
    for name in names:
        if name in REGION_FEATURES and (contrast := quantity_of(name)) not in contrasts:
            raise ValueError(f"features: {name}: is measured in {contrast}; add it to inputs.contrasts")
        if name in RADIOMICS_FEATURES and not radiomics:
            raise ValueError(f"features: {name}: is one of radiomics; set inputs.radiomics: true")
    check_regions(names, contrasts, parcellation)


def known_features(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, all of which are features.

    Raises:
        ValueError: one is not.
    """
    if unknown := sorted({name for name in names if name not in KNOWN_FEATURES}):
        raise ValueError(no_such("feature", unknown, tuple(KNOWN_FEATURES), "listed in docs/reference/features.md"))
    return names
