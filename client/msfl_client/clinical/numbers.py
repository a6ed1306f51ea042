"""A number as an outcome: a cell of a table, or the EDSS at a follow-up, by a stated rule.

edss         the EDSS at the visit whose time from the index visit is nearest to the horizon, within a tenth of it to
             either side; of two that are as near, the earlier
edss-change  the same, less the EDSS at the index visit

A score within `relapse_days` of a relapse, to either side, is passed over, at the index visit too.
"""

from __future__ import annotations

from typing import Literal

from msfl_client.clinical.endpoints import TOLERANCE, is_in_relapse
from msfl_client.clinical.visits import Patient
from msfl_client.data.bids_tables import DAYS_PER_YEAR
from msfl_common.config.regression import NumericOutcome
from msfl_common.errors import InputError
from msfl_common.system.tab_separated import number_of

_SLACK_DAYS = 1e-6  # of rounding, where times are given in years


def number_in(text: str | None, outcome: NumericOutcome, where: str) -> float | Literal["no-label"]:
    """The number in a cell; `where` names patient and visit, and stays at the site.

    Raises:
        InputError: it is no number, or none in the study's range.
    """
    if text is None:
        return "no-label"
    low, high = outcome.range
    value = number_of(text)
    if not low <= value <= high:
        raise InputError(
            f"outcome.column {outcome.column}: {where}: expected a number from {low:g} to {high:g} ({outcome.unit}), "
            f"found {text!r}; correct the table, or write n/a where it is not known"
        )
    return value


def score_after(
    patient: Patient, index: int, outcome: NumericOutcome
) -> float | Literal["no-date", "no-score", "no-follow-up", "no-score-then"]:
    """The EDSS of the study's endpoint for a patient at a visit, or why it cannot be told."""
    start, relapses = patient.visits[index], patient.relapses or ()
    if start.days is None:
        return "no-date"
    if outcome.endpoint == "edss-change" and "edss" not in start.values:
        return "no-score"
    later = [
        (visit.days - start.days, visit.values["edss"])
        for visit in patient.visits[index + 1 :]
        if visit.days is not None and "edss" in visit.values and not is_in_relapse(visit.days, relapses, outcome)
    ]
    if not later:
        return "no-follow-up"
    horizon_days = outcome.horizon_years * DAYS_PER_YEAR
    days, score = min(later, key=lambda one: (abs(one[0] - horizon_days), one[0]))
    if abs(days - horizon_days) > TOLERANCE * horizon_days + _SLACK_DAYS:
        return "no-score-then"
    return score - start.values["edss"] if outcome.endpoint == "edss-change" else score
