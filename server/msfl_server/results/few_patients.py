"""Which figures rest on so few patients that others may give quite other figures, and what a person is told of it."""

from __future__ import annotations

from collections.abc import Mapping

from msfl_common.config.base import Task
from msfl_common.metrics.classification import class_metrics
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE, STRATA
from msfl_common.metrics.strata import STRATIFIED
from msfl_server.results.chosen import FEW_PATIENTS
from msfl_server.results.summary import MetricSummary


def metrics_of_few(task: Task, metrics: Mapping[str, MetricSummary]) -> dict[str, int]:
    """Metric to the patients behind it, of the first ones and those of groups, where they rest on fewer than 20."""
    behind = {name: metrics[name].num_patients for name in (*HEADLINE[task], *STRATA) if name in metrics}
    return {name: count for name, count in behind.items() if count is not None and count < FEW_PATIENTS}


def say_few(few: Mapping[str, int], metrics: Mapping[str, MetricSummary], num_sites: int) -> str:
    """One line: which metrics, and how few patients; empty where none is of few.

    Args:
        few: as `metrics_of_few` gives it.
        metrics: the figures.
        num_sites: sites of the study.
    """
    titles: dict[tuple[str, int], list[str]] = {}
    for name, count in few.items():
        titles.setdefault((counted(name, count), metrics[name].num_sites), []).append(ALL_METRICS[name].title)
    parts = [f"{', '.join(names)}: {told}, at {sites} of {num_sites} sites" for (told, sites), names in titles.items()]
    return f"From few patients, others may give quite other figures: {'; '.join(parts)}." if parts else ""


def say_sites(metric: MetricSummary, num_sites: int) -> str:
    """Beside a headline, at how few of a study's sites it was measured; empty where all told it."""
    return "" if metric.num_sites >= num_sites else f"at {metric.num_sites} of {num_sites} sites"


def counted(name: str, count: int) -> str:
    """So many patients, of the class that has fewest where a metric holds classes against each other."""
    bases = (name, *(base for base in STRATIFIED.values() if name in STRATA and name.startswith(f"{base}_")))
    of_class = " of the smaller class" if set(bases) & set(class_metrics()) else ""
    return f"{count} patient{'' if count == 1 else 's'}{of_class}"
