"""The list of features."""

from __future__ import annotations

import pytest

from msfl_common.config.feature_catalogue import FEATURES, HARMONIZED, ZONES


def test_a_skewed_feature_is_harmonized_through_its_logarithm() -> None:
    logarithms = [name for name in FEATURES if name.startswith("log_")]
    assert "log_lesion_volume" in logarithms
    for name in logarithms:
        twin = FEATURES[name].log_of
        assert FEATURES[name].description == f"ln(1 + {twin})"
        assert not FEATURES[twin].harmonized
        assert (name in HARMONIZED) == (not any(zone in name for zone in ZONES))


def test_a_name_ends_with_its_unit() -> None:
    for name, feature in FEATURES.items():
        assert not feature.unit or name.endswith(f"_{feature.unit}"), name
        assert name == name.lower()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("brain_volume_ml", 1.4e6, "expected 300 to 2500 ml, found 1.4e+06; mm3 for ml?"),
        ("brain_volume_ml", 1.4, "expected 300 to 2500 ml, found 1.4; litres for ml?"),
        ("brain_volume_ml", 0.0, "expected 300 to 2500 ml, found 0; not measured? write n/a"),
        ("left_amygdala_ml", 1800.0, "mm3 for ml?"),
        ("left_amygdala_ml", 0.0018, "litres for ml?"),
        ("left_thalamus_ml", -1.0, "not measured? write n/a"),
        ("bpf", 78.0, "expected 0.2 to 1, found 78; percent for a share?"),
        ("lesion_volume_ml", 5300.0, "expected 0, or 0.001 to 500 ml, found 5300; mm3 for ml?"),
        ("median_lesion_mm3", 0.022, "ml for mm3?"),
        ("log_lesion_volume", 8.6, "expected 0, or 0.0009995 to 6.21661, found 8.6"),
        ("lesion_count", -1.0, "expected 0 to 2000, found -1; not measured? write n/a"),
        ("flair_wm_glcm_correlation", 2.0, "expected -1 to 1, found 2"),
    ],
)
def test_what_a_feature_cannot_be_is_said_with_its_likely_cause(name: str, value: float, text: str) -> None:
    assert text in str(FEATURES[name].fault(value))


def test_a_feature_can_be_its_range() -> None:
    for name, feature in FEATURES.items():
        low, high = feature.plausible.low, feature.plausible.high
        assert [feature.fault(value) for value in (low, high)] == [None, None], name
        assert feature.fault(high * 1.001 + 0.001), name
        assert (feature.fault(0.0) is None) == (low <= 0 or feature.plausible.or_zero), name


def test_no_volume_passes_in_another_unit() -> None:
    """A thousandfold of the smallest is about the largest, so that a usual volume passes in no other unit."""
    for name, feature in FEATURES.items():
        if feature.unit and "lesion" not in name:
            low, high = feature.plausible.low, feature.plausible.high
            assert low * 1000 >= high * 0.8, name
