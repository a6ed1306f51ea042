"""`msfl-server compare STUDY.yaml` as it is typed: cut off and gone on with, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from mlflow import MlflowClient
from tests.commands import run_main

from msfl_common.config.study import load_study
from msfl_server.cli.main import main
from msfl_server.research.arms.plan import ArmsPlan, claim_plan
from msfl_server.research.arms.scores import SCORES_FILE
from msfl_server.research.arms.work import do_run, work
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.rounds.checkpoint import RunState, read_state
from msfl_server.run.display import RunDisplay
from msfl_server.tracking.store import sqlite_uri

STUDY = """\
name: arms
task: classification
min_patients: 2
classification:
  outcome: {endpoint: activity}
  clinical: [age, edss]
  features: [bpf, log_lesion_volume]
  model: {kind: mlp, hidden: [3]}
rounds: {num_rounds: 3, quorum: 2}
"""


def compare(base: Path, *more: object) -> CompletedProcess[str]:
    return run_main(
        main,
        "compare",
        base / "study.yaml",
        "--cohort",
        base / "cohort",
        "--output",
        base / "out",
        "--workers",
        1,
        *more,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study and two sites of 40 patients; of its four runs the first is finished, the second was cut off."""
    folder = tmp_path_factory.mktemp("arms")
    make_records(folder / "cohort", num_sites=2, cases_per_site=40)
    (folder / "study.yaml").write_text(STUDY)
    out, on_round = folder / "out", RunDisplay.on_round
    study = load_study(folder / "study.yaml")
    sites = sites_of_cohort(folder / "cohort", out, study)
    plan = ArmsPlan(study=study, sites=sites, strategies=(), num_seeds=1)
    claim_plan(out, plan)

    def stop(display: RunDisplay, state: RunState) -> None:
        on_round(display, state)
        if list((out / "runs").rglob(SCORES_FILE)):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunDisplay, "on_round", stop)
        with pytest.raises(KeyboardInterrupt):
            work(plan, out)
    return folder


@pytest.mark.long
def test_cut_off_it_goes_on_where_it_was_and_repeats_nothing(base: Path, tmp_path: Path) -> None:
    out = base / "out"
    (finished,) = (out / "runs").rglob(SCORES_FILE)
    (cut_off,) = (path.parent for path in (out / "runs").rglob("checkpoints") if path.parent != finished.parent)
    assert read_state(cut_off).round == 1
    before = finished.stat().st_mtime_ns
    done = compare(base, "--json")
    assert done.returncode == 0, done.stderr
    assert "4 runs, 1 of them finished before; 1 at a time" in done.stderr
    assert "4 of 4: local/" in done.stderr
    assert finished.stat().st_mtime_ns == before
    study = load_study(base / "study.yaml")
    plan = ArmsPlan(study=study, sites=sites_of_cohort(base / "cohort", tmp_path, study), strategies=(), num_seeds=1)
    run = plan.runs[str(cut_off.relative_to(out / "runs"))]
    (tmp_path / "whole").mkdir(mode=0o700)
    do_run(plan, run, tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / SCORES_FILE).read_text()) == json.loads((cut_off / SCORES_FILE).read_text())
    _check_document(base, json.loads(done.stdout))
    again = compare(base)
    assert again.returncode == 0, again.stderr
    assert "4 runs, 4 of them finished before" in again.stderr
    assert "federated less local" in again.stdout


def _check_document(base: Path, document: dict[str, object]) -> None:
    """Figures of every arm and site, a page, and a run within a run in MLflow; no patient in any of them."""
    out = base / "out"
    assert document == {**json.loads((out / "comparison.json").read_text()), "warnings": []}
    assert not document["failed"]
    values = {(one["arm"], one["site"]) for one in document["values"] if one["metric"] == "auroc"}  # type: ignore[attr-defined]
    arms, places = ("local", "centralised", "federated"), ("site-a", "site-b", None)
    assert values == {(arm, place) for arm in arms for place in places}
    cross = {(one["model"], one["site"]) for one in document["cross_site"]}  # type: ignore[attr-defined]
    assert len(cross) == 2 * (2 + 2)
    page = (out / "comparison.html").read_text()
    assert "Sites better off" in page
    assert not any("sub-0" in text for text in (page, (out / "comparison.json").read_text()))
    client = MlflowClient(sqlite_uri(out))
    (experiment,) = (one for one in client.search_experiments() if one.name == "arms-comparison")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    within = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(within) == 4
    assert "gain/federated" in parent.data.metrics
    assert all({"site-a/auroc", "site-b/auroc"} <= set(run.data.metrics) for run in within)


def test_what_is_typed_for_arms_and_for_two_runs_is_not_mixed(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    for arguments, why in (
        ((study,), "expected STUDY.yaml, --output, and --cohort or --site"),
        ((study, tmp_path), "is no folder of a run"),
        ((tmp_path,), "expected a second one"),
        ((tmp_path, tmp_path, "--seeds", 3, "--strategies", "fedavg"), "--strategies, --seeds: for the arms"),
        ((study, "-o", tmp_path / "o", "--cohort", tmp_path, "--attack", "nan"), "--attack and --attacked together"),
    ):
        done = run_main(main, "compare", *arguments)
        assert done.returncode == 2
        assert why in done.stderr.replace("\n", " "), why
    assert not (tmp_path / "o").exists()
