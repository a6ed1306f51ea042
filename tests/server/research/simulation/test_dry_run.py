"""`simulate --dry-run` says what the run then does, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands import run_main

from msfl_server.cli.main import main as server
from msfl_server.research.simulated_cohort import make_records
from msfl_server.results.summary import read_summary

STUDY = """\
name: pilot
task: classification
min_patients: {floor}
rounds: {{num_rounds: 2, quorum: 2}}
classification:
  outcome: {{endpoint: edss-worsening}}
  clinical: [age, sex, edss]
  model: {{kind: logistic}}
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dry") / "cohort"
    make_records(folder, num_sites=2, cases_per_site=60)
    return folder


def study_file(folder: Path, floor: int) -> Path:
    path = folder / "study.yaml"
    path.write_text(STUDY.format(floor=floor))
    return path


def everything(*folders: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@pytest.mark.slow
def test_what_is_said_is_what_the_run_does_and_nothing_is_written(
    cohort: Path, tmp_path: Path, ready_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    before = everything(cohort, tmp_path)
    done = run_main(server, "simulate", study, "--cohort", cohort, "--dry-run", "--json")
    assert (done.returncode, everything(cohort, tmp_path)) == (0, before)
    document = json.loads(done.stdout)
    assert document["can_start"]
    (stage,) = document["stages"]
    assert (stage["model"], stage["num_rounds"]) == ("logistic", 2)
    uri = f"sqlite:///{ready_store}"
    ran = run_main(server, "simulate", study, "--cohort", cohort, "--output", tmp_path / "run", "--tracking-uri", uri)
    assert ran.returncode == 0
    summary = read_summary(tmp_path / "run")
    assert {one["site"]: one["cases_train"] // 10 for one in document["sites"]} == {
        one.name: one.cases_train // 10 for one in summary.sites
    }  # sites round their counts
    assert any(one["withheld"] for one in document["forecasts"]), "so few patients that some figure is withheld"
    for forecast in document["forecasts"]:
        tested = [one for one in forecast["withheld"] if one["step"] == "test"]
        withheld = {name for one in tested for name in one["metrics"]}
        told = {name for name, metric in summary.metrics.items() if forecast["site"] in metric.per_site}
        assert not told & withheld


def test_a_run_that_could_not_count_is_a_fault_and_exit_2(cohort: Path, tmp_path: Path) -> None:
    done = run_main(server, "simulate", study_file(tmp_path, 500), "--cohort", cohort, "--dry-run")
    assert done.returncode == 2
    assert "site-a" in done.stdout, "the table is shown all the same"
    assert "0 of 2 sites will train" in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.yaml"]


def test_a_study_that_is_refused_leaves_the_folder_to_a_corrected_one(cohort: Path, tmp_path: Path) -> None:
    words = ("simulate", study_file(tmp_path, 500), "--cohort", cohort, "--output", tmp_path / "run", "--set", "seed=3")
    for _ in range(2):
        done = run_main(server, *words)
        assert done.returncode == 2
        assert "0 of 2 sites will train" in done.stderr.splitlines()[-1], "not: is not empty"
    if (tmp_path / "run" / "sites").exists():
        assert f"is kept in {tmp_path / 'run' / 'sites'}" in " ".join(done.stderr.split())


def test_resuming_takes_the_settings_of_the_run_and_no_others(tmp_path: Path) -> None:
    done = run_main(server, "simulate", "--resume", tmp_path, "--set", "seed=3")
    assert (done.returncode, "leave out --set" in done.stderr) == (2, True)


def test_what_a_network_starts_from_is_held_against_it_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "cohort" / "site-a" / "sub-01").mkdir(parents=True)
    study, out = tmp_path / "study.yaml", tmp_path / "run"
    settings = "name: s\nnetwork: {kind: unet, channels: [2, 4]}\nrounds: {quorum: 1}\n"
    for more, arguments, words in (
        ("", ("--start-from", tmp_path / "none"), "no such folder"),
        ("training: {freeze: [nothing]}\n", (), "nothing: no layer of study s's network has that name"),
        ("training: {freeze: ['*']}\n", (), "leaves nothing of study s's network to train"),
    ):
        study.write_text(settings + more)
        for last in (("--dry-run",), ("--output", out)):
            done = run_main(server, "simulate", study, "--cohort", tmp_path / "cohort", *arguments, *last)
            assert (done.returncode, out.exists()) == (2, False)
            assert words in done.stderr


def test_a_run_that_is_gone_on_with_takes_no_other_start(tmp_path: Path) -> None:
    done = run_main(server, "simulate", "--resume", tmp_path / "run", "--start-from", tmp_path / "model")
    assert done.returncode == 2
    assert "--model, --start-from" in done.stderr
