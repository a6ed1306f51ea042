"""Outlined lesions as a table for people: figures, and beside them what deserves a look."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from msfl_client.prediction.lesions_table import PredictedCase

_ROWS_SHOWN = 50


def lesions_table(rows: Sequence[PredictedCase], title: str) -> Table:
    """One row a case; cases with warnings, and those left out, come first where there are too many for a screen."""
    table = Table(title=title, title_justify="left")
    for name in ("Patient", "Visit"):
        table.add_column(name, overflow="fold")
    for name in ("Lesions", "Volume, ml"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Warnings", overflow="fold")
    fits = len(rows) <= _ROWS_SHOWN
    shown = rows if fits else sorted(rows, key=lambda row: not (row.warnings or row.lesion_count is None))
    for row in shown[:_ROWS_SHOWN]:
        table.add_row(row.participant_id, row.session_id, *_figures(row), Text("\n".join(_said(row)), style="yellow"))
    if not fits:
        table.caption = f"{_ROWS_SHOWN} of {len(rows)} rows are shown"
    return table


def _figures(row: PredictedCase) -> tuple[str, str]:
    if row.lesion_count is None or row.lesion_volume_ml is None:
        return "n/a", "n/a"
    return str(row.lesion_count), f"{row.lesion_volume_ml:.2f}"


def _said(row: PredictedCase) -> list[str]:
    """Why a case was left out, and what deserves a look; a warning that is the reason stands once."""
    reasons = [] if row.lesion_count is not None else [row.status]
    return [*reasons, *(warning for warning in row.warnings if warning not in row.status)]
