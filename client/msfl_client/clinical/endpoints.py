"""Outcomes of follow-up by stated rules: worsening of the EDSS, confirmed or not, and activity.

Worsening is a rise of the EDSS from an index visit of at least

    edss-worsening  1.5 from 0, 1.0 from 1.0 to 5.5 (and from 0.5, which some files hold), 0.5 above 5.5
    edss-plus-1     1.0

(Kalincik et al., Brain 2015; De Brouwer et al. 2024.) It counts when it comes within the horizon. As visits are never
on the day, the horizon is met within a tenth of itself: a visit up to 1.1 horizons after the index can show worsening,
and a follow-up of 0.9 horizons is long enough to show none.

Confirmed worsening is still there later: at the first visit at least so many weeks after the one that showed it, and at
every visit in between, the EDSS is at or above the threshold; 12 and 24 weeks are usual. A rise that is gone by then
does not count, and the next one is looked at.

Relapses. A score within `relapse_days` of a relapse, to either side, is passed over: it is neither baseline, nor
worsening, nor its confirmation.

Roving baseline. Once a lower score is confirmed (in as many weeks, with every visit in between below the baseline), the
highest score of that time takes the baseline's place. A reference that is reset after confirmation of a new score is
that of Kappos et al., Mult Scler 2018;24:963; here it is lowered alone, which Müller et al., JAMA Neurol 2025;82:614
call re-baselining after improvements.

PIRA, progression independent of relapse activity, is confirmed worsening without a relapse in the 90 days before and
the 30 days after the visit that shows it, and in the same time around the visit that confirms it (Müller et al., JAMA
Neurol 2023;80:1232). After a relapse, the first score that is not within `relapse_days` of one is the new baseline
(re-baselining after relapses; Dzau et al., J Neurol Neurosurg Psychiatry 2023;94:984), and so is a score that has risen
with a relapse around it.

Who cannot be told is left out and counted, never guessed:

    no-follow-up     no later visit has the score
    short-follow-up  no worsening so far, and the last visit is before the horizon
    unconfirmed      worsening, but the follow-up ends before it could be confirmed
    gap              no visit is around the horizon, and the next one shows worsening that may have come before or after
    relapse          the index visit is within `relapse_days` of a relapse
    no-relapses      PIRA is asked for, and no table says who had a relapse
    older-lesion     a lesion is new since a scan before the index visit, and may be older than that

The same is asked of lesions for activity: every visit with images says whether lesions appeared or grew since the scan
before. That scan has to be of the index visit or later, or no more than a tenth of the horizon earlier. Active is who
worsens or has such a lesion; inactive, who is known to have neither. (Lublin et al., Neurology 2014;83:278 call active
who has a relapse or such a lesion, and keep worsening apart: this is another notion.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msfl_client.data.bids_tables import DAYS_PER_YEAR
from msfl_common.config.classification import Endpoint, Outcome

Unknown = Literal[
    "no-score", "no-follow-up", "short-follow-up", "unconfirmed", "gap", "relapse", "no-relapses", "older-lesion"
]
Told = bool | Unknown

TOLERANCE = 0.1  # of the horizon, to either side
_DAYS_PER_WEEK = 7.0
_SLACK_DAYS = 1e-6  # of rounding, where times are given in years
_PIRA_BEFORE_DAYS, _PIRA_AFTER_DAYS = 90.0, 30.0


@dataclass(frozen=True)
class Scored:
    """The EDSS at a visit."""

    days: float
    value: float


@dataclass(frozen=True)
class Change:
    """Whether a scan shows lesions that appeared or grew since the scan before; None where that has no known day."""

    days: float
    since_days: float | None
    is_new: bool


@dataclass(frozen=True)
class _Visit:
    """Days since the index, whether the visit shows the event, and whether it lasts."""

    days: float
    shows: bool
    lasts: Told


def worsening_step(edss: float, endpoint: Endpoint = "edss-worsening") -> float:
    """The rise of the EDSS that is worsening, by the endpoint's rule."""
    if endpoint == "edss-plus-1":
        return 1.0
    return 1.5 if edss == 0 else 1.0 if edss <= 5.5 else 0.5


def is_in_relapse(days: float, relapses: Sequence[float], outcome: Outcome) -> bool:
    """Whether a score is so near a relapse that it is passed over; `relapses` are days on the same axis."""
    reach = outcome.relapse_days
    return reach > 0 and any(abs(days - relapse) <= reach + _SLACK_DAYS for relapse in relapses)


