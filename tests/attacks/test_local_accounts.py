"""What another account of the coordinator's machine, or a person with MLflow's password, gets out of MLflow: no key.

The server is the real one. Each attack is played twice: by an account without the password, and by someone who has it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from msfl_common.errors import RunError
from msfl_server.mlflow_server import listen
from tests.deploy.services import unprivileged
from tests.mlflow_service import MlflowService

SECRET = b"-----BEGIN PRIVATE KEY----- the authority's"
API, PAGES_API = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


class Attacker:
    """Calls MLflow, and keeps all that it answered."""

    def __init__(self, server: MlflowService, has_password: bool) -> None:
        self.server, self.has_password = server, has_password
        self.statuses: list[int] = []
        self.seen = b""

    def ask(self, path: str, method: str = "GET", content: object = None, raw: bytes | None = None) -> dict:
        body = raw if content is None else json.dumps(content).encode()
        kind = {"Content-Type": "application/json"}
        status, answer = self.server.ask(path, method, body, "" if self.has_password else None, **kind)
        self.statuses.append(status)
        self.seen += answer
        try:
            return dict(json.loads(answer))
        except ValueError:
            return {}

    def post(self, path: str, content: object) -> dict:
        return self.ask(path, "POST", content)

    def experiment(self, **more: object) -> str:
        """A new experiment, however it is to be had; else one that is there."""
        name = os.urandom(6).hex()
        made = self.post(f"{API}/experiments/create", {"name": name, **more})
        return str(made.get("experiment_id", "0"))

    def run(self, experiment: str = "0", **more: object) -> str:
        """A new run, and in the attacker's own folder a link that leads from its artifacts to the keys."""
        made = self.post(f"{API}/runs/create", {"experiment_id": experiment, **more})
        run = str(made.get("run", {}).get("info", {}).get("run_id", "0" * 32))
        (lair(self) / run).mkdir(exist_ok=True)
        with suppress(FileExistsError):
            (lair(self) / run / "artifacts").symlink_to(pki(self))
        return run

    def fetch(self, run: str, *names: str) -> None:
        for name in names or ("ca.key",):
            query = urlencode({"run_id": run, "path": name})
            self.ask(f"/get-artifact?{query}")
            self.ask(f"{API}/artifacts/list?{query}")


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


def pki(attacker: Attacker) -> Path:
    return attacker.server.study_dir / "pki"


def lair(attacker: Attacker) -> Path:
    """A folder that belongs to the attacker, with a link to the keys."""
    folder = attacker.server.study_dir.with_name("lair")
    folder.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (folder / "link").symlink_to(pki(attacker))
    return folder


# ---- the attacks


def experiment_in_a_folder(a: Attacker) -> None:
    a.fetch(a.run(a.experiment(artifact_location=lair(a).as_uri())))


def experiment_in_a_bare_path(a: Attacker) -> None:
    a.fetch(a.run(a.experiment(artifact_location=str(lair(a)))))


def experiment_in_camel_case(a: Attacker) -> None:
    a.fetch(a.run(a.experiment(artifactLocation=lair(a).as_uri())))


def experiment_by_the_pages_api(a: Attacker) -> None:
    body = {"name": "by the pages", "artifact_location": lair(a).as_uri()}
    a.fetch(a.run(str(a.post(f"{PAGES_API}/experiments/create", body).get("experiment_id", "0"))))


def experiment_encoded_twice(a: Attacker) -> None:
    body = json.dumps({"name": "twice", "artifact_location": lair(a).as_uri()})
    a.fetch(a.run(str(a.post(f"{API}/experiments/create", body).get("experiment_id", "0"))))


def experiment_with_a_key_twice(a: Attacker) -> None:
    raw = f'{{"name": "k", "artifact_location": "", "artifact_location": "{lair(a).as_uri()}"}}'.encode()
    a.fetch(a.run(str(a.ask(f"{API}/experiments/create", "POST", raw=raw).get("experiment_id", "0"))))


def experiment_in_a_get_with_a_body(a: Attacker) -> None:
    a.ask(f"{API}/experiments/create", "GET", {"name": "g", "artifact_location": lair(a).as_uri()})


def run_with_its_own_artifact_uri(a: Attacker) -> None:
    a.fetch(a.run(a.experiment(), artifact_uri=pki(a).as_uri()))


