"""A classification from the sites' measures to checkpoint, summary, page and table."""

from __future__ import annotations

import html
import io
import json
import re

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console
from sklearn.metrics import roc_auc_score

from msfl_client.classification.evaluation import measure_site
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.metrics.intervals import pool
from msfl_common.metrics.score_bins import bin_scores
from msfl_server.report.classification import classification_section
from msfl_server.report.page import render_table, write_report
from msfl_server.results.classification import ClassificationSummary, threshold_of
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.summary import RoundSummary, SiteSummary, read_summary, write_summary
from msfl_server.rounds.checkpoint import Checkpoint, RunState, load_checkpoint, save_checkpoint
from msfl_server.run.display import run_display
from msfl_server.run.summarise import summarise_run
from msfl_server.tracking.round_values import round_values

SITES = {"Antwerp": 180, "Ghent": 60, "Leuven": 260}


def study_of(classes=("stable", "active")):
    return StudyConfig(
        name="one-year-activity",
        task="classification",
        rounds={"num_rounds": 8},
        classification={
            "outcome": {"column": "activity", "classes": classes},
            "model": {"kind": "logistic"},
        },
    )


def answers(num_cases, num_classes, seed, skill=1.0):
    """Probabilities of a model that knows something, labels, and patients."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.85, 0.15]) if num_classes == 2 else np.full(num_classes, 1 / num_classes)
    labels = rng.choice(num_classes, num_cases, p=shares)
    labels[:num_classes] = range(num_classes)
    logits = np.log(shares) + rng.normal(size=(num_cases, num_classes)) + skill * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, labels, [f"p{number}" for number in range(num_cases)]


def measured(study, threshold, seed, policy=Policy()):  # noqa: B008
    num_classes = len(study.classification.outcome.classes)
    return {
        site: measure_site(*answers(num_cases, num_classes, seed + index), threshold, study, policy)
        for index, (site, num_cases) in enumerate(SITES.items())
    }


def state_of(study):
    """Eight rounds, the threshold chosen on validation, the figures of test patients."""
    validation = measured(study, 0.5, seed=10)
    threshold = threshold_of(validation)
    pooled = summarise_metrics(validation)
    history = tuple(
        RoundSummary(
            round=number,
            train_loss=0.7 * 0.9**number,
            metrics={name: metric.mean * (1 - 0.3 / number) for name, metric in pooled.items()},
            per_site={
                name: {site: value.mean * (1 - 0.3 / number) for site, value in metric.per_site.items()}
                for name, metric in pooled.items()
            },
            sites_ok=tuple(SITES),
            sites_failed=(),
            seconds=2.0,
        )
        for number in range(1, 9)
    )
    return RunState(
        round=8,
        history=history,
        sites=tuple(SiteSummary(name=site, cases_train=2 * n, cases_val=n // 2) for site, n in SITES.items()),
        validation=validation,
        test=measured(study, threshold, seed=20),
        threshold=threshold,
        total_s=20.0,
        rounds_s=16.0,
        busy_s=12.0,
    )


@pytest.fixture(scope="module")
def study():
    return study_of()


@pytest.fixture(scope="module")
def state(study):
    return state_of(study)


@pytest.fixture(scope="module")
def summary(study, state):
    return summarise_run(study, state)


def text_of(path):
    page = re.sub(r"<svg.*?</svg>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_cells_survive_a_checkpoint(tmp_path, study, state):
    weights = {"w": np.ones(3, np.float32)}
    save_checkpoint(tmp_path, Checkpoint(state, weights))
    loaded = load_checkpoint(tmp_path, study, expected=weights)
    assert loaded is not None
    assert loaded.state.model_dump_json() == state.model_dump_json()
    for site, sent in state.validation.items():
        again = loaded.state.validation[site]
        assert repr(again.estimates) == repr(sent.estimates)  # NaN is not equal to itself
        assert {name: array.dtype for name, array in again.arrays.items()} == {
            "cells": np.float64, "confusion": np.float64,
        }  # fmt: skip
        assert all(np.array_equal(again.arrays[name], array) for name, array in sent.arrays.items())
    assert summarise_run(study, loaded.state) == summarise_run(study, state)


def test_a_checkpoint_without_cells_loads_as_before():
    text = '{"round": 1, "validation": {"a": {"estimates": {}, "num_cases": 9, "seconds": 1.0}}}'
    loaded = RunState.model_validate_json(text)
    assert loaded.validation["a"].arrays == {}
    assert (loaded.test, loaded.threshold) == ({}, None)


def test_the_summary_holds_test_figures_and_the_groups_behind_them(tmp_path, study, state, summary):
    found = summary.classification
    assert (found.split, found.threshold) == ("test", state.threshold)
    assert found.outcome == "activity"
    probabilities, labels, patients = answers(180, 2, 20)
    expected = bin_scores(probabilities, labels, patients, 5)[0]
    assert np.array_equal(found.groups_at("Antwerp", 0), expected[expected[:, 1] > 0])
    assert found.sites["Antwerp"].prevalence == labels.mean()
    predicted = probabilities[:, 1] >= state.threshold
    assert found.sites["Antwerp"].confusion[1][1] == (predicted & (labels == 1)).sum()
    assert found.confusion.sum() == sum(SITES.values())
    auroc = summary.metrics["auroc"]
    assert auroc.mean == pool({site: m.estimates["auroc"] for site, m in state.test.items()}).mean
    together = [answers(n, 2, 20 + index) for index, n in enumerate(SITES.values())]
    scores, outcomes = np.concatenate([t[0][:, 1] for t in together]), np.concatenate([t[1] for t in together])
    assert found.together["auroc"] == pytest.approx(roc_auc_score(outcomes, scores), abs=0.02)
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    assert json.loads((tmp_path / "summary.json").read_text())["classification"]["split"] == "test"


def test_without_test_figures_the_validation_ones_are_said_to_flatter(study, state):
    early = summarise_run(study, state.model_copy(update={"test": {}, "threshold": None}))
    assert (early.classification.split, early.classification.threshold) == ("validation", 0.5)
    assert "they flatter" in classification_section(early, study)["facts"]


def test_the_threshold_comes_from_validation_cells(state, study):
    assert 0 < threshold_of(state.validation) < 0.5  # 15% are positive
    assert threshold_of({}) == 0.5
    assert threshold_of(measured(study_of(("a", "b", "c")), 0.5, seed=0)) == 0.5


@pytest.mark.slow
def test_the_page_shows_the_prediction(tmp_path, study, summary):
    path = write_report(tmp_path, summary, study)
    text = text_of(path)
    auroc, ghent = summary.metrics["auroc"], summary.metrics["auroc"].per_site["Ghent"]
    for expected in (
        "Research use only", "Prediction of the outcome", "Predicted: activity", "The positive class is active",
        "Youden's J", "test patients, whom neither training", "ROC", "Precision and recall", "Calibration slope",
        f"{auroc.mean:.3f}", f"{auroc.ci95_low:.3f} to {auroc.ci95_high:.3f}",
        f"{ghent.mean:.3f} {ghent.ci95_low:.3f} to {ghent.ci95_high:.3f}",
        "Confusion matrix: All sites", "Confusion matrix: Leuven", "→ 1", "by chance 0.1",
        "Cases of all sites ranked together give, about: AUROC",
    ):  # fmt: skip
        assert expected in text, expected
    assert "lesion" not in text.split("Settings")[0].lower()
    assert "Dice" not in text.split("Settings")[0]
    page = path.read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all(f'id="{name}-' in page for name in ("roc", "precision-recall", "calibration"))
    assert not re.search(r"https?:|<script", page)


def test_the_table_and_the_round_line_show_what_a_reader_looks_for(summary, state, capsys):
    console = Console(file=io.StringIO(), width=100)
    render_table(summary, console)
    text = console.file.getvalue()
    auroc = summary.metrics["auroc"]
    row = next(line for line in text.splitlines() if "AUROC ↑" in line)
    assert [cell.strip() for cell in row.split("│")[2:5]] == [
        f"{auroc.mean:.3f}", f"{auroc.ci95_low:.3f} to {auroc.ci95_high:.3f}", "500",
    ]  # fmt: skip
    assert "Calibration slope → 1" in text
    assert "mean over cases of test patients" in text
    with run_display(8) as display:
        display.on_round(state)
    shown = capsys.readouterr().err
    assert f"AUROC {state.history[-1].metrics['auroc']:.3f}" in shown
    assert "AUPRC" in shown
    assert "Brier" in shown


def test_mlflow_is_given_the_figures_of_a_round_with_their_intervals(state):
    pooled = summarise_metrics(state.validation)
    values = dict(round_values(state.history[-1], pooled))
    for name in ("auroc", "auprc", "brier"):
        assert values[name] == state.history[-1].metrics[name]
        assert values[f"{name}_ci95_low"] == pooled[name].ci95_low
        assert f"site/Ghent/{name}" in values


def test_of_three_classes_each_has_a_curve():
    study = study_of(("RRMS", "SPMS", "PPMS"))
    summary = summarise_run(study, state_of(study))
    found = summary.classification
    assert found.threshold is None
    assert found.curve_names == ("RRMS", "SPMS", "PPMS")
    for name, margin in (("auroc", 0.02), ("brier", 0.01), ("auprc", 0.06)):
        assert found.together[name] == pytest.approx(summary.metrics[name].mean, abs=margin), name
    assert all(len(site.groups) == 3 for site in found.sites.values())
    section = classification_section(summary, study)
    assert "each held against the rest" in section["facts"]
    assert section["legend"][2][0] == "PPMS"
    pooled = section["matrices"][0]
    assert [len(row["counts"]) for row in pooled["rows"]] == [3, 3, 3]
    assert sum(sum(row["counts"]) for row in pooled["rows"]) == 500


def test_what_sites_withhold_is_said(tmp_path, study, state):
    strict = measured(study, 0.4, seed=20, policy=Policy(min_patients=40))
    only = {site: strict[site] for site in ("Antwerp", "Ghent")}
    summary = summarise_run(study, state.model_copy(update={"test": only}))
    assert summary.classification.sites["Ghent"].confusion is None
    assert summary.classification.sites["Ghent"].groups == ((),)  # too few patients of a class
    assert "sensitivity" not in summary.metrics
    assert summary.withheld["auroc"] == ("Antwerp", "Ghent")
    assert "brier" not in summary.withheld
    line = "Withheld by Antwerp, Ghent: AUROC, AUPRC, Prevalence (AUPRC of chance), Calibration slope,"
    console = Console(record=True, width=300)
    render_table(summary, console)
    assert line in console.export_text()
    text = text_of(write_report(tmp_path, summary, study))
    assert line in text
    assert "fewer patients than min_patients of one class, or predicted as one; or undefined" in text
    assert "No curves" in text
    assert "Confusion matrix withheld: Antwerp, Ghent." in text
    assert "No figures came from Leuven." in text


def test_a_run_in_which_no_site_reported(tmp_path, study, state):
    summary = summarise_run(study, state.model_copy(update={"test": {}, "validation": {}}))
    assert summary.classification.sites == {}
    assert summary.classification.together == {}
    assert "No site reported a metric" in text_of(write_report(tmp_path, summary, study))


@pytest.mark.parametrize(
    ("field", "value"),
    [("groups", ((((1.2, 5, 1)),),)), ("groups", (((0.2, 0, 0),),)), ("groups", (((0.2, 5, -1),),)), ("num_cases", 0)],
)
def test_a_summary_out_of_bounds_is_refused(summary, field, value):
    content = summary.classification.model_dump()
    content["sites"]["Ghent"][field] = value
    with pytest.raises(ValidationError):
        ClassificationSummary.model_validate(content)
