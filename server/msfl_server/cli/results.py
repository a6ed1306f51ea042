"""A run's results on the terminal."""

from __future__ import annotations

from pathlib import Path

from msfl_common.system.progress import stdout_console
from msfl_server.report.page import render_table
from msfl_server.results.summary import Summary


def show_run(summary: Summary, out: Path) -> None:
    """The summary as a table, and where the report, the model and the curves lie."""
    console = stdout_console()
    render_table(summary, console)
    if summary.rounds_completed:
        console.print(f"report: {out / 'report.html'}   model: {out / summary.model}")
    if (out / "mlflow.db").is_file():  # a deployed study's curves, and those of --tracking-uri, lie elsewhere
        console.print(f"curves: mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}")
