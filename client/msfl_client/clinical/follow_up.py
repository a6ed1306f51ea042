"""What came of a patient after a visit: the scores, scans and relapses of a follow-up, held to an endpoint's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msfl_client.clinical.endpoints import Change, Scored, Told, either, is_in_relapse, lesion_activity, worsening
from msfl_client.clinical.visits import Patient, Visit
from msfl_client.features.table import FeatureRow
from msfl_common.config.classification import Endpoint, Outcome

CHANGE_COLUMNS = ("new_lesions", "enlarging_lesions")
_CHANGE_FEATURES = ("new_lesion_count", "enlarging_lesion_count")


def is_near_relapse(patient: Patient, index: int, outcome: Outcome) -> bool:
    """Whether a visit is so near a relapse that its score is passed over."""
    days = patient.visits[index].days
    return days is not None and is_in_relapse(days, patient.relapses or (), outcome)


def endpoint_of(
    patient: Patient,
    index: int,
    changes: Mapping[str | None, float | None],
    outcome: Outcome,
    endpoint: Endpoint,
) -> Told | Literal["no-date"]:
    """What comes of a patient after a visit.

    Args:
        patient: with visits and relapses.
        index: number of the visit.
        changes: of the visits with images, whether lesions changed since the one before (1 or 0), by features.
        outcome: the study's.
        endpoint: its endpoint.

    Returns:
        True or False, or why it cannot be told.
    """
    visits, start = patient.visits, patient.visits[index]
    if start.days is None:
        return "no-date"
    if outcome.pira and patient.relapses is None:
        return "no-relapses"
    timed = [(visit, visit.days) for visit in visits[index + 1 :] if visit.days is not None]
    worse: Told = "no-score"
    if "edss" in start.values:
        later = [Scored(days, visit.values["edss"]) for visit, days in timed if "edss" in visit.values]
        worse = worsening(Scored(start.days, start.values["edss"]), later, endpoint, outcome, patient.relapses or ())
    if endpoint != "activity":
        return worse
    later_changes = [change for change in _changes(visits, changes) if change.days > start.days]
    return either(lesion_activity(start.days, later_changes, outcome), worse)


def _changes(visits: Sequence[Visit], changes: Mapping[str | None, float | None]) -> Iterator[Change]:
    """What each scan says of lesions, and since when."""
    any_imaged = any(visit.imaged for visit in visits)
    since: float | None = None
    for visit in visits:
        value = _change(visit, changes)
        if visit.days is None:
            continue
        if value is not None:
            yield Change(visit.days, since, bool(value))
        if visit.imaged or value is not None or (not any_imaged and visit.visit_id is not None):
            since = visit.days


def _change(visit: Visit, changes: Mapping[str | None, float | None]) -> float | None:
    """Whether lesions appeared or grew since the visit_id before: by the reader, else by the features."""
    counts = [visit.values[name] for name in CHANGE_COLUMNS if name in visit.values]
    if counts:
        return float(any(counts))
    return changes.get(visit.visit_id) if visit.imaged else None


def changed(row: FeatureRow | None) -> float | None:
    """Whether lesions changed since the case before, by the features of a case; None where they do not say."""
    counts = [row.features[name] for name in _CHANGE_FEATURES if name in row.features] if row else []
    return float(any(counts)) if counts else None
