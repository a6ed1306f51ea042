"""The digital phantom of the Image Biomarker Standardisation Initiative, and the values that it agreed on.

Zwanenburg et al. 2020, doi 10.1148/radiol.2020191145, and chapter 5 of arXiv:1612.07003: with matrices in 3D, merged.
"""

from __future__ import annotations

import numpy as np
import pytest

from msfl_client.features.ibsi import (
    cooccurrence,
    intensity_histogram,
    intensity_statistics,
    morphology,
    size_zones,
)

SPACING_MM = (2.0, 2.0, 2.0)
PHANTOM = np.array(  # levels by z, y and x; 0 outside of the region
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
VALUES = PHANTOM[PHANTOM > 0]


def agrees(value: float, reference: str) -> bool:
    """Whether a value is the reference to its last digit."""
    return value == pytest.approx(float(reference), abs=0.5000001 * 10.0 ** -len(reference.partition(".")[2]))


@pytest.mark.parametrize(
    ("found", "references"),
    [
        (
            intensity_statistics(VALUES.astype(float)),
            {
                "mean": "2.15",
                "variance": "3.05",
                "skewness": "1.08",
                "kurtosis": "-0.355",
                "p10": "1",
                "p90": "4",
                "interquartile_range": "3",
            },
        ),
        (intensity_histogram(VALUES), {"entropy": "1.27", "uniformity": "0.512"}),
        (
            cooccurrence(PHANTOM),
            {
                "joint_maximum": "0.509",
                "joint_entropy": "2.57",
                "angular_second_moment": "0.291",
                "contrast": "5.12",
                "inverse_difference": "0.688",
                "correlation": "0.183",
                "cluster_shade": "17.4",
            },
        ),
        (
            size_zones(PHANTOM),
            {
                "small_zone_emphasis": "0.255",
                "high_grey_level_zone_emphasis": "15.6",
                "normalised_grey_level_nonuniformity": "0.28",
                "zone_percentage": "0.0676",
                "zone_size_entropy": "2.32",
            },
        ),
        (
            morphology(PHANTOM > 0, SPACING_MM),
            {"surface_to_volume": "0.698", "sphericity": "0.843", "elongation": "0.816", "flatness": "0.749"},
        ),
    ],
    ids=("statistics", "histogram", "cooccurrence", "zones", "shape"),
)
def test_the_phantom_has_the_values_agreed_on(found: dict[str, float], references: dict[str, str]) -> None:
    assert found.keys() == references.keys()
    assert [name for name, reference in references.items() if not agrees(found[name], reference)] == []


def test_regions_without_variety_have_finite_values() -> None:
    level = np.ones((3, 3, 3), int)
    found = [intensity_statistics(np.full(27, 2.0)), intensity_histogram(level.ravel()), cooccurrence(level)]
    found += [size_zones(level), morphology(np.ones((3, 1, 1), bool), SPACING_MM)]
    assert all(np.isfinite(value) for one in found for value in one.values())
    assert found[2]["correlation"] == 1
    assert found[4]["flatness"] == 0
    alone = np.zeros((3, 3, 3), int)
    alone[1, 1, 1] = 4
    assert cooccurrence(alone) == {}


def test_a_sphere_is_rounder_than_a_rod() -> None:
    axes = np.indices((21, 21, 21)) - 10
    sphere, rod = (axes**2).sum(axis=0) <= 81, (axes[0] ** 2 + axes[1] ** 2 <= 4) & (np.abs(axes[2]) <= 10)
    round_one, long_one = (morphology(shape, (1.0, 1.0, 1.0)) for shape in (sphere, rod))
    assert round_one["sphericity"] > 0.9 > long_one["sphericity"]
    assert round_one["elongation"] == pytest.approx(1)
    assert long_one["elongation"] < 0.3
    assert morphology(sphere, (2.0, 2.0, 2.0))["surface_to_volume"] == pytest.approx(round_one["surface_to_volume"] / 2)
