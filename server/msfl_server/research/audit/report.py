"""An audit for people: one offline page, and a table for the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msfl_common.system.files import write_text
from msfl_server.report.shell import render
from msfl_server.research.audit.finding import RULE, Finding, Measured
from msfl_server.research.audit.folder import PAGE_FILE
from msfl_server.research.audit.run import Audit

if TYPE_CHECKING:
    from rich.table import Table

NO_DEFENCE = "none"


def write_page(out: Path, audit: Audit) -> Path:
    """Write `out/report.html`, which needs nothing but a browser."""
    document = audit.document()
    page = render(
        "audit.html.j2",
        document=document,
        rule=RULE,
        tiles=_tiles(audit),
        rows=[_cells(one) for one in audit.findings],
    )
    write_text(out / PAGE_FILE, page)
    return out / PAGE_FILE


def table_of(audit: Audit) -> Table:
    """The findings for a terminal."""
    from rich.table import Table

    table = Table(caption=RULE, caption_justify="left")
    for heading in ("Attack", "Figure", "Defence", "Value", "95% CI", "Chance", "Verdict"):
        table.add_column(heading, justify="right" if heading in ("Value", "95% CI", "Chance") else "left")
    names, before = ("figure", "defence", "value", "interval", "chance", "verdict"), ""
    for one in audit.findings:
        cells = _cells(one)
        table.add_row("" if one.attack == before else one.attack, *(cells[name] for name in names))
        before = one.attack
    return table


def _tiles(audit: Audit) -> list[dict[str, str]]:
    verdicts = [one.verdict for one in audit.findings]
    defended = [one.verdict for one in audit.findings if one.measured.defence]
    return [
        {
            "label": "Simulated patients",
            "value": str(sum(audit.patients.values())),
            "note": f"at {len(audit.patients)} sites",
        },
        {"label": "Leaks, defended", "value": str(defended.count("leaks")), "note": f"of {len(defended)} figures"},
        {"label": "Bounded", "value": str(defended.count("bounded")), "note": f"of {len(defended)} figures"},
        {"label": "Inconclusive", "value": str(verdicts.count("inconclusive")), "note": f"of {len(verdicts)} figures"},
    ]


def _cells(one: Finding) -> dict[str, str]:
    measured = one.measured
    return {
        "attack": one.attack,
        "figure": one.figure,
        "defence": measured.defence or NO_DEFENCE,
        "value": _value(one.figure, measured),
        "interval": f"{measured.low:.3f} to {measured.high:.3f}",
        "chance": f"{measured.chance:.3f}",
        "verdict": one.verdict,
        "note": measured.note,
    }


def _value(figure: str, measured: Measured) -> str:
    if figure.startswith(("Rows", "Patches")):
        return f"{round(measured.value * measured.number)} of {measured.number}"
    return f"{measured.value:.3f}"
