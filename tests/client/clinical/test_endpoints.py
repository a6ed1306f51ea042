"""Endpoints against hand-worked series: EDSS by month, a month being 30 days and the horizon 360 days."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from msfl_client.clinical.endpoints import Change, Scored, Told, either, lesion_activity, worsening, worsening_step
from msfl_common.config.classification import Endpoint, Outcome

YEAR = 360 / 365.25


def told(
    series: dict[float, float],
    endpoint: Endpoint = "edss-worsening",
    weeks: float = 0.0,
    years: float = YEAR,
    relapses: Sequence[float] = (),
    **settings: Any,
) -> Told:
    """The outcome of a series of month -> EDSS, the first being the index, with relapses in months."""
    index, *later = [Scored(30 * month, edss) for month, edss in series.items()]
    outcome = Outcome(endpoint=endpoint, horizon_years=years, confirmed_weeks=weeks, **settings)
    return worsening(index, later, endpoint, outcome, [30 * month for month in relapses])


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
    ("series", "relapses", "expected"),
    [
        ({0: 2.0, 6: 3.0, 12: 2.0}, [5.5], False),  # the rise is the relapse's, and gone
        ({0: 2.0, 6: 3.0, 12: 2.0}, [6.9], False),  # to either side
        ({0: 2.0, 6: 3.0, 12: 2.0}, [7.1], True),  # 33 days
        ({0: 2.0, 6: 3.0, 12: 3.0}, [5.5], True),  # what is left of it at 12 months counts
        ({0: 2.0, 6: 2.0, 12: 3.0}, [12.5], "short-follow-up"),  # nothing else says how it was
        ({0: 2.0, 6: 3.0}, [6], "no-follow-up"),
        ({0: 3.0, 12: 3.0}, [0.5], "relapse"),  # no baseline
    ],
)
def test_a_score_near_a_relapse_is_passed_over(
    series: dict[float, float], relapses: Sequence[float], expected: Told
) -> None:
    assert told(series, relapses=relapses) == expected
    without = told(series, relapses=relapses, relapse_days=0)
    assert without == told(series)


@pytest.mark.parametrize(
    ("series", "relapses", "expected"),
    [
        ({0: 2.0, 6: 3.0, 9: 2.0, 12: 3.0}, [9], True),  # neither is a score that would refute it
        ({0: 2.0, 6: 3.0, 12: 3.0}, [12], "unconfirmed"),  # nor one that would confirm it
    ],
)
def test_a_score_near_a_relapse_confirms_nothing(
    series: dict[float, float], relapses: Sequence[float], expected: Told
) -> None:
    assert told(series, weeks=24, relapses=relapses) == expected


@pytest.mark.parametrize(
    ("series", "fixed", "roving"),
    [
        ({0: 3.0, 3: 2.0, 9: 2.0, 12: 3.0, 18: 3.0}, False, True),  # 2.0 is confirmed: 3.0 is a point above
        ({0: 3.0, 3: 2.0, 9: 2.5, 12: 3.0, 18: 3.0}, False, False),  # 2.5 is what was confirmed
        ({0: 3.0, 3: 2.0, 6: 3.0, 12: 3.0, 18: 3.0}, False, False),  # 2.0 did not last
        ({0: 2.0, 6: 3.0, 12: 3.0}, True, True),
        ({0: 3.0, 3: 0.0, 9: 0.0, 12: 1.0, 18: 1.0}, False, False),  # 1.5 is needed from 0
        ({0: 3.0, 3: 2.0, 9: 2.0, 12: 3.0}, False, "unconfirmed"),
    ],
)
def test_a_roving_baseline_follows_confirmed_improvement(series: dict[float, float], fixed: Told, roving: Told) -> None:
    assert told(series, weeks=24) == fixed
    assert told(series, weeks=24, baseline="roving") == roving


@pytest.mark.parametrize(
    ("series", "relapses", "expected"),
    [
        ({0: 2.0, 6: 3.0, 12: 3.0}, [], True),
        ({0: 2.0, 6: 3.0, 12: 3.0}, [-4], True),  # before the baseline, and over 90 days before
        ({0: 2.0, 6: 3.0, 12: 3.0}, [3.5], False),  # the first score after a relapse is a new baseline
        ({0: 2.0, 4: 2.0, 6: 3.0, 12: 3.0}, [2.5], True),  # 105 days before, and no residue of it at 4 months
        ({0: 2.0, 5: 2.0, 6: 3.0, 12: 3.0}, [3.5], False),  # 75 days before: associated with it
        ({0: 2.0, 6: 3.0, 12: 3.0, 14: 3.0}, [6.99], False),  # within 30 days after
        ({0: 2.0, 6: 3.0, 12: 3.0}, [10], "unconfirmed"),  # 60 days before the visit that would confirm it
        ({0: 2.0, 6: 3.0, 12: 3.0, 18: 3.0}, [10], True),  # the next visit does
        ({0: 2.0, 5: 3.0, 10: 4.0, 16: 4.0}, [3], True),  # 3.0 is left of the relapse, and 4.0 comes without
    ],
)
def test_progression_independent_of_relapses(
    series: dict[float, float], relapses: Sequence[float], expected: Told
) -> None:
    assert told(series, weeks=24, relapses=relapses, pira=True) == expected


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"endpoint": "activity", "pira": True, "confirmed_weeks": 24}, "activity is not worsening alone"),
        ({"endpoint": "edss-worsening", "pira": True}, "pira: rests on confirmed scores"),
        ({"endpoint": "edss-worsening", "baseline": "roving"}, "baseline: roving: rests on confirmed scores"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Outcome(**settings)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(6, -6, True), (12, 6, False)], "older-lesion"),  # new since half a year before the visit
        ([(6, -6, True), (12, 6, True)], True),  # another is new since a scan after it
        ([(6, -6, False), (12, 6, False)], False),  # none is new, since whenever
        ([(6, 0, True)], True),
        ([(6, -1, True)], True),  # a scan a month before is of the visit
        ([(18, -6, True), (24, 18, False)], "older-lesion"),
        ([(6, None, True)], True),  # no scan is before
    ],
)
def test_a_lesion_that_may_be_older_than_the_visit_is_not_activity(
    changes: list[tuple[float, float | None, bool]], expected: Told
) -> None:
    later = [
        Change(100 + 30 * at, None if since is None else 100 + 30 * since, is_new) for at, since, is_new in changes
    ]
    assert lesion_activity(100, later, Outcome(endpoint="activity", horizon_years=YEAR)) == expected


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
    later = [Change(100 + 30 * month, None, bool(value)) for month, value in changed.items()]
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
