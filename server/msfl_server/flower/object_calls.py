"""The short way of objects: pieces of models, nine of ten calls of a round, past the layers that they do not need.

Flower's application hands each call through nine layers, and each piece of a call's body through several of them;
what was left of a call lay in memory until the garbage collector came. Here a call is read, and then
answered by Flower's own functions: its authentication, its handler, its translation of errors.

Uses Flower's private parts; flwr is pinned exactly for it.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from flwr.supercore.error import http_error_translator
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.superlink.dependencies.linkstate import get_linkstate
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.servicer.fleet import fleet_handlers
from starlette.concurrency import run_in_threadpool

from msfl_server.flower.gate import MOST_OBJECT_BYTES as MOST_BYTES

_CALLS: dict[str, tuple[type[PushObjectRequest | PullObjectRequest], str]] = {
    "/v1/fleet/push-object": (PushObjectRequest, "push_object"),
    "/v1/fleet/pull-object": (PullObjectRequest, "pull_object"),
}


class ObjectCalls:
    """ASGI application: answers sites' calls about objects, and leaves all others to Flower's application."""

    def __init__(self, flower: FastAPI) -> None:
        self._flower = flower

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a call."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _CALLS:
            await self._flower(scope, receive, send)
            return
        scope = {**scope, "app": self._flower, "state": {}}
        response = await http_error_translator(Request(scope, receive), _answer)
        await response(scope, receive, send)


async def _answer(request: Request) -> Response:
    kind, _ = _CALLS[request.url.path]
    request.state.protobuf_request = ProtobufTranslationMiddleware._parse_request(await _body(request), kind)
    return await run_in_threadpool(_authenticate_and_handle, request)


async def _body(request: Request) -> bytes:
    """The body, which nothing else keeps.

    Raises:
        HTTPException: it is larger than any object of a model.
    """
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MOST_BYTES:
            raise HTTPException(413)
        pieces.append(piece)
    return b"".join(pieces)


def _authenticate_and_handle(request: Request) -> Response:
    node_auth.authenticate_node(request)  # the gate's, where there is one
    handle = getattr(fleet_handlers, _CALLS[request.url.path][1])
    answer = handle(request=request.state.protobuf_request, state=get_linkstate(request))
    return Response(answer.SerializeToString(), media_type=PROTOBUF_MEDIA_TYPE)
