"""A study of outcomes by the commands that a user types: tables of patients in, a model and a report out."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from tests.benchmarks.simulated_rounds import in_one_place, tell_nobody, train
from tests.integration.test_simulate import BIN, run

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.clinical.inputs import dataset_of
from msfl_common.config.study import load_study
from msfl_common.feature_models import predict_proba
from msfl_common.models.model_folder import load_model
from msfl_server.research.simulation.folder import sites_of_cohort

STUDY = """
name: outcomes
task: classification
min_patients: 2
classification:
  outcome: {endpoint: activity}
  features: [log_lesion_volume, bpf]
  clinical: [age, edss]
  model: {kind: KIND}
rounds: {num_rounds: 12, quorum: 3}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of tables at three sites, and two studies."""
    folder = tmp_path_factory.mktemp("classification")
    for kind in ("mlp", "lda"):
        (folder / f"{kind}.yaml").write_text(STUDY.replace("KIND", kind))
    run("msfl-server", "make-cohort", folder / "cohort", "--cases", 60, "--records")
    return folder


@pytest.fixture(scope="module")
def resumed(base: Path) -> Path:
    """A run that was killed after some rounds, and resumed."""
    out = base / "killed"
    command = ["simulate", base / "mlp.yaml", "--cohort", base / "cohort", "--out", out]
    process = subprocess.Popen(
        [str(BIN / "msfl-server"), *map(str, command)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not (out / "checkpoints" / "round_0002").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "model").exists(), "the run ended before it could be killed"
    run("msfl-server", "simulate", "--resume", out)
    return out


def test_a_run_reports_the_outcome(resumed: Path) -> None:
    summary = json.loads((resumed / "summary.json").read_text())
    assert (summary["task"], summary["rounds_completed"]) == ("classification", 12)
    assert summary["classification"]
    assert 0 <= summary["metrics"]["auroc"]["mean"] <= 1
    page = (resumed / "report.html").read_text()
    for expected in ("Research use only", "AUROC", "Calibration"):
        assert expected.lower() in page.lower()
    assert "sub-0" not in page


def test_a_kill_costs_nothing(base: Path, resumed: Path) -> None:
    study = load_study(base / "mlp.yaml")
    train(study, sites_of_cohort(base / "cohort", base / "mlp", study), base / "mlp")
    whole, mended = (folder / "model" / "model.safetensors" for folder in (base / "mlp", resumed))
    assert whole.read_bytes() == mended.read_bytes()


def test_sums_over_sites_are_sums_in_one_place(base: Path) -> None:
    study = load_study(base / "lda.yaml")
    sites = sites_of_cohort(base / "cohort", base / "lda", study)
    federated = train(study, sites, base / "lda" / "federated")
    together = train(study, [in_one_place(sites, base / "lda" / "state")], base / "lda" / "together")
    data = read_outcomes(sites[0], study, tell_nobody)
    assert study.classification is not None
    inputs_NP = dataset_of(data.splits.test, study.classification, data.raw).features_NP
    ours, theirs = (predict_proba(study.classification, weights, inputs_NP) for weights in (federated, together))
    assert np.ptp(ours[:, 1]) > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert load_model(base / "lda" / "federated" / "model")[0].labels == {0: "0", 1: "1"}
