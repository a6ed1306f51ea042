"""Endpoints against hand-worked series: EDSS by month, a month being 30 days and the horizon 360 days."""

from __future__ import annotations

import pytest

from msfl_client.clinical.endpoints import Scored, Told, either, lesion_activity, worsening, worsening_step
from msfl_common.config.classification import Endpoint, Outcome

YEAR = 360 / 365.25


def told(
    series: dict[float, float], endpoint: Endpoint = "edss-worsening", weeks: float = 0.0, years: float = YEAR
) -> Told:
    """The outcome of a series of month -> EDSS, the first being the index."""
    index, *later = [Scored(30 * month, edss) for month, edss in series.items()]
    outcome = Outcome(endpoint=endpoint, horizon_years=years, confirmed_weeks=weeks)
    return worsening(index, later, endpoint, outcome)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ({0: 0, 12: 1.5}, True),  # 1.5 from 0 is needed,
        ({0: 0, 12: 1.0}, False),  # 1.0 is not enough
        ({0: 1.0, 12: 2.0}, True),  # 1.0 from 1.0
        ({0: 1.0, 12: 1.5}, False),
        ({0: 0.5, 12: 1.5}, True),  # 0.5 counts like 1.0
        ({0: 5.5, 12: 6.0}, False),  # 1.0 up to 5.5, itself included
        ({0: 5.5, 12: 6.5}, True),
        ({0: 6.0, 12: 6.5}, True),  # 0.5 above
        ({0: 6.0, 12: 6.0}, False),
        ({0: 3.0, 6: 4.5, 12: 3.0}, True),  # unconfirmed: a visit is enough
        ({0: 3.0, 12: 2.0}, False),  # better
        ({0: 2.0, 13.1: 3.0}, True),  # within a tenth of the horizon
        ({0: 2.0, 10.9: 2.0}, False),  # 327 of 360 days are enough
        ({0: 2.0, 10.7: 2.0}, "short-follow-up"),  # 321 days are not
        ({0: 2.0, 6: 3.0}, True),  # seen, however short
        ({0: 2.0}, "no-follow-up"),
        ({0: 2.0, 6: 2.0, 18: 3.0}, "gap"),  # worse some time between
        ({0: 2.0, 6: 2.0, 18: 2.0, 24: 3.0}, False),  # not worse at 18 months, thus not at 12
        ({0: 2.0, 12: 2.0, 18: 3.0}, False),  # worse after the horizon
    ],
)
def test_worsening_unconfirmed(series: dict[float, float], expected: Told) -> None:
    assert told(series) == expected


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ({0: 2.0, 6: 3.0, 12: 3.0}, True),  # 180 days later, 168 are needed
        ({0: 2.0, 6: 3.0, 11: 3.0}, "unconfirmed"),  # 150 days, and no more follow-up
        ({0: 2.0, 12: 3.0}, "unconfirmed"),
        ({0: 2.0, 12: 3.0, 18: 3.5}, True),  # confirmed after the horizon
        ({0: 2.0, 6: 3.5, 12: 2.5, 18: 2.5}, False),  # gone at confirmation
        ({0: 2.0, 3: 3.0, 6: 2.0, 9: 3.0, 15: 3.0}, True),  # the second rise lasts
        ({0: 2.0, 3: 3.0, 6: 2.0, 12: 2.0, 18: 3.0}, False),  # the first is gone, the second late
        ({0: 2.0, 6: 3.0, 8: 2.5, 12: 3.0}, "unconfirmed"),  # below in between: the rise at 12 is a new one
        ({0: 2.0, 6: 3.0, 8: 2.5}, "short-follow-up"),  # gone, and then nothing
        ({0: 2.0, 6: 4.0, 12: 3.0}, True),  # milder than at first, yet at the threshold
    ],
)
def test_worsening_confirmed_at_24_weeks(series: dict[float, float], expected: Told) -> None:
    assert told(series, weeks=24) == expected


@pytest.mark.parametrize(
    ("series", "expected"),
    [({0: 0, 12: 1.0}, True), ({0: 6.0, 12: 6.5}, False), ({0: 6.0, 12: 7.0}, True)],
)
def test_plus_1_is_a_point_from_anywhere(series: dict[float, float], expected: Told) -> None:
    assert told(series, "edss-plus-1") == expected


def test_a_horizon_of_two_years() -> None:
    assert told({0: 2.0, 12: 2.0, 24: 3.0}, years=2 * YEAR) is True
    assert told({0: 2.0, 12: 2.0}, years=2 * YEAR) == "short-follow-up"


def test_the_steps_of_every_score() -> None:
    steps = [worsening_step(half / 2) for half in range(21)]
    assert steps == [1.5, *[1.0] * 11, *[0.5] * 9]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({12: 1}, True),
        ({12: 0}, False),
        ({6: 1, 12: 0}, True),
        ({6: 0}, "short-follow-up"),
        ({18: 1}, "gap"),
        ({18: 0}, False),
        ({}, "no-follow-up"),
    ],
)
def test_lesions_that_change(changed: dict[float, float], expected: Told) -> None:
    later = [Scored(100 + 30 * month, value) for month, value in changed.items()]
    assert lesion_activity(100, later, Outcome(endpoint="activity", horizon_years=YEAR)) == expected


@pytest.mark.parametrize(
    ("lesions", "worse", "expected"),
    [
        (True, "no-score", True),
        ("no-follow-up", True, True),
        (False, False, False),
        (False, "unconfirmed", "unconfirmed"),
        ("short-follow-up", False, "short-follow-up"),
        ("gap", "no-score", "gap"),
    ],
)
def test_active_is_either_and_inactive_neither(lesions: Told, worse: Told, expected: Told) -> None:
    assert either(lesions, worse) == expected
