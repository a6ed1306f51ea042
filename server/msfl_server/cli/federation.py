"""Commands of `msfl-server` that run a study among real sites."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from msfl_server.study.paths import StudyFolder

commands = Commands()

StudyDir = Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="Folder of the study.")]
STOP_S = 60.0


@commands.command()
def start(
    folder: StudyDir,
    health_port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, metavar="PORT", help="Answer gRPC health checks on this port, 127.0.0.1."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the study: wait for its sites, run the rounds, and resume after whatever ends in between.

    Each round leaves a line: the loss, the first metrics, how many of the sites that were expected answered, the time.
    With --json, the document is printed at the end: the study's summary.
    """
    from importlib.util import find_spec

    from msfl_common.config.study import load_study
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.files import quoted
    from msfl_common.system.health import health
    from msfl_common.system.lock import held
    from msfl_common.system.progress import alert, console, warn
    from msfl_server.cli.privacy_view import say_privacy
    from msfl_server.flower.coordinator import LOCK, Coordinator
    from msfl_server.run.display import run_display
    from msfl_server.run.follow import FollowedRun
    from msfl_server.study.folder import certificate_warning, list_sites, open_study
    from msfl_server.study.sites import stale_kits

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    if find_spec("mlflow") is None:  # the processes that need it would end and be started again, without end
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    study = open_study(folder)
    taken = f"{folder}: its server is running already; see `msfl-server status`"
    with held(study.root / LOCK, taken), health(health_port) as set_serving:
        if warning := certificate_warning(study):
            alert(warning)
        settings = load_study(study.study_file)
        warn(unused_settings(settings))
        say_privacy(settings)
        if (num_sites := len(list_sites(study))) < (quorum := settings.rounds.quorum):
            say(
                f"a round needs {quorum} sites, and {num_sites or 'none'} may take part yet: run `msfl-server add-site "
                f"{quoted(folder)} NAME --public-key FILE` for each; the run waits"
            )
        if stale := stale_kits(study):
            alert(
                f"the kits of {', '.join(stale)} do not hold study.yaml as it is now, which they will refuse: run "
                f"`msfl-server renew-kits {quoted(folder)}` and hand over the new kits in {study.kits}"
            )
        with run_display(settings.rounds.num_rounds) as display:
            display.doing("starting the SuperLink and the run")
            followed = FollowedRun(settings, study.run, study.status, display)
            Coordinator(study, say, set_serving, followed.look).run()
    from msfl_common.system.words import counted
    from msfl_server.results.summary import read_summary

    summary = read_summary(study.run)
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        from msfl_server.results.untold import untold_of

        for line in untold_of(summary):
            say(line)
        if summary.chosen is not None:
            say(summary.choice_in_words)
        if summary.local_baselines is not None:
            from msfl_server.report.local_baselines import local_lines

            for line in local_lines(summary):
                say(line)
        done = f"{counted(summary.rounds_completed, 'round')} completed"
        done = done if summary.evaluated is None else f"measured at {counted(summary.num_sites, 'site')}"
        say(f"{done}; report: {study.run / 'report.html'}")


