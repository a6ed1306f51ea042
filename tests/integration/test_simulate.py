"""The commands as a user types them: a cohort, a federation, a kill, a model put to use."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from tests.commands import run_main, take_interrupts
from tests.integration.deployment import BIN, ENVIRONMENT

from msfl_client.cli.main import main as client_main
from msfl_server.cli.main import main as server_main
from msfl_server.research.simulated_cohort import make_cohort

STUDY = """
name: tiny
min_patients: 1
inputs: {spacing_mm: 4.0}
network: {kind: unet, channels: [4, 8]}
training: {steps_per_round: 2, batch_size: 2, patch_voxels: 16}
rounds: {num_rounds: 3, quorum: 2}
"""


MAINS = {"msfl-server": server_main, "msfl-client": client_main}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the processes have: sums of two threads round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run one of our commands here; stdout is empty or the result, stderr is for people."""
    return checked(run_main(MAINS[str(arguments[0])], *arguments[1:]), code)


def run_process(*command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    first, *rest = map(str, command)
    done = subprocess.run(
        [str(BIN / first), *rest], capture_output=True, text=True, env=ENVIRONMENT, timeout=540, check=False
    )
    return checked(done, code)


def checked(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a coarse cohort of three sites, and a study that trains for seconds."""
    folder = tmp_path_factory.mktemp("simulation")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "short.yaml").write_text(STUDY.replace("num_rounds: 3", "num_rounds: 2"))
    make_cohort(folder / "cohort", num_sites=3, cases_per_site=2, seed=0, spacing_mm=4.0, num_workers=1)
    return folder


@pytest.fixture(scope="module")
def finished(base: Path) -> Path:
    """A finished run."""
    out = base / "run"
    command = ("simulate", base / "study.yaml", "--cohort", base / "cohort", "--out", out, "--json")
    done = run_process("msfl-server", *command)
    assert json.loads(done.stdout) == {**json.loads((out / "summary.json").read_text()), "warnings": []}
    return out


def test_the_command_makes_the_same_cohort(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    made = json.loads(
        run("msfl-server", "make-cohort", out, "--sites", 1, "--cases", 1, "--spacing", 4, "--json").stdout
    )
    assert [site["patients"] for site in made["sites"]] == [1]
    (image, *_) = sorted((out / "site-a").rglob("*_FLAIR.nii.gz"))
    assert image.read_bytes() == (base / "cohort" / image.relative_to(out)).read_bytes()


def test_a_run_leaves_what_is_promised(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["rounds_requested"], summary["rounds_completed"]) == (3, 3)
    assert [site["name"] for site in summary["sites"]] == ["site-a", "site-b", "site-c"]
    assert {"dsc", "lesion_f1", "hd95_mm"} <= set(summary["history"][-1]["metrics"]) | {"hd95_mm"}
    assert set(summary["metrics"]["dsc"]["per_site"]) == {"site-a", "site-b", "site-c"}
    assert summary["timing"]["train_s"] > 0
    assert {path.name for path in (finished / summary["model"]).iterdir()} == {
        "model.safetensors",
        "model.json",
        "signature.json",
    }
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


# `msfl-server`, which sends itself a signal in the middle of a round, on its way to the second site.
STOPPED = """
import os, sys
from msfl_client.rounds import site_context
from msfl_server.cli.main import main
train, at_round, number = site_context.train_site, int(sys.argv.pop(1)), int(sys.argv.pop(1))
begun = []
def train_site(site, task, weights):
    begun.append(task.round)
    if begun.count(at_round) == 2:
        os.kill(os.getpid(), number)
    return train(site, task, weights)
site_context.train_site = train_site
main()
"""


def run_stopped(at_round: int, how: signal.Signals, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command of `msfl-server` that gets a signal in a round."""
    command = [sys.executable, "-c", STOPPED, str(at_round), str(int(how)), *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
        preexec_fn=take_interrupts,
    )


def test_an_interrupted_and_a_killed_run_resume_to_the_same_weights(base: Path, finished: Path) -> None:
    out = base / "interrupted"
    command = ("simulate", base / "study.yaml", "--cohort", base / "cohort", "--out", out)
    interrupted = run_stopped(2, signal.SIGINT, *command)
    assert interrupted.returncode == 130, interrupted.stderr
    assert f"resume with `msfl-server simulate --resume {out}`" in interrupted.stderr.replace("\n", "")
    assert "interrupted" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    assert json.loads((out / "summary.json").read_text())["rounds_completed"] == 1
    killed = run_stopped(3, signal.SIGKILL, "simulate", "--resume", out)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (out / "checkpoints" / "round_0002").exists()
    run("msfl-server", "simulate", "--resume", out)
    assert (out / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (run_info,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert [point.step for point in client.get_metric_history(run_info.info.run_id, "train_loss")] == [1, 2, 3]


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


def test_one_bad_site_is_named_and_the_others_go_on(base: Path, ready_store: Path) -> None:
    cohort = base / "partly"
    cohort.mkdir()
    for site in ("site-a", "site-b", "site-c"):
        (cohort / site).symlink_to(base / "cohort" / site)
    (cohort / "site-d" / "sub-001" / "anat").mkdir(parents=True)
    (cohort / "site-d" / "sub-001" / "anat" / "sub-001_T1w.nii.gz").write_text("not an image")
    shutil.copy(ready_store, base / "partly.db")
    done = run(
        "msfl-server", "simulate", base / "short.yaml", "--cohort", cohort, "--out", base / "partly-out",
        "--tracking-uri", f"sqlite:///{base / 'partly.db'}", "--json",
    )  # fmt: skip
    first = json.loads(done.stdout)["history"][0]
    assert first["sites_ok"] == ["site-a", "site-b", "site-c"]
    assert first["sites_failed"] == [{"site": "site-d", "code": "NO_CASES"}]


@pytest.mark.long
def test_flowers_engine_on_ray_runs_the_same_apps(base: Path, ready_store: Path) -> None:
    pytest.importorskip("ray")
    shutil.copy(ready_store, base / "ray.db")
    done = run_process(
        "msfl-server", "simulate", base / "short.yaml", "--cohort", base / "cohort", "--out", base / "ray",
        "--backend", "ray", "--tracking-uri", f"sqlite:///{base / 'ray.db'}", "--json",
    )  # fmt: skip
    summary = json.loads(done.stdout)
    assert summary["rounds_completed"] == 2
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
        (("msfl-server", "report", base / "taken"), "holds no run"),
        (("msfl-server", "make-cohort", base / "taken"), "other than a simulated cohort"),
        (("msfl-server", "make-cohort", study / "cohort"), "cannot be written"),
        (
            ("msfl-client", "predict", "--model", base, "--input", cohort, "--output", base / "y"),
            "model.json is missing",
        ),
        (("msfl-client", "check", broken), "is a study's file; name the site's"),
    ):
        done = run(*arguments, code=2)
        assert expected in done.stderr.replace("\n", " "), done.stderr
        assert done.stdout == ""
    assert (base / "taken" / "thesis.txt").read_text() == "precious"
    assert not (base / "x").exists()
