"""A study that predicts an outcome, among real processes: as in the simulation, killed or not, and what it tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.integration.deployment import deployment

from msfl_client.egress.ledger import read, verify
from msfl_common.config.base import validate
from msfl_common.config.study import StudyConfig
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.run import run_simulated

ROUNDS = 4
STUDY = """\
name: progression
task: classification
min_patients: 2
classification:
  outcome: {endpoint: activity}
  features: [bpf, log_lesion_volume]
  clinical: [age, edss]
  model: {kind: gradient-boosting, min_leaf_cases: 3}
rounds: {num_rounds: 4, quorum: 2}
"""

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(300)]


def test_trees_grow_among_real_sites_as_in_a_simulation_and_nothing_tells_who(tmp_path: Path) -> None:
    study = validate(StudyConfig, yaml.safe_load(STUDY), "study")
    make_records(tmp_path / "patients", num_sites=2, cases_per_site=80)
    sites = sites_of_cohort(tmp_path / "patients", tmp_path / "simulated", study)
    run_simulated(RunSetup(study=study, sites=sites), tmp_path / "simulated", "inprocess", None)
    folders = {site.name: site.data[0] for site in sites}
    with deployment(tmp_path / "federation", study, folders) as made:
        for name in folders:
            path = made.site(name) / "site.yaml"
            content = yaml.safe_load(path.read_text())
            content["policy"] = {"min_patients": 2, "tasks": ["classification"], "refuse_models": []}
            path.write_text(yaml.safe_dump(content))
        made.start_sites(*folders)
        made.start_server()
        made.wait_for_round(2)
        made.find("flower.server_process").kill()
        assert made.wait_for_end() == 0, made.logs()
        run = made.study.run
        assert (run / "model" / "model.safetensors").read_bytes() == (
            tmp_path / "simulated" / "model" / "model.safetensors"
        ).read_bytes()
        summary = json.loads((run / "summary.json").read_text())
        assert summary["classification"]["split"] == "test"
        assert summary["metrics"] == json.loads((tmp_path / "simulated" / "summary.json").read_text())["metrics"]
        for name in folders:
            ledger = made.site(name) / "state" / "ledger.jsonl"
            assert verify(ledger) >= 2 + 2 * ROUNDS  # facts, updates, validations, test
            kinds = {line.kind for line in read(ledger)}
            assert kinds == {"node_facts", "model_update", "validation_metrics"}
        told = b"".join(path.read_bytes() for path in made.study.root.rglob("*") if path.is_file())
        assert b"sub-0" not in told
