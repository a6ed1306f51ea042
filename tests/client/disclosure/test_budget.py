"""What a budget counts, by hand and against every group of values there is."""

from __future__ import annotations

import json
import os
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from tests.feature_models import make_settings

from msfl_client.disclosure.budget import Budget, Limits, read_budget
from msfl_client.disclosure.releases import planned_harmonization, planned_numbers
from msfl_client.rounds.refusals import code_of
from msfl_client.site.account_files import write_account_file
from msfl_client.trainer import About, value_digests
from msfl_common.errors import SENTENCES, Code, InputError, RefusedError
from msfl_common.system.files import write_bytes

LIMITS = Limits(share=0.5, evaluations=3, floor=5)


def about(keys: range, *inputs: str, kind: str = "sums") -> About:
    names = tuple(map(str, keys))
    values = value_digests(np.array([[key + len(name) for name in inputs] for key in keys], dtype=np.float64))
    return About(kind, names, names, (0,) * len(names), inputs, values)  # type: ignore[arg-type]


def give(state: Path, study: str, cases: About, numbers: int, seed: int) -> None:
    budget = read_budget(state)
    news = budget.news(cases, {"sums": np.random.default_rng(seed).normal(size=numbers)})

    def expect(of: Budget) -> None:
        of.expect_room([(cases, sum(news.values()))], LIMITS)

    expect(budget)
    budget.keep(study, cases, news, expect)


