"""What `msfl-server pipelines` shows at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msfl_server.research.small_cohort.measures import Chance
    from msfl_server.research.small_cohort.parts import PartResults
    from msfl_server.research.small_cohort.results import PipelineResults


def show_parts(parts: Sequence[PartResults], document: Mapping[str, Any], out: Path) -> None:
    """The best pipelines of each part, what to expect of them, and what the parts have in common."""
    from msfl_common.system.progress import stdout_console

    console = stdout_console()
    for one in parts:
        _show(one.results, one.part.name)
    top, shortlist = document["top"], document["shortlist"]
    told = ", ".join(shortlist["classifiers"]) or "none"
    tasks = " in every task" if len(parts) > 1 else ""
    console.print(f"accuracy of {shortlist['accuracy_at_least']} or more{tasks}: {told}", highlight=False)
    if top["tested"]:
        console.print(
            f"top performers: {len(top['configurations'])} of {top['tested']} tested configurations reach an accuracy "
            f"of {top['at_least']['accuracy']} with z of {top['at_least']['z']:g}{tasks}",
            highlight=False,
        )
    _show_subsets(document["subsets"])
    console.print(f"report: {out / ('comparison.html' if len(parts) > 1 else 'report.html')}", highlight=False)


def _show(results: PipelineResults, part: str) -> None:
    from rich.table import Table

    from msfl_common.system.progress import stdout_console

    title = f"Best pipelines: {part}" if part else "Best pipelines"
    table = Table(title=title, caption="the best of many is best partly by luck; expect what is nested")
    for heading in ("Classifier", "Pipeline", "Accuracy", "95% CI", "z", "p"):
        table.add_column(heading, justify="left" if heading in ("Classifier", "Pipeline") else "right")
    for row in results.best:
        interval = f"{row.scored.low:.2f} to {row.scored.high:.2f}"
        figures = (f"{row.scored.metrics['accuracy']:.3f}", interval)
        table.add_row(row.classifier, row.pipeline.name, *figures, *_chance(row.chance))
    for tuned in results.tuned:
        interval = f"{tuned.scored.low:.2f} to {tuned.scored.high:.2f}"
        figures = (f"{tuned.scored.metrics['accuracy']:.3f}", interval)
        table.add_row(tuned.classifier, f"tuned by {tuned.search} search", *figures, *_chance(tuned.chance))
    console = stdout_console()
    console.print(table)
    nested = next(one for one in results.nested if one.classifier == "all").scored
    console.print(
        f"nested: accuracy {nested.metrics['accuracy']:.3f} ({nested.low:.2f} to {nested.high:.2f}) when the pipeline "
        "is chosen without the case",
        highlight=False,
    )


def _show_subsets(subsets: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    from msfl_common.system.progress import stdout_console

    if not subsets:
        return
    table = Table(title="Against all columns", caption="change of accuracy in percentage points; r: rank-biserial")
    for heading in ("Task", "Columns", "Classifier", "Change", "Better", "Worse", "r", "p"):
        table.add_column(heading, justify="left" if heading in ("Task", "Columns", "Classifier") else "right")
    for row in subsets:
        effect = row["pipelines"]
        p = "n/a" if effect["p"] is None else f"{effect['p']:.2g}"
        figures = (f"{100 * effect['median']:+.1f}", effect["num_better"], effect["num_worse"])
        table.add_row(
            row["task"], row["columns"], row["classifier"], *map(str, figures), f"{effect['rank_biserial']:+.2f}", p
        )
    stdout_console().print(table)


def _chance(chance: Chance | None) -> tuple[str, ...]:
    if chance is None:
        return ()
    return f"{chance.z:.1f}" if chance.z is not None else "n/a", f"{chance.p:.3f}"
