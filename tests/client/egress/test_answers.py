"""One answer to a round: the register on the site's disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.feature_models import make_settings

from msfl_client.disclosure.answered_states import MOST_FIRST_SUMS
from msfl_client.egress.answers import (
    FOLDER,
    forget,
    may_answer,
    measured_on_same_cases,
    most_answers,
    num_answers,
    of_same_cases,
)
from msfl_client.egress.ledger import LEDGER_FILE, read
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import Code, InputError, PrivateFolderError, RefusedError
from msfl_common.feature_models import num_rounds_needed
from msfl_common.messages.records import RoundTask, pack_task

STUDY = StudyConfig(name="pilot", rounds=Rounds(num_rounds=9))
OTHER = STUDY.model_copy(update={"seed": STUDY.seed + 1})


def ask(state: Path, number: int, study: StudyConfig = STUDY, purpose: str = "train", most: int = 9) -> None:
    task = RoundTask(study, number)
    may_answer(state, purpose, task, pack_task(task), most)()  # type: ignore[arg-type]


def code(state: Path, *request: object, **more: object) -> Code:
    with pytest.raises(RefusedError) as refused:
        ask(state, *request, **more)  # type: ignore[arg-type]
    return refused.value.code


def test_a_round_is_answered_once_and_the_same_request_again(tmp_path: Path) -> None:
    ask(tmp_path, 2)
    ask(tmp_path, 2)
    assert code(tmp_path, 2, OTHER) is Code.ANSWERED
    assert code(tmp_path, 1) is Code.ANSWERED, "rounds go forward"
    ask(tmp_path, 3)
    ask(tmp_path, 2, purpose="validation")
    assert num_answers(tmp_path, "pilot") == {"final-train": 2, "final-validation": 1}


def test_what_happens_once_does_so_in_any_round(tmp_path: Path) -> None:
    ask(tmp_path, 2, purpose="test")
    ask(tmp_path, 5, purpose="test")
    assert code(tmp_path, 5, OTHER, purpose="test") is Code.ANSWERED
    assert num_answers(tmp_path, "pilot") == {"test": 1}


def test_as_many_rounds_as_the_policy_allows(tmp_path: Path) -> None:
    for number in (1, 2):
        ask(tmp_path, number, most=2)
    assert code(tmp_path, 3, most=2) is Code.POLICY
    ask(tmp_path, 2, most=2)


def test_the_register_is_the_accounts_alone_and_a_damaged_one_ends_it(tmp_path: Path) -> None:
    ask(tmp_path, 1)
    folder = tmp_path / FOLDER / "pilot"
    (file,) = folder.iterdir()
    modes = [path.stat().st_mode & 0o777 for path in (file, folder, folder.parent)]
    assert modes == [0o600, 0o700, 0o700]
    file.write_text("{}x")
    assert code(tmp_path, 2) is Code.INTERNAL
    assert num_answers(tmp_path, "pilot") == {"final-train": None}


def test_a_state_folder_that_others_may_enter_takes_no_register(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)
    with pytest.raises(PrivateFolderError, match=f"{state}: "):
        ask(state, 1)
    assert num_answers(state, "pilot") == {}


def test_of_the_same_cases_as_before(tmp_path: Path) -> None:
    of_same_cases(tmp_path, "pilot", "final", "a" * 64)()
    of_same_cases(tmp_path, "pilot", "final", "a" * 64)()
    of_same_cases(tmp_path, "pilot", "harmonization", "b" * 64)
    with pytest.raises(RefusedError, match="was answered of other cases") as refused:
        of_same_cases(tmp_path, "pilot", "final", "b" * 64)
    assert refused.value.code is Code.ANSWERED


def test_the_same_weights_are_measured_on_the_same_cases_in_any_study(tmp_path: Path) -> None:
    measured_on_same_cases(tmp_path, "1" * 64, "a" * 64)()
    measured_on_same_cases(tmp_path, "1" * 64, "a" * 64)()
    measured_on_same_cases(tmp_path, "2" * 64, "b" * 64)()
    with pytest.raises(RefusedError, match="same weights were measured on other cases") as refused:
        measured_on_same_cases(tmp_path, "1" * 64, "b" * 64)
    assert refused.value.code is Code.ANSWERED


def test_as_many_rounds_as_a_model_can_need() -> None:
    linear = STUDY.model_copy(update={"classification": make_settings({"kind": "logistic"}, 4)})
    assert linear.classification is not None
    needed = num_rounds_needed(linear.classification)
    assert most_answers(Policy(max_rounds=10_000), STUDY) == 10_000
    assert needed is not None
    assert most_answers(Policy(max_rounds=10_000), linear) == needed + MOST_FIRST_SUMS - 1
    assert most_answers(Policy(max_rounds=3), linear) == 3


def test_a_study_that_is_forgotten_is_answered_anew_and_the_ledger_says_so(tmp_path: Path) -> None:
    site = SiteConfig(name="here", data=(tmp_path,), state=tmp_path / "state")
    with pytest.raises(InputError, match="no answer to study pilot"):
        forget(site, "pilot")
    ask(site.state, 1)
    forget(site, "pilot")
    (line,) = read(site.state / LEDGER_FILE)
    assert (line.kind, line.study, line.round, line.num_bytes, line.num_cases) == ("answers_reset", "pilot", 0, 0, 0)
    assert num_answers(site.state, "pilot") == {}
    ask(site.state, 1, OTHER)
