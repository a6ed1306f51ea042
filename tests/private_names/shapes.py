"""Whether a name is what the list says that it must be."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest.mock import Mock

import httpx
import uvicorn


def thing_at(path: str) -> Any:
    """What a dotted name stands for, through modules, classes and their members.

    Raises:
        LookupError: there is no such name any more.
    """
    parts = path.split(".")
    thing: Any = None
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            thing = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        for part in parts[length:]:
            if not hasattr(thing, part):
                raise LookupError(f"{path} is gone: {thing!r} has no {part!r}")
            thing = getattr(thing, part)
        return thing
    raise LookupError(f"{path} is gone: no module {parts[0]!r}")


def faults_of(path: str, must: str) -> list[str]:
    """What is wrong with a name; nothing where it is as it must be."""
    owner, name = path.rsplit(".", 1)
    if owner == "*":
        owner = must.removeprefix("of ")
        return [] if _has(owner, name) else [f"{owner} has no {name}"]
    if must == "attribute":
        return [] if _has(owner, name) else [f"an instance of {owner} has no {name}"]
    if must == "value":
        return [] if name in vars(thing_at(owner)).values() else [f"{owner} has no constant {name}"]
    if (setter := must.removeprefix("set in ")) != must:
        is_set = f"self.{name} = " in inspect.getsource(getattr(thing_at(owner), setter))
        return [] if is_set else [f"{owner}.{setter} does not set {name}"]
    try:
        thing = thing_at(path)
    except LookupError as error:
        return [str(error)]
    faults = []
    if (wanted := re.match(r"\(.*\)", must)) and not _takes(thing, wanted[0][1:-1]):
        faults.append(f"{path} takes ({parameters(thing)}), no longer {wanted[0]}")
    if (value := must.removeprefix("= ")) != must and repr(thing) != value:
        faults.append(f"{path} is {thing!r}, no longer {value}")
    if found := re.search(r"\bhas (.+)", must):
        members = members_of(thing)
        faults += [f"{path} has no {member}" for member in found[1].split(", ") if member not in members]
    return faults


def parameters(thing: Any) -> str:
    """How it may be called, in the words of the list."""
    written, is_star = [], False
    for one in inspect.signature(thing).parameters.values():
        if one.name == "self" or one.kind is one.VAR_KEYWORD:
            continue
        if one.kind is one.KEYWORD_ONLY and not is_star:
            written.append("*")
        is_star |= one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        star = "*" if one.kind is one.VAR_POSITIONAL else ""
        written.append(f"{star}{one.name}{'=' if one.default is not one.empty else ''}")
    return ", ".join(written)


def _takes(thing: Any, wanted: str) -> bool:
    found = parameters(thing).split(", ")
    if not wanted.endswith("..."):
        return found == wanted.split(", ")
    first = wanted.split(", ")[:-1]
    return found[: len(first)] == first and all(one.endswith("=") or one == "*" for one in found[len(first) :])


def members_of(thing: Any) -> set[str]:
    """Fields of a protobuf message, or what a class or an enumeration has."""
    if hasattr(thing, "DESCRIPTOR"):
        return set(thing.DESCRIPTOR.fields_by_name)
    return {*dir(thing), *getattr(thing, "__annotations__", ()), *dir(type(thing))}


def _has(owner: str, name: str) -> bool:
    """Whether an instance of `owner` has an attribute; a class that needs none, or a module, is looked at itself."""
    try:
        make = INSTANCES.get(owner)
        return hasattr(thing_at(owner) if make is None else make(), name)
    except LookupError:
        return False


@cache
def _client() -> Any:
    from flwr.supercore.protobuf.client import ProtobufClient

    return ProtobufClient("https://nowhere")


@cache
def _grid() -> Any:
    from flwr.superlink.grid.http_grid import HttpGrid

    return HttpGrid(token="token")


def _metadata() -> Any:
    from flwr.app import Metadata

    return Metadata(1, "", 1, 2, "", "", 0.0, 60.0, "train")


@cache
def _transport() -> Any:
    return httpx.HTTPTransport()


@cache
def _server() -> Any:
    return uvicorn.Server(uvicorn.Config(Mock(), log_config=None))


@cache
def _protocol() -> Any:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    config = uvicorn.Config(Mock(), log_config=None)
    config.load()
    protocol = HttpToolsProtocol(config, ServerState(), {}, _loop=Mock())
    protocol.connection_made(Mock())
    protocol.on_message_begin()
    return protocol


# One of each class whose attributes are listed; none of them has a connection.
INSTANCES: dict[str, Callable[[], Any]] = {
    "flwr.app.Metadata": _metadata,
    "flwr.supercore.protobuf.client.ProtobufClient": _client,
    "flwr.superlink.grid.http_grid.HttpGrid": _grid,
    "httpcore.ConnectionPool": lambda: _transport()._pool,
    "httpx.Client": lambda: _client()._client,
    "httpx.HTTPTransport": _transport,
    "uvicorn.Server": _server,
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol": _protocol,
}
