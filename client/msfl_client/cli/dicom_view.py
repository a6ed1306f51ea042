"""What became of each DICOM series, for the site's own screen."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_client.data.bids_tables import several
from msfl_client.data.dicom_people import SUBJECTS
from msfl_client.data.dicom_report import ImportReport
from msfl_common.system.words import counted

_STYLES = {"imported": "green", "there already": "", "passed over": "dim", "in question": "yellow", "refused": "red"}


def print_import(console: Console, bids: Path, report: ImportReport) -> None:
    """A line a series, then what a person is to do."""
    table = Table(title=f"{len(report.series)} series", title_justify="left")
    for column in ("visit", "no.", "description", "", "taken for", "why"):
        table.add_column(column, overflow="fold")
    for one in sorted(report.series, key=lambda one: (one.subject or "~", one.visit, one.number.zfill(9))):
        visit = f"{one.subject} {one.visit}".strip() or "-"
        cells = (visit, one.number, one.description or one.protocol, one.outcome, one.taken_for or "-", one.why)
        table.add_row(*cells, style=_STYLES[one.outcome])
    console.print(table)
    visits = {(subject, visit) for subject, visit, _ in report.images}
    there = len(report.of("there already"))
    console.print(
        f"{counted(len(report.images), 'new image')} of {counted(len(visits), 'visit')}; {there} series there already"
    )
    for note in report.notes:
        console.print(Text(note, style="yellow"))
    if report.damaged:
        console.print(Text(f"damaged files, left out: {several(report.damaged)}", style="red"))
    if refused := len(report.of("refused")):
        console.print(Text(f"{refused} series refused: export them again, whole", style="red"))
    if asked := report.of("in question"):
        rule = f"series: [{{description: {json.dumps(asked[0].description)}, take_for: T1w}}]"
        text = f"{len(asked)} series in question: say what they are in a file for --rules, such as `{rule}`, or `skip`"
        console.print(Text(text, style="yellow"))
    if report.images or there:
        console.print(
            f"Who is who: {bids / SUBJECTS}, what became of what: series.tsv beside it; keep them at the site."
        )