@commands.command()
def status(
    folder: StudyDir,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """The round, whom it waits for and until when, and which sites are online.

    Exit code 0 when the server runs or the study is finished, else 1.
    """
    from rich.live import Live

    from msfl_common.errors import InputError
    from msfl_common.system.progress import stdout_console
    from msfl_server.run.status import read_status
    from msfl_server.study.folder import open_study

    if watch and as_json:
        raise InputError("--watch and --json: leave one out")
    study = open_study(folder)
    if as_json:
        print_json(_document(study))
    elif watch:
        with Live(_table(study), console=stdout_console(), refresh_per_second=2) as live:
            while True:
                time.sleep(1)
                live.update(_table(study))
    else:
        stdout_console().print(_table(study))
        for line in _roster(study):
            stdout_console().print(line, soft_wrap=True)
    last = read_status(study.status)
    if not _is_running(study) and (last is None or last.state != "finished"):
        raise typer.Exit(1)


@commands.command()
def stop(folder: StudyDir, as_json: Json = False) -> None:
    """Stop the study's server; `start` resumes from the last completed round."""
    from msfl_common.system.lock import end_holder
    from msfl_common.system.progress import console
    from msfl_server.flower.coordinator import LOCK
    from msfl_server.study.folder import open_study

    study = open_study(folder)
    ended = end_holder(study.root / LOCK, STOP_S, study.logs)
    if as_json:
        print_json({"study_dir": str(folder), "stopped": ended})
    elif ended:
        console.print("the server is stopped; `msfl-server start` resumes from the last completed round")
    else:
        console.print("the server was not running")


def _is_running(study: StudyFolder) -> bool:
    from msfl_common.system.lock import holder
    from msfl_server.flower.coordinator import LOCK

    return holder(study.root / LOCK) is not None


def _document(study: StudyFolder) -> dict[str, object]:
    from msfl_server.run.roster_lines import roster_document, unconfirmed
    from msfl_server.run.status import read_status
    from msfl_server.study.folder import certificate_warning, list_sites

    last, running = read_status(study.status), _is_running(study)
    roster = roster_document(study.run, unconfirmed(last) if running else ())
    return {
        "running": running,
        "sites": list_sites(study),
        "run": json.loads(last.model_dump_json()) if last else None,
        "certificate_warning": certificate_warning(study),
        **({"roster": roster} if roster else {}),
    }


def _roster(study: StudyFolder) -> list[str]:
    """The roster of the sums under masks, where the study has one, and who has not confirmed it."""
    from msfl_server.run.roster_lines import confirmation_line, roster_lines, unconfirmed
    from msfl_server.run.status import read_status

    names = unconfirmed(read_status(study.status)) if _is_running(study) else ()
    return [*roster_lines(study.run), *([confirmation_line(names)] if names else [])]


def _table(study: StudyFolder) -> Table:
    from datetime import UTC, datetime

    from rich.table import Table

    from msfl_common.config.study import load_study
    from msfl_common.metrics.registry import HEADLINE
    from msfl_server.run.status import read_status
    from msfl_server.study.folder import list_sites

    last, running = read_status(study.status), _is_running(study)
    measures = load_study(study.study_file).evaluate is not None
    table = Table("site", "online since", "in this round", title=_headline(last, running, measures))
    online = last.online if last and running else {}
    for name in list_sites(study):
        since = online.get(name, "")
        doing = ""
        if last and running and name in last.waits_for:
            minutes = max(0.0, (last.deadline - datetime.now(UTC)).total_seconds()) / 60 if last.deadline else 0.0
            left = f", {minutes:.0f} min left" if last.deadline else ""
            doing = f"waited for: {last.doing}{left}"
        elif last and (failure := next((failure for failure in last.failed if failure.site == name), None)):
            from msfl_server.rounds.failures import meaning_of

            doing = f"left out of the last round: {failure.code}, {meaning_of(failure.code)}"
        table.add_row(name, since[:19].replace("T", " ") or "-", doing)
    if last and last.metrics:
        headline = [name for titles in HEADLINE.values() for name in titles if name in last.metrics]
        figures = (f"{name} {last.metrics[name]:.3f}" for name in headline)
        table.caption = ("measured: " if measures else "last validation: ") + ", ".join(figures)
    return table


def _headline(last, running: bool, measures: bool) -> str:  # type: ignore[no-untyped-def]
    if last is None:
        return "the server is starting" if running else "not running; no round so far"
    state = last.state if running else ("finished" if last.state == "finished" else "not running")
    if measures:
        return f"study {last.study}: {state}, the model is {'' if last.round else 'not yet '}measured"
    what = "rounds" if last.stage == "final" else f"rounds of {last.stage}"
    return f"study {last.study}: {state}, {last.round} of {last.num_rounds} {what} completed"
