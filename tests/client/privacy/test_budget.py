"""What a site has spent: across studies, resumes and settings, for each patient by himself."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from msfl_client.privacy.budget import SPENT_FILE, Budget, read_spent, release_of, spending_on, spent_lines
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.study import Rounds, StudyConfig, Training
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.privacy_accounting import Mechanism, epsilon_of, planned_epsilon

PRIVATE = DifferentialPrivacy(noise_multiplier=2, sampling_rate=0.1)
STUDY = StudyConfig(
    name="one", training=Training(steps_per_round=20), rounds=Rounds(num_rounds=10), differential_privacy=PRIVATE
)
PATIENTS = ("p1", "p2", "p3")


def spend(state: Path, digest: str, number: int = 1, patients: tuple[str, ...] = PATIENTS, **more: float) -> None:
    Budget(state, more.get("most")).spend(release_of(STUDY, STUDY.name, number, digest, patients), patients)


def test_the_same_release_costs_nothing_and_others_add_up(tmp_path: Path) -> None:
    spend(tmp_path, "first")
    once = spending_on(tmp_path, PATIENTS, 1e-5)
    spend(tmp_path, "first")
    assert spending_on(tmp_path, PATIENTS, 1e-5) == once
    assert once == (epsilon_of([(Mechanism(2, 0.1), 20)], 1e-5), 1)
    spend(tmp_path, "asked anew with other weights")
    assert spending_on(tmp_path, PATIENTS, 1e-5) == (epsilon_of([(Mechanism(2, 0.1), 40)], 1e-5), 2)
    assert (tmp_path / SPENT_FILE).stat().st_mode & 0o777 == 0o600
    assert "p1" not in (tmp_path / SPENT_FILE).read_text()


def test_studies_on_other_patients_add_up_for_those_who_are_in_both(tmp_path: Path) -> None:
    spend(tmp_path, "one")
    spend(tmp_path, "two", patients=("p3", "p4"))
    each, both = (epsilon_of([(Mechanism(2, 0.1), times)], 1e-5) for times in (20, 40))
    assert [spending_on(tmp_path, [name], 1e-5)[0] for name in ("p1", "p3", "p4", "p5")] == [each, both, each, 0]
    assert "epsilon" in spent_lines(tmp_path, None)[0]


def test_a_study_that_would_go_beyond_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    whole = planned_epsilon(STUDY)
    assert whole is not None
    Budget(tmp_path, whole * 1.0001).expect_room(STUDY, "final", 1, PATIENTS)
    with pytest.raises(RefusedError, match=r"from epsilon 0 to 3.36 at delta .* at most .*max_epsilon") as refused:
        Budget(tmp_path, whole * 0.9999).expect_room(STUDY, "final", 1, PATIENTS)
    assert refused.value.code is Code.POLICY
    assert not (tmp_path / SPENT_FILE).exists()


def test_a_resumed_study_is_not_counted_twice_and_another_is(tmp_path: Path) -> None:
    budget = Budget(tmp_path, (planned_epsilon(STUDY) or 0) * 1.0001)
    for number in range(1, 5):
        budget.expect_room(STUDY, "final", number, PATIENTS)
        spend(tmp_path, f"round {number}", number)
    budget.expect_room(STUDY, "final", 1, PATIENTS)  # asked again after a kill
    other = STUDY.model_copy(update={"seed": 5})
    with pytest.raises(RefusedError, match="POLICY"):
        budget.expect_room(other, "final", 1, PATIENTS)
    budget.expect_room(other, "final", 1, ["somebody else"])
    assert len(read_spent(tmp_path).releases) == 4


def test_another_answer_to_a_round_is_refused_where_it_goes_beyond(tmp_path: Path) -> None:
    most = epsilon_of([(Mechanism(2, 0.1), 30)], 1e-5)
    spend(tmp_path, "first", most=most)
    with pytest.raises(RefusedError, match="another answer to round 1"):
        spend(tmp_path, "second", most=most)
    spend(tmp_path, "first", most=most)


def test_a_damaged_record_is_refused_and_never_taken_for_none(tmp_path: Path) -> None:
    spend(tmp_path, "first")
    (tmp_path / SPENT_FILE).write_text("{")
    with pytest.raises(RefusedError, match=r"spent\.json: what was spent .* cannot be read"):
        spend(tmp_path, "second")
    with pytest.raises(InputError, match=r"spent\.json: what was spent .* restore its newest backup"):
        spent_lines(tmp_path, None)  # of `status`, `ledger` and `check`: no internal error


def test_without_noise_epsilon_is_infinite() -> None:
    assert epsilon_of([(Mechanism(0, 0.1), 1), (Mechanism(1, 0.1), 1)], 1e-5) == math.inf
    assert epsilon_of([], 1e-5) == 0
