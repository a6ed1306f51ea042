"""A run of several tasks and subsets of columns: each a run of pipelines in a folder of its own, then compared.

Without tasks and subsets, a run has one part, the folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_server.research.small_cohort.files import results_document, write_results
from msfl_server.research.small_cohort.pipelines import OnProgress, run_pipelines
from msfl_server.research.small_cohort.report import write_page
from msfl_server.research.small_cohort.results import PipelineResults
from msfl_server.research.small_cohort.setup import SETUP_FILE, PipelineSettings, check_cases
from msfl_server.research.small_cohort.subsets import Subset, subset_cases
from msfl_server.research.small_cohort.tasks import Task, task_cases


@dataclass(frozen=True)
class Part:
    """One task with one subset of the columns.

    Attributes:
        task: its name; empty where the study's classes are told apart as they are.
        subset: its name; empty of all columns.
        folder: of its run.
        cases, settings: what its run is given.
    """

    task: str
    subset: str
    folder: Path
    cases: Dataset
    settings: PipelineSettings

    @property
    def name(self) -> str:
        """The part in a line; empty where there is no other."""
        return ", ".join(one for one in (self.task, self.subset) if one)


@dataclass(frozen=True)
class PartResults:
    """What a part gave."""

    part: Part
    results: PipelineResults
    document: Mapping[str, Any]


def plan_parts(
    cases: Dataset, settings: PipelineSettings, out: Path, tasks: Sequence[Task], subsets: Sequence[Subset]
) -> tuple[Part, ...]:
    """Every task with all columns, then with each subset.

    Args:
        cases: of all classes of the study, with all columns.
        settings: of a run of the study's own classes.
        out: folder of all parts.
        tasks: none: the study's classes.
        subsets: beside all columns.

    Raises:
        InputError: a task has too few patients of a class, or `out` holds something else.
    """
    parts = []
    for task in tasks or (None,):
        told = (cases, settings, out)
        if task is not None:
            own = replace(settings, study=f"{settings.study}, {task.name}", classes=task.labels)
            told = task_cases(cases, settings.classes, task), own, out / task.name
        name = task.name if task is not None else ""
        parts.append(Part(name, "", told[2], told[0], told[1]))
        for subset in subsets:
            groups = settings.groups and tuple(settings.groups[column] for column in subset.columns)
            own = replace(told[1], study=f"{told[1].study}, {subset.name}", groups=groups)
            parts.append(Part(name, subset.name, told[2] / subset.name, subset_cases(told[0], subset), own))
    for part in parts:
        try:
            check_cases(part.cases, part.settings.classes)
        except InputError as error:
            raise InputError(f"--task {part.task}: {error}" if part.task else str(error)) from None
    if (
        tasks
        and out.is_dir()
        and any(out.iterdir())
        and not any((out / one.name / SETUP_FILE).exists() for one in tasks)
    ):
        raise InputError(f"{out}: is not empty and holds no run of these tasks; choose another --output")
    return tuple(parts)


def run_parts(parts: Sequence[Part], jobs: int, on_progress: OnProgress) -> list[PartResults]:
    """Run each part, or resume it, and write its files and its page."""
    found = []
    for part in parts:

        def tell(stage: str, done: int, total: int, name: str = part.name) -> None:
            on_progress(f"{name}: {stage}" if name else stage, done, total)

        results = run_pipelines(part.cases, part.settings, part.folder, jobs, tell)
        document = results_document(results, part.cases, part.settings)
        write_results(part.folder, results, document)
        write_page(part.folder, results, document)
        found.append(PartResults(part, results, document))
    return found
