"""What a comparison says in sentences, and how page and table show it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from msfl_common.config.study import StudyConfig
from msfl_common.errors import RunError
from msfl_server.research.arms.finish import expect_federated
from msfl_server.research.arms.report import render_tables, write_page
from msfl_server.research.arms.results import ArmDifference, ArmsResult, ArmValue, CrossSite
from msfl_server.research.arms.verdict import verdict

SITES = ("a", "b")
VALUES = {
    "local": (0.50, 0.70),
    "centralised": (0.66, 0.74),
    "fedbn": (0.62, 0.72),
    "fedavg": (0.64, 0.67),
}


def value(arm: str, site: str | None, at: float) -> ArmValue:
    return ArmValue(arm=arm, site=site, metric="dsc", value=at, ci95_low=at - 0.1, ci95_high=at + 0.1, num_patients=9)


def differ(arm: str, site: str | None, by: float, p: float | None = 0.01, **more: str) -> ArmDifference:
    low, high = (None, None) if p is None else (by - 0.02, by + 0.02)
    settings = {"against": "local", "kind": "federated", **more}
    return ArmDifference.model_validate(
        {
            "arm": arm, "site": site, "difference": by, "ci95_low": low, "ci95_high": high, "p": p, "p_holm": p,
            "num_patients": 9, **settings,
        }
    )  # fmt: skip


def results(**changes: object) -> ArmsResult:
    values = [value(arm, site, at) for arm, pair in VALUES.items() for site, at in zip(SITES, pair, strict=True)]
    values += [value(arm, None, sum(pair) / 2) for arm, pair in VALUES.items()]
    arms = ("fedbn", "fedavg", "centralised")
    differences = [
        differ(arm, site, round(VALUES[arm][number] - VALUES["local"][number], 3))
        for arm in arms
        for number, site in enumerate(SITES)
    ]
    differences += [differ(arm, None, sum(VALUES[arm]) / 2 - sum(VALUES["local"]) / 2) for arm in arms]
    content = {
        "study": "pilot", "seeds": (0, 1), "sites": SITES, "metric": "dsc", "federated": ("fedbn", "fedavg"),
        "steps": 960, "attack": None, "attacked": (), "values": tuple(values), "differences": tuple(differences),
        "cross_site": (CrossSite(model="local a", trained_at="a", site="b", value=0.31),), "failed": {},
    }  # fmt: skip
    return ArmsResult.model_validate({**content, **changes})


def test_it_says_whether_taking_part_pays_for_whom_and_by_how_much() -> None:
    told = " ".join(verdict(results()))
    assert "Fedbn reaches Dice" in told
    assert "0.670 in the mean over 2 sites" in told
    assert "own models, each trained on its own patients alone, 0.600" in told
    assert "0.700 (of which 96%)" in told
    assert "In the mean over sites taking part pays: +0.070 Dice" in told
    assert "2 of 2 sites are better off than with their own model (a by +0.120, b by +0.020)" in told


def test_what_may_be_chance_is_said_to_be() -> None:
    found = tuple(one.model_copy(update={"p_holm": 0.2}) for one in results().differences)
    assert "taking part paid for these patients, which may be chance: +0.070" in " ".join(
        verdict(results(differences=found))
    )


def test_where_plain_averaging_loses_site_difference_and_winner_are_named() -> None:
    (line,) = [line for line in verdict(results()) if "loses" in line]
    assert line.startswith("Plain averaging (fedavg) loses to b's own model: -0.030 Dice")
    assert "95% CI -0.050 to -0.010; p = 0.010 corrected" in line
    assert line.endswith("there fedbn (+0.020) wins.")


def test_a_difference_that_is_shown_as_none_is_neither_gain_nor_loss() -> None:
    found = [differ("fedavg", "b", -0.0001), differ("fedbn", "a", 0.0001), differ("fedbn", None, 0.0001, 0.2)]
    told = verdict(results(differences=tuple(found)))
    assert not [line for line in told if "loses" in line]
    assert "0 of 1 sites are better off" in " ".join(told)
    assert "taking part did not pay for these patients" in told[1]


def test_where_no_strategy_wins_it_says_so_and_that_patients_are_too_few() -> None:
    found = [differ("fedavg", "b", -0.03, None), differ("fedbn", "b", -0.01, None)]
    lines = [line for line in verdict(results(differences=tuple(found))) if "loses" in line]
    assert "of too few patients (9) for an interval" in lines[0]
    assert lines[1].endswith("no strategy tried wins there; the nearest is fedbn (-0.010).")


def test_of_a_metric_that_is_best_when_low_a_gain_is_a_fall() -> None:
    values = tuple(one.model_copy(update={"metric": "brier"}) for one in results().values)
    told = " ".join(verdict(results(metric="brier", values=values, differences=(differ("fedbn", None, -0.05),))))
    assert "taking part pays: -0.050 Brier" in told
    assert "of which" not in told


def test_attacks_are_told_by_what_they_change_for_honest_sites() -> None:
    found = (
        differ("fedavg", None, -0.3, kind="attacked", against="fedavg"),
        differ("fedbn", None, -0.02, kind="attacked", against="fedbn"),
    )
    told = verdict(results(attack="sign-flip", attacked=("a",), differences=found))[-1]
    alone = verdict(results(attack="sign-flip", attacked=("a",), differences=found[:1]))[-1]
    assert alone == "Under sign-flip at a, plain averaging (fedavg) changes by -0.300 for the honest sites."
    effect = {"arm": "fedavg", "clean": 0.67, "attacked": None}
    shown = results(attack="sign-flip", attacked=("a",), attacks=(effect,), differences=found)
    console = Console(file=io.StringIO(), width=160)
    render_tables(shown, console)
    assert isinstance(console.file, io.StringIO)
    (row,) = [line for line in console.file.getvalue().splitlines() if "no model" in line]
    assert all(word in row for word in ("fedavg", "0.670", "-0.300"))
    assert told == (
        "Under sign-flip at a, fedbn changes least for the honest sites (-0.020) and plain averaging (fedavg) most "
        "(-0.300)."
    )


def test_page_and_tables_show_arms_differences_cross_and_what_could_not_be_trained(tmp_path: Path) -> None:
    found = results(failed={"local/c/seed-0": "<no> case"}, unmeasured={"local/a/seed-0 at b": "too few"})
    found = found.model_copy(update={"verdict": verdict(found)})
    console = Console(file=io.StringIO(), width=200)
    render_tables(found, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "not trained: local/c/seed-0: <no> case" in shown
    assert "not measured: local/a/seed-0 at b: too few" in shown
    assert "fedavg less local" in shown
    page = write_page(tmp_path, found, StudyConfig(name="pilot")).read_text()
    for words in ("Sites better off", "2 of 2", "local a", "0.310", "960 optimiser steps", "&lt;no&gt; case", "<svg"):
        assert words in page, words
    assert page.index("gained by taking part") < page.index("<svg")


@pytest.mark.parametrize("missing", ["fedbn", "fedavg"])
def test_without_an_arm_at_every_site_it_is_not_called_the_best(missing: str) -> None:
    values = tuple(one for one in results().values if one.arm != missing or one.site is not None)
    told = verdict(results(values=values))[0]
    assert told.startswith("Plain averaging" if missing == "fedbn" else "Fedbn")


def test_a_comparison_without_any_federated_figure_fails_and_says_why() -> None:
    of_one = tuple(one for one in results().values if one.arm != "fedbn" and one.site != "a")
    expect_federated(results(values=of_one))
    failed = {"local/a/seed-0": "no case", "federated/fedbn/seed-0": "one site answered"}
    alone = tuple(one for one in results().values if one.arm in ("local", "centralised"))
    with pytest.raises(RunError, match="no federated arm has a figure; federated/fedbn/seed-0: one site answered"):
        expect_federated(results(values=alone, failed=failed))
