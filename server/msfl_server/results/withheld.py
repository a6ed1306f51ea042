"""Which metrics the sites did not tell of the final model, and what a person is told of it."""

from __future__ import annotations

from collections.abc import Mapping

from msfl_common.config.base import Task
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.registry import ALL_METRICS, STRATA, TASK_METRICS, class_metrics_in
from msfl_common.metrics.segmentation import is_native
from msfl_common.secure_aggregation.layout import POOLED

_WHY: dict[Task, str] = {
    "lesion-segmentation": "defined in fewer patients than min_patients, of a class of lesions where few have another, "
    "or on own grids in others than on the study's",
    "new-lesions": "defined in fewer patients than min_patients, with new lesions or without",
    "classification": "fewer patients than min_patients of one class, or predicted as one; or undefined",
    "regression": "undefined, as of one prediction for all",
}


def withheld_metrics(task: Task, disclosed: Mapping[str, ValidationMetrics]) -> dict[str, tuple[str, ...]]:
    """Metric to the sites that told other figures of the same patients, but not this one; a site may not say why.

    Those on the patients' own grids are expected with the last round, once any site tells one; those of a class of
    lesions, once any site tells one of it.
    """
    told_of_any = {name for metrics in disclosed.values() for name in metrics.estimates}
    own_grids = any(is_native(name) for name in told_of_any)
    expected = [name for name in TASK_METRICS[task] if name not in STRATA and (own_grids or not is_native(name))]
    expected += class_metrics_in(told_of_any)
    missing = {
        name: tuple(sorted(site for site, metrics in disclosed.items() if name not in metrics.estimates))
        for name in expected
    }
    return {name: sites for name, sites in missing.items() if sites}


def say_withheld(task: Task, withheld: Mapping[str, tuple[str, ...]], num_sites: int) -> str:
    """One line: which metrics, which sites, and why; empty where every site told every metric.

    Args:
        task: what the model learned.
        withheld: as `withheld_metrics` gives it.
        num_sites: sites of the study.
    """
    titles: dict[tuple[str, ...], list[str]] = {}
    for name, sites in withheld.items():
        titles.setdefault(sites, []).append(ALL_METRICS[name].title)
    parts = [f"{_by(sites, num_sites)}: {', '.join(names)}" for sites, names in titles.items()]
    return f"Withheld {'; '.join(parts)} ({_WHY[task]})." if parts else ""


def _by(sites: tuple[str, ...], num_sites: int) -> str:
    if sites == (POOLED,):
        return "by every site, or by so many that fewer than secure_aggregation.min_sites tell it"
    return f"by {'every site' if len(sites) == num_sites else ', '.join(sites)}"