def run_updated_to_another_place(a: Attacker) -> None:
    run = a.run(a.experiment())
    a.post(f"{API}/runs/update", {"run_id": run, "artifact_uri": pki(a).as_uri()})
    a.fetch(run)


def model_version_from_a_folder(a: Attacker) -> None:
    _model_version(a, pki(a).as_uri())


def model_version_of_a_run_there(a: Attacker) -> None:
    run = a.run(a.experiment(artifact_location=lair(a).as_uri()))
    _model_version(a, f"runs:/{run}/../../pki", run)
    _model_version(a, (lair(a) / run / "artifacts").as_uri(), run)


def model_version_from_the_proxy_with_dots(a: Attacker) -> None:
    run = a.run(a.experiment())
    for source in ("mlflow-artifacts:/../pki", "mlflow-artifacts:/%2e%2e/pki", f"runs:/{run}/%2e%2e/%2e%2e/pki"):
        _model_version(a, source, run)


def model_version_that_is_a_prompt(a: Attacker) -> None:
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    a.post(f"{API}/registered-models/create", {"name": "p", "tags": tags})
    a.post(f"{API}/model-versions/create", {"name": "p", "source": pki(a).as_uri(), "tags": tags})
    a.ask(f"/model-versions/get-artifact?{urlencode({'name': 'p', 'version': '1', 'path': 'ca.key'})}")


def model_version_elsewhere_on_the_network(a: Attacker) -> None:
    for source in ("http://127.0.0.1:9/x", "ftp://127.0.0.1:9/x", "s3://bucket/x", "hdfs://127.0.0.1:9/x"):
        _model_version(a, source)


def logged_model_in_a_folder(a: Attacker) -> None:
    made = a.post(f"{API}/logged-models", {"experiment_id": a.experiment(artifact_location=lair(a).as_uri())})
    model = made.get("model", {}).get("info", {}).get("model_id", "m-0")
    (lair(a) / "models" / model).mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (lair(a) / "models" / model / "artifacts").symlink_to(pki(a))
    a.ask(f"{PAGES_API}/logged-models/{model}/artifacts/files?artifact_file_path=ca.key")


def trace_that_lies_in_a_folder(a: Attacker) -> None:
    (pki(a) / "traces.json").write_bytes(json.dumps({"spans": SECRET.decode()}).encode())
    trace = {"experiment_id": "0", "timestamp_ms": 1, "status": "OK"}
    made = a.post(f"{API}/traces", trace).get("trace_info", {}).get("request_id", "tr-0")
    place = {"key": "mlflow.artifactLocation", "value": pki(a).as_uri()}
    a.ask(f"{API}/traces/{made}/tags", "PATCH", place)
    a.ask(f"/api/3.0/mlflow/traces/{made}/tags", "PATCH", place)
    for version in ("2.0", "3.0"):
        a.ask(f"/ajax-api/{version}/mlflow/get-trace-artifact?request_id={made}")


def path_of_an_artifact_with_dots(a: Attacker) -> None:
    run = a.run(a.experiment())
    a.fetch(run, "../../../pki/ca.key", "..%2f..%2f..%2fpki/ca.key", str(pki(a) / "ca.key"), "x/../../../../pki/ca.key")


def proxy_with_dots(a: Attacker) -> None:
    for name in (
        "../../pki/ca.key", "%2e%2e/%2e%2e/pki/ca.key", "%252e%252e/%252e%252e/pki/ca.key", "..%5c..%5cpki/ca.key",
        "..%2f..%2fpki%2fca.key", "a/..;/..;/pki/ca.key",
    ):  # fmt: skip
        a.ask(f"{PROXY}/{name}")
        a.ask(f"{PROXY.replace('/api', '/ajax-api')}/{name}")
    a.ask(f"{PROXY}?path=../../pki")


def proxy_with_an_absolute_path(a: Attacker) -> None:
    for name in (str(pki(a) / "ca.key"), quote(str(pki(a) / "ca.key"), ""), quote((pki(a) / "ca.key").as_uri(), "")):
        a.ask(f"{PROXY}/{name}")