def nothing(_: Budget) -> None:
    """Refuses nothing."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


def test_numbers_are_spread_over_the_values_that_they_are_of(state: Path) -> None:
    give(state, "one", about(range(20), "age", "edss"), 10, 0)
    give(state, "two", about(range(10, 30), "edss"), 4, 1)
    spent_NP = read_budget(state).spent_by_value(about(range(30), "age", "edss", "new"))
    assert np.allclose(spent_NP[:, 0], [0.25] * 20 + [0] * 10)
    assert np.allclose(spent_NP[:, 1], [0.25] * 10 + [0.45] * 10 + [0.2] * 10)
    assert not spent_NP[:, 2].any()
    assert read_budget(state).spent(about(range(20), "age"), LIMITS).numbers == 5


def test_whoever_is_picked_has_more_values_than_numbers_about_them(state: Path) -> None:
    """Studies of drawn cases and inputs until one is refused; then every group of cases and inputs is looked at."""
    rng, given = np.random.default_rng(0), []
    for number in range(60):
        start, size = int(rng.integers(0, 6)), int(rng.integers(5, 8))
        cases = about(range(start, start + size), *np.array(["a", "bb", "ccc"])[: rng.integers(1, 4)])
        try:
            give(state, f"study-{number}", cases, int(rng.integers(1, 6)), number)
        except RefusedError:
            continue
        given.append(cases)
    budget = read_budget(state)
    assert 2 < len(budget.given) < 60
    for size in range(1, 4):
        for inputs in combinations(["a", "bb", "ccc"], size):
            for low, high in combinations(range(15), 2):
                inside = [
                    sum(one.answers.values())
                    for one in budget.given
                    if set(budget.sets[one.about].keys) <= set(map(str, range(low, high)))
                    and set(budget.sets[one.about].inputs) <= set(inputs)
                ]
                assert sum(inside) <= 0.5 * size * (high - low)


def test_what_was_told_before_costs_nothing(state: Path) -> None:
    cases = about(range(20), "age", "edss")
    give(state, "one", cases, 19, 0)
    give(state, "one", cases, 19, 0)
    give(state, "two", cases, 19, 0)
    assert read_budget(state).spent(cases, LIMITS).numbers == 19
    with pytest.raises(RefusedError, match="19 are given out, and 1 more") as error:
        give(state, "two", cases, 1, 1)
    assert error.value.code is Code.BUDGET_SPENT


def test_a_floor_of_one_asks_for_no_protection(state: Path) -> None:
    cases = about(range(5), "age")
    read_budget(state).expect_room([(cases, 100)], Limits(0.5, 1, floor=1))
    with pytest.raises(RefusedError):
        read_budget(state).expect_room([(cases, 100)], LIMITS)
    read_budget(state).expect_room([(cases, 100)], Limits(None, 1, floor=5))


def test_a_patient_is_measured_so_many_times_in_whichever_splits(state: Path) -> None:
    for number, start in enumerate((0, 6, 12)):
        cases = about(range(start, start + 14), "age", kind="metrics")
        budget = read_budget(state)
        budget.expect_evaluation(cases, LIMITS)
        budget.keep("one", cases, dict.fromkeys(budget.news(cases, {"metrics": np.array([float(number)])}), 1), nothing)
    cases = about(range(4, 17), "age", kind="metrics")
    assert read_budget(state).evaluations(cases) == 3
    with pytest.raises(RefusedError, match="measured 3 times, at most 3"):
        read_budget(state).expect_evaluation(cases, LIMITS)
    read_budget(state).expect_evaluation(about(range(20, 40), "age", kind="metrics"), LIMITS)


def test_what_two_processes_give_out_at_once_is_counted_and_held_to_the_bound_together(state: Path) -> None:
    """Each read before either has written, and each alone has room."""
    cases, answers = about(range(20), "age"), [{"sums": np.arange(6.0) + number} for number in range(2)]
    read = [read_budget(state) for _ in answers]
    news = [budget.news(cases, answer) for budget, answer in zip(read, answers, strict=True)]
    for budget in read:
        budget.expect_room([(cases, 6)], LIMITS)
    read[0].keep("one", cases, news[0], nothing)
    read[1].keep("two", cases, news[1], nothing)
    assert read_budget(state).spent(cases, LIMITS).numbers == 12
    late = read_budget(state)
    read[0].keep("three", cases, read[0].news(cases, {"sums": np.zeros(1)}), nothing)
    with pytest.raises(RefusedError, match="13 are given out"):
        late.keep("four", cases, {"other": 1}, lambda now: now.expect_room([(cases, 1)], LIMITS))
    assert read_budget(state).spent(cases, LIMITS).numbers == 13


def test_an_account_that_cannot_be_read_is_an_error_of_the_site_and_no_table(state: Path) -> None:
    give(state, "one", about(range(20), "age"), 2, 0)
    (state / "budget" / "given.encrypted").write_bytes(b"?")
    with pytest.raises(InputError) as found:
        read_budget(state)
    assert code_of(found.value) is Code.INTERNAL
    assert str(state) not in SENTENCES[code_of(found.value)]


def test_a_set_that_is_missing_is_said(state: Path) -> None:
    give(state, "one", about(range(20), "age"), 2, 0)
    next((state / "budget" / "sets").iterdir()).unlink()
    with pytest.raises(InputError, match="reset-budget"):
        read_budget(state).spent(about(range(20), "age"), LIMITS)
    assert Budget(state / "none").evaluations(about(range(3), "age")) == 0


def test_nothing_of_patients_stands_there_without_the_key(state: Path) -> None:
    give(state, "one", about(range(20), "age", "edss"), 4, 0)
    for path in state.rglob("*.*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600
            assert (b"age" in path.read_bytes(), b"sums" in path.read_bytes()) == (False, False)
    key = (state / "account.key").read_bytes()
    (state / "account.key").unlink()
    with pytest.raises(InputError, match=r"account\.key: .* is not there; .* or forget all of it with .*reset-budget"):
        read_budget(state)
    with pytest.raises(InputError, match=r"account\.key: .* is not there"):
        write_account_file(state, state / "privacy" / "sets" / "other.encrypted", b"of another account")
    (state / "account.key").write_bytes(b"?")
    (state / "account.key").chmod(0o600)
    with pytest.raises(InputError, match=r"account\.key: is not the key"):
        read_budget(state)
    write_bytes(state / "account.key", key, secret=True)
    assert read_budget(state).spent(about(range(20), "age", "edss"), LIMITS).numbers == 4


def test_what_an_earlier_version_wrote_is_encrypted_and_goes_on(state: Path) -> None:
    cases, folder = about(range(20), "age", "edss"), state / "budget"
    (folder / "sets").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    news = Budget(state).news(cases, {"sums": np.random.default_rng(0).normal(size=4)})
    (folder / "sets" / "0a.json").write_bytes(TypeAdapter(About).dump_json(cases))
    former = json.dumps([{"study": "one", "about": "0a", "answers": news}])
    (folder / "given.json").write_text(former)
    assert read_budget(state).spent(cases, LIMITS).numbers == 4
    assert not list(folder.rglob("*.json"))
    give(state, "one", cases, 4, 0)
    give(state, "two", cases, 5, 1)
    assert read_budget(state).spent(cases, LIMITS).numbers == 9
    (folder / "given.json").write_text(former)  # a crash came before it was removed
    os.utime(folder / "given.json", (0, 0))
    assert read_budget(state).spent(cases, LIMITS).numbers == 9
    (folder / "given.encrypted").unlink()
    (folder / "given.json").write_text(former)
    with pytest.raises(InputError, match="damaged"):
        read_budget(state)


def test_what_was_counted_in_plain_text_is_not_passed_over(state: Path) -> None:
    cases, folder = about(range(20), "age", "edss"), state / "budget"
    give(state, "one", cases, 4, 0)
    (folder / "given.json").write_text("[]")
    os.utime(folder / "given.json", (2e9, 2e9))
    with pytest.raises(InputError, match=r"given\.json: an earlier version of MSFL counted here after this one"):
        read_budget(state)
    shutil.rmtree(folder)
    (folder / "sets").mkdir(parents=True, mode=0o700)
    (folder / "sets" / "0a.json").write_bytes(TypeAdapter(About).dump_json(cases))
    with pytest.raises(InputError, match=r"given\.json: is not there, and what it is of is"):
        read_budget(state)
    assert (folder / "sets" / "0a.json").exists()


def test_what_a_study_is_counted_for() -> None:
    assert planned_numbers(make_settings({"kind": "lda"}, 7), 30) == 1 + 2 + 14 + 14 + 28
    assert planned_numbers(make_settings({"kind": "logistic"}, 7), 30) == 31 + 8 * (1 + 1 + 8 + 36)
    assert planned_numbers(make_settings({"kind": "logistic"}, 7), 3) == 31 + 2 * 46
    assert planned_numbers(make_settings({"kind": "linear-svm"}, 3), 30) == 15 + 8 * (1 + 1 + 4 + 10) + 8 * (
        1 + 1 + 2 + 3
    )
    assert planned_numbers(make_settings({"kind": "random-forest"}, 7), 30) == 31
    assert planned_harmonization(2, 10) == 2 + 3 + 20 + 1 + 20
