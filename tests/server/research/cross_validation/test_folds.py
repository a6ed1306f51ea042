"""All folds by one command: what it leaves, how it goes on, what it refuses, and how folds are put together."""

from __future__ import annotations

import io
import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rich.console import Console
from tests.commands import run_main
from tests.server.rounds.test_classification import play

from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.intervals import Estimate, effective_number, wilson
from msfl_server.cli.main import main
from msfl_server.research.cross_validation.folds import FoldPlan, claim_plan
from msfl_server.research.cross_validation.report import PAGE_FILE, render_table, write_page
from msfl_server.research.cross_validation.results import (
    PLAN_FILE,
    FoldMetric,
    cross_validation,
    fold_result,
    over_folds,
)
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.results.summary import read_summary
from msfl_server.rounds.checkpoint import RunState, read_state
from msfl_server.run.display import RunDisplay

STUDY = """\
name: folds
task: classification
min_patients: 2
classification:
  outcome: {endpoint: activity}
  features: [bpf, log_lesion_volume]
  clinical: [age, edss]
  model: {kind: mlp, hidden: [3]}
rounds: {num_rounds: 2, quorum: 2}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, and two sites of 40 patients as tables."""
    folder = tmp_path_factory.mktemp("cross-validation")
    make_records(folder / "cohort", num_sites=2, cases_per_site=40)
    (folder / "study.yaml").write_text(STUDY)
    return folder


def cross_validate(base: Path, out: Path, *more: object, study: Path | None = None) -> CompletedProcess[str]:
    return run_main(
        main, "cross-validate", study or base / "study.yaml", "--cohort", base / "cohort", "--out", out, *more
    )


@pytest.fixture(scope="module")
def stopped(base: Path) -> CompletedProcess[str]:
    """Two folds, interrupted after the first round of the second."""
    out, on_round = base / "out", RunDisplay.on_round

    def stop_in_the_second_fold(display: RunDisplay, state: RunState) -> None:
        on_round(display, state)
        if (out / "fold-1" / "finished").exists():
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunDisplay, "on_round", stop_in_the_second_fold)
        done = cross_validate(base, out, "--folds", 2, "--json")
    assert read_state(out / "fold-2").round == 1
    return done


