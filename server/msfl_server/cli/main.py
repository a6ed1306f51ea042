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

from msfl_common.system.cli import DEBUG_HINT, run_app
from msfl_server.cli.cross_validation import commands as cross_validation_commands
from msfl_server.cli.federation import commands as federation_commands
from msfl_server.cli.ledger import commands as ledger_commands
from msfl_server.cli.pipelines import commands as pipelines_commands
from msfl_server.cli.study import commands as study_commands

if TYPE_CHECKING:
    from msfl_server.research.simulation.folder import RunSetup
    from msfl_server.results.summary import Summary

app = typer.Typer(
    rich_markup_mode="markdown",  # paragraphs flow with the terminal's width
    help="Run federated studies of MS MRI, deployed or simulated.",
    epilog=DEBUG_HINT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(study_commands)
app.add_typer(federation_commands)
app.add_typer(ledger_commands)
app.add_typer(cross_validation_commands)
app.add_typer(pipelines_commands)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]


class BackendName(StrEnum):
    """Where virtual sites run."""

    inprocess = "inprocess"
    ray = "ray"


def main() -> None:
    """Entry point of `msfl-server`."""
    run_app(app)


@app.callback()
def _commands() -> None:
    """Run federated studies of MS MRI, deployed or simulated."""


@app.command("make-cohort", epilog=DEBUG_HINT)
def make_cohort_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; one BIDS folder per site.")],
    sites: Annotated[int, typer.Option(min=1, max=1000, help="Number of sites.")] = 3,
    cases: Annotated[int, typer.Option(min=1, max=9999, help="Patients with MS per site, two sessions each.")] = 12,
    nmosd: Annotated[int, typer.Option(min=0, max=9999, help="Patients with NMOSD per site, besides.")] = 0,
    controls: Annotated[int, typer.Option(min=0, max=9999, help="Healthy controls per site, besides.")] = 0,
    records: Annotated[
        bool, typer.Option("--records", help="Tables and features alone, without images: thousands in a minute.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal files.")] = 0,
    spacing: Annotated[float, typer.Option(min=0.8, max=4.0, help="Voxel size, mm.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Simulate patients with MS on real anatomy at sites with scanners of their own."""
    from msfl_common.errors import InputError
    from msfl_common.system.progress import console, progress_bars
    from msfl_server.research.simulated_cohort import make_cohort, make_records

    make = make_records if records else partial(make_cohort, spacing_mm=spacing)
    with progress_bars() as bars:
        task = bars.add_task("Simulating patients", total=sites * (cases + nmosd + controls), note="")
        try:
            cohort = make(
                out,
                num_sites=sites,
                cases_per_site=cases,
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
        _print_json(
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
            f"({cohort.seconds:.0f} s)" + ("" if records else f"; look at {out / 'contact_sheet.png'}"),
            highlight=False,
        )


@app.command(epilog=DEBUG_HINT)
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
    as_json: Json = False,
) -> None:
    """Train among virtual sites on this machine, with the apps that real sites run."""
    from msfl_common.errors import InputError

    if resume is not None:
        setup, folder = _resumed(resume, study, cohort, site, out), resume
    elif study is None or out is None or (cohort is None) == (site is None):
        raise InputError("expected STUDY.yaml, --out, and --cohort or --site; or --resume with a run's folder")
    else:
        setup, folder = _started(study, cohort, site or [], out, start_from), out
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.progress import console, warn

    warn(warnings := unused_settings(setup.study))
    from msfl_server.research.simulation.run import (
        run_simulated,  # torch and MLflow take seconds: only for a run that can start
    )

    try:
        summary = run_simulated(setup, folder, backend.value, tracking_uri)
    except KeyboardInterrupt:
        console.print(f"completed rounds are kept; `msfl-server simulate --resume {folder}` goes on")
        raise
    if as_json:
        _print_json({**summary.model_dump(mode="json"), "warnings": warnings})
    else:
        _show(summary, folder)


@app.command(epilog=DEBUG_HINT)
def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a run, or of a study.")],
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


def _show(summary: Summary, out: Path) -> None:
    from msfl_common.system.progress import stdout_console
    from msfl_server.report.page import render_table

    console = stdout_console()
    render_table(summary, console)
    if summary.rounds_completed:
        console.print(f"report: {out / 'report.html'}   model: {out / summary.model}")
    if (out / "mlflow.db").is_file():  # a deployed study's curves, and those of --tracking-uri, lie elsewhere
        console.print(f"curves: mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}")


def _print_json(document: object) -> None:
    import json

    sys.stdout.write(json.dumps(document, indent=2) + "\n")
