"""The command of `msfl-server` that plays a study among virtual sites."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.cli import DEBUG_HINT
from msfl_server.cli.research.command import PANEL, ResearchCommand

if TYPE_CHECKING:
    from msfl_server.research.simulation.folder import RunSetup

commands = typer.Typer()


class BackendName(StrEnum):
    """Where virtual sites run."""

    inprocess = "inprocess"
    ray = "ray"


@commands.command(cls=ResearchCommand, rich_help_panel=PANEL, epilog=DEBUG_HINT)
def simulate(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY.yaml", help="The study's file; not needed with --resume.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of BIDS folders, one a site.")] = None,
    site: Annotated[list[Path] | None, typer.Option(metavar="SITE.yaml", help="A site's file; repeat it.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="OUT", help="Folder for everything the run leaves.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="OUT", help="Go on with the run in this folder.")] = None,
    backend: Annotated[
        BackendName, typer.Option(help="In this process, or Flower's engine on Ray.")
    ] = BackendName.inprocess,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server; without it, SQLite under OUT.")] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What a deep model starts from: a ResNet18's weights (safetensors), or a segmentation's model folder.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """Train among virtual sites on this machine, with the apps that real sites run."""
    from msfl_common.errors import InputError

    if resume is not None:
        setup, folder = _resumed(resume, study, cohort, site, out), resume
    elif study is None or out is None or (cohort is None) == (site is None):
        raise InputError("expected STUDY.yaml, --out, and --cohort or --site; or --resume with a run's folder")
    else:
        setup, folder = _started(study, cohort, site or [], out, start_from), out
    from msfl_common.system.progress import console
    from msfl_server.cli.results import show_run
    from msfl_server.research.simulation.run import (
        run_simulated,  # torch and MLflow take seconds: only for a run that can start
    )

    try:
        summary = run_simulated(setup, folder, backend.value, tracking_uri)
    except KeyboardInterrupt:
        console.print(f"completed rounds are kept; `msfl-server simulate --resume {folder}` goes on")
        raise
    if as_json:
        sys.stdout.write(summary.model_dump_json(indent=2) + "\n")
    else:
        show_run(summary, folder)


def _started(
    study_path: Path, cohort: Path | None, site_paths: list[Path], out: Path, start_from: Path | None
) -> RunSetup:
    """A new run; `out` becomes its folder."""
    from msfl_common.config.study import load_study
    from msfl_server.research.simulation.folder import RunSetup, claim_folder, virtual_sites

    study = load_study(study_path)
    sites = virtual_sites(cohort, site_paths, out, study)
    if start_from is not None:  # a run that was claimed with a wrong one could only be resumed
        from msfl_common.config.stages import study_at
        from msfl_common.models.starting_weights import starting_weights

        starting_weights(study_at(study, "final"), start_from)
    setup = RunSetup(study=study, sites=sites, start_from=start_from and start_from.resolve())
    claim_folder(out, setup)
    return setup


def _resumed(
    resume: Path, study_path: Path | None, cohort: Path | None, sites: list[Path] | None, out: Path | None
) -> RunSetup:
    """The run in `resume`, which brings its own settings."""
    from msfl_common.config.study import load_study
    from msfl_common.errors import InputError
    from msfl_server.research.simulation.folder import read_setup

    if cohort or sites or out:
        raise InputError("--resume takes sites and settings from the run's folder; leave out --cohort, --site, --out")
    setup = read_setup(resume)
    if study_path is not None and load_study(study_path) != setup.study:
        raise InputError(f"{resume}: was started with other settings than {study_path}; leave the study file out")
    return setup
