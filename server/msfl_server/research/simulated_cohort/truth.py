"""What is true of a simulated cohort and no site knows: the log odds behind the outcomes, and what they allow.

No model of the observed covariates ranks patients better than the log odds that drew their outcomes: chance apart,
their AUROC bounds every model's. A site's own rate of the outcome is part of them, as a model may tell sites apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from msfl_server.research.simulated_cohort.bids import ParticipantRow, write_table
from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, SitePrevalence, intercept
from msfl_server.research.simulated_cohort.course import Course
from msfl_server.research.simulated_cohort.history import History

OUTCOMES = ("activity_1y", "progression_1y", "conversion_2y")
COLUMNS = ("site", "participant_id", *(f"{name}{part}" for name in OUTCOMES for part in ("", "_log_odds")))


def truth_row(
    site: str, prevalence: SitePrevalence, subject: str, record: ClinicalRecord, history: History
) -> ParticipantRow:
    """Outcomes of a patient, seen or not, with their log odds; "n/a" where the outcome does not apply."""
    values: list[str | int | float] = ["n/a"] * 6
    if record.diagnosis == "MS":
        active = record.activity_log_odds + intercept(prevalence.activity, 0)
        worse = record.progression_log_odds + intercept(prevalence.progression, 1)
        values[:4] = int(record.activity), round(active, 6), int(record.progression), round(worse, 6)
    if history.conversion_log_odds is not None:
        values[4:] = int(history.conversion_days is not None), round(history.conversion_log_odds, 6)
    return dict(zip(COLUMNS, (site, subject, *values), strict=True))


def yearly_truth(site: str, subject: str, course: Course) -> tuple[ParticipantRow, ...]:
    """Of each visit of a person who is seen every year: what the next year brings, with its log odds, and more."""
    rows: list[ParticipantRow] = []
    for number, visit in enumerate(course.visits):
        told = number < len(course.log_odds)
        rows.append(
            {
                "site": site,
                "participant_id": subject,
                "session_id": visit.clinical.visit_id,
                "activity": int(course.active[number]) if told else "n/a",
                "activity_log_odds": round(course.log_odds[number], 6) if told else "n/a",
                "atrophy": round(visit.atrophy, 4),
                "resolved_lesions": visit.resolved if number else "n/a",
            }
        )
    return tuple(rows)


def best_auroc(rows: Sequence[ParticipantRow]) -> dict[str, float]:
    """AUROC of the true log odds over these patients or visits; an outcome with one class is left out."""
    found = {}
    for name in (column.removesuffix("_log_odds") for column in rows[0] if column.endswith("_log_odds")):
        pairs = [(row[name], row[f"{name}_log_odds"]) for row in rows if row[name] != "n/a"]
        outcomes = np.array([bool(outcome) for outcome, _ in pairs])
        if outcomes.any() and not outcomes.all():
            found[name] = round(auroc(outcomes, np.array([float(log_odds) for _, log_odds in pairs])), 4)
    return found


def auroc(outcomes: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Share of pairs of a positive and a negative that the scores rank right, ties counting half (Mann-Whitney)."""
    ranks = stats.rankdata(scores)
    positives = int(outcomes.sum())
    rank_sum = float(ranks[outcomes].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * (len(outcomes) - positives))


def write_truth(path: Path, rows: Sequence[ParticipantRow]) -> Mapping[str, float]:
    """Write the table and return `best_auroc` of it."""
    write_table(path, rows, rows[0])
    return best_auroc(rows)
