"""The command of `msfl-server` that plays all folds of a study."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.cli import DEBUG_HINT

commands = typer.Typer()


@commands.command("cross-validate", epilog=DEBUG_HINT)
def cross_validate(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study with the task classification.")],
    out: Annotated[Path, typer.Option(metavar="OUT", help="Folder for the folds; goes on with what is there.")],
    cohort: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of BIDS folders, one a site.")] = None,
    site: Annotated[list[Path] | None, typer.Option(metavar="SITE.yaml", help="A site's file; repeat it.")] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, max=50, metavar="K", help="Every site holds out a K-th of its own patients.")
    ] = None,
    leave_one_site_out: Annotated[
        bool, typer.Option("--leave-one-site-out", help="One site is left out whole, each in turn.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """Train a study once for each fold, among virtual sites, and measure each model on those held out.

    Each fold is a run of its own under OUT. Stop it with Ctrl-C; the same command goes on.
    """
    from msfl_common.config.study import load_study
    from msfl_common.errors import InputError
    from msfl_server.research.simulation.folder import virtual_sites

    if (cohort is None) == (site is None):
        raise InputError("expected either --cohort or --site")
    if (folds is None) != leave_one_site_out:
        raise InputError("expected either --folds or --leave-one-site-out")
    settings = load_study(study)
    sites = virtual_sites(cohort, site or [], out, settings)
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.progress import console, warn

    warn(warnings := unused_settings(settings))
    from msfl_server.research.cross_validation.folds import FoldPlan, check_plan, claim_plan, play_folds
    from msfl_server.research.cross_validation.report import PAGE_FILE, render_table, write_page
    from msfl_server.research.cross_validation.results import RESULTS_FILE, cross_validation, write_results

    plan = FoldPlan(study=settings, sites=sites, num_folds=folds)
    check_plan(plan)
    claim_plan(out, plan)
    results = cross_validation(settings, play_folds(plan, out, lambda line: console.print(line, style="bold")))
    write_page(out, results, settings)
    write_results(out, results)
    if as_json:
        document = {**results.model_dump(mode="json"), "warnings": warnings}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    from msfl_common.system.progress import stdout_console

    render_table(results, stdout_console())
    stdout_console().print(f"report: {out / PAGE_FILE}   figures: {out / RESULTS_FILE}")
