"""The list of features."""

from __future__ import annotations

from msfl_common.config.feature_catalogue import FEATURES, HARMONIZED, ZONES


def test_a_skewed_feature_is_harmonized_through_its_logarithm() -> None:
    logarithms = [name for name in FEATURES if name.startswith("log_")]
    assert "log_lesion_volume" in logarithms
    for name in logarithms:
        twin = FEATURES[name].description.removeprefix("ln(1 + ").removesuffix(")")
        assert not FEATURES[twin].harmonized
        assert (name in HARMONIZED) == (not any(zone in name for zone in ZONES))


def test_a_name_ends_with_its_unit() -> None:
    for name, feature in FEATURES.items():
        assert not feature.unit or name.endswith(f"_{feature.unit}"), name
        assert name == name.lower()
