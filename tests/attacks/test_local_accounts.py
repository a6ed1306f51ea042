"""What another account of the coordinator's machine, or a person with MLflow's password, gets out of MLflow: no key.

The server is the real one. Each attack is played twice: by an account without the password, and by someone who has it.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from msfl_common.errors import RunError
from msfl_server.tracking.mlflow_server import listen
from tests.attacks.mlflow_attacks import API, ATTACKS, PROXY, SECRET, Attacker
from tests.deploy.services import unprivileged
from tests.mlflow_service import MlflowService


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ready_store: Path) -> Iterator[MlflowService]:
    made = MlflowService(tmp_path_factory.mktemp("study"))
    (made.study_dir / "pki").mkdir()
    (made.study_dir / "pki" / "ca.key").write_bytes(SECRET)
    (made.study_dir / "mlflow").mkdir(mode=0o700)
    shutil.copy(ready_store, made.study_dir / "mlflow")
    made.start()
    yield made
    made.kill()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_without_the_password_nothing_is_answered(server: MlflowService, attack: Callable[[Attacker], None]) -> None:
    attacker = Attacker(server, has_password=False)
    attack(attacker)
    assert set(attacker.statuses) == {401}
    assert SECRET not in attacker.seen


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_with_the_password_no_file_outside_is_reached(
    server: MlflowService, attack: Callable[[Attacker], None]
) -> None:
    attacker = Attacker(server, has_password=True)
    attack(attacker)
    assert attacker.statuses
    assert any(status >= 400 for status in attacker.statuses)
    assert max(attacker.statuses) < 502
    assert SECRET not in attacker.seen
    assert (server.study_dir / "pki" / "ca.key").read_bytes() == SECRET


@pytest.mark.parametrize("password", ["wrong", "x" * 10_000, "\x00"])
def test_a_wrong_password_opens_nothing(server: MlflowService, password: str) -> None:
    assert server.ask("/", password=password)[0] == 401


@pytest.mark.parametrize("login", ["", "Basic", "Basic !!", "Bearer x", "basic bXNmbDo=", "Basic bXNmbDo="])
def test_half_a_login_opens_nothing(server: MlflowService, login: str) -> None:
    assert server.ask("/", password=None, Authorization=login)[0] == 401


def test_an_endless_body_is_not_taken(server: MlflowService) -> None:
    status, answer = server.ask(f"{API}/runs/log-batch", "POST", b" " * 9_000_000)
    assert (status, b"bytes" in answer) == (403, True)


def test_what_an_older_store_names_is_not_followed(server: MlflowService) -> None:
    """A store of an earlier version, in which somebody had put places outside already."""
    attacker = Attacker(server, has_password=True)
    run = attacker.run(attacker.experiment())
    attacker.post(f"{API}/registered-models/create", {"name": "old"})
    body = {"name": "old", "source": f"runs:/{run}/model", "run_id": run}
    attacker.post(f"{API}/model-versions/create", body)
    for place in ((server.study_dir / "pki").as_uri(), str(server.study_dir / "pki"), "mlflow-artifacts:/../../pki"):
        with sqlite3.connect(server.study_dir / "mlflow" / "mlflow.db") as store:
            store.execute("update runs set artifact_uri = ? where run_uuid = ?", (place, run))
            store.execute(
                "update model_versions set source = ?, storage_location = ? where name = 'old'", (place, place)
            )
        attacker.fetch(run)
        for path in ("ca.key", "pki/ca.key"):
            attacker.ask(f"/model-versions/get-artifact?{urlencode({'name': 'old', 'version': '1', 'path': path})}")
    assert SECRET not in attacker.seen
    assert b"ca.key" not in attacker.seen.replace(b"'ca.key'", b"").replace(b"pki/ca.key", b"")


def test_a_link_among_the_artifacts_leads_nowhere(server: MlflowService) -> None:
    attacker = Attacker(server, has_password=True)
    experiment = attacker.experiment()
    run = attacker.run(experiment)
    folder = server.study_dir / "mlflow" / "artifacts" / experiment / run / "artifacts"
    attacker.ask(f"{PROXY}/{experiment}/{run}/artifacts/own.txt", "PUT", raw=b"mine")
    (folder / "file").symlink_to(server.study_dir / "pki" / "ca.key")
    (folder / "folder").symlink_to(server.study_dir / "pki")
    (folder / "within").symlink_to(folder / "own.txt")
    attacker.fetch(run, "file", "folder/ca.key", "folder", "within")
    for name in ("file", "folder/ca.key", "folder"):
        attacker.ask(f"{PROXY}/{experiment}/{run}/artifacts/{name}")
        attacker.ask(f"{PROXY}/{experiment}/{run}/artifacts/{name}/new", "PUT", raw=b"mine")
    assert SECRET not in attacker.seen
    assert b"ca.key" not in attacker.seen.replace(b"folder/ca.key", b"")
    assert sorted(path.name for path in (server.study_dir / "pki").glob("new")) == []
    listed = attacker.ask(f"{API}/artifacts/list?run_id={run}")
    assert [file["path"] for file in listed["files"]] == ["own.txt"]


CONFINED = """
import errno, os, socket, sys
from pathlib import Path
from msfl_common.system.confinement import confine
own, key, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
listener = socket.create_server(("127.0.0.1", 0))
if not confine([own]):
    sys.exit(9)
