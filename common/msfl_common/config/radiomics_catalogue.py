"""The radiomics that a study may ask for: shape, intensity and texture of lesions and tissues.

Families and measures are those of the Image Biomarker Standardisation Initiative (Zwanenburg et al. 2020, doi
10.1148/radiol.2020191145). Intensities are shares of the contrast's median in normal-appearing white matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from msfl_common.config.contrasts import CONTRASTS, Contrast
from msfl_common.config.feature import Feature, Plausible, feature_prefix

Region = Literal["lesion", "wm", "gm"]
Family = Literal["stat", "hist", "glcm3d", "glszm"]

LEVEL_WIDTH = 0.05  # of a grey level of the texture, as a share of white matter
NUM_LEVELS = 64

_REGIONS: Mapping[Region, str] = {
    "lesion": "lesions",
    "wm": "normal-appearing white matter",
    "gm": "grey matter",
}
_SHARE, _INTENSITY = Plausible(0, 1 + 1e-9), Plausible(0, 50)  # a share is a sum of many
_BITS = math.log2(NUM_LEVELS)
_FARTHEST = NUM_LEVELS - 1

FAMILIES: Mapping[Family, tuple[str, Mapping[str, tuple[str, Plausible]]]] = {
    "stat": (
        "intensity",
        {
            "mean": ("mean", _INTENSITY),
            "variance": ("variance", Plausible(0, 2500)),
            "skewness": ("skewness", Plausible(-1000, 1000)),
            "kurtosis": ("excess kurtosis", Plausible(-3, 1e6)),
            "p10": ("10th percentile", _INTENSITY),
            "p90": ("90th percentile", _INTENSITY),
            "interquartile_range": ("interquartile range", _INTENSITY),
        },
    ),
    "hist": (
        "histogram of grey levels",
        {"entropy": ("entropy, bits", Plausible(0, _BITS + 1e-9)), "uniformity": ("uniformity", _SHARE)},
    ),
    "glcm3d": (
        "co-occurrence of grey levels in 3D",
        {
            "joint_maximum": ("joint maximum", _SHARE),
            "joint_entropy": ("joint entropy, bits", Plausible(0, 2 * _BITS + 1e-9)),
            "angular_second_moment": ("angular second moment", _SHARE),
            "contrast": ("contrast", Plausible(0, _FARTHEST**2)),
            "inverse_difference": ("inverse difference", _SHARE),
            "correlation": ("correlation", Plausible(-1 - 1e-9, 1 + 1e-9)),
            "cluster_shade": ("cluster shade", Plausible(-((2 * _FARTHEST) ** 3), (2 * _FARTHEST) ** 3)),
        },
    ),
    "glszm": (
        "size zones of grey levels",
        {
            "small_zone_emphasis": ("small zone emphasis", _SHARE),
            "high_grey_level_zone_emphasis": ("high grey level zone emphasis", Plausible(1, NUM_LEVELS**2)),
            "normalised_grey_level_nonuniformity": ("normalised grey level non-uniformity", _SHARE),
            "zone_percentage": ("zone percentage, as a share", _SHARE),
            "zone_size_entropy": ("zone size entropy, bits", Plausible(0, 30)),
        },
    ),
}
"""By family its title, and of each measure the title and the values that it can have."""

_SHAPES: Mapping[str, tuple[str, str, Plausible]] = {
    "surface_to_volume": ("1/mm", "surface to volume ratio", Plausible(0.01, 20)),
    "sphericity": ("", "sphericity", Plausible(0.001, 1.01)),
    "elongation": ("", "elongation: second axis over the longest", _SHARE),
    "flatness": ("", "flatness: shortest axis over the longest", _SHARE),
}
_SHAPED: Mapping[Region, str] = {
    "lesion": "lesions of 8 voxels and more, mean by their volume",
    "wm": "white matter, with lesions",
    "gm": "grey matter",
}


def intensity_feature(contrast: Contrast, region: Region, family: str, measure: str) -> str:
    """What a measure of a region's intensities is called."""
    return f"{feature_prefix(contrast)}_{region}_{family}_{measure}"


def shape_feature(region: Region, measure: str) -> str:
    """What a measure of a region's shape is called."""
    return f"{region}_shape_{measure}"


def _features() -> Iterator[tuple[str, Feature]]:
    for region, words in _SHAPED.items():
        for measure, (unit, title, plausible) in _SHAPES.items():
            text = f"shape of {words}: {title}"
            yield shape_feature(region, measure), Feature(unit, text, plausible, harmonized=region != "lesion")
    for contrast, facts in CONTRASTS.items():
        if not facts.has_features:
            continue
        for region, words in _REGIONS.items():
            for family, (family_title, measures) in FAMILIES.items():
                for measure, (title, plausible) in measures.items():
                    text = f"{contrast} {family_title} of {words}: {title}"
                    name = intensity_feature(contrast, region, family, measure)
                    yield name, Feature("", text, plausible, harmonized=region != "lesion")


RADIOMICS_FEATURES: Mapping[str, Feature] = MappingProxyType(dict(_features()))
"""Radiomics that a study may ask for; a case has those of its regions."""
