"""From a run's state to what it reports."""

from __future__ import annotations

from msfl_common.config.classification import DeepModel, Split
from msfl_common.config.stages import chosen_by
from msfl_common.config.study import StudyConfig
from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD
from msfl_common.models.weights import Weights
from msfl_common.privacy_accounting import promise_after
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.results.chosen import Chosen
from msfl_server.results.classification import ClassificationSummary, counts_by_class, summarise_classification
from msfl_server.results.coefficients import coefficients_of
from msfl_server.results.compare_sites import compared
from msfl_server.results.evaluated import EVALUATION, Evaluated
from msfl_server.results.few_patients import metrics_of_few
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.regression import RegressionSummary, slopes_of, summarise_regression
from msfl_server.results.summary import Summary, Timing
from msfl_server.results.training_inputs import characteristics_of, floor_of_table, without_few
from msfl_server.results.withheld import withheld_metrics
from msfl_server.rounds.best_round import has_waited
from msfl_server.rounds.checkpoint import RunState


def summarise_run(
    study: StudyConfig, state: RunState, weights: Weights | None = None, finished: bool | None = None
) -> Summary:
    """`summary.json` of a run, `finished` or not, None where that is not known; coefficients only with `weights`."""
    told = state.told(study)
    metrics = compared(study.task, summarise_metrics(told))
    return Summary(
        study=study.name,
        task=study.task,
        strategy=strategy_of(study).name if study.evaluate is None else EVALUATION,
        seed=study.seed,
        rounds_requested=study.rounds.num_rounds,
        rounds_completed=state.round,
        finished=finished,
        sites=state.sites,
        metrics=metrics,
        is_tested=study.classification is None and study.has_test and bool(state.test),
        withheld=withheld_metrics(study.task, told),
        few_patients=metrics_of_few(study.task, metrics),
        history=state.history,
        timing=Timing(total_s=state.total_s, train_s=state.busy_s, overhead_s=max(0.0, state.rounds_s - state.busy_s)),
        model="model",
        differential_privacy=promise_after(study, state.round),
        chosen=_chosen(study, state),
        evaluated=_evaluated(study, state),
        classification=None if study.regression else _classification(study, state, weights),
        regression=_regression(study, state, weights),
    )


def _evaluated(study: StudyConfig, state: RunState) -> Evaluated | None:
    if study.evaluate is None:
        return None
    known = {site for record in state.history for site in record.sites_ok}
    trained = tuple(site for site in study.evaluate.trained_at if site in known)
    return Evaluated(weights_sha256=study.evaluate.weights_sha256, trained_at=trained)


def _chosen(study: StudyConfig, state: RunState) -> Chosen | None:
    name, best = chosen_by(study), state.best
    if name is None:
        return None
    metric = summarise_metrics(best.validation)[name] if best else None
    return Chosen(
        by=name,
        round=best.round if best else None,
        value=best.value if best else None,
        num_patients=metric.num_patients if metric else None,
        ended_early=has_waited(study, best) and state.round < study.rounds.num_rounds,
        patience=study.validation.patience,
    )


def _classification(study: StudyConfig, state: RunState, weights: Weights | None) -> ClassificationSummary | None:
    settings = study.classification
    if settings is None:
        return None
    split: Split = "test" if state.test else "validation"
    threshold = DEFAULT_THRESHOLD if state.threshold is None else state.threshold
    is_deep, told = isinstance(settings.model, DeepModel), characteristics_of(state.training, settings.outcome.classes)
    summary = summarise_classification(settings, state.told(study), threshold, split)
    return summary.model_copy(
        update={
            "class_counts": counts_by_class(state.training, state.measured, state.test),
            "inputs": () if is_deep else settings.inputs,
            "characteristics": () if is_deep else without_few(told, settings.inputs, *floor_of_table(study)),
            "coefficients": () if weights is None else coefficients_of(settings, weights, state.training),
        }
    )


def _regression(study: StudyConfig, state: RunState, weights: Weights | None) -> RegressionSummary | None:
    settings = study.regression
    if settings is None:
        return None
    told = characteristics_of(state.training, ())
    return summarise_regression(
        settings,
        state.told(study),
        (state.measured, state.test),
        "test" if state.test else "validation",
        without_few(told, settings.inputs, *floor_of_table(study)),
        () if weights is None else slopes_of(settings, weights, state.training),
    )
