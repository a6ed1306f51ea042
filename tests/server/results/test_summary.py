"""`summary.json` on disk, and the pooling that fills it."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from msfl_common.errors import InputError
from msfl_common.metrics.intervals import Estimate, mean_estimate, mean_interval, pool, share_estimate
from msfl_server.results.few_patients import metrics_of_few, say_few
from msfl_server.results.summary import MetricSummary, Summary, read_summary, summarise_metric, write_summary

NOTHING = Estimate(math.nan, 0, math.nan, math.nan, math.nan)


def test_read_gives_back_what_was_written(tmp_path, summary):
    path = write_summary(tmp_path / "out", summary)
    assert path == tmp_path / "out" / "summary.json"
    assert read_summary(tmp_path / "out") == summary


def test_the_file_has_the_documented_keys(tmp_path, summary):
    content = json.loads(write_summary(tmp_path, summary).read_text())
    assert list(content) == [
        "schema_version", "study", "task", "strategy", "seed", "rounds_requested", "rounds_completed",
        "sites", "metrics", "history", "timing", "model",
    ]  # fmt: skip
    assert content["schema_version"] == 1
    assert set(content["sites"][0]) == {"name", "cases_train", "cases_val"}
    assert set(content["metrics"]["dsc"]) == {"mean", "ci95_low", "ci95_high", "num_patients", "per_site"}
    assert set(content["metrics"]["dsc"]["per_site"]["Ghent"]) == {
        "mean", "ci95_low", "ci95_high", "num_cases", "num_patients", "standard_error",
    }  # fmt: skip
    assert {"round", "train_loss", "metrics", "sites_ok", "sites_failed", "seconds"} <= set(content["history"][0])
    assert content["history"][3]["sites_failed"] == [{"site": "Namur", "code": "OUT_OF_MEMORY"}]
    assert set(content["timing"]) == {"total_s", "train_s", "overhead_s"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected the output folder of a run"),
        ("{", "not valid JSON.*: restore it from a backup"),
        ('{"schema_version": 2}', "schema_version: found 2; expected 1; .* of another version"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_summary(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "summary.json") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "/srv/runs/model"}, "relative to the summary's folder"),
        ({"model": "C:\\runs\\model"}, "relative to the summary's folder"),
        ({"metrics": {"dice": {"mean": 1.0, "ci95_low": None, "ci95_high": None, "per_site": {}}}}, "'dice'"),
        ({"timing": {"total_s": math.nan, "train_s": 0, "overhead_s": 0}}, "finite"),
    ],
)
def test_refuses_what_the_format_excludes(summary, change, message):
    with pytest.raises(ValidationError, match=message):
        Summary.model_validate({**summary.model_dump(), **change})


def test_a_metric_is_pooled_within_its_bounds():
    sites = {"b": Estimate(0.95, 10, 0.05, 0.85, 1.0), "a": Estimate(0.99, 30, 0.05, 0.9, 1.0)}
    pooled = pool(sites, "mean", (0.0, 1.0))
    result = summarise_metric("dsc", sites)
    assert pooled.ci95_high < 1.0 < pool(sites).ci95_high
    assert (result.mean, result.ci95_low, result.ci95_high) == (pooled.mean, pooled.ci95_low, pooled.ci95_high)
    assert list(result.per_site) == ["a", "b"]
    assert result.per_site["a"].num_cases == 30


def test_an_unbounded_metric_ends_below_only():
    result = summarise_metric("hd95_mm", {"a": Estimate(3.0, 10, 4.0, 0.5, 12.0)})
    assert (result.ci95_low, result.ci95_high) == pytest.approx(mean_interval(3.0, 4.0, math.inf, (0.0, 1000.0)))
    assert result.ci95_low > 0


def test_what_is_undefined_is_left_out_or_null():
    lonely = Estimate(0.6, 1, math.nan, math.nan, math.nan)
    assert summarise_metric("tpr", {"a": NOTHING}) is None
    result = summarise_metric("tpr", {"a": NOTHING, "b": lonely})
    assert (result.mean, result.ci95_low, result.ci95_high) == (0.6, None, None)
    assert list(result.per_site) == ["b"]
    assert result.per_site["b"].ci95_low is None


def shown(name, *patients):
    """Whether sites of so many patients, and all of them together, show an interval."""
    sites = {str(n): share_estimate(0.8, max(1, count), max(1, count), count) for n, count in enumerate(patients)}
    result = summarise_metric(name, sites)
    return [at.ci95_low is not None for at in result.per_site.values()], result.ci95_low is not None


def test_an_interval_of_too_few_patients_is_not_shown():
    assert shown("sensitivity", 9, 10) == ([False, True], True)
    assert shown("auroc", 1) == ([False], False)
    assert shown("auroc", 2, 3) == ([False, False], True)
    # What is biased in few patients stays so, however many sites there are.
    assert shown("calibration_slope", 20, 20, 20) == ([True] * 3, True)
    assert shown("calibration_slope", *[20] * 10) == ([True] * 10, False)


def test_a_share_that_describes_the_patients_and_a_biased_one_have_no_interval():
    assert shown("prevalence", 400) == ([False], False)
    assert shown("ece", 400) == ([False], False)


def test_a_calibration_error_below_none_is_none():
    sites = {"a": Estimate(-0.03, 40, math.nan, math.nan, math.nan, 40)}
    assert summarise_metric("ece", sites).mean == 0.0
    assert summarise_metric("ece", sites).per_site["a"].mean == 0.0
    both = {**sites, "b": Estimate(0.05, 40, math.nan, math.nan, math.nan, 40)}
    assert summarise_metric("ece", both).mean == pytest.approx(0.01)  # chance averages out before


def test_three_patients_are_said_to_be_few():
    metrics = {
        "auroc": summarise_metric("auroc", {"a": share_estimate(1.0, 3, 2, 1)}),
        "brier": summarise_metric("brier", {"a": share_estimate(0.1, 3, 3, 3)}),
    }
    few = metrics_of_few("classification", metrics)
    assert few == {"auroc": 1, "brier": 3}
    assert say_few(few, metrics, 3) == (
        "From few patients, others may give quite other figures: AUROC: 1 patient of the smaller class, at 1 of 3 "
        "sites; Brier score: 3 patients, at 1 of 3 sites."
    )
    assert metrics["auroc"].ci95_low is None


def test_figures_of_many_patients_or_of_sites_that_did_not_tell_are_not_said_to_be_few():
    metrics = {"dsc": summarise_metric("dsc", {"a": mean_estimate(range(20), [str(n) for n in range(20)])})}
    assert metrics_of_few("lesion-segmentation", metrics) == {}
    earlier = {"dsc": summarise_metric("dsc", {"a": Estimate(0.6, 3, 0.1, 0.4, 0.8)})}
    assert metrics_of_few("lesion-segmentation", earlier) == {}
    assert earlier["dsc"].ci95_low is not None
    assert say_few({}, earlier, 1) == ""


def test_a_summary_of_an_earlier_version_is_read(tmp_path, summary):
    content = json.loads(write_summary(tmp_path, summary).read_text())
    for metric in content["metrics"].values():
        for figure in (metric, *metric["per_site"].values()):
            figure.pop("num_patients"), figure.pop("standard_error", None)
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert read_summary(tmp_path).metrics["dsc"].mean == summary.metrics["dsc"].mean


def test_figures_of_small_groups_are_named_as_such() -> None:
    few = MetricSummary(mean=0.6, ci95_low=None, ci95_high=None, num_patients=7, per_site={})
    found = metrics_of_few(
        "classification", {"auroc_under_40": few, "brier": few.model_copy(update={"num_patients": 30})}
    )
    assert found == {"auroc_under_40": 7}
    told = say_few(found, {"auroc_under_40": few}, 3)
    assert "AUROC, below 40 years: 7 patients of the smaller class, at 0 of 3 sites" in told
