"""The command of `msfl-server` that simulates a table of a small cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json
from msfl_server.cli.research.command import PANEL

commands = Commands()


@commands.command("make-table", rich_help_panel=PANEL)
def make_table(
    out: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE.tsv", help="File to write.")],
    patients: Annotated[
        int,
        typer.Option(min=18, max=9999, metavar="NUMBER", help="Participants: controls, slow and fast, a third each."),
    ] = 30,
    features: Annotated[
        int,
        typer.Option(
            "--num-features", min=3, max=9999, metavar="NUMBER", help="Features: regions in three maps, a third each."
        ),
    ] = 332,
    seed: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Equal seeds give equal files.")] = 0,
    as_json: Json = False,
) -> None:
    """Simulate a table for `pipelines`: mean values of regions in maps, of controls and two groups of patients."""
    from msfl_common.errors import InputError
    from msfl_common.system.files import write_text
    from msfl_common.system.progress import console
    from msfl_server.research.small_cohort.simulated_table import simulate_cases, table_text

    try:
        if out.exists():
            raise InputError(f"{out}: is there already; name another file with --output")
        write_text(out, table_text(simulate_cases(patients, features, seed)))
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; name another file with --output") from None
    if as_json:
        print_json({"table": str(out), "patients": patients, "features": features})
    else:
        console.print(f"{patients} participants with {features} features in {out}", highlight=False)
