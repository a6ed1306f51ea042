"""What another account of the coordinator's machine, or a person with MLflow's password, tries with MLflow's API."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

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
    for path in ("config", "message", "contexts", "install-skills"):
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
