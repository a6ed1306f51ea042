"""The command of `msfl-server` that tries many pipelines on few cases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json
from msfl_server.cli.research.command import LOADING, PANEL, SAME_COMMAND, Assignments, ResearchCommand

if TYPE_CHECKING:
    from msfl_server.research.small_cohort.pipelines import OnProgress
    from msfl_server.research.small_cohort.results import PipelineResults

commands = Commands()
SLOW_FOREST = "the trees of this scikit-learn cannot be built directly: random forests (RF) take ten times as long"


class SearchName(StrEnum):
    """How hyperparameters are searched."""

    grid = "grid"
    random = "random"
    bayes = "bayes"


class SearchPipelineName(StrEnum):
    """With which pipeline hyperparameters are searched."""

    best = "best"
    standard = "standard"


@commands.command(cls=ResearchCommand, rich_help_panel=PANEL)
def pipelines(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study with the task classification.")],
    table: Annotated[
        list[Path],
        typer.Option(metavar="TABLE.tsv", help="Features and the label, a row a case; several are joined."),
    ],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="RUN_DIR", help="Folder for the results; resumes what is there."),
    ],
    classifiers: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Of the twelve, separated by commas; without it, six.")
    ] = None,
    search: Annotated[
        list[SearchName] | None,
        typer.Option(
            metavar="SEARCH", help="Also tune hyperparameters; repeat it to compare searches: grid, random, bayes."
        ),
    ] = None,
    search_pipeline: Annotated[
        SearchPipelineName,
        typer.Option(
            metavar="PIPELINE",
            help="With which pipeline hyperparameters are tuned: best, each classifier's, chosen without the case that "
            "is left out; standard, rows and columns standardized, all features.",
        ),
    ] = SearchPipelineName.best,
    permutations: Annotated[
        int, typer.Option(min=0, max=10_000, metavar="NUMBER", help="Permutations of the labels.")
    ] = 50,
    best: Annotated[
        int,
        typer.Option(
            "--num-tested",
            min=1,
            metavar="NUMBER",
            help="The best pipelines of each classifier, so many of them, are tested by permutations.",
        ),
    ] = 10,
    count: Annotated[
        list[int] | None,
        typer.Option(
            "--num-selected",
            min=1,
            metavar="NUMBER",
            help="Features that a selection keeps; repeat it for more; without it 10, 25, 50, 100, 150.",
        ),
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="A column to leave out.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="SEPARATOR",
            help="Scale a case within groups: names alike up to this text. Clinical values are in none.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--workers", min=1, metavar="NUMBER", help="Processes at the same time; without it, one a core."),
    ] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Try every pipeline of scaling, selection and reduction with each classifier, on cases in one place.

    Leave-one-out, every step fitted inside the fold, with permutation tests and a nested estimate. Stop it with Ctrl-C;
    the same command resumes it.
    """
    from msfl_common.config.assignments import load_study_with
    from msfl_common.config.spelling import no_such
    from msfl_common.errors import InputError

    settings = load_study_with(study, assignments or [])
    section = settings.classification
    if section is None or settings.regression is not None or section.outcome.column is None:
        raise InputError(f"{study}: expected the task classification with outcome.column, the label's column")
    from msfl_common.system.loading import loading, says_how_to_resume

    with says_how_to_resume(SAME_COMMAND), loading(LOADING):
        from msfl_server.research.simulation.folder import keep_study
        from msfl_server.research.small_cohort.classifiers import CLASSIFIERS, REFINED  # scikit-learn takes a second
        from msfl_server.research.small_cohort.forest import grows_the_same_trees
        from msfl_server.research.small_cohort.pipelines import run_pipelines
        from msfl_server.research.small_cohort.report import write_page
        from msfl_server.research.small_cohort.results import results_document, write_results
        from msfl_server.research.small_cohort.setup import PipelineSettings
        from msfl_server.research.small_cohort.space import COUNTS
        from msfl_server.research.small_cohort.table import alone_in_groups, read_cases, row_groups

    asked = [name.strip() for name in classifiers.split(",")] if classifiers is not None else REFINED
    known = {name.lower(): name for name in CLASSIFIERS}
    if unknown := [name for name in asked if name.lower() not in known]:
        raise InputError(f"--classifiers: {no_such('classifier', unknown, tuple(CLASSIFIERS))}")
    names = tuple(known[name.lower()] for name in asked)
    cases, left_out = read_cases(table, section.outcome.column, section.outcome.classes, drop or ())
    _say(
        "classification.features of the study has no effect here: every column of the tables is an input; leave one "
        "out with --drop"
        if section.features
        else ""
    )
    _say("--search-pipeline has no effect without --search" if search_pipeline.value != "best" and not search else "")
    groups = row_groups(cases.names, group_by)
    alone = ", ".join(alone_in_groups(cases.names, groups))
    _say(f"0 in every case whose row is scaled, as alone in its group: {alone}; leave it out with --drop" * bool(alone))
    _say(f"{left_out} cases are left out: their label is n/a" if left_out else "")
    _say(SLOW_FOREST if "RF" in names and not grows_the_same_trees() else "")
    chosen = PipelineSettings(
        study=settings.name,
        classes=section.outcome.classes,
        seed=settings.seed,
        classifiers=tuple(dict.fromkeys(names)),
        counts=tuple(count or COUNTS),
        permutations=permutations,
        best=best,
        searches=tuple(dict.fromkeys(one.value for one in search or ())),
        search_pipeline=search_pipeline.value,
        groups=groups,
    )
    with says_how_to_resume(SAME_COMMAND), _progress() as on_progress:
        results = run_pipelines(cases, chosen, out, jobs or os.cpu_count() or 1, on_progress)
    keep_study(out, settings, assignments or [])
    document = results_document(results, cases, chosen)
    write_results(out, results, document)
    write_page(out, results, document)
    if as_json:
        print_json(document)
    else:
        _show(results, out)


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar for each stage; cells of an earlier run count as done from the start."""
    from msfl_common.system.progress import console, progress_bars

    with progress_bars() as bars:
        tasks = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                note = f"{done} done before" if done else ""
                tasks[stage] = bars.add_task(stage, total=total, completed=done, note=note)
                if bars.disable:
                    console.print(f"{stage}: {total} parts{note and ', ' + note}")
            bars.update(tasks[stage], completed=done)
            if done == total:
                console.print(f"{stage}: {total} of {total} parts done")

        yield on_progress


def _say(line: str) -> None:
    from msfl_common.system.progress import console

    if line:
        console.print(line)


def _show(results: PipelineResults, out: Path) -> None:
    from rich.table import Table

    from msfl_common.system.progress import stdout_console

    table = Table(title="Best pipelines", caption="the best of many is best partly by luck; expect what is nested")
    for heading in ("Classifier", "Pipeline", "Accuracy", "95% CI", "z", "p"):
        table.add_column(heading, justify="left" if heading in ("Classifier", "Pipeline") else "right")
    for row in results.best:
        chance = (
            (f"{row.chance.z:.1f}" if row.chance.z is not None else "n/a", f"{row.chance.p:.3f}") if row.chance else ()
        )
        interval = f"{row.scored.low:.2f} to {row.scored.high:.2f}"
        figures = (f"{row.scored.metrics['accuracy']:.3f}", interval)
        table.add_row(row.classifier, row.pipeline.name, *figures, *chance)
    console = stdout_console()
    console.print(table)
    nested = next(one for one in results.nested if one.classifier == "all").scored
    console.print(
        f"nested: accuracy {nested.metrics['accuracy']:.3f} ({nested.low:.2f} to {nested.high:.2f}) when the pipeline "
        f"is chosen without the case\nreport: {out / 'report.html'}",
        highlight=False,
    )
