"""The command of `msfl-server` that puts two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

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


@commands.command()
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run, of a study, or of a cross-validation.")
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The one that is held against it.")],
    as_json: Json = False,
) -> None:
    """Put two runs side by side: settings that differ, and figures of the same patients, overall and at each site.

    Refuses runs whose figures are of other endpoints, grids or test patients, by name.
    """
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
