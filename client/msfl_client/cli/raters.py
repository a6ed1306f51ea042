"""The command of `msfl-client` that makes one mask of several raters'."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msfl_client.data.raters import MergedMask

commands = Commands()


class MethodName(StrEnum):
    """How masks are merged."""

    majority = "majority"
    staple = "staple"


@commands.command("merge-masks")
def merge_masks_command(
    rater: Annotated[
        list[Path],
        typer.Option(metavar="DERIVATIVE", help="Folder with one rater's masks, as BIDS; repeat it for each rater."),
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DERIVATIVE", help="Folder to write, such as derivatives/lesions.")
    ],
    method: Annotated[
        MethodName,
        typer.Option(
            metavar="METHOD",
            help="majority: voxels that more than half of the raters drew; staple: each rater weighed by its estimated "
            "sensitivity and specificity.",
        ),
    ] = MethodName.majority,
    as_json: Json = False,
) -> None:
    """Make one lesion mask of several raters' for each case, and say how far they agree.

    What is written can be a site's `masks`. Exit code 1 where a case has no merged mask, 2 where none has.
    """
    from msfl_client.data.raters import merge_raters
    from msfl_common.system.progress import progress_bars

    with progress_bars() as bars:
        task = bars.add_task("Merging masks", total=None, note="")
        merged = merge_raters(
            rater, out, method.value, lambda done, total: bars.update(task, completed=done, total=total)
        )
    faults = [one for one in merged if one.fault]
    if as_json:
        print_json({"schema_version": 1, "method": method.value, "cases": [asdict(one) for one in merged]})
    else:
        _show(merged, rater, out)
    if faults:
        raise typer.Exit(1)


def _show(merged: Sequence[MergedMask], raters: Sequence[Path], out: Path) -> None:
    from statistics import fmean

    from rich.table import Table

    from msfl_client.data.raters import names_of
    from msfl_common.system.progress import stdout_console

    console = stdout_console(soft_wrap=True)
    done = [one for one in merged if not one.fault]
    table = Table(title="Raters against the merged mask", caption="means over cases; sensitivity by STAPLE")
    for heading in ("Rater", "DSC", "Lesion F1", "Volume, ml", "Sensitivity"):
        table.add_column(heading, justify="left" if heading == "Rater" else "right")
    for number, rater in enumerate(names_of(raters)):
        told = [one.sensitivity[number] for one in done if one.sensitivity[number] == one.sensitivity[number]]
        table.add_row(
            rater,
            f"{fmean(one.with_merged[number]['dsc'] for one in done):.3f}",
            f"{fmean(one.with_merged[number]['lesion_f1'] for one in done):.3f}",
            f"{fmean(one.volumes_ml[number] for one in done):.2f}",
            f"{fmean(told):.3f}" if told else "n/a",
        )
    console.print(table)
    between = {name: fmean((one.between or {})[name] for one in done) for name in ("dsc", "lesion_f1")}
    console.print(
        f"{len(done)} of {len(merged)} masks merged; every two raters agree with a mean DSC of {between['dsc']:.3f} "
        f"and lesion F1 of {between['lesion_f1']:.3f}; of each case: {out / 'agreement.tsv'}",
        highlight=False,
    )
    for one in merged:
        if one.fault:
            case = " ".join(part for part in (one.subject, one.visit) if part)
            console.print(f"{case} left out: {one.fault}", style="yellow")
