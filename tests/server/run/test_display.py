"""Before the first round: where no bar can be drawn, a line for each thing that is begun, and no more."""

from __future__ import annotations

import time

import pytest

from msfl_common.system import progress
from msfl_common.system.progress import busy
from msfl_server.results.summary import RoundSummary, SiteFailure, UpdateSummary
from msfl_server.run.display import run_display


def test_each_thing_that_is_begun_before_the_first_round_leaves_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with run_display(2) as display:
        display.doing("opening MLflow's store")
        for done in (1, 2):
            display.on_progress("a", "checking", done, 2, "")
            display.on_progress("a", "preparing", done, 2, "")
        display.on_progress("a", "checked", 1, 1, "1 case left out")
        display.on_wait(1, "facts", ["a", "b"], 60.0)
        display.on_wait(1, "facts", ["b"], 60.0)
        display.on_wait(1, "training", ["a", "b"], 60.0)
        display.on_progress("a", "training", 1, 2, "loss 1.0")
        display.show(RoundSummary(round=1, train_loss=1, metrics={}, sites_ok=("a",), sites_failed=(), seconds=1))
        display.on_wait(2, "training", ["a", "b"], 60.0)
    assert capsys.readouterr().err.splitlines() == [
        "opening MLflow's store",
        "a: reading 2 cases",
        "a: caching 2 cases for the network",
        "a: 1 case left out",
        "round 1: looking through the cases of a, b",
        "round 1: training at a, b",
        "round   1  loss 1.000  1 of 1 sites  1.0 s",
    ]


def test_the_rounds_of_each_stage_stand_below_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    record = RoundSummary(round=1, train_loss=1, metrics={}, sites_ok=("a",), sites_failed=(), seconds=1)
    with run_display(2) as display:
        display.on_stage("segmentation-1", 2)
        display.show(record)
        display.on_stage("final", 3)
        display.show(record)
    with run_display(2) as display:
        display.on_stage("final", 3)
    line = "round   1  loss 1.000  1 of 1 sites  1.0 s"
    assert capsys.readouterr().err.splitlines() == [
        "rounds of segmentation-1, at most 2",
        line,
        "rounds of the outcome, at most 3",
        line,
    ]


def test_an_update_that_stands_out_is_named_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    updates = {"a": UpdateSummary(norm=1.0, cosine=-0.4, odd="against"), "b": UpdateSummary(norm=1.0, cosine=0.5)}
    record = RoundSummary(
        round=1, train_loss=1, metrics={}, sites_ok=("a", "b"), sites_failed=(), seconds=1, updates=updates
    )
    with run_display(2) as display:
        display.show(record)
    line = "round   1  loss 1.000  2 of 2 sites  1.0 s  a: its update stands out (against)"
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_site_that_withholds_two_splits_for_one_reason_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    few = SiteFailure(site="a", code="TOO_FEW_PATIENTS")
    record = RoundSummary(round=1, train_loss=1, metrics={}, sites_ok=("a",), sites_failed=(few, few), seconds=1)
    with run_display(2) as display:
        display.show(record)
    assert capsys.readouterr().err.splitlines() == ["round   1  loss 1.000  1 of 1 sites  1.0 s  a: TOO_FEW_PATIENTS"]


def test_what_takes_seconds_is_said_and_what_does_not_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with busy("short"):
        pass
    monkeypatch.setattr(progress, "LASTING_S", 0.0)
    with busy("long"):
        time.sleep(0.05)
    assert capsys.readouterr().err == "long\n"
