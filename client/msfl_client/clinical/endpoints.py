"""Outcomes of follow-up by stated rules: worsening of the EDSS, confirmed or not, and activity.

Worsening is a rise of the EDSS from an index visit of at least

    edss-worsening  1.5 from 0, 1.0 from 1.0 to 5.5 (and from 0.5, which some files hold), 0.5 above 5.5
    edss-plus-1     1.0

(Kalincik et al., Brain 2015; De Brouwer et al. 2024.) It counts when it comes within the horizon. As visits are never
on the day, the horizon is met within a tenth of itself: a visit up to 1.1 horizons after the index can show worsening,
and a follow-up of 0.9 horizons is long enough to show none.

Confirmed worsening is still there later: at the first visit at least so many weeks after the one that showed it, and at
every visit in between, the EDSS is at or above the threshold. A rise that is gone by then does not count, and the next
one is looked at.

Who cannot be told is left out and counted, never guessed:

    no-follow-up     no later visit has the score
    short-follow-up  no worsening so far, and the last visit is before the horizon
    unconfirmed      worsening, but the follow-up ends before it could be confirmed
    gap              no visit is around the horizon, and the next one shows worsening that may have come before or after

The same is asked of lesions for activity: every visit with images says whether lesions appeared or grew since the one
before. Active is who worsens or has such a lesion; inactive, who is known to have neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msfl_client.clinical.tables import DAYS_PER_YEAR
from msfl_common.config.classification import Endpoint, Outcome

Unknown = Literal["no-score", "no-follow-up", "short-follow-up", "unconfirmed", "gap"]
Told = bool | Unknown

TOLERANCE = 0.1  # of the horizon, to either side
_DAYS_PER_WEEK = 7.0
_SLACK_DAYS = 1e-6  # of rounding, where times are given in years


@dataclass(frozen=True)
class Scored:
    """A value at a visit: the EDSS, or whether lesions changed since the visit before (1 or 0)."""

    days: float
    value: float


def worsening_step(edss: float, endpoint: Endpoint = "edss-worsening") -> float:
    """The rise of the EDSS that is worsening, by the endpoint's rule."""
    if endpoint == "edss-plus-1":
        return 1.0
    return 1.5 if edss == 0 else 1.0 if edss <= 5.5 else 0.5


def worsening(index: Scored, later: Sequence[Scored], endpoint: Endpoint, outcome: Outcome) -> Told:
    """Whether a patient worsens within the horizon.

    Args:
        index: the EDSS at the index visit.
        later: the EDSS at later visits, in order of time.
        endpoint: whose rule of a rise is used; activity uses that of edss-worsening.
        outcome: horizon and weeks to confirmation.

    Returns:
        True or False, or why it cannot be told.
    """
    threshold = index.value + worsening_step(index.value, endpoint)
    after = [Scored(visit.days - index.days, float(visit.value >= threshold)) for visit in later]
    return _event(after, outcome.horizon_years * DAYS_PER_YEAR, outcome.confirmed_weeks * _DAYS_PER_WEEK)


def lesion_activity(index_days: float, later: Sequence[Scored], outcome: Outcome) -> Told:
    """Whether lesions appear or grow within the horizon; `later` are the visits with images, in order of time."""
    after = [Scored(visit.days - index_days, visit.value) for visit in later]
    return _event(after, outcome.horizon_years * DAYS_PER_YEAR, confirmed_days=0.0)


def either(lesions: Told, worse: Told) -> Told:
    """Active when one of the two is; inactive when neither; else why it cannot be told, the lesions' reason first."""
    if lesions is True or worse is True:
        return True
    return lesions if lesions is not False else worse


def _event(after: Sequence[Scored], horizon_days: float, confirmed_days: float) -> Told:
    """Whether the first lasting 1 comes within the horizon; times count from the index."""
    latest = horizon_days * (1 + TOLERANCE) + _SLACK_DAYS
    enough = horizon_days * (1 - TOLERANCE) - _SLACK_DAYS
    if not after:
        return "no-follow-up"
    for number, visit in enumerate(after):
        if visit.value and visit.days <= latest:
            lasting = _lasting(after[number:], confirmed_days)
            if lasting is not False:
                return lasting
    if any(enough <= visit.days <= latest for visit in after):
        return False
    if after[-1].days < enough:
        return "short-follow-up"
    return "gap" if next(visit for visit in after if visit.days > latest).value else False


def _lasting(since: Sequence[Scored], confirmed_days: float) -> Told:
    """Whether what the first visit shows is still there when it has to be."""
    if not confirmed_days:
        return True
    for visit in since:
        if not visit.value:
            return False
        if visit.days - since[0].days >= confirmed_days - _SLACK_DAYS:
            return True
    return "unconfirmed"
