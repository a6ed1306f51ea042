"""The command of `msfl-server` that attacks a study on simulated patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json
from msfl_server.cli.research.command import LOADING, PANEL, Assignments, ResearchCommand

commands = Commands()


@commands.command(cls=ResearchCommand, rich_help_panel=PANEL)
def audit(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A segmentation or a classification.")],
    cohort: Annotated[Path, typer.Option(metavar="COHORT_DIR", help="Simulated patients, of make-cohort.")],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="AUDIT_DIR", help="Folder for the page and audit.json."),
    ],
    models: Annotated[
        int,
        typer.Option(
            "--models",
            min=8,
            max=1024,
            metavar="NUMBER",
            help="Classifications: models of random halves of the patients; each is attacked, the others its shadows.",
        ),
    ] = 64,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Attack a study on simulated patients: images from updates, rows from sums, and whom a model was learned from.

    Each attack is carried out without a defence and against those of the study; one that fails without is called
    inconclusive. Exit code 0 whatever is found; audit.json and --json have the verdicts.
    """
    from msfl_common.config.assignments import load_study_with
    from msfl_common.system.loading import loading
    from msfl_common.system.progress import progress_bars, stdout_console
    from msfl_server.research.audit.folder import check_auditable, check_cohort, claim
    from msfl_server.research.simulation.folder import keep_study

    settings = load_study_with(study, assignments or [])
    check_auditable(settings)
    check_cohort(settings, cohort)
    claim(out)
    with loading(LOADING):
        from msfl_server.research.audit.report import table_of, write_page
        from msfl_server.research.audit.run import run_audit, write_results
    with progress_bars() as bars:
        task = bars.add_task("Attacking", total=1, note="")

        def on_progress(done: int, total: int, what: str) -> None:
            bars.update(task, completed=done, total=total, note=what)

        found = run_audit(settings, cohort, models, on_progress)
    keep_study(out, settings, assignments or [])
    page = write_page(out, found)
    write_results(out, found)
    if as_json:
        print_json(found.document())
        return
    console = stdout_console()
    console.print(table_of(found))
    for line in found.not_audited:
        console.print(f"not audited: {line}", highlight=False)
    console.print(f"report: {page}", highlight=False)
