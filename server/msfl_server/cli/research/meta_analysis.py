"""The command of `msfl-server` that takes studies together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json

if TYPE_CHECKING:
    from msfl_server.research.meta_analysis.analysis import Analysis

commands = Commands()


@commands.command(name="meta-analysis")
def meta_analysis(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE.tsv", help="A row a study: its name, estimate, and how sure that is.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for page and figures; without it, none."),
    ] = None,
    subgroup: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Compare the groups of this column, too; repeat it for more."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take published studies together: fixed and random effects, prediction, subgroups, funnel, risk of bias.

    Columns: study; estimate; standard_error, variance, ci95_low and ci95_high, sd and n, or events and n.
    """
    from msfl_common.errors import InputError
    from msfl_common.system.loading import loading

    with loading("loading statistics"):
        from msfl_server.research.meta_analysis.analysis import analyse
        from msfl_server.research.meta_analysis.table import read_studies

    studies = read_studies(table, subgroup or ())
    found = analyse(studies)
    if out is not None:
        from msfl_server.research.meta_analysis.report import JSON_FILE, write_analysis

        if out.is_dir() and any(out.iterdir()) and not (out / JSON_FILE).is_file():
            raise InputError(f"{out}: has files of something else; give a new folder as --output")
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_analysis(out, table.stem, found, studies.judgements)
        except OSError as error:
            raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --output") from None
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
    else:
        _show(found, out)


def _show(found: Analysis, out: Path | None) -> None:
    from rich.table import Table

    from msfl_common.system.progress import stdout_console
    from msfl_server.research.meta_analysis.report import (
        PAGE_FILE,
        RULE,
        digits_of,
        model_rows,
        say_heterogeneity,
        say_p,
    )

    digits, console = digits_of(found), stdout_console()
    table = Table(title=f"{found.num_studies} studies", caption=say_heterogeneity(found.heterogeneity))
    table.add_column("Model")
    for heading in ("Mean", "95% CI", "tau²"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in model_rows(found, digits):
        table.add_row(row["label"], row["mean"], row["interval"], row["tau2"], row["chosen"])
    if found.prediction95 is not None:
        low, high = found.prediction95
        table.add_row("A further study", "", f"{low:.{digits}f} to {high:.{digits}f}", "", "95% prediction interval")
    console.print(table)
    if found.leave_one_out:
        means = {name: one.random.mean for name, one in found.leave_one_out.items()}
        least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        console.print(
            f"Each study left out: random effects from {means[least]:.{digits}f} (without {least}) to "
            f"{means[most]:.{digits}f} (without {most})",
            soft_wrap=True,
            highlight=False,
        )
    lines = [f"The rule: {RULE}"]
    for column, groups in found.subgroups.items():
        lines.append(f"Groups by {column}, fixed effects: {say_heterogeneity(groups.between_fixed)}")
        if groups.between_random is not None:
            lines.append(f"Groups by {column}, random effects: {say_heterogeneity(groups.between_random)}")
    if found.egger is not None:
        lines.append(f"Egger's test: intercept {found.egger.intercept:.2f}, {say_p(found.egger.p)}")
    lines += found.notes
    if out is not None:
        lines.append(f"report: {out / PAGE_FILE}")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
