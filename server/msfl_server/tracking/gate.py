"""What stands in front of MLflow's pages and API: a login, and a list of the calls that MSFL and the pages need.

MLflow takes whoever reaches its port for its owner, and lets an owner say where artifacts lie: any folder of the
machine. So nothing passes without the password of the study folder, and with it nothing that names a place: every
call that changes something is on the list below with its fields, and is handed on as it was read here.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from http import HTTPStatus
from typing import Any

USER = "msfl"
_MOST_JSON = 8_000_000  # bytes of a call's body; MLflow's own largest batch is 1 MB
_API = re.compile(r"/(?:ajax-)?api/[23]\.0/mlflow/(.+)")
_ARTIFACTS = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts(?:/(.+))?")
_ARTIFACT_NAME = re.compile(r"[^/\\%\0]+")
_MODEL_SOURCE = re.compile(r"runs:/[0-9a-f]{32}/\w[\w-]*(?:/\w[\w.-]*)*")

_PAGES = re.compile(r"/|/version|/static-files/[\w./-]+|/get-artifact|/model-versions/get-artifact")
_READS = re.compile(
    r"experiments/(get|get-by-name|search)|runs/get|artifacts/list|metrics/get-history(-bulk|-bulk-interval)?"
    r"|registered-models/(get|search|alias|get-latest-versions)|model-versions/(get|search|get-download-uri)|server-info"
)
# Questions that are asked with a body; they look into the store alone.
_QUESTIONS = (
    *("runs/search", "experiments/search", "experiments/search-datasets", "logged-models/search"),
    *("traces/search", "datasets/search"),
)
_TAG = "key value"
_CHANGES = {
    "experiments/create": "name tags",
    "experiments/update": "experiment_id new_name",
    "experiments/delete": "experiment_id",
    "experiments/restore": "experiment_id",
    "experiments/set-experiment-tag": f"experiment_id {_TAG}",
    "runs/create": "experiment_id user_id start_time tags run_name",
    "runs/update": "run_id run_uuid status end_time run_name",
    "runs/delete": "run_id",
    "runs/restore": "run_id",
    "runs/log-batch": "run_id metrics params tags",
    "runs/log-metric": f"run_id run_uuid {_TAG} timestamp step",
    "runs/log-parameter": f"run_id run_uuid {_TAG}",
    "runs/set-tag": f"run_id run_uuid {_TAG}",
    "runs/delete-tag": "run_id key",
    "registered-models/create": "name tags description",
    "registered-models/update": "name description",
    "registered-models/rename": "name new_name",
    "registered-models/delete": "name",
    "registered-models/set-tag": f"name {_TAG}",
    "registered-models/delete-tag": "name key",
    "registered-models/alias": "name alias version",
    "model-versions/create": "name source run_id tags description",
    "model-versions/update": "name version description",
    "model-versions/delete": "name version",
    "model-versions/set-tag": f"name version {_TAG}",
    "model-versions/delete-tag": "name version key",
    "model-versions/transition-stage": "name version stage archive_existing_versions",
}


class RefusedCallError(Exception):
    """A call that MSFL has no use for; its text says why."""


class MlflowGate:
    """ASGI middleware in front of MLflow's application."""

    def __init__(self, app, user: str, password: str) -> None:  # type: ignore[no-untyped-def]
        self._app = app
        self._login = b"Basic " + base64.b64encode(f"{user}:{password}".encode())

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        """Pass the request on, or answer 401 or 403."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] == "/health" and scope["method"] == "GET":
            await self._app(scope, _body(b""), send)
        elif not self._is_known(scope["headers"]):
            await _answer(send, HTTPStatus.UNAUTHORIZED, "the study folder's mlflow/password opens this page")
        else:
            try:
                content = await _checked(scope, receive)  # type: ignore[no-untyped-call]
            except RefusedCallError as refusal:
                await _answer(send, HTTPStatus.FORBIDDEN, str(refusal))
                return
            await self._app(scope, content, send)

    def _is_known(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._login)


async def _checked(scope, receive):  # type: ignore[no-untyped-def]
    """What MLflow may read as the request's body.

    Raises:
        RefusedCallError: the call is not on the list, or names what it may not.
    """
    path, method = scope["path"], scope["method"]
    if artifact := _ARTIFACTS.fullmatch(path):
        name = artifact[1] or ""
        if name and not all(_ARTIFACT_NAME.fullmatch(part) and set(part) != {"."} for part in name.split("/")):
            raise RefusedCallError(f"{name!r:.200}: no path of an artifact")
        if method == "PUT" and name:
            return receive
        if method in ("GET", "HEAD"):
            return _body(b"")
    call = _API.fullmatch(path)
    if method in ("GET", "HEAD") and (_PAGES.fullmatch(path) or (call and _READS.fullmatch(call[1]))):
        return _body(b"")
    if method == "POST" and ((call and call[1] in _QUESTIONS) or path == "/graphql"):
        return _set_length(scope, json.dumps(await _read(receive)).encode())
    if call and method in ("POST", "PATCH", "DELETE") and (fields := _CHANGES.get(call[1])) is not None:
        return _set_length(scope, json.dumps(_check_fields(call[1], fields.split(), await _read(receive))).encode())
    raise RefusedCallError(f"{method} {path!r:.200}: MSFL has no use for this call")


def _check_fields(call: str, fields: list[str], content: dict[str, Any]) -> dict[str, Any]:
    strange = [name for name in content if name not in fields]
    if strange:
        raise RefusedCallError(f"{call}: {strange[0]!r:.100} may not be given; allowed: {', '.join(fields)}")
    source = content.get("source")
    if call == "model-versions/create" and not (isinstance(source, str) and _MODEL_SOURCE.fullmatch(source)):
        raise RefusedCallError(f"{call}: expected a source of the form runs:/RUN/PATH, found {source!r:.100}")
    return content


async def _read(receive) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    """The body of a call, a JSON object."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > _MOST_JSON or message["type"] != "http.request":
            raise RefusedCallError(f"a body of at most {_MOST_JSON} bytes is taken")
        parts.append(part)
        more = message.get("more_body", False)
    try:
        content = json.loads(b"".join(parts) or b"{}")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RefusedCallError("a JSON object is expected as body")
    return content


def _set_length(scope, content: bytes):  # type: ignore[no-untyped-def]
    kept = [pair for pair in scope["headers"] if pair[0].lower() not in (b"content-length", b"content-type")]
    scope["headers"] = [
        *kept, (b"content-length", str(len(content)).encode()), (b"content-type", b"application/json"),
    ]  # fmt: skip
    return _body(content)


def _body(content: bytes):  # type: ignore[no-untyped-def]
    """A `receive` that hands out this body."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


async def _answer(send, status: HTTPStatus, text: str) -> None:  # type: ignore[no-untyped-def]
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Basic realm="MSFL", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode(errors="replace")})
