"""Calls to MLflow, one by one, at the gate in front of it; what is behind it is a stand-in here."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from msfl_server.tracking.gate import MlflowGate
from tests.attacks.mlflow_attacks import API, PROXY


def through(
    method: str, path: str, body: bytes = b"{}", login: Sequence[str] = ("msfl:right",), kind: str = "http"
) -> tuple[int | None, bytes | None]:
    """The gate's own answer, and what MLflow would have read; None where there is none of it."""
    told: list[int] = []
    read: list[bytes] = []

    async def mlflow(scope: Any, receive: Any, send: Any) -> None:
        read.append((await receive())["body"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        told.extend(message[name] for name in ("status", "code") if name in message)

    headers = [(b"Authorization", b"Basic " + base64.b64encode(one.encode())) for one in login]
    scope = {"type": kind, "method": method, "path": path, "headers": headers}
    asyncio.run(MlflowGate(mlflow, "msfl", "right")(scope, receive, send))
    return (told or [None])[0], (read or [None])[0]


RUN = f"runs:/{'0' * 32}"


@pytest.mark.parametrize("login", [(), ("msfl:wrong",), ("msfl:right", "msfl:right"), ("msfl:right", "msfl:wrong")])
def test_the_gate_takes_one_right_login(login: Sequence[str]) -> None:
    assert through("GET", "/", login=login) == (401, None)
    assert through("GET", "/health", b"x", login=login) == (None, b"")
    assert through("GET", "/health/x", login=login) == (401, None)
    assert through("POST", "/health", login=login) == (401, None)
    assert through("GET", "/", login=(*login, "msfl:right"))[0] == (401 if login else None)


@pytest.mark.parametrize(
    ("method", "path", "body", "read"),
    [
        ("GET", "/", b"{}", b""),
        ("PUT", f"{PROXY}/a/b.txt", b"content", b"content"),
        ("GET", f"{PROXY}/a", b"{}", b""),
        ("GET", f"{API}/runs/get", b"{}", b""),
        ("POST", f"{API}/runs/search", b'{"a":1}', b'{"a": 1}'),
        ("POST", f"{API}/runs/create", b'{"run_name":"a"}', b'{"run_name": "a"}'),
        (
            *("POST", f"{API}/model-versions/create"),
            *(f'{{"source": "{RUN}/model"}}'.encode(), f'{{"source": "{RUN}/model"}}'.encode()),
        ),
    ],
)
def test_the_gate_hands_on_what_it_read(method: str, path: str, body: bytes, read: bytes) -> None:
    assert through(method, path, body) == (None, read)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *[
            ("PUT", f"{PROXY}/{name}", b"")
            for name in ("", "..", "a/../b", ".", "...", "%2e%2e", "a\\b", "a//b", "a\0")
        ],
        ("DELETE", f"{PROXY}/a", b""),
        ("POST", f"{API}/gateway-proxy", b"{}"),
        ("POST", f"{API}/runs/get", b"{}"),
        ("GET", f"{API}/runs/create", b"{}"),
        ("POST", f"{API}/experiments/create", b'{"name": "a", "artifact_location": "/"}'),
        ("POST", f"{API}/runs/create", b"[]"),
        ("POST", f"{API}/runs/create", b"{"),
        ("POST", f"{API}/runs/create", b'{"run_name": "' + b"a" * 8_000_000 + b'"}'),
        *[
            ("POST", f"{API}/model-versions/create", json.dumps({"source": source}).encode())
            for source in (None, "/etc", RUN, f"{RUN}/../x", f"{RUN}/a/../../x", f"{RUN}/a\n/x", [f"{RUN}/model"])
        ],
    ],
)
def test_the_gate_refuses_what_names_a_place_or_is_on_no_list(method: str, path: str, body: bytes) -> None:
    assert through(method, path, body) == (403, None)


def test_the_gate_closes_web_sockets() -> None:
    assert through("GET", "/", kind="websocket") == (1008, None)
