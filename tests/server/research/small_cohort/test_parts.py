"""Several tasks and subsets of columns in one run, compared; and the top performers of all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from tests.commands import run_main

from msfl_common.errors import InputError
from msfl_server.cli.main import main
from msfl_server.research.small_cohort.measures import Chance, paired_effect
from msfl_server.research.small_cohort.parts import plan_parts
from msfl_server.research.small_cohort.results import Nested, PipelineResults, Row, Scored, Tuned
from msfl_server.research.small_cohort.setup import PipelineSettings
from msfl_server.research.small_cohort.simulated_table import CLASSES, simulate_cases
from msfl_server.research.small_cohort.space import STANDARD, all_pipelines
from msfl_server.research.small_cohort.subsets import case_counts, pipeline_effects, read_subsets
from msfl_server.research.small_cohort.table import constant_features, row_groups
from msfl_server.research.small_cohort.tasks import read_tasks
from msfl_server.research.small_cohort.top import shortlist, top_performers

PIPELINES = all_pipelines(8, (4,))[:4]
STUDY = """\
name: s
task: classification
classification:
  outcome: {column: group, classes: [control, slow, fast]}
  model: {kind: lda}
"""


def scored(accuracy):
    return Scored({"accuracy": accuracy, "balanced_accuracy": accuracy, "auroc": accuracy}, accuracy, accuracy)


def some_results(accuracies, zs, right=(True, False), tuned=()):
    rows = [
        Row("KNN", pipeline, scored(accuracy), Chance(0.5, 0.1, z, 0.01) if z is not None else None)
        for pipeline, accuracy, z in zip(PIPELINES, accuracies, zs, strict=False)
    ]
    nested = tuple(Nested(name, scored(0.5), {}, right) for name in ("KNN", "all"))
    return PipelineResults(tuple(rows), tuple(rows), nested, {"KNN": []}, tuned)


def test_top_performers_are_those_of_every_task() -> None:
    one = some_results((0.7, 0.6, 0.8, 0.9), (2.0, 3.0, 1.9, None))
    other = some_results((0.75, 0.7, 0.8, 0.9), (2.5, 2.0, 4.0, None))
    top = top_performers([one, other])
    assert [found[1:] for found in top.top] == [(PIPELINES[0].name, 0.7), (PIPELINES[1].name, 0.6)]
    assert (top.tested, top.highest) == (3, 1)
    assert top.options["classifier"] == {"KNN": (2, 1)}
    assert sum(count for count, _ in top.options["row scaling"].values()) == 2
    assert len(top_performers([other]).top) == 3
    assert shortlist([one, other]) == ("KNN",)
    assert shortlist([one, some_results((0.59, 0.3), (9.0, 9.0))]) == ()


def test_a_subset_against_all_columns_by_pipelines_and_by_cases() -> None:
    right, other = (True, True, True, False, False), (True, False, False, True, False)
    every = some_results((0.5, 0.6, 0.7, 0.8), [None] * 4, other)
    found = some_results((0.6, 0.6, 0.6), [None] * 3, right)
    effect = pipeline_effects("grey", found, every)["KNN"]
    assert (effect.num_pairs, effect.num_better, effect.num_worse, effect.median) == (3, 1, 1, 0)
    (nested, _) = case_counts(found, every)
    assert (nested.what, nested.only_subset, nested.only_all) == ("nested", 2, 1)
    assert nested.p == pytest.approx(binomtest(2, 3).pvalue)
    tuned = Tuned("KNN", "grid", scored(0.6), {}, 1.0, {}, right, Chance(0.5, 0.1, 1.0, 0.2))
    one, before = some_results((0.6,), (2.5,), right, (tuned,)), some_results((0.4,), (1.5,), right, (tuned,))
    alone, _, search = case_counts(one, before)
    assert (alone.what, alone.chance.z, alone.chance_all.z, alone.p) == ("pipeline", 2.5, 1.5, 1.0)
    assert (search.what, search.chance.z) == ("grid search", 1.0)


def test_the_effect_size_by_hand() -> None:
    effect = paired_effect("step", "option", np.array([0.9, 0.5, 0.5, 0.7]), np.array([0.5, 0.6, 0.5, 0.5]))
    assert (effect.num_better, effect.num_worse, effect.num_pairs) == (2, 1, 4)
    assert effect.rank_biserial == pytest.approx((3 + 2 - 1) / 6)
    assert paired_effect("step", "option", np.ones(2), np.ones(2)).rank_biserial == 0


def test_subsets_are_columns_by_pattern() -> None:
    names = ("qT1_gm1", "qT1_wm1", "FA_gm1", "age")
    grey, maps = read_subsets(["grey=*_gm*", "qT1+FA=qT1_*,FA_*"], names)
    assert (grey.columns, maps.columns, maps.name) == ((0, 2), (0, 1, 2), "qT1+FA")
    for text, line in (
        ("grey", "--subset: expected NAME=..."),
        ("grey=*_csf*", "--subset grey: no column matches"),
        ("every=*", "--subset every: has all 4 columns"),
        ("all=age", "'all' is no name for a folder"),
    ):
        with pytest.raises(InputError, match=line.replace("*", r"\*")):
            read_subsets([text], names)
    with pytest.raises(InputError, match="--subset a: is there twice"):
        read_subsets(["a=age", "a=FA*"], names)


def test_each_task_has_all_columns_and_each_subset(tmp_path) -> None:
    cases = simulate_cases(18, 12)
    settings = PipelineSettings("s", CLASSES, groups=row_groups(cases.names, "_"))
    tasks = read_tasks(["2-class=control,slow/fast", "speed=slow,fast"], CLASSES)
    parts = plan_parts(cases, settings, tmp_path, tasks, read_subsets(["FA=FA_*"], cases.names))
    assert [one.name for one in parts] == ["2-class", "2-class, FA", "speed", "speed, FA"]
    assert parts[3].folder == tmp_path / "speed" / "FA"
    assert parts[3].cases.features_NP.shape == (12, 4)
    assert parts[3].settings.groups == ("FA",) * 4
    assert parts[0].settings.classes == ("control", "slow/fast")
    (whole,) = plan_parts(cases, settings, tmp_path, (), ())
    assert (whole.name, whole.folder, whole.cases, whole.settings) == ("", tmp_path, cases, settings)
    few = replace(cases, labels_N=np.where(np.arange(18) < 4, 2, cases.labels_N % 2))
    with pytest.raises(
        InputError, match="--task speed: expected at least 6 patients of each class, found 5 of class slow, 4 of"
    ):
        plan_parts(few, settings, tmp_path, tasks, ())
    (tmp_path / "other").touch()
    with pytest.raises(InputError, match="holds no run of these tasks"):
        plan_parts(cases, settings, tmp_path, tasks, ())


def test_features_that_are_the_same_in_every_case_are_named() -> None:
    cases = simulate_cases(18, 6)
    cases.features_NP[:, 2] = 4
    assert constant_features(cases) == [cases.names[2]]
    cases.features_NP[:] = 4
    with pytest.raises(InputError, match="all other features are the same in every case"):
        constant_features(cases)


@pytest.mark.slow
def test_two_tasks_and_a_subset_by_command(tmp_path) -> None:
    """The first stage and tuned hyperparameters on a simulated table; z is there for each, and what is told agrees."""
    made = run_main(main, "make-table", "-o", tmp_path / "t.tsv", "--patients", "18", "--num-features", "9")
    assert made.returncode == 0, made.stderr
    again = run_main(main, "make-table", "-o", tmp_path / "t.tsv")
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    (tmp_path / "s.yaml").write_text(STUDY)
    command = (
        "pipelines", tmp_path / "s.yaml", "--table", tmp_path / "t.tsv", "-o", tmp_path / "out", "--group-by", "_",
        "--task", "2-class=control,slow/fast", "--task", "speed=slow,fast", "--subset", "grey=*_gm*",
        "--pipeline", "standard", "--classifiers", "SVM_LIN", "--search", "grid", "--test-tuned",
        "--permutations", "2", "--workers", "1", "--json",
    )  # fmt: skip
    done = run_main(main, *command)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(one["task"], one["columns"], one["features"]) for one in document["parts"]] == [
        ("2-class", "all", 9), ("2-class", "grey", 6), ("speed", "all", 9), ("speed", "grey", 6),
    ]  # fmt: skip
    tuned = [row["tuned"]["grid"] for part in document["parts"] for row in part["classifiers"]]
    assert all(one["p"] is not None for one in tuned)
    assert document["top"]["tested"] == 1
    (compared, *others) = document["subsets"]
    assert len(others) == 1
    assert [one["what"] for one in compared["cases"]] == ["pipeline", "grid search"]
    single = json.loads((tmp_path / "out" / "speed" / "grey" / "pipelines.json").read_text())
    assert single["tuned"][0]["chance"]["p"] == tuned[-1]["p"]
    assert single["classifiers"]["SVM_LIN"]["best"][0]["pipeline"] == vars(STANDARD)
    weights = (tmp_path / "out" / "2-class" / "weights.tsv").read_text().splitlines()
    assert len(weights) == 1 + 9  # of two classes one weight a feature
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert 'href="speed/grey/report.html"' in page
    assert run_main(main, *command).stdout == done.stdout


def test_what_cannot_act_is_refused_in_one_line(tmp_path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    for options, line in (
        (("--test-tuned",), "--test-tuned: no hyperparameters are tuned"),
        (("--test-all", "--permutations", "0"), "--permutations 0: nothing can be tested"),
    ):
        done = run_main(main, "pipelines", tmp_path / "s.yaml", "--table", "t.tsv", "-o", tmp_path / "out", *options)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert line in done.stderr
