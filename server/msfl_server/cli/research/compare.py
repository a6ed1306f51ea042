"""The command of `msfl-server` that puts two runs side by side, or the arms of a study."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.errors import InputError
from msfl_common.system.command_line import Commands, Json, print_json
from msfl_server.cli.research.command import Assignments

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from msfl_server.research.comparison.compare import Comparison, Difference

commands = Commands()
BASIS = (
    "Differences are second less first. Their 95% intervals are as if other patients had been tested in each run; the "
    "same were, which as a rule makes them too wide: a paired one needs each patient's values, which leave no site. "
    "-: too few patients for an interval, or of a kind that has none."
)

OTHER_CASES = (
    "Two numbers of cases: a site withheld the figure in one run alone, or it is undefined in other patients. Such "
    "figures have no difference: it would be one of patients, not of models."
)


class AttackName(StrEnum):
    """What an attacked site does; see `research.arms.attacks`."""

    label_flip = "label-flip"
    sign_flip = "sign-flip"
    scale = "scale"
    nan = "nan"
    stale = "stale"
    collude = "collude"


@commands.command()
def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY.yaml|RUN_DIR",
            help="A study, whose arms are run; or the folder of a run, of a study, or of a cross-validation.",
        ),
    ],
    second: Annotated[
        Path | None, typer.Argument(metavar="RUN_DIR", help="After a run's folder: the one that is held against it.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(metavar="COHORT_DIR", help="Folder of BIDS folders, one a site.")
    ] = None,
    site: Annotated[list[Path] | None, typer.Option(metavar="SITE.yaml", help="A site's file; repeat it.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the runs; resumes what is there."),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS", help="Federated arms, separated by commas; without it, the study's own strategy."
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=100, metavar="NUMBER", help="Repetitions, with the study's seed and those after it."),
    ] = 1,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-site-out", help="Also train without each site, and measure that model there.")
    ] = False,
    attack: Annotated[
        AttackName | None,
        typer.Option(metavar="KIND", help="Also train with attacked sites: " + ", ".join(AttackName) + "."),
    ] = None,
    attacked: Annotated[
        str | None, typer.Option(metavar="SITES", help="With --attack: the attacked sites, separated by commas.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Runs at the same time; without it, as cores and memory allow."),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="MLflow server, whose password stands in MLFLOW_TRACKING_PASSWORD; without it, SQLite."
        ),
    ] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Put the arms of a study side by side, or two runs.

    Of STUDY.yaml: each site by itself, all patients in one place, and each strategy, on the same held-out patients and
    with as many optimiser steps; differences with intervals over patients. Everything is simulated here. Stop it with
    Ctrl-C; the same command resumes it.

    Of two folders: settings that differ, and figures of the same patients, overall and at each site; runs whose figures
    are of other endpoints, grids or test patients are refused by name.
    """
    if first.is_dir():
        options = {
            "--cohort": cohort, "--site": site, "--output": out, "--strategies": strategies, "--attack": attack,
            "--attacked": attacked, "--workers": workers, "--tracking-uri": tracking_uri, "--set": assignments,
            "--leave-one-site-out": leave_one_out or None, "--seeds": None if seeds == 1 else seeds,
        }  # fmt: skip
        _compare_runs(first, second, [name for name, value in options.items() if value], as_json)
        return
    if second is not None:
        raise InputError(f"{first} is no folder of a run; expected two folders, or one STUDY.yaml with --output")
    from msfl_server.cli.research.arms import Asked, compare_arms

    compare_arms(
        Asked(
            study=first,
            assignments=assignments or (),
            cohort=cohort,
            sites=site or (),
            out=out,
            strategies=strategies,
            num_seeds=seeds,
            leave_one_out=leave_one_out,
            attack=attack.value if attack is not None else None,
            attacked=attacked,
            jobs=workers,
            tracking_uri=tracking_uri,
        ),
        as_json,
    )


def _compare_runs(first: Path, second: Path | None, unused: list[str], as_json: bool) -> None:
    if second is None:
        raise InputError(f"{first}: is the folder of a run; expected a second one to hold it against, or STUDY.yaml")
    if unused:
        raise InputError(f"{', '.join(unused)}: for the arms of a STUDY.yaml; two runs are compared as they are")
    from msfl_server.research.comparison.compare import compare as compare_runs
    from msfl_server.research.comparison.measured import read_measured

    found = compare_runs(read_measured(first), read_measured(second))
    if as_json:
        print_json(found.document())
    else:
        from msfl_common.system.progress import stdout_console

        _show(stdout_console(), found)


def _show(console: Console, found: Comparison) -> None:
    from rich.table import Table

    from msfl_common.metrics.registry import ALL_METRICS, HEADLINE

    if found.settings:
        settings = Table("setting", "first", "second")
        for key, values in found.settings.items():
            settings.add_row(key, *("-" if value is None else str(value) for value in values))
        console.print(settings)
    else:
        console.print("No setting differs.")
    console.print(_table("metric", found.overall, {name: ALL_METRICS[name].title for name in found.overall}))
    headline = {name: title for titles in HEADLINE.values() for name, title in titles.items()}
    for name, title in headline.items():
        parts = {part: values[name] for part, values in found.parts.items() if name in values}
        if parts:
            console.print(_table(title, parts, {part: part for part in parts}, name))
    if found.missing:
        console.print(f"One run alone told {', '.join(ALL_METRICS[name].title for name in found.missing)}.")
    if found.overall:
        console.print(BASIS, soft_wrap=True)
    if any(one.difference is None for values in (found.overall, *found.parts.values()) for one in values.values()):
        console.print(OTHER_CASES, soft_wrap=True)


def _table(what: str, rows: Mapping[str, Difference], titles: Mapping[str, str], metric: str | None = None) -> Table:
    from rich.table import Table

    from msfl_server.report.charts import format_interval, format_value

    table = Table(what)
    for heading in ("first", "second", "difference", "95% CI", "cases"):
        table.add_column(heading, justify="right")
    for key, one in rows.items():
        name = metric or key
        counts = (one.first.num_cases, one.second.num_cases)
        table.add_row(
            titles[key],
            *(
                f"{format_value(name, value.mean)} ({format_interval(name, value.low, value.high)})"
                if value.low is not None
                else format_value(name, value.mean)
                for value in (one.first, one.second)
            ),
            "-" if one.difference is None else ("+" if one.difference > 0 else "") + format_value(name, one.difference),
            format_interval(name, one.low, one.high) if one.low is not None else "-",
            str(counts[0]) if counts[0] == counts[1] else f"{counts[0]} and {counts[1]}",
        )
    return table