def worsening(
    index: Scored, later: Sequence[Scored], endpoint: Endpoint, outcome: Outcome, relapses: Sequence[float] = ()
) -> Told:
    """Whether a patient worsens within the horizon.

    Args:
        index: the EDSS at the index visit.
        later: the EDSS at later visits, in order of time.
        endpoint: whose rule of a rise is used; activity uses that of edss-worsening.
        outcome: horizon, weeks to confirmation, and what relapses and lower scores do.
        relapses: when the patient had one, days on the same axis.

    Returns:
        True or False, or why it cannot be told.
    """
    if is_in_relapse(index.days, relapses, outcome):
        return "relapse"
    counted = [visit for visit in later if not is_in_relapse(visit.days, relapses, outcome)]
    confirmed_days = outcome.confirmed_weeks * _DAYS_PER_WEEK
    baseline, seen = index, []
    for number, visit in enumerate(counted):
        days, since = visit.days - index.days, counted[number:]
        threshold = baseline.value + worsening_step(baseline.value, endpoint)
        shows = visit.value >= threshold
        if outcome.pira and (
            any(baseline.days < relapse <= visit.days for relapse in relapses)
            or (shows and _has_relapse_around(visit, relapses))
        ):
            baseline = visit
            seen.append(_Visit(days, False, False))
            continue
        confirming = [one for one in since if not (outcome.pira and _has_relapse_around(one, relapses))]
        seen.append(_Visit(days, shows, shows and _lasting(since, confirming, threshold, confirmed_days)))
        if outcome.baseline == "roving" and visit.value < baseline.value:
            baseline = _lowered(baseline, since, confirmed_days)
    return _event(seen, outcome.horizon_years * DAYS_PER_YEAR)


def lesion_activity(index_days: float, later: Sequence[Change], outcome: Outcome) -> Told:
    """Whether lesions appear or grow within the horizon; `later` are the visits with scans, in order of time."""
    horizon_days = outcome.horizon_years * DAYS_PER_YEAR
    oldest = index_days - TOLERANCE * horizon_days - _SLACK_DAYS
    older = [one for one in later if one.is_new and one.since_days is not None and one.since_days < oldest]
    seen = [_Visit(one.days - index_days, one.is_new, one.is_new) for one in later if one not in older]
    told = _event(seen, horizon_days)
    return "older-lesion" if older and told is not True else told


def either(lesions: Told, worse: Told) -> Told:
    """Active when one of the two is; inactive when neither; else why it cannot be told, the lesions' reason first."""
    if lesions is True or worse is True:
        return True
    return lesions if lesions is not False else worse


def _event(after: Sequence[_Visit], horizon_days: float) -> Told:
    """Whether the first lasting event comes within the horizon."""
    latest = horizon_days * (1 + TOLERANCE) + _SLACK_DAYS
    enough = horizon_days * (1 - TOLERANCE) - _SLACK_DAYS
    if not after:
        return "no-follow-up"
    for visit in after:
        if visit.lasts is not False and visit.days <= latest:
            return visit.lasts
    if any(enough <= visit.days <= latest for visit in after):
        return False
    if after[-1].days < enough:
        return "short-follow-up"
    return "gap" if next(visit for visit in after if visit.days > latest).shows else False


def _lasting(since: Sequence[Scored], confirming: Sequence[Scored], threshold: float, confirmed_days: float) -> Told:
    """Whether what the first visit shows is still there when it has to be, at one of the visits that may confirm it."""
    if not confirmed_days:
        return True
    for visit in since:
        if visit.value < threshold:
            return False
        if visit in confirming and visit.days - since[0].days >= confirmed_days - _SLACK_DAYS:
            return True
    return "unconfirmed"


def _lowered(baseline: Scored, since: Sequence[Scored], confirmed_days: float) -> Scored:
    """The baseline after a lower score: if it is confirmed, the highest score from there to its confirmation."""
    highest = since[0].value
    for visit in since:
        if visit.value >= baseline.value:
            return baseline
        highest = max(highest, visit.value)
        if visit.days - since[0].days >= confirmed_days - _SLACK_DAYS:
            return Scored(since[0].days, highest)
    return baseline


def _has_relapse_around(visit: Scored, relapses: Sequence[float]) -> bool:
    return any(-_PIRA_BEFORE_DAYS <= relapse - visit.days <= _PIRA_AFTER_DAYS for relapse in relapses)
