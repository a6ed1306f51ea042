"""`msfl-server`: what a coordinator or researcher types.

Every command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.cli import run_app
from msfl_common.system.command_line import Json, make_program, print_json
from msfl_server.cli.cross_validation import commands as cross_validation_commands
from msfl_server.cli.federation import commands as federation_commands
from msfl_server.cli.ledger import commands as ledger_commands
from msfl_server.cli.pipelines import commands as pipelines_commands
from msfl_server.cli.study import commands as study_commands

if TYPE_CHECKING:
    from msfl_server.research.simulation.folder import RunSetup
    from msfl_server.results.summary import Summary

app = make_program(
    "Run federated studies of MS MRI, deployed or simulated.",
    study_commands,
    federation_commands,
    ledger_commands,
    cross_validation_commands,
    pipelines_commands,
)


class BackendName(StrEnum):
    """Where virtual sites run."""

    inprocess = "inprocess"
    ray = "ray"


def main() -> None:
    """Entry point of `msfl-server`."""
    run_app(app)


@app.command("make-cohort")
def make_cohort_command(
    out_before: Annotated[Path | None, typer.Argument(metavar="COHORT_DIR", hidden=True, help="As --output.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="COHORT_DIR", help="Folder to write; one BIDS folder per site."),
    ] = None,
    sites: Annotated[int, typer.Option(min=1, max=1000, metavar="NUMBER", help="Number of sites.")] = 3,
    patients: Annotated[
        int, typer.Option(min=1, max=9999, metavar="NUMBER", help="Patients with MS per site, two visits each.")
    ] = 12,
    nmosd: Annotated[
        int, typer.Option(min=0, max=9999, metavar="NUMBER", help="Patients with NMOSD per site, besides.")
    ] = 0,
    controls: Annotated[
        int, typer.Option(min=0, max=9999, metavar="NUMBER", help="Healthy controls per site, besides.")
    ] = 0,
    without_images: Annotated[
        bool,
        typer.Option("--without-images", help="Clinical tables and tables of features alone: thousands in a minute."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Equal seeds give equal files.")] = 0,
    spacing: Annotated[float, typer.Option(min=0.8, max=4.0, metavar="MM", help="Voxel size, mm.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Simulate patients with MS on real anatomy at sites with scanners of their own."""
    from msfl_common.errors import InputError
    from msfl_common.system.progress import console, progress_bars
    from msfl_server.research.simulated_cohort import make_cohort, make_records

    if (out is None) == (out_before is None):
        raise InputError("expected --output with the folder to write")
    out = out or out_before
    assert out is not None
    make = make_records if without_images else partial(make_cohort, spacing_mm=spacing)
    with progress_bars() as bars:
        task = bars.add_task("Simulating patients", total=sites * (patients + nmosd + controls), note="")
        try:
            cohort = make(
                out,
                num_sites=sites,
                cases_per_site=patients,
                num_nmosd=nmosd,
                num_controls=controls,
                seed=seed,
                on_progress=lambda done, total: bars.update(task, completed=done, total=total),
            )
        except ValueError as error:
            raise InputError(str(error)) from None
        except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise InputError(f"{out}: cannot be written: {error.strerror}; choose another folder") from None
    if as_json:
        print_json(
            {
                "cohort": str(cohort.out),
                "seconds": round(cohort.seconds, 2),
                "best_auroc": dict(cohort.best_auroc),
                "sites": [
                    {"name": name, "path": str(path), "cases": num_cases} for name, path, num_cases in cohort.sites
                ],
            }
        )
    else:
        console.print(
            f"{sum(num_cases for *_, num_cases in cohort.sites)} patients at {len(cohort.sites)} sites in {out} "
            f"({cohort.seconds:.0f} s)" + ("" if without_images else f"; look at {out / 'contact_sheet.png'}"),
            highlight=False,
        )


@app.command()
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
            help="What a deep model starts from: a ResNet18's weights (safetensors), or a segmentation's model folder.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train among virtual sites on this machine, with the apps that real sites run."""
    from msfl_common.config.secrets import refuse_password
    from msfl_common.errors import InputError

    refuse_password(tracking_uri or "", "--tracking-uri", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if resume is not None:
        setup, folder = _resumed(resume, study, cohort, site, out), resume
    elif study is None or out is None or (cohort is None) == (site is None):
        raise InputError("expected STUDY.yaml, --output, and --cohort or --site; or --resume with a run's folder")
    else:
        setup, folder = _started(study, cohort, site or [], out, start_from), out
    from msfl_common.system.progress import console
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
        _show(summary, folder)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run, or of a study.")],
    as_json: Json = False,
) -> None:
    """Show a run's results again, finished or not."""
    from msfl_server.results.summary import read_summary

    if (out / "server.yaml").is_file():
        out = out / "run"
    summary = read_summary(out)
    if as_json:
        sys.stdout.write(summary.model_dump_json(indent=2) + "\n")
    else:
        _show(summary, out)


def _started(
    study_path: Path, cohort: Path | None, site_paths: list[Path], out: Path, start_from: Path | None
) -> RunSetup:
    """A new run; `out` becomes its folder."""
    from msfl_common.config.study import load_study
    from msfl_server.research.simulation.folder import start_run, virtual_sites

    study = load_study(study_path)
    return start_run(study, virtual_sites(cohort, site_paths, out, study), out, start_from)


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
            "--resume takes sites and settings from the run's folder; leave out --cohort, --site, --output"
        )
    setup = read_setup(resume)
    if study_path is not None and written_out(load_study(study_path)) != written_out(setup.study):
        raise InputError(f"{resume}: was started with other settings than {study_path}; leave the study file out")
    return setup


def _show(summary: Summary, out: Path) -> None:
    from msfl_common.system.progress import stdout_console
    from msfl_server.report.page import render_table

    console = stdout_console()
    render_table(summary, console)
    if summary.rounds_completed:
        console.print(f"report: {out / 'report.html'}   model: {out / summary.model}")
    if (out / "mlflow.db").is_file():  # a deployed study's curves, and those of --tracking-uri, lie elsewhere
        console.print(f"curves: mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}")
