"""A run's results on the terminal."""

from __future__ import annotations

from pathlib import Path

from msfl_common.errors import InputError
from msfl_common.system.files import quoted
from msfl_common.system.progress import stdout_console
from msfl_server.report.page import REPORT_FILE, render_table
from msfl_server.results.summary import SUMMARY_FILE, Summary
from msfl_server.run.found import DEPLOYED_FILE, FoundRun, find_run
from msfl_server.tracking.store import STORE_FILE

SERVER_FILE = "server.yaml"


def show_run(summary: Summary, out: Path, curves: str | None = None) -> None:
    """The summary as a table, and where the report, the model and the curves lie, as far as they do.

    Args:
        summary: what is shown.
        out: the run's folder.
        curves: where the curves are, if not in the run's folder.
    """
    console = stdout_console()
    render_table(summary, console)
    made = {"report": out / REPORT_FILE, "model": out / summary.model}
    if summary.is_finished and (there := [f"{name}: {path}" for name, path in made.items() if path.exists()]):
        console.print("   ".join(there), soft_wrap=True)
    if curves is None and (out / STORE_FILE).is_file():  # those of --tracking-uri lie elsewhere
        curves = f"mlflow ui --backend-store-uri sqlite:///{out / STORE_FILE}"
    if curves is not None:
        console.print(f"curves: {curves}", soft_wrap=True)


def study_folder_of(folder: Path) -> Path | None:
    """The deployed study that a folder is, or is the run of; None where there is none."""
    return next((one for one in (folder, folder.absolute().parent) if (one / SERVER_FILE).is_file()), None)


def run_at(folder: Path) -> FoundRun:
    """The run in a folder, or that of the study which the folder is.

    Raises:
        InputError: as `find_run`; or the study has not begun.
    """
    if not (folder / SERVER_FILE).is_file():
        return find_run(folder)
    try:
        return find_run(folder / "run")
    except InputError:
        if any((folder / "run" / name).exists() for name in (SUMMARY_FILE, DEPLOYED_FILE)):
            raise
        raise InputError(
            f"{folder}: the study has no run yet; `msfl-server start {quoted(folder)}` begins it"
        ) from None


def show_found(folder: Path, found: FoundRun) -> None:
    """What `report` shows: `show_run`, and of a run that is not finished what to do to go on."""
    study = study_folder_of(folder)
    curves = _curves(study) if study is not None else None
    show_run(found.summary, found.out, curves)
    if found.stage != "final" or not found.summary.is_finished:
        stdout_console().print(_unfinished(folder, study, found), soft_wrap=True)


def _unfinished(folder: Path, study: Path | None, found: FoundRun) -> str:
    summary = found.summary
    what = "rounds" if found.stage == "final" else f"rounds of {found.stage}"
    told = f"not finished: {summary.rounds_completed} of {summary.rounds_requested} {what} are complete"
    if study is not None:
        from msfl_common.system.lock import holder
        from msfl_server.flower.coordinator import LOCK

        if holder(study / LOCK) is not None:
            return f"{told}; the server runs: `msfl-server status {quoted(study)}` says whom it waits for"
        return f"{told}; the server does not run: `msfl-server start {quoted(study)}` goes on from there"
    if not found.is_simulated:
        return told
    return (
        f"{told}; where it does not run any more, `msfl-server simulate --resume {quoted(folder)}` goes on from there; "
        "report and model are written after the last round"
    )


def _curves(study: Path) -> str:
    """Where a deployed study's curves are: at its MLflow server, or in the store of the one that `start` starts."""
    from msfl_server.study.server_config import load_server
    from msfl_server.tracking.gate import USER
    from msfl_server.tracking.mlflow_server import PASSWORD_FILE, mlflow_folder, tracking_uri
    from msfl_server.tracking.store import sqlite_uri

    server = load_server(study / SERVER_FILE)
    if server.mlflow is not None:
        return server.mlflow
    folder = mlflow_folder(study)
    return (
        f"{tracking_uri(server.mlflow_port)} while the server runs (user {USER}, password in "
        f"{folder / PASSWORD_FILE}), else mlflow ui --backend-store-uri {sqlite_uri(folder)}"
    )