@pytest.fixture(scope="module")
def whole(base: Path, stopped: CompletedProcess[str]) -> CompletedProcess[str]:
    """The same command again."""
    assert (stopped.returncode, stopped.stdout) == (130, "")
    before = (base / "out" / "fold-1" / "report.html").stat().st_mtime_ns
    done = cross_validate(base, base / "out", "--folds", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert (base / "out" / "fold-1" / "report.html").stat().st_mtime_ns == before
    assert "fold 1 of 2: fold-1, finished before" in done.stderr
    return done


@pytest.mark.long
def test_interrupted_it_comes_to_the_figures_of_folds_that_were_not(
    base: Path, whole: CompletedProcess[str], tmp_path: Path
) -> None:
    study = load_study(base / "study.yaml")
    plan = FoldPlan(schema_version=2, study=study, sites=sites_of_cohort(base / "cohort", tmp_path, study), num_folds=2)
    folds = [
        fold_result(name, run, play(run.study, base / "cohort", tmp_path / name).states[-1])
        for name, run in plan.runs.items()
    ]
    figures = cross_validation(study, folds).model_dump(mode="json")
    document = json.loads(whole.stdout)
    assert document.pop("together")  # of scores that these runs did not keep
    del figures["together"]
    assert document == {**figures, "warnings": []}


@pytest.mark.slow
def test_each_fold_is_a_run_and_all_patients_are_tested(base: Path, whole: CompletedProcess[str]) -> None:
    document, out = json.loads(whole.stdout), base / "out"
    assert document == {**json.loads((out / "cross-validation.json").read_text()), "warnings": []}
    assert [fold["name"] for fold in document["folds"]] == ["fold-1", "fold-2"]
    tested = [sum(fold["sites"].values()) for fold in document["folds"]]
    assert abs(tested[0] - tested[1]) <= 2
    assert sum(tested) > 60
    for fold in document["folds"]:
        folder = out / fold["name"]
        assert all((folder / name).exists() for name in ("model", "report.html", "mlflow.db", "checkpoints"))
        summary = read_summary(folder)
        assert fold["metrics"]["auroc"]["mean"] == summary.metrics["auroc"].mean
        assert summary.classification is not None
        assert summary.classification.split == "test"
    page = (out / PAGE_FILE).read_text()
    assert 'href="fold-2/report.html"' in page
    assert "Research use only" in page
    assert "sub-0" not in page


@pytest.mark.slow
def test_another_study_or_other_folds_are_refused_in_the_same_folder(
    base: Path, whole: CompletedProcess[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(STUDY + "seed: 1\n")
    for done, line in (
        (cross_validate(base, base / "out", "--folds", 3), "belongs to other folds, or folds of other sites"),
        (cross_validate(base, base / "out", "--folds", 2, study=other), "belongs to another study or other settings"),
        (cross_validate(base, base, "--folds", 2), "is not empty and holds no cross-validation"),
    ):
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert line in done.stderr


def test_folds_that_are_refused_leave_the_folder_to_a_corrected_study(base: Path, tmp_path: Path) -> None:
    for floor in (400, 500):
        study = tmp_path / "study.yaml"
        study.write_text(STUDY.replace("min_patients: 2", f"min_patients: {floor}"))
        done = cross_validate(base, tmp_path / "out", "--folds", 2, study=study)
        assert (done.returncode, "0 of 2 sites will train" in done.stderr) == (2, True), done.stderr
        assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) in ([], ["sites"])


@pytest.mark.slow
def test_a_segmentation_validates_each_patient_in_one_fold(make_site, tiny_study: StudyConfig, tmp_path: Path) -> None:
    one = tiny_study.model_copy(update={"rounds": tiny_study.rounds.model_copy(update={"num_rounds": 1})})
    (tmp_path / "study.yaml").write_text(one.model_dump_json())
    files = []
    for name in ("a", "b"):
        made = make_site(name, subjects=[f"sub-{number}" for number in range(3)])
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(
            f"name: {name}\ndata: [{made.root}]\nstate: {tmp_path}/state-{name}\npolicy: {{min_patients: 1}}\n"
        )
    sites = [word for file in files for word in ("--site", file)]
    command = ("cross-validate", tmp_path / "study.yaml", *sites, "--output", tmp_path / "out", "--folds", 3)
    done = run_main(main, *command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["outcome"] == "MS lesions"
    assert [fold["sites"] for fold in document["folds"]] == [{"a": 1, "b": 1}] * 3
    means = [fold["metrics"]["dsc"]["mean"] for fold in document["folds"]]
    assert document["metrics"]["dsc"]["mean"] == pytest.approx(sum(means) / 3)
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    assert "MS lesions" in page
    again = run_main(main, *command)
    models = " ".join(f"--model {tmp_path}/out/fold-{number}/model" for number in (1, 2, 3))
    assert f"msfl-client predict {models}" in " ".join(again.stderr.split())
    many = run_main(main, *command[:-3], tmp_path / "many", "--folds", 4)
    assert many.returncode == 2
    assert "fold-4: no patient tests it, as there are fewer than folds; lower --folds" in many.stderr
    assert not (tmp_path / "many" / "fold-1").exists()


@pytest.mark.parametrize(
    ("edit", "arguments", "line"),
    [
        ("", (), "expected either --folds or --leave-one-site-out"),
        ("", ("--folds", 3, "--leave-one-site-out"), "expected either --folds or --leave-one-site-out"),
        ("", ("--folds", 2, "--site", "site.yaml"), "expected either --cohort or --site"),
        ("", ("--folds", 1), "1; expected 2 to 50"),
        ("", ("--folds", 30), "too few for one in each of 30 folds; lower --folds"),
        ("", ("--leave-one-site-out",), "1 site trains in a fold, but rounds.quorum is 2; lower it"),
        ("harmonization: {method: combat}\n", ("--folds", 2), "2 sites train in a fold, but a harmonization needs 3"),
        ("fold: {site: a}", ("--folds", 2), "classification.fold: leave it out of the study"),
        ("lesions", ("--leave-one-site-out",), "1 site trains in a fold, but rounds.quorum is 2; lower it"),
        (
            "fedbn",
            ("--leave-one-site-out",),
            "strategy: fedbn keeps layers at the sites, and site-a, which is left out",
        ),
        ("masks", ("--leave-one-site-out",), "fold.site: the test at site-a alone would be a sum of one site"),
        ("fold: {number: 1, of: 2}", ("--folds", 2), "validation.fold: leave it out of the study"),
    ],
)
def test_what_cannot_be_cross_validated_is_one_line_and_exit_2(
    base: Path, tmp_path: Path, edit: str, arguments: tuple[object, ...], line: str
) -> None:
    text = {
        "fold: {site: a}": STUDY.replace("  model:", "  fold: {site: a}\n  model:"),
        "lesions": "name: lesions\n",
        "fedbn": "name: lesions\nstrategy: {kind: fedbn}\nrounds: {quorum: 1}\n",
        "masks": "name: lesions\nsecure_aggregation: {method: masks}\nrounds: {quorum: 1}\n",
        "fold: {number: 1, of: 2}": "name: lesions\nvalidation: {fold: {number: 1, of: 2}}\n",
    }.get(edit, STUDY + edit)
    (tmp_path / "study.yaml").write_text(text)
    done = cross_validate(base, tmp_path / "out", *arguments, study=tmp_path / "study.yaml")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert line in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_study_with_a_fold_of_a_site_that_is_not_there_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace("  model:", "  fold: {site: site-z}\n  model:"))
    out = tmp_path / "out"
    done = run_main(main, "simulate", tmp_path / "study.yaml", "--cohort", base / "cohort", "--out", out)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "there is no site site-z; there are site-a, site-b" in done.stderr
    assert not out.exists()


def test_each_site_is_left_out_once(base: Path) -> None:
    study = load_study(base / "study.yaml")
    sites = sites_of_cohort(base / "cohort", base / "out", study)
    runs = FoldPlan(schema_version=2, study=study, sites=sites, num_folds=None).runs
    assert {name: run.study.left_out for name, run in runs.items()} == {
        "without-site-a": "site-a",
        "without-site-b": "site-b",
    }
    assert all(run.sites == sites for run in runs.values())


def test_folds_of_a_segmentation_test_and_are_told_by_those_who_test(base: Path) -> None:
    study = StudyConfig(name="lesions", validation={"test_fraction": 0.25})
    sites = sites_of_cohort(base / "cohort", base / "out", study)
    by_patients, by_site = (
        FoldPlan(schema_version=2, study=study, sites=sites, num_folds=number).runs for number in (2, None)
    )
    assert [run.study.validation.fold.number for run in by_patients.values()] == [1, 2]
    assert [run.study.left_out for run in by_site.values()] == ["site-a", "site-b"]

    def told(mean: float) -> dict[str, ValidationMetrics]:
        return {site.name: ValidationMetrics({"dsc": Estimate(mean, 9, 0.1, 0, 1, 9)}, 9, 1.0) for site in sites}

    state = RunState(round=1, validation=told(0.9), test=told(0.5))
    result = fold_result("fold-1", by_patients["fold-1"], state)
    assert (result.metrics["dsc"].mean, result.num_cases) == (pytest.approx(0.5), 18)
    silent = fold_result("fold-1", by_patients["fold-1"], state.model_copy(update={"test": {}}))
    assert (silent.metrics, silent.withheld) == ({}, ("site-a", "site-b"))


def metric(mean: float, error: float | None) -> FoldMetric:
    return FoldMetric(mean=mean, standard_error=error, ci95_low=None, ci95_high=None, num_cases=9, num_sites=1)


def test_folds_are_averaged_and_their_variances_added() -> None:
    found = over_folds("auroc", {"a": metric(0.6, 0.03), "b": metric(0.8, 0.04), "c": None})
    assert (found.mean, found.num_folds, found.withheld) == (pytest.approx(0.7), 2, ("c",))
    size = 4 / sum(1 / effective_number(Estimate(mean, 1, error, 0, 0)) for mean, error in ((0.6, 0.03), (0.8, 0.04)))
    assert (found.ci95_low, found.ci95_high) == pytest.approx(wilson(0.7, size))
    assert (found.smallest.fold, found.largest.fold) == ("a", "b")
    assert over_folds("auroc", {"a": metric(1.0, 0.2)}).ci95_high == 1.0
    slope = over_folds("calibration_slope", {"a": metric(0.6, 0.3), "b": metric(0.8, 0.4)})
    assert slope.ci95_high == pytest.approx(0.7 + 1.959964 * 0.25)
    few = metric(0.6, 0.3).model_copy(update={"num_patients": 1})
    assert over_folds("auroc", {"a": few, "b": few}).ci95_low is None
    assert over_folds("auroc", {"a": few, "b": few}).num_patients == 2
    unknown = over_folds("auroc", {"a": metric(0.6, None), "b": metric(0.8, 0.04)})
    assert (unknown.ci95_low, unknown.ci95_high) == (None, None)


def told(auroc: float | None, num_patients: int | None = None) -> ValidationMetrics:
    estimates = {"brier": Estimate(0.2, 8, 0.02, 0.16, 0.24)}
    if auroc is not None:
        estimates["auroc"] = Estimate(auroc, 8, 0.05, auroc - 0.1, auroc + 0.1, num_patients)
    return ValidationMetrics(estimates, 8, 0.1)


def test_what_is_withheld_is_shown_and_not_averaged(base: Path, tmp_path: Path) -> None:
    study = load_study(base / "study.yaml")
    sites = tuple(
        SiteConfig(name=name, data=(tmp_path,), state=tmp_path / name, policy=Policy()) for name in ("site-a", "site-b")
    )
    runs = FoldPlan(schema_version=2, study=study, sites=sites, num_folds=3).runs
    tests = ({"site-a": told(0.7), "site-b": told(0.9)}, {"site-a": told(None)}, {})
    folds = [
        fold_result(name, run, RunState(round=2, test=test, validation={"site-a": told(0.5)}))
        for (name, run), test in zip(runs.items(), tests, strict=True)
    ]
    assert [fold.withheld for fold in folds] == [(), ("site-b",), ("site-a", "site-b")]
    assert folds[2].metrics == {}  # validation patients never stand in for test patients
    results = cross_validation(study, folds)
    assert (results.metrics["auroc"].mean, results.metrics["auroc"].withheld) == (0.8, ("fold-2", "fold-3"))
    assert (results.metrics["brier"].num_folds, results.metrics["brier"].withheld) == (2, ("fold-3",))
    render_table(results, Console(width=80, file=(shown := io.StringIO())))
    text = shown.getvalue()
    assert text.count("withheld") == 3
    assert "1 of 3" in text
    assert "From few patients" not in text  # no site told how many
    assert "fold-3: nothing told by site-a, site-b" in text
    page = write_page(tmp_path, results, study).read_text()
    assert page.count(">withheld<") == 3
    assert "fold-2: nothing told by site-b" in page
    run = runs["fold-1"]
    state = RunState(round=2, test={"site-a": told(1.0, 1), "site-b": told(1.0, 2)}, validation={})
    few = cross_validation(study, [fold_result("fold-1", run, state)])
    line = "From few patients, others may give quite other figures: AUROC: 3 patients of the smaller class."
    assert line in write_page(tmp_path, few, study).read_text()
    assert few.metrics["auroc"].ci95_low is None
    nobody = cross_validation(study, folds[2:])
    assert nobody.metrics == {}
    assert "Tested" in write_page(tmp_path, nobody, study).read_text()


@pytest.mark.slow
def test_a_fold_that_misses_its_quorum_is_named(base: Path, tmp_path: Path) -> None:
    for name, tasks in (("site-a", "[classification]"), ("site-b", "[lesion-segmentation]")):
        policy = f"policy: {{tasks: {tasks}, refuse_models: []}}"
        lines = (f"name: {name}", f"data: {base / 'cohort' / name}", f"state: {name}", policy)
        (tmp_path / f"{name}.yaml").write_text("\n".join(lines))
    sites = (part for name in ("site-a", "site-b") for part in ("--site", tmp_path / f"{name}.yaml"))
    out = tmp_path / "out"
    done = run_main(main, "cross-validate", base / "study.yaml", *sites, "--out", out, "--folds", 2)
    assert done.returncode == 2, "it is foreseen"
    assert "the quorum is 2: site-b: task classification, which `policy.tasks` does not name (POLICY)" in done.stderr
    assert not (out / "fold-1" / "finished").exists()


def test_folds_of_a_version_whose_folds_had_no_test_are_not_gone_on_with(tmp_path: Path) -> None:
    plan = FoldPlan(schema_version=2, study=StudyConfig(name="lesions"), sites=(), num_folds=2)
    claim_plan(tmp_path / "new", plan)
    claim_plan(tmp_path / "new", plan)
    content = json.loads((tmp_path / "new" / PLAN_FILE).read_text())
    del content["schema_version"]
    (tmp_path / "new" / PLAN_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match="of another version: choose another --output"):
        claim_plan(tmp_path / "new", plan)
