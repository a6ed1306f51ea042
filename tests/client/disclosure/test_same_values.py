"""Who is who, whatever he and his columns are called: by values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.same_values import as_known
from msfl_client.trainer import About, value_digests

RNG = np.random.default_rng(8)
ROWS_NP = np.column_stack([RNG.integers(20, 61, 60), RNG.integers(0, 2, 60), RNG.integers(0, 20, 60) / 2])
INPUTS = ("age", "sex", "edss")


def about(names: Sequence[str], rows_NP: NDArray[np.float64], *inputs: str, kind: str = "sums") -> About:
    whose = tuple(name.split("_")[0] for name in names)
    classes = (0,) * len(names)
    return About(kind, tuple(names), whose, classes, inputs or INPUTS, value_digests(rows_NP))  # type: ignore[arg-type]


def named(of: range, pattern: str = "p{}_1") -> list[str]:
    return [pattern.format(number) for number in of]


FIRST = about(named(range(60)), ROWS_NP)


def test_names_that_did_not_change_are_kept_and_so_are_those_of_a_first_answer() -> None:
    assert as_known(FIRST, []) is FIRST
    assert as_known(FIRST, [FIRST]) == FIRST
    part = about(named(range(30)), ROWS_NP[:30, :2], "age", "sex")
    assert as_known(part, [FIRST]) == part


def test_columns_and_folders_that_were_renamed_are_known_again() -> None:
    renamed = replace(FIRST, inputs=("age_years", "gender", "score"))
    assert as_known(renamed, [FIRST]) == FIRST
    moved = about(named(range(60), "sub-{}_1"), ROWS_NP)
    known = as_known(moved, [FIRST])
    assert (set(known.keys), set(known.patients)) == (set(FIRST.keys), set(FIRST.patients))
    both = replace(moved, inputs=("age_years", "sex", "score"))
    assert (set(as_known(both, [FIRST]).keys), as_known(both, [FIRST]).inputs) == (set(FIRST.keys), INPUTS)


def test_folders_in_another_order_swap_no_patients() -> None:
    """The same names in two folders, of which the second has its number in its cases' keys."""
    keys = [*named(range(30)), *named(range(30), "p{}_1_data-1")]
    before, after = about(keys, ROWS_NP), about(keys, np.roll(ROWS_NP, 30, axis=0))
    known = as_known(after, [before])
    assert dict(zip(known.keys, known.values, strict=True)) == dict(zip(before.keys, before.values, strict=True))


def test_a_patient_who_was_corrected_stays_himself_and_a_new_one_is_nobody_else() -> None:
    rows_NP = ROWS_NP.copy()
    rows_NP[5] = (99, 1, 9.5)
    assert as_known(about(named(range(60)), rows_NP), [FIRST]).keys == FIRST.keys
    newcomers = about(named(range(60, 90)), RNG.integers(100, 900, (30, 3)).astype(np.float64))
    assert as_known(newcomers, [FIRST]) == newcomers


def test_a_twin_in_values_is_not_taken_for_a_patient_who_is_there() -> None:
    twins = about(["q1_1"], ROWS_NP[:1])
    assert as_known(twins, [FIRST]).keys == ("p0_1",)
    assert as_known(twins, [FIRST], present=[FIRST]) == twins
    newcomer = about(named(range(1), "p{}_1"), np.array([[99.0, 1, 2]]))
    both = about(["p0_1", "moved_1"], np.vstack([newcomer.values and [99.0, 1, 2], ROWS_NP[0]]))
    assert as_known(both, [FIRST]).keys == ("p0_1'", "p0_1")


def test_two_columns_of_yes_and_no_are_two_unless_the_same_cases_have_them() -> None:
    first = about(named(range(60)), ROWS_NP[:, :2], "age", "sex")
    other = RNG.permutation(ROWS_NP[:, 1])
    assert as_known(
        about(named(range(60)), np.column_stack([ROWS_NP[:, 0], other]), "age", "treated"), [first]
    ).inputs == (
        "age",
        "treated",
    )


def test_a_survey_before_tells_no_values_and_stands_in_nobodys_way() -> None:
    patients = tuple(f"p{number}" for number in range(60))
    survey = About("metrics", FIRST.keys, patients, (0,) * 60)
    assert as_known(FIRST, [survey]) == FIRST
    renamed = replace(FIRST, inputs=("age_years", "gender", "score"))
    assert as_known(renamed, [survey, FIRST]) == FIRST
