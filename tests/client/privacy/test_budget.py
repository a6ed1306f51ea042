"""What a site has spent: across studies, resumes and settings, for each patient by himself."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import threading
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from msfl_client.privacy import spent
from msfl_client.privacy.budget import Budget, release_of, spending_on, spent_lines
from msfl_client.privacy.spent import SPENT_FILE, read_spent
from msfl_client.trainer import About, identities_of
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.study import Rounds, StudyConfig, Training
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.privacy_accounting import Mechanism, epsilon_of, planned_epsilon

PRIVATE = DifferentialPrivacy(noise_multiplier=2, sampling_rate=0.1)
STUDY = StudyConfig(
    name="one", training=Training(steps_per_round=20), rounds=Rounds(num_rounds=10), differential_privacy=PRIVATE
)
PATIENTS = ("p1", "p2", "p3")
WHO = identities_of(PATIENTS)


def spend(state: Path, digest: str, number: int = 1, patients: tuple[str, ...] = PATIENTS, **more: float) -> None:
    Budget(state, more.get("most")).spend(release_of(STUDY, STUDY.name, number, digest), identities_of(patients))


def test_the_same_release_costs_nothing_and_others_add_up(tmp_path: Path) -> None:
    spend(tmp_path, "first")
    once = spending_on(tmp_path, WHO, 1e-5)
    spend(tmp_path, "first")
    assert spending_on(tmp_path, WHO, 1e-5) == once
    assert once == (epsilon_of([(Mechanism(2, 0.1), 20)], 1e-5), 1)
    spend(tmp_path, "asked anew with other weights")
    assert spending_on(tmp_path, WHO, 1e-5) == (epsilon_of([(Mechanism(2, 0.1), 40)], 1e-5), 2)
    assert (tmp_path / SPENT_FILE).stat().st_mode & 0o777 == 0o600
    assert "p1" not in (tmp_path / SPENT_FILE).read_text()


def test_studies_on_other_patients_add_up_for_those_who_are_in_both(tmp_path: Path) -> None:
    spend(tmp_path, "one")
    spend(tmp_path, "two", patients=("p3", "p4"))
    each, both = (epsilon_of([(Mechanism(2, 0.1), times)], 1e-5) for times in (20, 40))
    assert [spending_on(tmp_path, identities_of([name]), 1e-5)[0] for name in ("p1", "p3", "p4", "p5")] == [
        each,
        both,
        each,
        0,
    ]
    assert "epsilon" in spent_lines(tmp_path, None)[0]


def test_a_study_that_would_go_beyond_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    whole = planned_epsilon(STUDY)
    assert whole is not None
    Budget(tmp_path, whole * 1.0001).expect_room(STUDY, "final", 1, WHO)
    with pytest.raises(RefusedError, match=r"from epsilon 0 to 3.36 at delta .* at most .*max_epsilon") as refused:
        Budget(tmp_path, whole * 0.9999).expect_room(STUDY, "final", 1, WHO)
    assert refused.value.code is Code.POLICY
    assert not (tmp_path / SPENT_FILE).exists()


def test_a_resumed_study_is_not_counted_twice_and_another_is(tmp_path: Path) -> None:
    budget = Budget(tmp_path, (planned_epsilon(STUDY) or 0) * 1.0001)
    for number in range(1, 5):
        budget.expect_room(STUDY, "final", number, WHO)
        spend(tmp_path, f"round {number}", number)
    budget.expect_room(STUDY, "final", 1, WHO)  # asked again after a kill
    other = STUDY.model_copy(update={"seed": 5})
    with pytest.raises(RefusedError, match="POLICY"):
        budget.expect_room(other, "final", 1, WHO)
    budget.expect_room(other, "final", 1, identities_of(["somebody else"]))
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
    (tmp_path / SPENT_FILE).unlink()
    with pytest.raises(RefusedError, match=r"spent\.json: is not there, and what it is of is"):
        spend(tmp_path, "second")


def test_a_record_that_was_begun_anew_or_is_an_older_one_is_refused(tmp_path: Path) -> None:
    spend(tmp_path, "one")
    older = (tmp_path / SPENT_FILE).read_bytes()
    spend(tmp_path, "two", patients=("p3", "p4"))
    newest = (tmp_path / SPENT_FILE).read_bytes()
    for content in (b"{}", older):
        (tmp_path / SPENT_FILE).write_bytes(content)
        with pytest.raises(RefusedError, match=r"spent\.json: does not name all sets of patients beside it") as refused:
            read_spent(tmp_path)
        assert refused.value.code is Code.INTERNAL
    (tmp_path / SPENT_FILE).write_bytes(newest)
    assert len(read_spent(tmp_path).releases) == 2
    former = json.loads(newest)  # of a version that did not name them
    del former["sets"]
    (tmp_path / SPENT_FILE).write_text(json.dumps(former))
    spend(tmp_path, "three")
    assert len(json.loads((tmp_path / SPENT_FILE).read_text())["sets"]) == 2


def test_a_kill_before_the_release_is_written_leaves_a_record_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(tmp_path, "one")
    with monkeypatch.context() as killed:
        killed.setattr(spent, "keep_set", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            spend(tmp_path, "two", patients=("p3", "p4"))
    assert len(read_spent(tmp_path).releases) == 1
    spend(tmp_path, "two", patients=("p3", "p4"))
    assert len(read_spent(tmp_path).releases) == 2


def test_releases_of_two_processes_at_once_are_both_counted_and_held_to_the_limit(tmp_path: Path) -> None:
    at_most = epsilon_of([(Mechanism(2, 0.1), 20 * 4)], 1e-5)
    refused = list[str]()

    def release(number: int) -> None:
        try:
            spend(tmp_path, f"release {number}", most=at_most)
        except RefusedError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=release, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(read_spent(tmp_path).releases), refused) == (4, [Code.POLICY] * 2)


def after(rounds: int) -> float:
    """Epsilon of so many rounds."""
    return epsilon_of([(Mechanism(2, 0.1), 20 * rounds)], 1e-5)


def images(names: str, voxels: str) -> About:
    """An image of each, by a letter for all of its voxels."""
    keys, digests = tuple(f"{one} FLAIR" for one in names), tuple((one,) for one in voxels)
    return About("sums", keys, tuple(names), (0,) * len(names), ("image",), digests)


def values(names: str, *columns: str) -> About:
    rows = tuple(zip(*columns, strict=True))
    return About("sums", tuple(names), tuple(names), (0,) * len(names), ("age", "edss"), rows)


def spend_on(state: Path, digest: str, names: str, *sets: About, present: tuple[About, ...] = ()) -> float:
    who = identities_of(names, sets, present)
    Budget(state).spend(release_of(STUDY, STUDY.name, 1, digest), who)
    return spending_on(state, who, 1e-5)[0]


def test_patients_of_other_names_are_known_by_any_image_and_by_their_values(tmp_path: Path) -> None:
    assert spend_on(tmp_path, "first", "abc", images("abc", "xyz")) == after(1)
    assert spend_on(tmp_path, "renamed", "klm", images("klm", "zxy")) == after(2)
    assert spend_on(tmp_path, "with values", "pqr", images("pqr", "yzx"), values("pqr", "123", "456")) == after(3)
    assert spend_on(tmp_path, "values alone", "s", values("s", "2", "5")) == after(4)
    assert spend_on(tmp_path, "others", "uv", images("uv", "no"), values("uv", "78", "99")) == after(1)


def test_two_who_swap_names_keep_their_accounts(tmp_path: Path) -> None:
    spend_on(tmp_path, "both", "ab", images("ab", "xy"))
    spend_on(tmp_path, "a alone", "a", images("a", "x"))
    both = images("ab", "yx")
    assert spend_on(tmp_path, "who is a now", "a", images("a", "y"), present=(both,)) == after(2)
    assert spend_on(tmp_path, "who is b now", "b", images("b", "x"), present=(both,)) == after(3)
    assert spend_on(tmp_path, "another with a name of before", "a", images("a", "z")) == after(4)


def test_a_patient_with_two_accounts_has_both_from_when_they_are_known_to_be_his(tmp_path: Path) -> None:
    spend_on(tmp_path, "values", "a", values("a", "1", "2"))
    assert spend_on(tmp_path, "renamed, by image", "k", images("k", "x")) == after(1)
    assert spend_on(tmp_path, "both", "k", images("k", "x"), values("k", "1", "2")) == after(3)
    assert read_spent(tmp_path).most_of_all() == [(after(3), 1e-5)]


def test_an_account_of_an_earlier_version_goes_on_and_is_encrypted(tmp_path: Path) -> None:
    spend(tmp_path, "first")
    path = tmp_path / SPENT_FILE
    record = json.loads(path.read_bytes())
    record["patients"] = {"old": [hashlib.sha256(f"patient:{one}".encode()).hexdigest()[:32] for one in PATIENTS]}
    record["releases"][0]["patients"] = "old"
    path.write_text(json.dumps(record))
    shutil.rmtree(path.parent / "sets")
    assert spending_on(tmp_path, WHO, 1e-5) == (after(1), 1)
    assert "patients" not in json.loads(path.read_bytes())
    spend(tmp_path, "second", patients=("p3", "p4"))
    assert [spending_on(tmp_path, identities_of([name]), 1e-5)[0] for name in ("p1", "p3", "p5")] == [
        after(1),
        after(2),
        0,
    ]
    assert read_spent(tmp_path).most_of_all() == [(after(2), 1e-5)]


def test_an_account_whose_key_is_gone_or_another_is_refused_and_does_not_begin_anew(tmp_path: Path) -> None:
    spend(tmp_path, "first")
    key = tmp_path / "account.key"
    assert key.stat().st_mode & 0o777 == 0o600
    content = key.read_bytes()
    key.unlink()
    with pytest.raises(RefusedError, match=r"account\.key: .* is not there; restore the one that was kept apart"):
        spend(tmp_path, "second")
    with pytest.raises(InputError, match=r"account\.key: .* is not there"):
        spent_lines(tmp_path, None)
    key.write_bytes(Fernet.generate_key())
    key.chmod(0o600)
    with pytest.raises(RefusedError, match=r"was written with another key than .*account\.key"):
        spend(tmp_path, "second")
    key.write_bytes(content)
    spend(tmp_path, "second")


def test_without_noise_epsilon_is_infinite() -> None:
    assert epsilon_of([(Mechanism(0, 0.1), 1), (Mechanism(1, 0.1), 1)], 1e-5) == math.inf
    assert epsilon_of([], 1e-5) == 0
