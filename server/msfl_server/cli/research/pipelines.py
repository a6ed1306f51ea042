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
from msfl_server.cli.research.pipelines_view import show_parts

if TYPE_CHECKING:
    from msfl_server.research.small_cohort.pipelines import OnProgress

commands = Commands()
SLOW_FOREST = "the trees of this scikit-learn cannot be built directly: random forests (RF) take ten times as long"


class SearchName(StrEnum):
    """How hyperparameters are searched."""

    grid = "grid"
    random = "random"
    bayes = "bayes"


class TriedName(StrEnum):
    """With which pipelines classifiers are tried."""

    all = "all"
    standard = "standard"


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
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Of the twelve, separated by commas; without it, six, or all with --pipeline standard.",
        ),
    ] = None,
    tried: Annotated[
        TriedName,
        typer.Option(
            "--pipeline",
            metavar="PIPELINE",
            help="With which pipelines classifiers are tried: all; standard, rows and columns standardized, all "
            "features, to compare classifiers first.",
        ),
    ] = TriedName.all,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help="Tell apart these classes alone, NAME=CLASSES, such as 2-class=control,slow/fast: separated by "
            "commas, those with a slash between them as one; repeat it for several tasks. Without it, "
            "the study's classes.",
        ),
    ] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUBSET",
            help="Also with these columns alone, NAME=COLUMNS, such as qT1+FA=qT1_*,FA_*, and compare; repeat "
            "it for more.",
        ),
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
    test_all: Annotated[
        bool, typer.Option("--test-all", help="Test every pipeline by permutations; an hour and more with all of them.")
    ] = False,
    test_tuned: Annotated[
        bool,
        typer.Option(
            "--test-tuned",
            help="Test tuned classifiers by permutations, too, tuned anew for each: as long as so many searches.",
        ),
    ] = False,
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
    if test_tuned and not search:
        raise InputError("--test-tuned: no hyperparameters are tuned; add --search grid, random or bayes")
    if (test_all or test_tuned) and not permutations:
        raise InputError("--permutations 0: nothing can be tested with none; give a number, or leave out --test-all")
    from msfl_common.system.loading import loading, says_how_to_resume

    with says_how_to_resume(SAME_COMMAND), loading(LOADING):
        from msfl_server.research.simulation.folder import keep_study
        from msfl_server.research.small_cohort.classifiers import CLASSIFIERS, REFINED  # scikit-learn takes a second
        from msfl_server.research.small_cohort.comparison import comparison_document, write_comparison
        from msfl_server.research.small_cohort.forest import grows_the_same_trees
        from msfl_server.research.small_cohort.parts import plan_parts, run_parts
        from msfl_server.research.small_cohort.setup import PipelineSettings
        from msfl_server.research.small_cohort.space import COUNTS
        from msfl_server.research.small_cohort.subsets import read_subsets
        from msfl_server.research.small_cohort.table import alone_in_groups, constant_features, read_cases, row_groups
        from msfl_server.research.small_cohort.tasks import read_tasks

    asked = [name.strip() for name in classifiers.split(",")] if classifiers is not None else REFINED
    asked = [*CLASSIFIERS] if classifiers is None and tried is TriedName.standard else asked
    known = {name.lower(): name for name in CLASSIFIERS}
    if unknown := [name for name in asked if name.lower() not in known]:
        raise InputError(f"--classifiers: {no_such('classifier', unknown, tuple(CLASSIFIERS))}")
    names = tuple(known[name.lower()] for name in asked)
    cases, left_out = read_cases(table, section.outcome.column, section.outcome.classes, drop or (), section.declared)
    _say(
        "classification.features of the study has no effect here: every column of the tables is an input; leave one "
        "out with --drop"
        if section.features
        else ""
    )
    _say("--search-pipeline has no effect without --search" if search_pipeline.value != "best" and not search else "")
    groups = row_groups(cases.names, group_by, section.declared)
    alone = ", ".join(alone_in_groups(cases.names, groups))
    _say(f"0 in every case whose row is scaled, as alone in its group: {alone}; leave it out with --drop" * bool(alone))
    _say(f"{left_out} cases are left out: their label is n/a" if left_out else "")
    if same := constant_features(cases):
        _say(f"{len(same)} features are the same in every case and tell nothing, such as {same[0]}")
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
        pipelines=tried.value,
        test_all=test_all,
        test_tuned=test_tuned,
        groups=groups,
    )
    tasks, subsets = read_tasks(task or (), chosen.classes), read_subsets(subset or (), cases.names)
    planned = plan_parts(cases, chosen, out, tasks, subsets)
    with says_how_to_resume(SAME_COMMAND), _progress() as on_progress:
        parts = run_parts(planned, jobs or os.cpu_count() or 1, on_progress)
    keep_study(out, settings, assignments or [])
    document = comparison_document(parts)
    if len(parts) > 1:
        write_comparison(out, document, parts)
    if as_json:
        print_json(document if len(parts) > 1 else parts[0].document)
    else:
        show_parts(parts, document, out)


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
