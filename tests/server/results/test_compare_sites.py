"""Sites of a metric as a meta-analysis in `summary.json`, and why there is none."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_common.metrics.heterogeneity import leave_one_out, meta_analysis, prediction_interval
from msfl_common.metrics.intervals import mean_estimate
from msfl_common.metrics.registry import HEADLINE
from msfl_server.results.compare_sites import between_sites, compared, why_not_pooled
from msfl_server.results.summary import read_summary, summarise_metric, write_summary

TASK = "lesion-segmentation"


def told(*means, num_patients=12):
    spread = np.linspace(-0.1, 0.1, num_patients)
    patients = [str(number) for number in range(num_patients)]
    return {f"site-{n}": mean_estimate(mean + spread, patients, (0.0, 1.0)) for n, mean in enumerate(means)}


def test_headline_metrics_alone_are_compared(tmp_path, summary):
    metrics = compared(TASK, summary.metrics)
    assert {name for name, metric in metrics.items() if metric.between_sites} == set(HEADLINE[TASK]) & set(metrics)
    whole = summary.model_copy(update={"metrics": metrics})
    write_summary(tmp_path, whole)
    assert read_summary(tmp_path) == whole
    write_summary(tmp_path, summary)  # as an earlier version wrote it
    assert "between_sites" not in (tmp_path / "summary.json").read_text()


def test_the_figures_are_those_of_the_analysis():
    sites, bounds = told(0.5, 0.6, 0.75, 0.7), (0.0, 1.0)
    found = between_sites("dsc", summarise_metric("dsc", sites))
    by_hand = meta_analysis(sites, "mean", bounds)
    assert (found.q, found.p, found.i2) == (by_hand.q, by_hand.p, by_hand.i2)
    assert (found.random.mean, found.random.tau2) == (by_hand.random.mean, by_hand.random.tau2)
    assert (found.likelihood.ci95_low, found.fixed.ci95_high) == (by_hand.likelihood.low, by_hand.fixed_high)
    assert (found.prediction_low, found.prediction_high) == prediction_interval(sites, "mean", bounds)
    without = leave_one_out(sites, "mean", bounds)["site-2"]
    assert found.without["site-2"].random.ci95_low == without.random.low
    assert found.without["site-2"].i2 < found.i2


def test_of_three_sites_two_have_no_mean_of_their_own():
    found = between_sites("dsc", summarise_metric("dsc", told(0.5, 0.6, 0.75)))
    assert found.random is not None
    assert [one.random for one in found.without.values()] == [None] * 3


@pytest.mark.parametrize(
    ("sites", "why"),
    [
        (told(0.5), "1 site told it, and it takes 3"),
        (told(0.5, 0.6), "2 sites told it, and it takes 3"),
        (told(0.5, 0.6, 0.7), ""),
        (
            told(0.5, 0.6) | {"small": mean_estimate([0.5], ["a"])},
            "only 2 of 3 sites have patients enough for an interval, and it takes 3",
        ),
    ],
)
def test_it_is_said_why_there_is_no_mean_over_sites(sites, why):
    metric = summarise_metric("dsc", sites)
    assert why_not_pooled("dsc", metric) == why
    found = between_sites("dsc", metric)
    assert (found is not None and found.random is not None) == (why == "")
