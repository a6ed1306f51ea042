"""Patients and visits by the names that a person types."""

from __future__ import annotations

import pytest

from msfl_client.data.chosen import ALL, Chosen
from msfl_common.errors import InputError

THERE = [("sub-001", "ses-01"), ("sub-001", "ses-02"), ("sub-002", "ses-01")]


def test_ids_with_a_prefix_and_without_are_the_same() -> None:
    chosen = Chosen.named(["001", "sub-002", "sub-001"], ["01"])
    assert chosen == Chosen(("sub-001", "sub-002"), ("ses-01",))
    chosen.check(THERE, "bids")
    assert [place for place in THERE if chosen.takes(*place)] == [("sub-001", "ses-01"), ("sub-002", "ses-01")]
    assert all(ALL.takes(*place) for place in THERE)
    assert not ALL


@pytest.mark.parametrize(
    ("subjects", "visits", "text"),
    [
        (["1"], [], r"no such patient: sub-1; did you mean sub-001\?$"),
        (["sub-001", "S2"], [], "no such patient: sub-S2"),
        ([], ["2"], r"no such visit: ses-2; did you mean ses-02\?$"),
        (["2", "002"], ["ses-02"], "no such patient: sub-2; did you mean sub-002"),
        (["002"], ["ses-02"], "sub-002 has no ses-02; there is ses-01"),
        ([""], [], "no such patient: sub-"),
    ],
)
def test_wrong_ids_are_refused_by_name(subjects: list[str], visits: list[str], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Chosen.named(subjects, visits).check(THERE, "bids")


def test_a_folder_without_visits_says_so() -> None:
    with pytest.raises(InputError, match="its visits have no ses- folders"):
        Chosen.named([], ["01"]).check([("sub-001", None)], "bids")
