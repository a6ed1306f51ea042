"""Environment variables stand for secrets, and for nothing else; settings never hold what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_common.config.secrets import environment_without, refuse_password
from msfl_common.config.site import load_site
from msfl_common.config.study import load_study
from msfl_common.errors import ConfigError, InputError
from msfl_server.cli.main import main as server
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.study.server_config import load_server
from msfl_server.tracking.mlflow_server import login

SITE = "name: a\ndata: bids\nstate: state\n"
VALUE = "unheard-of-7361"


def site_of(folder: Path, text: str) -> Path:
    file = folder / "site.yaml"
    file.touch(mode=0o600)
    file.write_text(SITE + text)
    return file


def test_a_secret_is_kept_by_its_variables_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_PASS", VALUE)
    site = load_site(site_of(tmp_path, "key_passphrase: ${SITE_PASS}\n"))
    assert site.key_passphrase == "${SITE_PASS}"
    (tmp_path / "study.yaml").write_text("name: pilot\n")
    setup = RunSetup(study=load_study(tmp_path / "study.yaml"), sites=(site,))
    assert VALUE not in setup.model_dump_json()
    assert RunSetup.model_validate_json(setup.model_dump_json()) == setup
    for command in (["status", "--json"], ["status", "-v"], ["stop", "--json"], ["ledger", "--json", "-v"]):
        done = run_main(main, command[0], tmp_path, *command[1:])
        assert VALUE not in done.stdout + done.stderr
        assert done.returncode in (0, 1)
    assert environment_without(site.key_passphrase).get("SITE_PASS") is None
    named = load_site(site_of(tmp_path, "key_passphrase: pass\n"))
    assert named.key_passphrase == tmp_path / "pass"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("kit: ${HOME}/kit\n", "kit"),
        ("key: ${KEY}\n", "key"),
        ("key_passphrase: ${A}/${B}\n", "key_passphrase"),
        ("key_passphrase: '${not closed'\n", "key_passphrase"),
        ("policy: {tasks: ['${TASK}']}\n", "policy.tasks.0"),
        ("policy: {min_patients: '${MIN}'}\n", "policy.min_patients"),
    ],
)
def test_what_is_no_secret_of_a_site_is_written_out(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_site(site_of(tmp_path, text))
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(f"{field}: found '${{")
    assert "secrets alone, in `key_passphrase`; write the value out" in caught.value.faults[0]


def test_a_study_has_no_secret(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: ${NAME}\nrounds: {num_rounds: '${ROUNDS}'}\n")
    with pytest.raises(ConfigError, match="this file has none; write the value out") as caught:
        load_study(tmp_path / "study.yaml")
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["name", "rounds.num_rounds"]
    done = run_main(server, "simulate", tmp_path / "study.yaml", "--cohort", tmp_path, "-o", tmp_path / "out")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)


def test_a_login_at_mlflow_from_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server.yaml").write_text("hosts: [x]\nmlflow: http://host\nmlflow_login: ${LOGIN}\n")
    named = load_server(tmp_path / "server.yaml").mlflow_login
    assert named == "${LOGIN}"
    with pytest.raises(InputError, match="mlflow_login: the environment variable LOGIN is not set"):
        login(named)
    monkeypatch.setenv("LOGIN", f"me:{VALUE}")
    assert login(named) == ("me", VALUE)
    monkeypatch.setenv("LOGIN", f"{VALUE}:")
    with pytest.raises(InputError, match="expected MLflow's USER:PASSWORD") as caught:
        login(named)
    assert VALUE not in str(caught.value)
    (tmp_path / "server.yaml").write_text(f"hosts: [x]\nmlflow_login: 'me:{VALUE}'\n")
    with pytest.raises(InputError, match=r"mlflow_login: holds a password.*mode 0600") as caught:
        load_server(tmp_path / "server.yaml")
    assert VALUE not in str(caught.value)
    (tmp_path / "server.yaml").write_text("hosts: [x]\nmlflow: 'http://${HOST}'\n")
    with pytest.raises(ConfigError, match="in `mlflow_login`"):
        load_server(tmp_path / "server.yaml")


def test_a_password_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path) -> None:
    uri = f"http://me:{VALUE}@host"
    done = run_main(server, "simulate", "s.yaml", "--cohort", "c", "-o", tmp_path / "out", "--tracking-uri", uri)
    assert (done.returncode, done.stdout) == (2, "")
    assert "MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert VALUE not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:VALUE@host",
        "http://me:VALUE/a@host",
        "http://me:VALUE b@host",
        "https:/me:VALUE@host",
        "postgresql://host/runs?user=me&password=VALUE",
        "mysql://host/runs?PWD=VALUE",
    ],
)
def test_a_password_anywhere_in_a_uri_is_found(uri: str) -> None:
    with pytest.raises(InputError, match="holds a password") as caught:
        refuse_password(uri, "here", "")
    assert "VALUE" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "http://me@host:5000/path:x",
        "http://host:5000/a:b@c",
        "http://[::1]:5000/@x",
        "file:///a:b/c@d",
        "sqlite:///r.db",
    ],
)
def test_what_is_no_password_is_let_through(uri: str) -> None:
    refuse_password(uri, "here", "")


def test_the_settings_can_be_read_by_other_programs(tmp_path: Path) -> None:
    site = load_site(site_of(tmp_path, "key_passphrase: ${SITE_PASS}\n"))
    assert json.loads(site.model_dump_json())["key_passphrase"] == "${SITE_PASS}"
