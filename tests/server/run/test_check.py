"""`msfl-server check`: what is wrong with a study before a site has it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from tests.commands import run_main
from tests.integration.deployment import free_ports

from msfl_common.config.policy_rules import not_allowed
from msfl_common.config.site import Policy
from msfl_common.config.study import load_study
from msfl_common.feature_models.registry import SOLVABLE
from msfl_server.cli.main import main as server
from msfl_server.run.check import check_folder, check_settings
from msfl_server.run.cost import cost_of
from msfl_server.study.folder import init_study
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig

SOLVED = f"""\
name: pilot
task: classification
harmonization: {{method: combat}}
classification:
  outcome: {{endpoint: edss-worsening}}
  clinical: [age, sex]
  model: {{kind: {SOLVABLE[0]}}}
training: {{steps_per_round: 7}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    (tmp_path / "study.yaml").write_text("name: pilot\nrounds: {num_rounds: 2, quorum: 2}\n")
    ports = dict(zip(("port", "control_port", "mlflow_port"), free_ports(3), strict=True))
    server_config = ServerConfig(hosts=("localhost",), bind="127.0.0.1", **ports)
    return init_study(tmp_path / "study", server_config, tmp_path / "study.yaml")


def test_a_file_that_cannot_be_read_is_named_once(folder: StudyFolder) -> None:
    folder.server_file.write_text("hosts: [localhost\n")
    done = run_main(server, "check", folder.root)
    assert (done.returncode, (done.stdout + done.stderr).count("not valid YAML")) == (2, 2)  # where, and why it ends
    assert "more)" not in done.stderr


def test_a_file_alone_tells_what_sites_will_refuse_and_what_does_not_act(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(SOLVED)
    done = run_main(server, "check", tmp_path / "study.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    for told in (
        "pilot: classification, no images, rounds need",
        "refuses the study: task classification, which `policy.tasks`",
        f"refuses the study: model {SOLVABLE[0]}, which `policy.refuse_models` names",
        "does not send harmonization_sums: it has to stand in `policy.allow`",
        "training.steps_per_round: 7 has no effect",
    ):
        assert told in done.stdout
    (tmp_path / "lda.yaml").write_text(SOLVED.replace(SOLVABLE[0], "lda"))
    assert "1 round of lda, 17 parameters; in a round" in run_main(server, "check", tmp_path / "lda.yaml").stdout
    study = load_study(tmp_path / "study.yaml")
    assert not_allowed(Policy(allow=("model_update", "validation_metrics", "node_facts")), study) == [
        "harmonization_sums"
    ]


def test_sizes_are_those_of_the_arrays_that_are_sent(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: pilot\n")
    (cost,) = cost_of(load_study(tmp_path / "study.yaml"))
    assert cost.from_site_bytes == 4 * cost.num_parameters
    assert cost.to_site_bytes == 8 * cost.num_parameters  # to train from, and to validate
    told = [one.text for one in check_settings(load_study(tmp_path / "study.yaml")) if one.what == "model"]
    assert f"{cost.num_parameters:,} parameters" in told[0]
    (tmp_path / "masked.yaml").write_text("name: pilot\nsecure_aggregation: {method: masks}\n")
    (masked,) = cost_of(load_study(tmp_path / "masked.yaml"))
    assert 0 < masked.from_site_bytes - 6 * cost.num_parameters < 60  # cases, loss and the like


def test_a_folder_in_order_can_be_started_and_lacks_its_sites(folder: StudyFolder) -> None:
    done = run_main(server, "check", folder.root, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["can_start"]) == (0, True)
    levels = {one["what"]: one["level"] for one in document["findings"]}
    assert (levels["ports"], levels["secrets"], levels["disk"], levels["sites"]) == ("ok", "ok", "ok", "note")


def test_each_fault_of_a_folder_is_named_with_its_fix(folder: StudyFolder) -> None:
    folder.server_key.chmod(0o644)
    port = int(folder.server_file.read_text().split("\nport: ")[1].split()[0])
    with socket.create_server(("127.0.0.1", port)):
        done = run_main(server, "check", folder.root)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "server.key: other accounts may use it (mode 0644); run `chmod 600" in done.stdout
    assert f"port: {port} on 127.0.0.1 cannot be opened" in done.stdout
    assert done.stderr.startswith(f"{folder.root}: cannot be started: ")
    assert done.stderr.rstrip().endswith("(and 1 more)")


def test_a_wrong_key_is_a_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: pilot\ntrainig: {}\n")
    done = run_main(server, "check", tmp_path / "study.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "trainig: unknown key" in done.stderr


def test_masks_need_enough_sites_and_a_threshold_that_holds(folder: StudyFolder) -> None:
    def told(text: str, num_sites: int) -> list[tuple[str, str]]:
        folder.study_file.write_text(f"name: pilot\nsecure_aggregation: {text}\n")
        for number in range(num_sites):
            (folder.sites / f"site-{number}.pub").write_text("key")
        findings = check_folder(folder, load_study(folder.study_file), "lock")
        return [(one.level, one.text) for one in findings if one.what == "masks"]

    assert told("{method: none}", 1) == []
    assert told("{method: masks, min_sites: 4}", 2) == [
        ("note", "secure_aggregation: sums under masks need 4 sites or more, and 2 take part")
    ]
    ((level, text),) = told("{method: masks, min_sites: 3, threshold: 3}", 6)
    assert (level, text) == (
        "fault",
        "secure_aggregation.threshold: 3 of 6 sites opens a sum; it takes 4 to 6",
    )
    ((level, text),) = told("{method: masks}", 6)
    assert level == "ok"
    assert "a sum has 3 sites or more, and 4 of 6 open it" in text


@pytest.mark.parametrize(
    ("validation", "level", "told"),
    [
        (
            "{}",
            "note",
            "of validation patients, who may have chosen the model or its settings; validation.test_fraction",
        ),
        (
            "{test_fraction: 0.25}",
            "ok",
            "of 0.25 of each site's patients, who neither train nor choose; a site where those",
        ),
        ("{fold: {number: 2, of: 5}}", "ok", "fold 2 of 5 of each site's patients, who neither train nor choose"),
        ("{fold: {site: site-b}}", "ok", "final figures are of site-b, who neither train nor choose"),
    ],
)
def test_whose_the_final_figures_will_be_is_said(tmp_path: Path, validation: str, level: str, told: str) -> None:
    (tmp_path / "study.yaml").write_text(f"name: pilot\nvalidation: {validation}\n")
    (found,) = [one for one in check_settings(load_study(tmp_path / "study.yaml")) if one.what == "test"]
    assert found.level == level
    assert told in found.text