(own / "a").write_text("mine"); (own / "a").replace(own / "b"); (own / "b").unlink()
import sqlite3, json.tool
def refused(what):
    try:
        what()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EXDEV):
            return
    sys.exit(f"not refused: {what.__code__.co_names}")
refused(lambda: key.read_bytes())
refused(lambda: key.write_bytes(b""))
refused(lambda: os.listdir(key.parent))
refused(lambda: os.unlink(key))
refused(lambda: (own / "link").symlink_to(key))
refused(lambda: os.rename(key, own / "key"))
refused(lambda: os.link(key, own / "key"))
refused(lambda: open("/etc/shadow"))
refused(lambda: socket.create_connection(("127.0.0.1", port)))
refused(lambda: socket.create_server(("127.0.0.1", 0)))
refused(lambda: open(f"/proc/{os.getppid()}/environ"))
listener.settimeout(0)
try:
    listener.accept()
except BlockingIOError:
    pass
"""


def test_the_system_itself_keeps_the_process_from_the_key(tmp_path: Path) -> None:
    """Also where MLflow has a hole that nobody knows of, and for root."""
    own, key = tmp_path / "own", tmp_path / "pki" / "ca.key"
    own.mkdir()
    key.parent.mkdir()
    key.write_bytes(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", CONFINED, own, key, port], capture_output=True, text=True, cwd=key.parent
        )
    if done.returncode == 9:
        pytest.skip("this system has no Landlock")
    assert (done.returncode, done.stderr) == (0, "")
    assert key.read_bytes() == SECRET


def test_mlflow_runs_confined(server: MlflowService) -> None:
    if not _has_landlock():
        pytest.skip("this system has no Landlock")
    assert "NoNewPrivs:\t1" in Path(f"/proc/{server.pid}/status").read_text()


def test_no_other_account_takes_mlflows_port_while_it_is_away(tmp_path: Path) -> None:
    """It would be told the password by the next round."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match="mlflow_port"):
            listen(port)
    squat = (
        "import socket, sys\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "try: s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()\nexcept OSError: sys.exit(7)"
    )
    with listen(port):
        done = subprocess.run(["/usr/bin/python3", "-c", squat, str(port)], cwd="/", **unprivileged("nobody"))
    assert done.returncode == 7


def _has_landlock() -> bool:
    probe = [
        sys.executable,
        "-c",
        "import sys; from msfl_common.system.confinement import confine; sys.exit(not confine([]))",
    ]
    return subprocess.run(probe).returncode == 0
