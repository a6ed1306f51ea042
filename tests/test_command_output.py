"""What commands print, and where: results on stdout, the rest on stderr, one JSON document with --json."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from msfl_client.cli.main import main as client
from msfl_client.site.folder import init_site
from msfl_common import __version__
from msfl_common.config.study import load_study
from msfl_common.system.command_line import OLD_NAMES
from msfl_server.cli.main import main as server
from msfl_server.results.summary import write_summary
from msfl_server.rounds.checkpoint import RunState
from msfl_server.run.summarise import summarise_run
from msfl_server.study.folder import init_study
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site
from tests.commands import run_main


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    done = run_main(server, "make-cohort", "-o", tmp_path / "cohort", "--without-images", "--sites", 1, "--patients", 4)
    assert done.returncode == 0
    return tmp_path / "cohort"


def test_what_options_were_called_before_still_works(cohort: Path, tmp_path: Path) -> None:
    done = run_main(server, "make-cohort", tmp_path / "same", "--records", "--sites=1", "--cases=4", "--json")
    assert json.loads(done.stdout)["sites"][0]["patients"] == 4
    for path in cohort.rglob("*.tsv"):
        assert path.read_bytes() == (tmp_path / "same" / path.relative_to(cohort)).read_bytes()
    shown = run_main(server, "make-cohort", "--help").stdout
    assert not any(re.search(rf"{old}\b", shown) for old in OLD_NAMES)
    both = run_main(server, "make-cohort", tmp_path / "a", "--output", tmp_path / "b", "--records")
    assert (both.returncode, both.stderr) == (2, "expected --output with the folder to write\n")


@pytest.mark.parametrize("place", [0, 1, 99])
def test_quiet_leaves_results_and_errors(place: int, tmp_path: Path) -> None:
    words: list[object] = ["make-cohort", "--without-images", "--sites", 1, "--patients", 2, "--output"]
    words.insert(place, "--quiet")
    target = tmp_path / "cohort"
    if place == 99:
        words = [*words[:-2], "--output", target, "-q"]
    else:
        words.append(target)
    done = run_main(server, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    loud = run_main(server, *(word for word in words if word not in ("--quiet", "-q")))
    assert "2 patients at 1 site" in loud.stderr
    failed = run_main(server, "report", "--quiet", tmp_path / "nothing")
    assert failed.returncode == 2
    assert "nothing: no such file" in failed.stderr


def test_verbose_says_what_is_done_and_leaves_stdout_alone(tmp_path: Path, cohort: Path) -> None:
    silent = run_main(client, "init", tmp_path / "site", "--name", "a", "--data", cohort / "site-a", "--json")
    assert silent.stderr == ""
    shutil.rmtree(tmp_path / "site")
    done = run_main(client, "init", tmp_path / "site", "--name", "a", "--data", cohort / "site-a", "--json", "-v")
    assert json.loads(done.stdout)["site_file"]
    assert f"DEBUG wrote {tmp_path / 'site' / 'site.yaml'}" in done.stderr
    assert f"INFO msfl {__version__}, Python" in done.stderr
    assert (
        f"DEBUG reading {tmp_path / 'site' / 'site.yaml'}" in run_main(client, "status", tmp_path / "site", "-v").stderr
    )
    assert run_main(client, "status", tmp_path / "site").stderr == ""


def test_every_command_of_a_sites_life_has_one_document(tmp_path: Path, cohort: Path) -> None:
    site, study = tmp_path / "site", tmp_path / "study"

    def document(main: Callable[[], None], *words: object, code: int = 0) -> dict[str, object]:
        done = run_main(main, *words, "--json")
        assert done.returncode == code, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    assert document(client, "init", site, "--name", "a", "--data", cohort / "site-a")["public_key"]
    assert document(server, "init", study, "--host", "localhost")["study"]
    added = document(server, "add-site", study, "a", "--public-key", site / "site.key.pub")
    joined = document(client, "join", added["kit_archive"], site, "--fingerprint", added["ca_sha256"])
    assert joined["ca_sha256"] == added["ca_sha256"]
    assert document(client, "approve", site, "--yes") == joined
    assert document(client, "stop", site) == {"site": "a", "stopped": False}
    assert document(client, "status", site, code=1)["running"] is False
    answered = site / "state" / "answers" / "pilot" / "final-train.json"
    answered.parent.mkdir(parents=True, mode=0o700)
    answered.write_text("{}")
    assert document(client, "reset-answers", site, "pilot", "--yes")["answers_forgotten"] == 0
    assert document(client, "ledger", site)["site"] == "a"
    assert document(server, "stop", study)["stopped"] is False
    assert document(server, "status", study, code=1)["sites"] == ["a"]
    assert document(server, "ledgers", study)["broken"] == []
    assert document(server, "remove-site", study, "a")["sites"] == []
    refused = run_main(server, "status", study, "--watch", "--json")
    assert (refused.returncode, refused.stderr) == (2, "--watch and --json: leave one out\n")


def test_a_person_who_is_asked_is_asked_on_stderr_where_stdout_is_a_document(
    tmp_path: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = init_site(tmp_path / "site", "a", cohort / "site-a", None)
    study = init_study(tmp_path / "study", ServerConfig(hosts=("localhost",)))
    archive = add_site(study, "a", site.public_key_file)

    def answer(text: str, *more: str) -> CompletedProcess[str]:
        typed = io.StringIO(text)
        typed.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", typed)
        return run_main(client, "join", archive, tmp_path / "site", *more)

    refused = answer("no\n", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Approve it? Type yes: " in refused.stderr
    assert "Approve it? Type yes: " in answer("no\n").stdout
    assert json.loads(answer("yes\n", "--json").stdout)["study"] == "study"


def test_what_runs_until_it_is_stopped_prints_its_document_then(
    tmp_path: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_site(tmp_path / "site", "a", cohort / "site-a", None)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("msfl_client.connection.supervisor.supervise", interrupted)
    done = run_main(client, "start", tmp_path / "site", "--json")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert json.loads(done.stdout) == {"site": "a", "status": None}
    study = init_study(tmp_path / "study", ServerConfig(hosts=("localhost",)))
    summary = summarise_run(load_study(study.study_file), RunState())
    write_summary(study.run, summary)

    class Finished:
        def __init__(self, *_: object) -> None:
            pass

        def run(self) -> None:
            pass

    monkeypatch.setattr("msfl_server.flower.coordinator.Coordinator", Finished)
    done = run_main(server, "start", tmp_path / "study", "--json", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(summary.model_dump_json())
    assert "a round needs 2 sites, and none may take part yet" in run_main(server, "start", tmp_path / "study").stderr
