"""A file in place of a folder, an empty one, another one: what is wrong with which, and what to name in its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from msfl_client.cli.main import main as client
from msfl_server.cli.main import main as server
from tests.commands import run_main

STUDY = "name: s\nrounds: {quorum: 1}\n"
OUTCOME = """name: s
task: classification
classification:
  outcome: {column: x, classes: ["1", "2"]}
  clinical: [age]
  model: {kind: logistic}
"""
STRANGE = [
    ("client init new --name a --data empty", "empty: is a file; name the BIDS folder that holds sub-*"),
    ("client init new --name a --data nowhere", "nowhere: no such folder; name the BIDS folder that holds sub-*"),
    ("client init empty --name a --data folder", "empty: is a file; name a folder"),
    ("client check study.yaml", "study.yaml: is a study's file; name the site's, such as site.yaml"),
    ("client check site.yaml --study site.yaml", "site.yaml: is a site's file; name the study's, such as study.yaml"),
    ("client check site.yaml --study folder", "folder: expected a plain file, found a folder; correct its name"),
    ("client join folder site.yaml", "folder: is a folder; name the coordinator's archive, a .zip file"),
    ("client join empty site.yaml", "empty: no zip archive, or a damaged one; ask the coordinator for it again"),
    (
        "client features site.yaml --model nowhere",
        "nowhere: no such folder; name a model folder, such as RUN_DIR/model",
    ),
    (
        "client features site.yaml --model empty",
        "empty: is a file; name a model folder, such as RUN_DIR/model of a run",
    ),
    ("client reset-answers site.yaml s", "no answer to study s is there; see `msfl-client ledger`"),
    ("server remove-site study a", "no site a; none is authorised yet"),
    ("server pipelines outcome.yaml --table folder --output o", "folder: is a folder; name the table's file"),
    (
        "server pipelines outcome.yaml --table empty --output o",
        "no tab-separated column participant_id; that line is empty",
    ),
    ("server make-cohort --output new --sites 0", "Invalid value for '--sites': 0; expected 1 to 1000"),
]
# No stranger knows what our code, Python's or a library's are called.
INTERNAL = re.compile(r"Error\b|Errno|Traceback|pydantic|BadZip|integer|\brange\b|dict|tuple|NoneType|msfl_\w+\.")


@pytest.mark.parametrize(("command", "line"), STRANGE)
def test_it_is_said_what_is_wrong_and_what_to_name(
    command: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    for folder in ("folder", "bids/sub-01/anat", "study/pki", "study/sites"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in (
        ("site.yaml", "name: a\ndata: bids\nstate: state\n"),
        ("study.yaml", STUDY),
        ("outcome.yaml", OUTCOME),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    side, *arguments = command.split()
    if "study" in arguments:
        assert run_main(server, "init", "made", "--host", "h").returncode == 0
        arguments[arguments.index("study")] = "made"
    done = run_main(client if side == "client" else server, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not INTERNAL.search(done.stderr)
