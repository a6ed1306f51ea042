"""Intervals from groups of like scores."""

from __future__ import annotations

import math

import pytest

from msfl_common.metrics.reliability import NEAREST_CASES, interval_at

GROUPS = ((0.1, 12, 0), (0.2, 10, 1), (0.5, 15, 6), (0.9, 25, 20))


def wilson(positives: float, cases: float) -> tuple[float, float]:
    z, share = 1.959963984540054, positives / cases
    middle = share + z**2 / (2 * cases)
    half = z * math.sqrt(share * (1 - share) / cases + z**2 / (4 * cases**2))
    return tuple((middle + sign * half) / (1 + z**2 / cases) for sign in (-1, 1))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("score", "positives", "cases"), [(0.05, 1, 22), (0.95, 20, 25), (0.45, 7, 25), (0.6, 26, 40), (0.19, 1, 22)]
)
def test_the_nearest_groups_that_hold_enough_cases_are_taken(score: float, positives: int, cases: int) -> None:
    found = interval_at(GROUPS, score)
    assert found is not None
    assert found.num_cases == cases >= NEAREST_CASES
    assert (found.low, found.high) == pytest.approx(wilson(positives, cases))


def test_of_few_cases_all_are_taken() -> None:
    found = interval_at(GROUPS[:1], 0.9)
    assert found is not None
    assert (found.low, found.high, found.num_cases) == (*map(pytest.approx, wilson(0, 12)), 12)


def test_without_groups_there_is_no_interval() -> None:
    assert interval_at((), 0.5) is None


def test_visits_of_a_patient_that_agree_make_it_wider() -> None:
    once, twice = interval_at(GROUPS, 0.95), interval_at(GROUPS, 0.95, 2.0)
    assert once is not None
    assert twice is not None
    assert (twice.low, twice.high) == pytest.approx(wilson(10, 12.5))
    assert twice.num_cases == once.num_cases
