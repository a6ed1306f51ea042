"""`summary.json` on disk, and the pooling that fills it."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from msfl_common.errors import InputError
from msfl_common.metrics.intervals import Estimate, pool
from msfl_server.results.summary import Summary, read_summary, summarise_metric, write_summary

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
    assert set(content["metrics"]["dsc"]) == {"mean", "ci95_low", "ci95_high", "per_site"}
    assert set(content["metrics"]["dsc"]["per_site"]["Ghent"]) == {
        "mean", "ci95_low", "ci95_high", "num_cases",
    }  # fmt: skip
    assert {"round", "train_loss", "metrics", "sites_ok", "sites_failed", "seconds"} <= set(content["history"][0])
    assert content["history"][3]["sites_failed"] == [{"site": "Namur", "code": "OUT_OF_MEMORY"}]
    assert set(content["timing"]) == {"total_s", "train_s", "overhead_s"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected the output folder of a run"),
        ("{", "Invalid JSON"),
        ('{"schema_version": 2}', r"schema_version: Input should be 1 \(and \d+ more\)"),
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


def test_a_metric_is_pooled_and_clipped_to_its_bounds():
    sites = {"b": Estimate(0.95, 10, 0.05, 0.85, 1.0), "a": Estimate(0.99, 30, 0.05, 0.9, 1.0)}
    pooled = pool(sites)
    result = summarise_metric("dsc", sites)
    assert pooled.ci95_high > 1.0
    assert (result.mean, result.ci95_low, result.ci95_high) == (pooled.mean, pooled.ci95_low, 1.0)
    assert list(result.per_site) == ["a", "b"]
    assert result.per_site["a"].num_cases == 30


def test_an_unbounded_metric_is_clipped_below_only():
    result = summarise_metric("hd95_mm", {"a": Estimate(3.0, 10, 4.0, 0.5, 12.0)})
    assert result.ci95_low == 0.0
    assert result.ci95_high == pytest.approx(3.0 + 1.959964 * 4.0)


def test_what_is_undefined_is_left_out_or_null():
    lonely = Estimate(0.6, 1, math.nan, math.nan, math.nan)
    assert summarise_metric("tpr", {"a": NOTHING}) is None
    result = summarise_metric("tpr", {"a": NOTHING, "b": lonely})
    assert (result.mean, result.ci95_low, result.ci95_high) == (0.6, None, None)
    assert list(result.per_site) == ["b"]
    assert result.per_site["b"].ci95_low is None
