"""Metrics of all sites together, from a sum under masks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from msfl_common.errors import UpdateError
from msfl_common.messages.layouts import POOLED, metrics_layout
from msfl_common.messages.records import RoundTask, ValidationMetrics, pack_task
from msfl_common.metrics.classification import class_metrics, threshold_metrics
from msfl_common.models.weights import Weights
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.failures import BAD_METRICS
from msfl_server.rounds.mask_roster import Masks
from msfl_server.rounds.masked_sums import SumRequest, ask_sum
from msfl_server.rounds.metrics import most_measured
from msfl_server.rounds.one_round import OneRound, at_step, step_of

log = logging.getLogger(__name__)


def pooled_metrics(
    this: OneRound, masks: Masks, task: RoundTask, weights: Weights, asked: Mapping[int, str]
) -> tuple[dict[str, ValidationMetrics], tuple[SiteFailure, ...]]:
    """Metrics of the averaged weights, of all patients in the sum, under the name `pooled`; none where too few answer.

    A site whose patients of a class are few adds 0 to a figure of that class. What is then told by fewer sites than a
    sum may have would be their own, and is put away; see `of_enough_sites`.

    Raises:
        RunError: too few sites have helped to open the sum.
    """
    layout, step = metrics_layout(task.settings), step_of(task)
    request = SumRequest("evaluate", task, lambda: pack_task(task, weights), layout.ring, layout.length, BAD_METRICS)
    summed = ask_sum(masks, asked, request, partial(this.listener.on_wait, task.round, step))
    failures = at_step(step, summed.failures)
    if summed.total is None:
        return {}, failures
    try:
        with np.errstate(all="ignore"):
            metrics = of_enough_sites(layout.decode(summed.total), task.settings.secure_aggregation.min_sites)
            most = sum(most_measured(task.settings, site, this.roster.told) for site in summed.members)
            if metrics.num_cases > most:
                raise UpdateError(f"says that it measured {metrics.num_cases} cases; at most {most} were expected")
    except UpdateError as error:
        log.warning("%s of %s refused: %s", step, ", ".join(summed.members), error)
        return {}, (*failures, SiteFailure(site=POOLED, code=BAD_METRICS, step=step))
    return {POOLED: metrics}, failures


def of_enough_sites(metrics: ValidationMetrics, min_sites: int) -> ValidationMetrics:
    """What so many sites have told: no figure, group of scores or confusion matrix of fewer.

    A site tells groups of scores with a metric of classes, its confusion matrix with one of predicted classes, and so
    no more sites have told these than the metric of the kind that most have.
    """
    told = {name: found.num_sites or 0 for name, found in metrics.estimates.items()}
    kept = {name: found for name, found in metrics.estimates.items() if told[name] >= min_sites}

    def has_enough(names: Iterable[str]) -> bool:
        return max((told.get(name, 0) for name in names), default=0) >= min_sites

    bins, confusion = metrics.score_bins, metrics.confusion
    if bins is not None and not has_enough(class_metrics()):
        bins = np.zeros_like(bins)
    if confusion is not None and not has_enough({*class_metrics()} & {*threshold_metrics()}):
        confusion = np.zeros_like(confusion)
    moments = metrics.moments if kept else None
    return replace(metrics, estimates=kept, score_bins=bins, confusion=confusion, moments=moments)
