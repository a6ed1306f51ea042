"""Several tasks on one table: classes of the study put together, or left out.

After Appukuttan et al. (2025), section 3: controls against patients, controls against slow and fast patients, slow
against fast.

Legend: N cases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msfl_common.config.spelling import no_such
from msfl_common.dataset import Dataset
from msfl_common.errors import InputError

# Of folders that a run has beside those of its parts.
RESERVED = ("all", "cells")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")


@dataclass(frozen=True)
class Task:
    """What is told apart.

    Attributes:
        name: of the task and of its folder.
        classes: each class of the task, as classes of the study.
    """

    name: str
    classes: tuple[tuple[str, ...], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names: a class of the study, or several with a slash between them."""
        return tuple("/".join(members) for members in self.classes)


def read_tasks(texts: Sequence[str], classes: Sequence[str]) -> tuple[Task, ...]:
    """Tasks as they are written on a command line.

    Args:
        texts: each `NAME=CLASS,CLASS/CLASS`: classes of the study, separated by commas; a slash puts two together.
        classes: of the study.

    Raises:
        InputError: a text that is no task of these classes.
    """
    found: list[Task] = []
    for text in texts:
        name, parts = read_named("--task", text, "2-class=control,slow/fast")
        task = Task(name, tuple(tuple(one.strip() for one in part.split("/")) for part in parts))
        members = [one for part in task.classes for one in part]
        if unknown := [one for one in members if one not in classes]:
            raise InputError(f"--task {name}: {no_such('class', unknown, tuple(classes))}")
        if twice := sorted({one for one in members if members.count(one) > 1}):
            raise InputError(f"--task {name}: {twice[0]} is there twice; a class is in one place alone")
        if len(task.classes) < 2:
            raise InputError(f"--task {name}: expected two classes or more, separated by commas, found {text}")
        if name in [one.name for one in found]:
            raise InputError(f"--task {name}: is there twice; give each a name of its own")
        found.append(task)
    return tuple(found)


def read_named(option: str, text: str, example: str) -> tuple[str, tuple[str, ...]]:
    """Name and parts of `NAME=PART,PART`.

    Raises:
        InputError: it is nothing like it, or the name is no name of a folder.
    """
    name, mark, rest = text.partition("=")
    parts = tuple(part.strip() for part in rest.split(","))
    if not mark or not all(parts):
        raise InputError(f"{option}: expected NAME=..., such as {example}, found {text!r}")
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"{option}: {name!r} is no name for a folder; expected letters, digits, dots, dashes, underscores and plus "
            f"signs, at most 32, the first a letter or a digit, and not {' or '.join(RESERVED)}"
        )
    return name, parts


def task_cases(cases: Dataset, classes: Sequence[str], task: Task) -> Dataset:
    """The cases of a task, labelled with its classes; those of no class of it are left out."""
    of = {classes.index(member): number for number, members in enumerate(task.classes) for member in members}
    rows = np.array([row for row, label in enumerate(cases.labels_N) if int(label) in of], np.intp)
    return Dataset(
        cases.names,
        cases.features_NP[rows],
        np.array([of[int(label)] for label in cases.labels_N[rows]], np.int64),
        tuple(cases.patients[row] for row in rows),
    )
