"""The commands that make and change a study folder, as a coordinator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import run_main

from msfl_client.site.keys import make_key
from msfl_server.cli.main import main

FOLDERS = [str(Path(__file__).parents[3] / side) for side in ("common", "client", "server")]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(FOLDERS)}


def msfl_server(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_main(main, *arguments)


def test_a_study_from_init_to_removal(tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    made = msfl_server("init", folder, "--host", "fl.example.org", "--public-port", 443)
    assert (made.returncode, made.stderr) == (0, "")
    assert "sites reach it at fl.example.org:443." in made.stdout
    assert "server certificate until 20" in made.stdout
    assert f"msfl-server add-site {folder} NAME --public-key FILE" in made.stdout

    make_key(tmp_path / "site.key", "a")
    added = msfl_server("add-site", folder, "a", "--public-key", tmp_path / "site.key.pub", "--json")
    document = json.loads(added.stdout)
    assert (added.returncode, added.stderr) == (0, "")
    assert document["kit_archive"] == str(folder / "kits" / "a.zip")
    assert document["ca_sha256"] == json.loads((folder / "kits" / "a" / "kit.json").read_text())["ca_sha256"]

    assert json.loads(msfl_server("renew-certificate", folder, "--json").stdout)["expires_in_days"] >= 729
    removed = msfl_server("remove-site", folder, "a", "--json")
    assert json.loads(removed.stdout) == {"removed": "a", "sites": []}


def test_faults_are_one_line_and_exit_2(tmp_path: Path) -> None:
    for arguments, line in (
        (("init", tmp_path, "--host", "https://x"), "hosts: found ['https://x']; each is a host name"),
        (("init", tmp_path), "Missing option '--host'"),
        (("add-site", tmp_path, "a", "--public-key", "k"), "no study folder; make one with"),
        (("remove-site", tmp_path, "a"), "no study folder"),
        (("renew-certificate", tmp_path), "no study folder"),
    ):
        done = msfl_server(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert len(done.stderr.splitlines()) == 1
        assert line in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, msfl_server.cli.main\n"
        "print(sorted({'torch', 'flwr', 'mlflow', 'pydantic', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.stdout.strip() == "[]"


def test_a_setting_without_effect_is_said_on_stderr_and_in_the_document(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    model = "classification: {outcome: {column: label}, model: {kind: lda}}\n"
    study.write_text(f"name: pilot\ntask: classification\n{model}training: {{batch_size: 8}}\n")
    line = "training.batch_size: 8 has no effect: lda is not trained by such steps"
    made = msfl_server("init", tmp_path / "pilot", "--host", "fl.example.org", "--study", study, "--json")
    assert (made.returncode, made.stderr) == (0, f"warning: {line}\n")
    assert json.loads(made.stdout)["warnings"] == [line]
    make_key(tmp_path / "site.key", "a")
    added = msfl_server("add-site", tmp_path / "pilot", "a", "--public-key", tmp_path / "site.key.pub")
    assert (added.returncode, added.stderr) == (0, f"warning: {line}\n")
