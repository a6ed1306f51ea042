"""Clinical values: what a study may declare, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from msfl_client.clinical.visits import _GROWS
from msfl_client.data.bids_tables import DATE_COLUMNS, NUMBER_COLUMNS
from msfl_common.config.base import validate
from msfl_common.config.classification import Classification
from msfl_common.config.clinical_values import CLINICAL_VALUES, TAKEN, described
from msfl_common.errors import ConfigError

SDMT = {"name": "sdmt", "kind": "number", "unit": "points", "range": [0, 110], "step": 1}
TREATMENT = {"name": "treatment", "kind": "category", "levels": ["untreated", "injection", "infusion"]}
SCHOOL = {"name": "school", "kind": "ordered", "levels": ["primary", "secondary", "university"]}
SMOKER = {"name": "smoker", "kind": "yes-no"}


def study(*declared: dict[str, Any], clinical: list[str] | None = None) -> Classification:
    content = {"outcome": {"endpoint": "edss-worsening"}, "model": {"kind": "logistic"}, "declared": list(declared)}
    return validate(
        Classification, {**content, "clinical": clinical or [one["name"] for one in declared]}, "study.yaml"
    )


def test_each_kind_has_its_inputs_and_bounds() -> None:
    found = study(SDMT, TREATMENT, SCHOOL, SMOKER, clinical=["age", "sdmt", "treatment", "school", "smoker"])
    assert found.inputs == ("age", "sdmt", "treatment_injection", "treatment_infusion", "school", "smoker")
    bounds = {name: found.value_of[name].bounds for name in found.inputs}
    assert bounds["sdmt"] == (0, 110)
    assert bounds["school"] == (0, 2)
    assert bounds["treatment_infusion"] == bounds["smoker"] == (0, 1)
    assert found.values["treatment"].seen(0.0) == {"treatment_injection": 0.0, "treatment_infusion": 0.0}
    assert found.values["treatment"].seen(2.0) == {"treatment_injection": 0.0, "treatment_infusion": 1.0}
    assert described(found.values["sdmt"]) == "sdmt (a number from 0 to 110, whole, points)"
    assert Classification.model_validate_json(found.model_dump_json()) == found


def test_a_step_may_be_as_wide_as_its_range() -> None:
    assert 0.3 - 0.2 < 0.1
    assert study({**SDMT, "range": [0.2, 0.3], "step": 0.1}).values["sdmt"].bounds == (0.2, 0.3)


def test_a_study_without_own_values_is_written_as_before() -> None:
    assert "declared" not in study(clinical=["age"]).model_dump()


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"name": "age", "kind": "number", "unit": "years", "range": [0, 90]}, "age: is known"),
        ({"name": "days", "kind": "number", "unit": "days", "range": [0, 90]}, "days: has a meaning of its own"),
        ({"name": "bpf", "kind": "number", "unit": "ml", "range": [0, 1]}, "bpf: has a meaning of its own"),
        ({"name": "SDMT", "kind": "yes-no"}, "expected small letters"),
        (
            {"name": "sdmt", "kind": "number", "unit": "points", "range": [110, 0]},
            "expected the lowest number and then",
        ),
        ({**SDMT, "step": 1e-300}, "step: expected at least 1.1e-07, found 1e-300"),
        ({**SDMT, "step": 111}, "step: expected at most the range's width, 110, found 111"),
        ({"name": "sdmt", "kind": "number", "range": [0, 110]}, "unit: required"),
        ({"name": "dmt", "kind": "category", "levels": ["none", "ifn"]}, "none: stands for a value that is not known"),
        ({"name": "dmt", "kind": "category", "levels": ["a", "A"]}, "each level may be named once"),
        ({"name": "dmt", "kind": "ordered", "levels": [1, 2, 3]}, 'quote each, ["1", "2", "3"]'),
        ({"name": "dmt", "kind": "text"}, "expected number, ordered, yes-no or category"),
    ],
)
def test_what_cannot_be_declared_is_said_in_one_line(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study(declared)
    (line,) = str(caught.value).splitlines()
    assert said in line


def test_what_is_not_declared_or_not_used_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"no such clinical value: nfl; .*declare one of the study's own in `declared`"
    ):
        study(SDMT, clinical=["sdmt", "nfl"])
    with pytest.raises(ConfigError, match="declared: sdmt: is not seen by the model; name it under `clinical`, too"):
        study(SDMT, clinical=["age"])
    with pytest.raises(ConfigError, match="sdmt: each value may be declared once"):
        study(SDMT, SDMT, clinical=["sdmt"])
    other = {"name": "treatment_infusion", "kind": "yes-no"}
    with pytest.raises(ConfigError, match="treatment_infusion: is what two inputs would be called"):
        study(TREATMENT, other)


def test_columns_of_a_meaning_are_all_taken() -> None:
    assert {*DATE_COLUMNS, *NUMBER_COLUMNS} <= TAKEN
    assert {*_GROWS} <= {*CLINICAL_VALUES}
