"""Which metrics can choose the model that a study hands out, and which studies can choose."""

from __future__ import annotations

from collections.abc import Sequence

from msfl_common.config.classification import Classification
from msfl_common.metrics.metric import LesionClass, Metric, Task
from msfl_common.strategies.base import Strategy


def check_best_by(
    name: str | None,
    patience: int | None,
    tasks: Sequence[Task],
    strategy: Strategy | None,
    settings: Classification | None,
    classes: Sequence[LesionClass] = (),
) -> None:
    """Refuse a study that cannot choose its model as it says.

    Args:
        name: the metric.
        patience: validations that it waits for a better one.
        tasks: what its stages learn.
        strategy: of networks.
        settings: of a classification.
        classes: of lesions, that are told apart.

    Raises:
        ValueError: says which setting, and what to do.
    """
    if name is None:
        if patience is not None:
            raise ValueError(
                "validation.patience: without effect as long as no round counts as the best; add validation.best_by, "
                "such as dsc or auroc"
            )
        return
    from msfl_common.metrics.registry import ALL_METRICS, TASK_METRICS, metrics_of  # heavy, and needed by few studies

    known = [one for task in tasks for one in metrics_of(task, classes)]
    fit = ", ".join(one for one in known if _unfit(one, ALL_METRICS[one]) is None)
    if name not in known:
        raise ValueError(f"validation.best_by: {name!r} is no metric of this study; expected one of {fit}")
    if why := _unfit(name, ALL_METRICS[name]):
        raise ValueError(f"validation.best_by: {name} {why}; expected one of {fit}")
    if strategy is not None and strategy.is_personal:
        raise ValueError(
            f"validation.best_by: with {strategy.kind}, layers at the sites are those of the last round, and fit no "
            "earlier one; leave it out, or expected another strategy, such as fedavg"
        )
    if settings is not None and name in TASK_METRICS[tasks[-1]] and settings.model.num_rounds_needed is not None:
        raise ValueError(
            f"validation.best_by: {settings.model.kind} is complete when its search is over, and no earlier round is a "
            "model; leave it out"
        )


def _unfit(name: str, metric: Metric) -> str | None:
    """Why no round can be the best by a metric; None where one can."""
    from msfl_common.metrics.registry import STRATA
    from msfl_common.metrics.segmentation import is_native

    if is_native(name) or name in STRATA:
        return "is measured once, of the model that is handed out"
    if metric.of_what_is_found:
        return "is undefined where a model finds nothing, so that one that finds next to nothing may be the best"
    return "has no better end" if metric.higher_is_better is None else None
