"""The commands as a user types them: a cohort, a federation, a kill, a model put to use."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

BIN = Path(sys.executable).parent
STUDY = """
name: tiny
min_cases: 1
inputs: {spacing_mm: 4.0}
model: {channels: [4, 8]}
training: {steps_per_round: 2, batch_size: 2, patch_voxels: 16}
validation: {bootstrap_samples: 100}
rounds: {num_rounds: 3, quorum: 2}
"""


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run one of our commands; stdout is empty or the result, stderr is for people."""
    command = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a coarse cohort of three sites, and a study that trains for seconds."""
    folder = tmp_path_factory.mktemp("simulation")
    (folder / "study.yaml").write_text(STUDY)
    made = json.loads(
        run("msfl-server", "make-cohort", folder / "cohort", "--cases", 2, "--spacing", 4, "--json").stdout
    )
    assert [site["cases"] for site in made["sites"]] == [2, 2, 2]
    return folder


@pytest.fixture(scope="module")
def finished(base: Path) -> Path:
    """A finished run."""
    out = base / "run"
    done = run("msfl-server", "simulate", base / "study.yaml", "--cohort", base / "cohort", "--out", out, "--json")
    assert json.loads(done.stdout) == json.loads((out / "summary.json").read_text())
    return out


def test_a_run_leaves_what_is_promised(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["rounds_requested"], summary["rounds_completed"]) == (3, 3)
    assert [site["name"] for site in summary["sites"]] == ["site-a", "site-b", "site-c"]
    assert {"dsc", "lesion_f1", "hd95_mm"} <= set(summary["history"][-1]["metrics"]) | {"hd95_mm"}
    assert set(summary["metrics"]["dsc"]["per_site"]) == {"site-a", "site-b", "site-c"}
    assert summary["timing"]["train_s"] > 0
    assert {path.name for path in (finished / summary["model"]).iterdir()} == {"model.safetensors", "model.json"}
    assert len(list((finished / "checkpoints").iterdir())) == 3
    page = (finished / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="https' not in page
    assert page.count("data:image") >= 3


def test_mlflow_holds_the_rounds_and_the_registered_model(finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    (run_info,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run_info.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_info.info.run_id, "dsc")] == [1, 2, 3]
    assert run_info.data.params["training.batch_size"] == "2"
    assert [version.run_id for version in client.search_model_versions("name='tiny'")] == [run_info.info.run_id]


def test_the_sites_ledgers_account_for_every_message(finished: Path) -> None:
    for site in ("site-a", "site-b", "site-c"):
        lines = [json.loads(line) for line in (finished / "sites" / site / "ledger.jsonl").read_text().splitlines()]
        kinds = [line["kind"] for line in lines]
        assert kinds == ["node_facts", *["model_update", "validation_metrics"] * 3]


def test_an_interrupted_run_resumes_to_the_same_weights(base: Path, finished: Path) -> None:
    out = base / "interrupted"
    command = ["simulate", base / "study.yaml", "--cohort", base / "cohort", "--out", out]
    process = subprocess.Popen(
        [str(BIN / "msfl-server"), *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    end = time.monotonic() + 120
    while not (out / "checkpoints" / "round_0001").exists():
        assert time.monotonic() < end
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    completed = json.loads((out / "summary.json").read_text())["rounds_completed"]
    assert 1 <= completed < 3
    run("msfl-server", "simulate", "--resume", out)
    assert (out / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (run_info,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert [point.step for point in client.get_metric_history(run_info.info.run_id, "train_loss")] == [1, 2, 3]


def test_a_kill_costs_nothing(base: Path, finished: Path) -> None:
    out = base / "killed"
    command = ["simulate", base / "study.yaml", "--cohort", base / "cohort", "--out", out]
    process = subprocess.Popen(
        [str(BIN / "msfl-server"), *map(str, command)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not (out / "checkpoints" / "round_0002").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    run("msfl-server", "simulate", "--resume", out)
    assert (out / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()


def test_resuming_a_finished_run_changes_nothing(base: Path, finished: Path) -> None:
    before = (finished / "model/model.safetensors").read_bytes()
    summary = json.loads(run("msfl-server", "simulate", "--resume", finished, "--json").stdout)
    assert summary["rounds_completed"] == 3
    assert (finished / "model/model.safetensors").read_bytes() == before


def test_the_model_is_put_to_use(base: Path, finished: Path) -> None:
    source = base / "cohort" / "site-a"
    rows = json.loads(
        run(
            "msfl-client", "predict", "--model", finished / "model", "--input", source, "--output", base / "d", "--json"
        ).stdout
    )
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert len(list((base / "d").rglob("*_mask.nii.gz"))) == 4


def test_one_bad_site_is_named_and_the_others_go_on(base: Path) -> None:
    cohort = base / "partly"
    cohort.mkdir()
    for site in ("site-a", "site-b", "site-c"):
        (cohort / site).symlink_to(base / "cohort" / site)
    (cohort / "site-d" / "sub-001" / "anat").mkdir(parents=True)
    (cohort / "site-d" / "sub-001" / "anat" / "sub-001_T1w.nii.gz").write_text("not an image")
    done = run(
        "msfl-server", "simulate", base / "study.yaml", "--cohort", cohort, "--out", base / "partly-out", "--json"
    )
    first = json.loads(done.stdout)["history"][0]
    assert first["sites_ok"] == ["site-a", "site-b", "site-c"]
    assert first["sites_failed"] == [{"site": "site-d", "code": "NO_CASES"}]


def test_flowers_engine_on_ray_runs_the_same_apps(base: Path) -> None:
    pytest.importorskip("ray")
    out = base / "ray"
    command = ("simulate", base / "study.yaml", "--cohort", base / "cohort", "--out", out, "--backend", "ray", "--json")
    summary = json.loads(run("msfl-server", *command).stdout)
    assert summary["rounds_completed"] == 3
    assert summary["history"][-1]["sites_ok"] == ["site-a", "site-b", "site-c"]


def test_faults_are_one_line_with_exit_code_2(base: Path, finished: Path) -> None:
    study, cohort = base / "study.yaml", base / "cohort"
    other = base / "other.yaml"
    other.write_text(STUDY.replace("tiny", "other"))
    broken = base / "broken.yaml"
    broken.write_text("name: x\nrounds: {quorum: none}\n")
    (base / "taken").mkdir(exist_ok=True)
    (base / "taken" / "thesis.txt").write_text("precious")
    simulate = ("msfl-server", "simulate")
    for arguments, expected in (
        ((*simulate, base / "nowhere.yaml", "--cohort", cohort, "--out", base / "x"), "no such file"),
        ((*simulate, broken, "--cohort", cohort, "--out", base / "x"), "rounds.quorum: found 'none'"),
        ((*simulate, study, "--cohort", base / "nowhere", "--out", base / "x"), "no such folder"),
        ((*simulate, study, "--cohort", base / "taken", "--out", base / "x"), "expected BIDS folders"),
        ((*simulate, study, "--cohort", cohort, "--out", base / "taken"), "is not empty and holds no run"),
        ((*simulate, other, "--cohort", cohort, "--out", finished), "belongs to another study"),
        ((*simulate, study, "--cohort", cohort, "--out", finished), "--resume"),
        ((*simulate, study, "--cohort", cohort, "--out", study), "cannot be written"),
        ((*simulate, "--resume", base / "taken"), "run.json: not there"),
        ((*simulate, study), "expected STUDY.yaml, --out"),
        (("msfl-server", "report", base / "taken"), "no such file"),
        (("msfl-server", "make-cohort", base / "taken"), "other than a simulated cohort"),
        (("msfl-server", "make-cohort", study / "cohort"), "cannot be written"),
        (
            ("msfl-client", "predict", "--model", base, "--input", cohort, "--output", base / "y"),
            "model.json is missing",
        ),
        (("msfl-client", "check", broken), "unknown key"),
    ):
        done = run(*arguments, code=2)
        assert expected in done.stderr.replace("\n", " "), done.stderr
        assert done.stdout == ""
    assert (base / "taken" / "thesis.txt").read_text() == "precious"
    assert not (base / "x").exists()
