"""No figure of a sum under masks is of fewer sites than a sum has, though all others withheld theirs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest
from tests.server.report.test_classification import SITES, measured, study_of

from msfl_common.messages.layouts import POOLED, metrics_layout, sum_of
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.classification import class_metrics, threshold_metrics
from msfl_common.metrics.intervals import Estimate
from msfl_common.metrics.regression import NUM_MOMENTS
from msfl_server.results.withheld import say_withheld, withheld_metrics
from msfl_server.rounds.pooled_metrics import of_enough_sites


def added_up(withheld: Collection[str], at: Collection[str], keeps_bins: bool) -> ValidationMetrics:
    """What the sum of three sites comes to, where some of them withhold these metrics and what goes with them."""
    told = measured(study_of(), 0.5, seed=30)
    for site in at:
        kept = {name: found for name, found in told[site].estimates.items() if name not in withheld}
        told[site] = replace(told[site], estimates=kept, confusion=told[site].confusion * 0)
        if not keeps_bins:
            told[site].score_bins[:] = 0
    layout = metrics_layout(study_of())
    return layout.decode(sum_of(layout, told.values(), len(told)))


@pytest.mark.parametrize("num_telling", [1, 2])
def test_what_few_sites_tell_of_a_class_is_put_away(num_telling: int) -> None:
    whole = added_up(class_metrics(), list(SITES)[num_telling:], keeps_bins=False)
    assert whole.estimates["auroc"].num_sites == num_telling
    found = of_enough_sites(whole, 3)
    assert {"brier", "ece"} <= {*found.estimates}
    assert not {*class_metrics()} & {*found.estimates}
    assert not found.score_bins.any()
    assert not found.confusion.any()
    kept = of_enough_sites(whole, num_telling)
    assert "auroc" in kept.estimates
    assert kept.score_bins.any()


def test_predicted_classes_of_few_are_put_away_alone() -> None:
    found = of_enough_sites(added_up(threshold_metrics(), list(SITES)[1:], keeps_bins=True), 3)
    assert "auroc" in found.estimates
    assert not {*threshold_metrics()} & {*found.estimates}
    assert found.score_bins.any()
    assert not found.confusion.any()


def test_sums_of_numbers_go_with_their_figures() -> None:
    rmse = Estimate(1.0, 30, 0.1, 0.8, 1.2, 30, num_sites=2)
    whole = ValidationMetrics({"rmse": rmse}, num_cases=30, seconds=0, moments=np.ones(NUM_MOMENTS))
    assert of_enough_sites(whole, 2).moments is whole.moments
    assert of_enough_sites(whole, 3).moments is None


def test_it_is_said_why() -> None:
    found = {POOLED: of_enough_sites(added_up(class_metrics(), list(SITES)[1:], keeps_bins=False), 3)}
    line = say_withheld("classification", withheld_metrics("classification", found), 3)
    assert "fewer than secure_aggregation.min_sites" in line
    assert "AUROC" in line
