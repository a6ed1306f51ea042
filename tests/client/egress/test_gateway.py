"""What the gateway asks of a request and of an answer, setting by setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.feature_models import make_settings

from msfl_client.egress.gateway import Gateway, check_agreed, check_device_hours, check_request, release
from msfl_client.egress.ledger import read
from msfl_client.site.keys import load_key, make_key
from msfl_common.config.site import Policy
from msfl_common.config.study import Rounds, StudyConfig, Training
from msfl_common.errors import Code, RefusedError
from msfl_common.messages.records import ModelUpdate, NodeFacts
from msfl_common.trust.receipts import Signer

STUDY = StudyConfig(name="pilot", rounds=Rounds(num_rounds=5), training=Training(steps_per_round=7))
FOREST = STUDY.model_copy(
    update={"task": "classification", "classification": make_settings({"kind": "random-forest"}, 4)}
)


@pytest.mark.parametrize(
    ("limit", "hours", "is_refused"), [(None, 99.0, False), (4, 3.99, False), (4, 4, True), (4, 5, True)]
)
def test_device_hours_of_a_day(limit: float | None, hours: float, is_refused: bool) -> None:
    policy = Policy(max_device_hours_per_day=limit)
    if not is_refused:
        check_device_hours(policy, hours)
        return
    with pytest.raises(RefusedError, match=f"{hours:.2f} device hours today, at most 4"):
        check_device_hours(policy, hours)


@pytest.mark.parametrize(
    ("settings", "study", "number", "code", "told"),
    [
        ({"tasks": ("classification",)}, STUDY, 1, Code.POLICY, "task lesion-segmentation"),
        ({"tasks": ("classification",), "refuse_models": ("random-forest",)}, FOREST, 1, Code.POLICY, "random-forest"),
        ({"max_rounds": 4}, STUDY, 1, Code.POLICY, "5 rounds, at most 4"),
        ({"max_rounds": 5}, STUDY, 6, Code.POLICY, "5 rounds, at most 5"),
        ({}, STUDY, 0, Code.BAD_STUDY, "round 0"),
        ({}, STUDY, 6, Code.BAD_STUDY, "round 6"),
        ({"max_steps_per_round": 6}, STUDY, 1, Code.POLICY, "7 steps a round, at most 6"),
    ],
)
def test_a_request_beyond_the_policy(
    settings: dict[str, Any], study: StudyConfig, number: int, code: Code, told: str
) -> None:
    with pytest.raises(RefusedError, match=told) as refused:
        check_request(Policy(**settings), study, number)
    assert refused.value.code is code


def test_a_request_within_the_policy() -> None:
    for number in (1, 5):
        check_request(Policy(max_rounds=5, max_steps_per_round=7), STUDY, number)
    check_request(Policy(tasks=("classification",), refuse_models=("gradient-boosting",)), FOREST, 1)


def test_only_how_the_rounds_go_may_differ_from_what_was_agreed() -> None:
    check_agreed(STUDY, STUDY.model_copy(update={"rounds": Rounds(num_rounds=9)}))
    with pytest.raises(RefusedError, match=r"\(training\)") as refused:
        check_agreed(STUDY, STUDY.model_copy(update={"training": Training(steps_per_round=8)}))
    assert refused.value.code is Code.WRONG_STUDY


def test_the_end_of_the_ledger_goes_along_where_a_key_and_the_policy_allow(tmp_path: Path) -> None:
    make_key(tmp_path / "site.key", "here")
    signer = Signer("here", load_key(tmp_path / "site.key"))
    every, none = Policy(), Policy(allow=("model_update",))
    assert "ledger_head" in every.allow
    sends = [
        Gateway(policy, tmp_path / "ledger.jsonl", key).sends_head for policy in (every, none) for key in (signer, None)
    ]
    assert sends == [True, False, False, False]


def test_what_the_policy_wants_masked_does_not_leave_plain(tmp_path: Path) -> None:
    gateway = Gateway(Policy(require_masks=True), tmp_path / "ledger.jsonl")
    update = ModelUpdate({"w": np.zeros(2, np.float32)}, 9, 0.5, 1.0)
    with pytest.raises(RefusedError, match="leaves under masks alone") as refused:
        release(gateway, update, STUDY, 1, 9)
    assert refused.value.code is Code.POLICY
    release(gateway, NodeFacts("here", "1", 0), STUDY, 0, 0)


def test_an_answer_of_too_few_patients_stays_and_claims_nothing(tmp_path: Path) -> None:
    claims = list[str]()
    gateway = Gateway(Policy(), tmp_path / "ledger.jsonl", claim=lambda: claims.append("claimed"))
    update = ModelUpdate({"w": np.zeros(2, np.float32)}, 9, 0.5, 1.0)
    floor = max(STUDY.min_patients, gateway.policy.min_patients)
    for num_patients in (0, floor - 1):
        with pytest.raises(RefusedError) as refused:
            release(gateway, update, STUDY, 1, num_patients)
        assert refused.value.code is Code.TOO_FEW_PATIENTS
    assert (claims, gateway.ledger.exists()) == ([], False)
    release(gateway, update, STUDY, 1, floor)
    release(gateway, NodeFacts("here", "1", 0), STUDY, 0, 0)
    lines = list(read(gateway.ledger))
    assert [(line.kind, line.num_cases, line.min_patients) for line in lines] == [
        ("model_update", 9, floor),
        ("node_facts", 0, 0),
    ]
    assert claims == ["claimed"] * 2
