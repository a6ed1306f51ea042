"""Classes of a table put together and left out."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_server.research.small_cohort.tasks import Task, read_tasks, task_cases

CLASSES = ("control", "slow", "fast")


def test_tasks_are_classes_put_together_or_left_out() -> None:
    two, speed = read_tasks(["2-class=control,slow/fast", "speed=fast, slow"], CLASSES)
    assert two == Task("2-class", (("control",), ("slow", "fast")))
    assert two.labels == ("control", "slow/fast")
    labels = np.array([0, 1, 2, 2, 1, 0])
    cases = Dataset(("a",), np.arange(6.0)[:, None], labels, tuple("uvwxyz"))
    assert task_cases(cases, CLASSES, two).labels_N.tolist() == [0, 1, 1, 1, 1, 0]
    apart = task_cases(cases, CLASSES, speed)
    assert apart.labels_N.tolist() == [1, 0, 0, 1]  # fast is the first class of this task
    assert apart.patients == tuple("vwxy")
    assert apart.features_NP[:, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("2-class", "--task: expected NAME=..., such as"),
        ("2-class=control,", "--task: expected NAME=..., such as"),
        ("2 class=control,slow", "'2 class' is no name for a folder"),
        ("cells=control,slow", "'cells' is no name for a folder"),
        ("t=control,slw", "--task t: no such class: slw; did you mean slow?"),
        ("t=control,slow/control", "--task t: control is there twice"),
        ("t=control/slow", "--task t: expected two classes or more"),
    ],
)
def test_other_texts_are_refused_in_one_line(text, line) -> None:
    with pytest.raises(InputError) as caught:
        read_tasks([text], CLASSES)
    assert line in str(caught.value)
    with pytest.raises(InputError, match="--task t: is there twice"):
        read_tasks(["t=control,slow", "t=control,fast"], CLASSES)
