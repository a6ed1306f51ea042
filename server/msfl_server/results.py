"""From a run's state to what it reports."""

from __future__ import annotations

from msfl_common.classification_curves import DEFAULT_THRESHOLD
from msfl_common.config import StudyConfig
from msfl_common.config_classification import Split
from msfl_server.checkpoint import RunState
from msfl_server.classification_summary import ClassificationSummary, summarise_classification
from msfl_server.metric_summaries import summarise_metrics
from msfl_server.strategy import strategy_of
from msfl_server.summary import Summary, Timing
from msfl_server.withheld import withheld_metrics


def summarise_run(study: StudyConfig, state: RunState) -> Summary:
    """`summary.json` of a run, finished or not."""
    told = state.test or state.validation
    return Summary(
        study=study.name,
        task=study.task,
        strategy=strategy_of(study).name,
        seed=study.seed,
        rounds_requested=study.rounds.num_rounds,
        rounds_completed=state.round,
        sites=state.sites,
        metrics=summarise_metrics(told),
        withheld=withheld_metrics(study.task, told),
        history=state.history,
        timing=Timing(total_s=state.total_s, train_s=state.busy_s, overhead_s=max(0.0, state.rounds_s - state.busy_s)),
        model="model",
        classification=_classification(study, state),
    )


def _classification(study: StudyConfig, state: RunState) -> ClassificationSummary | None:
    if study.classification is None:
        return None
    split: Split = "test" if state.test else "validation"
    threshold = DEFAULT_THRESHOLD if state.threshold is None else state.threshold
    return summarise_classification(study.classification, state.test or state.validation, threshold, split)
