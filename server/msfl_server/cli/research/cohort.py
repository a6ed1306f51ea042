"""The command of `msfl-server` that simulates patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json
from msfl_server.cli.research.command import PANEL, ResearchCommand

commands = Commands()


@commands.command("make-cohort", cls=ResearchCommand, rich_help_panel=PANEL)
def make_cohort_command(
    out_before: Annotated[Path | None, typer.Argument(metavar="COHORT_DIR", hidden=True, help="As --output.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="COHORT_DIR",
            help="Folder to write, one BIDS folder per site; an earlier simulated cohort there is replaced.",
        ),
    ] = None,
    sites: Annotated[int, typer.Option(min=1, max=1000, metavar="NUMBER", help="Number of sites.")] = 3,
    patients: Annotated[int, typer.Option(min=1, max=9999, metavar="NUMBER", help="Patients with MS per site.")] = 12,
    nmosd: Annotated[
        int, typer.Option(min=0, max=9999, metavar="NUMBER", help="Patients with NMOSD per site, besides.")
    ] = 0,
    controls: Annotated[
        int, typer.Option(min=0, max=9999, metavar="NUMBER", help="Healthy controls per site, besides.")
    ] = 0,
    visits: Annotated[
        int,
        typer.Option(
            min=2,
            max=20,
            metavar="NUMBER",
            help="Visits of each patient, a year apart. Of more than two, lesions, atrophy, EDSS and subscores evolve "
            "from year to year, and about a tenth of the years are active.",
        ),
    ] = 2,
    active: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.95,
            metavar="SHARE",
            help="Share of patients in whom lesions appear or grow within the year; without it, 0.05 to 0.25, each "
            "site's own. A study of new lesions needs more.",
        ),
    ] = None,
    without_images: Annotated[
        bool,
        typer.Option("--without-images", help="Clinical tables and tables of features alone: thousands in a minute."),
    ] = False,
    with_fa: Annotated[
        bool,
        typer.Option(
            "--with-fa",
            help="A map of fractional anisotropy beside each scan, too; in white matter it falls by 0.012 with each "
            "point of the EDSS.",
        ),
    ] = False,
    with_black_holes: Annotated[
        bool,
        typer.Option(
            "--with-black-holes",
            help="Lesion masks are 2 where a lesion is dark on T1w, else 1, for a study with inputs.lesion_classes: "
            "[lesion, black-hole].",
        ),
    ] = False,
    with_octants: Annotated[
        bool,
        typer.Option(
            "--with-octants",
            help="A label image of the eight octants of the brain beside each scan, too, as a parcellation of a site's "
            "own.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Equal seeds give equal files.")] = 0,
    spacing: Annotated[float, typer.Option(min=1.0, max=4.0, metavar="MM", help="Voxel size, mm.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Simulate patients with MS on real anatomy at sites with scanners of their own."""
    from msfl_common.errors import InputError
    from msfl_common.system.progress import console
    from msfl_common.system.words import counted
    from msfl_server.research.simulated_cohort import simulate_cohort

    if (out is None) == (out_before is None):
        raise InputError("expected --output with the folder to write")
    out = out or out_before
    assert out is not None
    cohort = simulate_cohort(
        out,
        num_sites=sites,
        num_patients=patients,
        num_nmosd=nmosd,
        num_controls=controls,
        active=active,
        with_images=not without_images,
        with_fa=with_fa,
        with_black_holes=with_black_holes,
        with_octants=with_octants,
        num_visits=visits,
        seed=seed,
        spacing_mm=spacing,
    )
    if as_json:
        print_json(
            {
                "cohort": str(cohort.out),
                "seconds": round(cohort.seconds, 2),
                "best_auroc": dict(cohort.best_auroc),
                "sites": [{"name": name, "path": str(path), "patients": count} for name, path, count in cohort.sites],
            }
        )
    else:
        console.print(
            f"{counted(sum(count for *_, count in cohort.sites), 'patient')} at {counted(len(cohort.sites), 'site')} "
            f"in {out} ({cohort.seconds:.0f} s)" + ("" if without_images else f"; look at {out / 'contact_sheet.png'}"),
            highlight=False,
        )
