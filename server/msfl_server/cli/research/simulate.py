"""The command of `msfl-server` that runs a study among virtual sites."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json
from msfl_server.cli.research.command import LOADING, PANEL, Assignments, ResearchCommand

if TYPE_CHECKING:
    from msfl_server.research.simulation.folder import RunSetup

commands = Commands()


class BackendName(StrEnum):
    """Where virtual sites run."""

    inprocess = "inprocess"
    ray = "ray"


@commands.command(cls=ResearchCommand, rich_help_panel=PANEL)
def simulate(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY.yaml", help="The study's file; not needed with --resume.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(metavar="COHORT_DIR", help="Folder of BIDS folders, one a site.")
    ] = None,
    site: Annotated[list[Path] | None, typer.Option(metavar="SITE.yaml", help="A site's file; repeat it.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN_DIR", help="Folder for everything the run leaves."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN_DIR", help="Resume the run in this folder.")] = None,
    backend: Annotated[
        BackendName, typer.Option(metavar="BACKEND", help="inprocess: in this process, or ray: Flower's engine on Ray.")
    ] = BackendName.inprocess,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="MLflow server, whose password stands in MLFLOW_TRACKING_PASSWORD; without it, SQLite under RUN_DIR.",
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            metavar="START",
            help="What a network starts from: a model folder, checkpoint, MONAI bundle, or ResNet18 (safetensors).",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL_DIR", help="The model folder that a study with `evaluate` measures."),
    ] = None,
    assignments: Assignments = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what the run would be, up to its first round, and write nothing of it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train among virtual sites on this machine, with the apps that real sites run."""
    from msfl_common.config.secrets import refuse_password
    from msfl_common.errors import InputError

    refuse_password(tracking_uri or "", "--tracking-uri", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if dry_run:
        if study is None or resume is not None or (cohort is None) == (site is None):
            raise InputError("--dry-run: expected STUDY.yaml, and --cohort or --site, without --resume")
        _show_dry_run(study, assignments or [], cohort, site or [], start_from, model, as_json)
        return
    if resume is not None:
        if assignments:
            raise InputError(f"--resume takes settings from {resume}; leave out --set, or start a run of its own")
        setup, folder = _resumed(resume, study, cohort, site, out or model or start_from), resume
    elif study is None or out is None or (cohort is None) == (site is None):
        raise InputError("expected STUDY.yaml, --output, and --cohort or --site; or --resume with a run's folder")
    else:
        setup, folder = _started(study, assignments or [], cohort, site or [], out, start_from, model), out
    from msfl_common.config.stages import raised_to_quorum
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.files import quoted
    from msfl_common.system.loading import loading, says_how_to_resume
    from msfl_common.system.progress import warn
    from msfl_server.cli.privacy_view import say_privacy
    from msfl_server.cli.results import show_run

    warn(warnings := [*unused_settings(setup.study), *raised_to_quorum(setup.study, len(setup.sites))])
    say_privacy(setup.study)
    how = f"completed rounds, if there are any, are kept; resume with `msfl-server simulate --resume {quoted(folder)}`"
    with says_how_to_resume(how):
        with loading(LOADING):
            from msfl_server.research.simulation.run import (
                run_simulated,  # torch and MLflow take seconds: only for a run that can start
            )

        summary = run_simulated(setup, folder, backend.value, tracking_uri)
    if as_json:
        print_json({**summary.model_dump(mode="json"), "warnings": warnings})
    else:
        show_run(summary, folder)


def _started(
    study_path: Path,
    assignments: list[str],
    cohort: Path | None,
    site_paths: list[Path],
    out: Path,
    start_from: Path | None,
    model: Path | None,
) -> RunSetup:
    """A new run; `out` becomes its folder."""
    from msfl_common.config.assignments import load_study_with
    from msfl_server.research.simulation.folder import keep_study, start_run, virtual_sites

    study = load_study_with(study_path, assignments)
    setup = start_run(study, virtual_sites(cohort, site_paths, out, study), out, start_from, model)
    keep_study(out, study, assignments)
    return setup


def _resumed(
    resume: Path, study_path: Path | None, cohort: Path | None, sites: list[Path] | None, out: Path | None
) -> RunSetup:
    """The run in `resume`, which brings its own settings."""
    from msfl_common.config.optimisation import written_out
    from msfl_common.config.study import load_study
    from msfl_common.errors import InputError
    from msfl_server.research.simulation.folder import read_setup

    if cohort or sites or out:
        raise InputError(
            "--resume takes sites and settings from the run's folder; leave out --cohort, --site, --output, "
            "--model, --start-from"
        )
    setup = read_setup(resume)
    if study_path is not None and written_out(load_study(study_path)) != written_out(setup.study):
        raise InputError(f"{resume}: was started with other settings than {study_path}; leave the study file out")
    return setup


def _show_dry_run(
    study_path: Path,
    assignments: list[str],
    cohort: Path | None,
    site_paths: list[Path],
    start_from: Path | None,
    model: Path | None,
    as_json: bool,
) -> None:
    """What the run would be; exit code 2 where no round of it could count.

    What sites with files of their own find out of their cases stays in their caches, as after `msfl-client check`.
    """
    import tempfile

    from msfl_common.config.assignments import load_study_with
    from msfl_common.config.stages import raised_to_quorum
    from msfl_common.errors import InputError
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.loading import loading
    from msfl_common.system.progress import stdout_console, warn
    from msfl_server.research.simulation.folder import expect_model, expect_start, virtual_sites

    settings = load_study_with(study_path, assignments)
    if model is not None or settings.evaluate is not None:
        expect_model(settings, start_from, model)
    elif start_from is not None or settings.training.freeze:
        expect_start(settings, start_from, None)
    # What is wrong with them is said before anything is loaded.
    num_sites = len(virtual_sites(cohort, site_paths, Path(), settings))
    warn(warnings := [*unused_settings(settings), *raised_to_quorum(settings, num_sites)])
    with loading(LOADING):
        from msfl_server.cli.research.dry_run_view import print_dry_run
        from msfl_server.research.simulation.dry_run import dry_run
        from msfl_server.run.display import site_display
    with tempfile.TemporaryDirectory(prefix="msfl-dry-run-") as folder, site_display() as display:
        sites = virtual_sites(cohort, site_paths, Path(folder), settings)  # those of a cohort have their state there
        found = dry_run(settings, sites, display.on_progress)
    if as_json:
        print_json({**found.document(), "warnings": warnings})
    else:
        print_dry_run(stdout_console(soft_wrap=True), found)
    if found.fault is not None:
        raise InputError(found.fault)
