"""What is wrong with settings is told in a person's words, whatever is wrong with whichever of them."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest
from pydantic import BaseModel

from msfl_client.data.dicom_rules import ImportRules
from msfl_common.config.base import validate
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError
from msfl_server.study.server_config import ServerConfig

WRONG: list[Any] = ["many", -1, 1.5, [1], {"a": 1}, None, True, "", 10**12, [], {}]
SITE = {"name": "a", "data": "bids", "state": "state", "policy": {"keep_content": {"public_key": "k"}}}
STUDY = {"name": "s", "network": {"kind": "unet"}, "strategy": {"kind": "fedavgm"}}
OUTCOMES = {
    "name": "s",
    "task": "classification",
    "classification": {
        "outcome": {"column": "c", "classes": ["a", "b"]},
        "clinical": ["age"],
        "model": {"kind": "logistic"},
        "fold": {"number": 1, "of": 2},
    },
}
FOREIGN = re.compile(
    r"input should|tuple|dictionar|instance|<class|valid |after validation|object|parse|\bstr\b|None|True|False|\.\.\.|"
    r"logistic\.|unet\.|[a-z]\.\d+[.:]"
)


def keys(content: Any, model: Any) -> list[tuple[str, ...]]:
    """Every key of some settings, given or not, and of the sections that are given."""
    names = {**dict.fromkeys(model.model_fields if isinstance(model, type) else ()), **content}
    inner = [(name, *below) for name, value in content.items() if isinstance(value, dict) for below in keys(value, {})]
    return [(name,) for name in names] + inner


def with_value(content: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = deepcopy(content)
    at = changed
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("model", "content"),
    [(SiteConfig, SITE), (StudyConfig, STUDY), (StudyConfig, OUTCOMES), (ServerConfig, {"hosts": ["h"]})],
)
def test_whatever_is_wrong_is_told_in_words_of_our_own(model: type[BaseModel], content: dict[str, Any]) -> None:
    validate(model, content, "f")
    told = []
    for place in keys(content, model):
        for value in WRONG:
            try:
                validate(model, with_value(content, place, value), "f")
            except ConfigError as error:
                told += error.faults
    assert len(told) > 50
    # what is quoted was written by the person, and is left out here
    strange = {line for line in told if FOREIGN.search(re.sub(r"found ('[^']*'|\[.*?\]|\{.*?\})", "found", line))}
    assert not strange


@pytest.mark.parametrize(
    ("model", "content", "line"),
    [
        (SiteConfig, {**SITE, "device": 1}, "device: found 1; expected a text or a list, as [first, second]"),
        (SiteConfig, {**SITE, "data": [1]}, "data, entry 1: found 1; expected the name of a file or folder"),
        (SiteConfig, {**SITE, "min_patients": 5}, "min_patients: unknown key; it belongs under policy"),
        (SiteConfig, {**SITE, "preprocessed": "mni"}, "expected auto, none, brain or common-space"),
        (StudyConfig, {**STUDY, "name": False}, "name: found false; expected a text; quote it, as yes, no, on and off"),
        (
            StudyConfig,
            {**OUTCOMES, "classification": {**OUTCOMES["classification"], "model": {"kind": "logistic", "l1_rati": 1}}},
            "classification.model.l1_rati: unknown key; did you mean l1_ratio?",
        ),
        (
            StudyConfig,
            {
                **OUTCOMES,
                "classification": {
                    **OUTCOMES["classification"],
                    "features": ["bpf", "t1w_gm_median"],
                    "preparation": {"subject_scaling": "standard", "group_by": ""},
                },
            },
            "classification.preparation.group_by: found ''; expected a text of 1 or more characters",
        ),
        (StudyConfig, {**STUDY, "min_patients": True}, "min_patients: found true; expected a whole number"),
        (
            StudyConfig,
            {**STUDY, "network": {"kind": "unet", "channels": [16, True]}},
            "network.channels, entry 2: found true; expected a whole number",
        ),
        (SiteConfig, {**SITE, "policy": {"min_patients": True}}, "policy.min_patients: found true; expected a whole"),
        (
            StudyConfig,
            {**STUDY, "differential_privacy": {"noise_multiplier": 1, "sampling_rate": 0.1, "epsilon": 1}},
            "differential_privacy.epsilon: unknown key; remove it; what may stand there is bounds, ",
        ),
        (ImportRules, {"series": [{"description": "*FLAIR*"}]}, "series, entry 1, take_for: required, but not there"),
    ],
)
def test_one_fault_is_one_line(model: type[BaseModel], content: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(model, content, "f")
    assert len(caught.value.faults) == 1
    assert line in caught.value.faults[0]
