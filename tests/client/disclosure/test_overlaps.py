"""Which sets of patients are nearly others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from msfl_client.disclosure.overlaps import expect_apart
from msfl_client.trainer import About, value_digests
from msfl_common.errors import RefusedError


def about(keys: Iterable[int], kind: str = "sums", changed: Mapping[int, float] | None = None, rare: int = 0) -> About:
    """Cases, the first `rare` of class 1; a patient has two of them."""
    names = list(keys)
    values = np.array([[key, (changed or {}).get(key, 0.0)] for key in names], dtype=np.float64)
    patients = tuple(f"p{key // 2}" for key in names)
    classes = tuple(int(key < rare) for key in names)
    return About(kind, tuple(map(str, names)), patients, classes, ("a", "b"), value_digests(values))  # type: ignore[arg-type]


def alike(one: About, *earlier: About) -> str:
    try:
        expect_apart(one, [(f"study-{number}", other) for number, other in enumerate(earlier)], 5)
    except RefusedError as error:
        return error.detail
    return ""


def test_patients_who_came_or_went_are_too_few_or_enough() -> None:
    assert alike(about(range(40)), about(range(40))) == ""
    assert "study study-0 by 1 patient," in alike(about(range(40)), about(range(38)))
    assert "by 4 patients" in alike(about(range(32)), about(range(40)))
    assert alike(about(range(30)), about(range(40))) == ""
    assert "by 2 patients" in alike(about(range(2, 42)), about(range(40))), "one came, another went"


def test_a_value_that_was_corrected_is_of_its_patient() -> None:
    assert "by 1 patient," in alike(about(range(40), changed={3: 1.0}), about(range(40)))
    assert alike(about(range(40), changed=dict.fromkeys(range(10), 1.0)), about(range(40))) == ""


def test_a_class_that_gained_one_is_told_apart_though_all_are_the_same() -> None:
    assert "by 1 patient," in alike(about(range(40), rare=22), about(range(40), rare=20))
    assert alike(about(range(40), rare=30), about(range(40), rare=20)) == ""


def test_folds_that_can_be_put_together_to_a_few_are_refused() -> None:
    """Five folds of 4 patients: each pair differs by 8, and all together give each fold by itself."""
    folds = [about(sorted(set(range(40)) - set(range(8 * fold, 8 * fold + 8)))) for fold in range(5)]
    assert alike(folds[3], *folds[:3]) == ""
    assert "of 4 patients by themselves" in alike(folds[4], *folds[:4])
    large = [about(sorted(set(range(50)) - set(range(10 * fold, 10 * fold + 10)))) for fold in range(5)]
    assert alike(large[4], *large[:4]) == ""


def test_means_over_a_set_and_few_more_are_refused_but_not_over_two_that_overlap() -> None:
    assert "by 1 patient," in alike(about(range(40), "metrics"), about(range(38), "metrics"))
    assert alike(about(range(2, 42), "metrics"), about(range(40), "metrics")) == ""


def test_sums_are_no_difference_of_means_but_one_of_other_sums() -> None:
    assert alike(about(range(40), "metrics"), about(range(38))) == ""
    for one, other in (("harmonization", "sums"), ("sums", "harmonization")):
        assert "by 1 patient," in alike(about(range(40), one), about(range(38), other))
        assert alike(about(range(40), one), about(range(40), other)) == ""
    assert "by 1 patient," in alike(about(range(40), "harmonized"), about(range(38)))


def test_a_harmonization_and_a_model_of_what_it_harmonized_are_no_difference() -> None:
    harmonization, model = about(range(40), "harmonization"), about(range(38), "harmonized")
    assert alike(model, harmonization) == ""
    assert alike(about(range(15, 60)), harmonization, model) == "", "nor are they for a third"
