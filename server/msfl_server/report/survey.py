"""A survey on the terminal, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_common.config.survey_tables import TABLES, TITLES
from msfl_common.system.files import write_text
from msfl_server.report.shell import render
from msfl_server.results.survey import Counts, Survey
from msfl_server.rounds.failures import meaning_of

_OF_CONTRASTS = ("contrasts", "masks")


def print_survey(survey: Survey, console: Console) -> None:
    """The counts, a column a site; of sets of contrasts, single ones and the study's."""
    names = list(survey.per_site)
    table = Table(title=f"{survey.study}: survey of {', '.join(survey.sites)}")
    table.add_column("Patients")
    for name in [*names, "together"]:
        table.add_column(name, justify="right")
    for group in groups_of(survey, shown_only=True):
        table.add_section()
        table.add_row(Text(group["title"], style="bold"))
        for row in group["rows"]:
            table.add_row(f"  {row['cell']}", *map(str, row["counts"]))
    console.print(table)
    for line in notes_of(survey):
        console.print(line, soft_wrap=True)


def notes_of(survey: Survey) -> list[str]:
    """What a person has to know of the counts, and who did not answer."""
    lines = [survey.rule]
    if not survey.per_site:
        lines.append(f"A sum of {len(survey.sites)} sites under masks: no site's own counts are known.")
    lines += [f"{one.site} did not answer: {one.code} ({meaning_of(one.code)})" for one in survey.failed]
    return lines


def groups_of(survey: Survey, shown_only: bool = False) -> list[dict[str, Any]]:
    """The tables, each with its rows; `shown_only`: of sets of contrasts, single ones and the study's."""
    columns: list[Counts] = [*survey.per_site.values(), survey.together]

    def is_shown(table: str, cell: str) -> bool:
        parts = cell.split("+")
        return not shown_only or table not in _OF_CONTRASTS or len(parts) == 1 or {*parts} == {*survey.asked}

    return [
        {
            "title": TITLES[table],
            "rows": [
                {"cell": cell, "counts": [column[table][cell] for column in columns]}
                for cell in cells
                if is_shown(table, cell)
            ],
        }
        for table, cells in TABLES.items()
    ]


def write_page(path: Path, survey: Survey) -> None:
    """Write the page, which needs nothing but a browser."""
    page = render(
        "survey.html.j2",
        survey=survey,
        names=[*survey.per_site, "together"],
        groups=groups_of(survey),
        notes=notes_of(survey),
    )
    write_text(path, page)