def upload_outside(a: Attacker) -> None:
    for name in ("../../pki/ca.crt", "%2e%2e/%2e%2e/pki/ca.crt", str(pki(a) / "ca.crt"), "..%2f..%2fpki%2fca.crt"):
        a.ask(f"{PROXY}/{name}", "PUT", raw=b"mine")
    run = a.run(a.experiment(artifact_location=lair(a).as_uri()))
    a.ask(f"{PAGES_API}/upload-artifact?run_uuid={run}&path=ca.crt", "POST", raw=b"mine")
    a.ask(
        f"/api/2.0/mlflow-artifacts/mpu/create/{quote('../../pki/ca.crt', '')}", "POST", {"path": "x", "num_parts": 1}
    )
    assert not (pki(a) / "ca.crt").exists()


def deleting_outside(a: Attacker) -> None:
    for name in ("../../pki/ca.key", "%2e%2e/%2e%2e/pki", "..%2f..%2fpki", str(pki(a))):
        a.ask(f"{PROXY}/{name}", "DELETE")
    assert (pki(a) / "ca.key").read_bytes() == SECRET


def promptlab_run(a: Attacker) -> None:
    experiment = a.experiment(artifact_location=lair(a).as_uri())
    body = {"experiment_id": experiment, "model_route": "r", "model_input": "i", "model_output": "o"}
    a.post(f"{PAGES_API}/runs/create-promptlab-run", body)
    assert sorted(path.name for path in pki(a).iterdir() if path.name != "traces.json") == ["ca.key"]


def webhook_to_this_machine(a: Attacker) -> None:
    events = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        hook = a.post(f"{API}/webhooks", {"name": "w", "url": url, "events": events})
        a.post(f"{API}/webhooks/{hook.get('webhook', {}).get('webhook_id', 'w')}/test", {})
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def gateway_and_assistant(a: Attacker) -> None:
    a.post(f"{PAGES_API}/gateway-proxy", {"gateway_path": "file:///etc/passwd", "json_data": {}})
    a.post("/gateway/x/mlflow/invocations", {})
    for path in ("config", "message", "sessions", "install-skills"):
        a.post(f"/ajax-api/3.0/mlflow/assistant/{path}", {"message": f"cat {pki(a)}/ca.key"})
    a.post("/ajax-api/3.0/mlflow/gateway/secrets/create", {"secret_name": "s", "secret_value": {"v": "x"}})


def jobs_and_scorers(a: Attacker) -> None:
    a.post("/ajax-api/3.0/jobs/", {"job_name": "x", "params": {}})
    scorer = json.dumps({"name": "s", "call_source": f"return open('{pki(a)}/ca.key').read()", "call_signature": "()"})
    a.post("/api/3.0/mlflow/scorers/register", {"experiment_id": "0", "name": "s", "serialized_scorer": scorer})


def the_graph_of_everything(a: Attacker) -> None:
    run = a.run(a.experiment(artifact_location=lair(a).as_uri()))
    query = f'{{ mlflowListArtifacts(input: {{runId: "{run}"}}) {{ files {{ path }} }} }}'
    a.post("/graphql", {"query": query})
    assert b"ca.key" not in a.seen.replace(query.encode(), b"")


def _model_version(a: Attacker, source: str, run: str | None = None) -> None:
    name = os.urandom(6).hex()
    a.post(f"{API}/registered-models/create", {"name": name})
    body = {"name": name, "source": source} | ({"run_id": run} if run else {})
    a.post(f"{API}/model-versions/create", body)
    for path in ("ca.key", "pki/ca.key"):
        a.ask(f"/model-versions/get-artifact?{urlencode({'name': name, 'version': '1', 'path': path})}")


ATTACKS = [
    experiment_in_a_folder, experiment_in_a_bare_path, experiment_in_camel_case, experiment_by_the_pages_api,
    experiment_encoded_twice, experiment_with_a_key_twice, experiment_in_a_get_with_a_body,
    run_with_its_own_artifact_uri, run_updated_to_another_place, model_version_from_a_folder,
    model_version_of_a_run_there, model_version_from_the_proxy_with_dots, model_version_that_is_a_prompt,
    model_version_elsewhere_on_the_network, logged_model_in_a_folder, trace_that_lies_in_a_folder,
    path_of_an_artifact_with_dots, proxy_with_dots, proxy_with_an_absolute_path, upload_outside, deleting_outside,
    promptlab_run, webhook_to_this_machine, gateway_and_assistant, jobs_and_scorers, the_graph_of_everything,
]  # fmt: skip


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
from msfl_common.confinement import confine
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
    probe = [sys.executable, "-c", "import sys; from msfl_common.confinement import confine; sys.exit(not confine([]))"]
    return subprocess.run(probe).returncode == 0
