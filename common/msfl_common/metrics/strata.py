"""Groups of patients whom a task's first figure is told of by themselves: whether a model is as good for each of them.

Once, of the model that is handed out, and where a site's groups are large enough (`msfl_client.disclosure.strata`). The
mean over a group is a figure of its own patients, and no difference of models: groups differ in their lesions, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msfl_common.metrics.metric import Metric, Task

_FROM = {"sex": 1.0, "age": 40.0, "field_strength": 2.0}  # male; years; tesla


@dataclass(frozen=True)
class Group:
    """Some of the patients.

    Attributes:
        name: as a metric's name ends.
        title: in plain words.
    """

    name: str
    title: str


# The groups of each variable, in the order of their levels.
VARIABLES: dict[str, tuple[Group, ...]] = {
    "sex": (Group("women", "women"), Group("men", "men")),
    "age": (Group("under_40", "below 40 years"), Group("from_40", "40 years or older")),
    "field_strength": (Group("under_2t", "scanned below 2 T"), Group("from_2t", "scanned at 2 T or more")),
}
STRATIFIED: dict[Task, str] = {"lesion-segmentation": "dsc", "classification": "auroc"}


def level_of(variable: str, value: float) -> int:
    """Which of a variable's groups a patient belongs to: by sex (0 female, 1 male), age in years, or tesla."""
    return int(value >= _FROM[variable])


def strata_of(task: Task, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics of a task's groups, by name: `dsc_women` and the others."""
    base = STRATIFIED[task]
    return {
        stratum(base, group): replace(metrics[base], title=f"{metrics[base].title}, {group.title}", headline="")
        for groups in VARIABLES.values()
        for group in groups
    }


def stratum(base: str, group: Group) -> str:
    """The name of a figure of a group."""
    return f"{base}_{group.name}"
