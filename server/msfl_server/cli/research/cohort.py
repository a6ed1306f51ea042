"""The command of `msfl-server` that simulates patients."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.cli import DEBUG_HINT
from msfl_server.cli.research.command import PANEL, ResearchCommand

commands = typer.Typer()


@commands.command("make-cohort", cls=ResearchCommand, rich_help_panel=PANEL, epilog=DEBUG_HINT)
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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
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
        document = {
            "cohort": str(cohort.out),
            "seconds": round(cohort.seconds, 2),
            "best_auroc": dict(cohort.best_auroc),
            "sites": [{"name": name, "path": str(path), "cases": num_cases} for name, path, num_cases in cohort.sites],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        console.print(
            f"{sum(num_cases for *_, num_cases in cohort.sites)} patients at {len(cohort.sites)} sites in {out} "
            f"({cohort.seconds:.0f} s)" + ("" if records else f"; look at {out / 'contact_sheet.png'}"),
            highlight=False,
        )
