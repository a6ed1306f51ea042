"""The command of `msfl-server` that runs all folds of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json
from msfl_server.cli.research.command import LOADING, PANEL, SAME_COMMAND, Assignments, ResearchCommand

commands = Commands()


@commands.command("cross-validate", cls=ResearchCommand, rich_help_panel=PANEL)
def cross_validate(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study, without a fold.")],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="RUN_DIR", help="Folder for the folds; resumes what is there."),
    ],
    cohort: Annotated[
        Path | None, typer.Option(metavar="COHORT_DIR", help="Folder of BIDS folders, one a site.")
    ] = None,
    site: Annotated[list[Path] | None, typer.Option(metavar="SITE.yaml", help="A site's file; repeat it.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=50,
            metavar="NUMBER",
            help="Every site holds out one of so many parts of its own patients, each in turn.",
        ),
    ] = None,
    leave_one_site_out: Annotated[
        bool, typer.Option("--leave-one-site-out", help="One site is left out whole, each in turn.")
    ] = False,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Train a study once for each fold, among virtual sites, and measure each model on those held out.

    Each fold is a run of its own under RUN_DIR. Stop it with Ctrl-C; the same command resumes it.
    """
    from msfl_common.config.assignments import load_study_with
    from msfl_common.errors import InputError
    from msfl_server.research.simulation.folder import keep_study, virtual_sites

    if (cohort is None) == (site is None):
        raise InputError("expected either --cohort or --site")
    if (folds is None) != leave_one_site_out:
        raise InputError("expected either --folds or --leave-one-site-out")
    settings = load_study_with(study, assignments or [])
    sites = virtual_sites(cohort, site or [], out, settings)
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.files import quoted
    from msfl_common.system.loading import loading, says_how_to_resume
    from msfl_common.system.progress import console, warn

    warn(warnings := unused_settings(settings))
    with says_how_to_resume(SAME_COMMAND):
        with loading(LOADING):
            from msfl_server.research.cross_validation.folds import FoldPlan, checked_plan, claim_plan, run_folds
            from msfl_server.research.cross_validation.report import PAGE_FILE, render_table, write_page
            from msfl_server.research.cross_validation.results import RESULTS_FILE, cross_validation, write_results
            from msfl_server.research.cross_validation.together import measure_together

        plan = checked_plan(FoldPlan(schema_version=2, study=settings, sites=sites, num_folds=folds))
        claim_plan(out, plan)
        keep_study(out, settings, assignments or [])
        told = run_folds(plan, out, lambda line: console.print(line, style="bold"))
        of_all = measure_together(settings, sites, [out / name for name in plan.runs])
        results = cross_validation(settings, told, of_all)
    write_page(out, results, settings)
    write_results(out, results)
    if as_json:
        print_json({**results.model_dump(mode="json"), "warnings": warnings})
        return
    from msfl_common.system.progress import stdout_console

    render_table(results, stdout_console())
    stdout_console().print(f"report: {out / PAGE_FILE}   figures: {out / RESULTS_FILE}")
    if settings.classification is None:
        models = " ".join(f"--model {quoted(out / name / 'model')}" for name in plan.runs)
        console.print(f"all folds together: msfl-client predict {models} --input BIDS --output DIR", soft_wrap=True)
