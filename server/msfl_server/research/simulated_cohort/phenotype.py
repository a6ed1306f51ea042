"""Clinical tables of a simulated site beside the visits: EDSS with subscores at every visit, and relapses."""

from collections.abc import Sequence
from pathlib import Path

from msfl_server.research.simulated_cohort.bids import ParticipantRow, write_json, write_table
from msfl_server.research.simulated_cohort.functional_systems import HIGHEST, SUBSCORES
from msfl_server.research.simulated_cohort.history import History

_DAYS: dict[str, object] = {"Description": "Time since the first visit", "Units": "days"}
_RANGES = dict(zip(SUBSCORES, (*HIGHEST, 12), strict=True))
EDSS_COLUMNS: dict[str, dict[str, object]] = {
    "participant_id": {"Description": "Subject, unique within the site"},
    "session_id": {"Description": "Visit of the visit; n/a without images"},
    "days_from_baseline": _DAYS,
    "edss": {"Description": "Expanded Disability Status Scale, 0-10"},
    **{
        name: {"Description": f"Functional system {name.removeprefix('fs_')}, 0-{highest}"}
        for name, highest in _RANGES.items()
    },
}
RELAPSE_COLUMNS: dict[str, dict[str, object]] = {
    "participant_id": {"Description": "Subject, unique within the site"},
    "days_from_baseline": _DAYS | {"Description": "Onset of the relapse since the first visit"},
}


def write_phenotype(site_folder: Path, histories: Sequence[tuple[str, History]]) -> None:
    """Write phenotype/edss.tsv and relapses.tsv.

    Args:
        site_folder: BIDS folder of the site.
        histories: Each subject, as sub-001, with its history.
    """
    folder = site_folder / "phenotype"
    visits: list[ParticipantRow] = [
        dict(
            zip(
                EDSS_COLUMNS,
                (subject, visit.visit_id, visit.days, visit.edss, *visit.subscores.values()),
                strict=True,
            )
        )
        for subject, history in histories
        for visit in history.visits
    ]
    relapses: list[ParticipantRow] = [
        dict(zip(RELAPSE_COLUMNS, (subject, day), strict=True))
        for subject, history in histories
        for day in history.relapse_days
    ]
    for name, rows, columns in (("edss", visits, EDSS_COLUMNS), ("relapses", relapses, RELAPSE_COLUMNS)):
        write_table(folder / f"{name}.tsv", rows, columns)
        write_json(folder / f"{name}.json", columns)
