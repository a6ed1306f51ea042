"""Calls that the gate has let in: with whose they are, and each site's in that site's own turns."""

from __future__ import annotations

from typing import Any

from msfl_server.flower.control_port import ASKED_HEADER, REFUSED
from msfl_server.flower.gate import SITE
from msfl_server.flower.object_store import ParcelStore, asked_for, calling
from msfl_server.rounds.reply_bounds import ReplyBounds


class Calls:
    """ASGI middleware: what the gate has let in, with whose it is; each site's calls in that site's own turns."""

    def __init__(self, app: Any, parcels: ParcelStore) -> None:
        self._app = app
        self._parcels = parcels

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a call on."""
        site = scope.get(SITE)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif site is not None:
            calling.set(site.node_id)
            await site.take_turn(scope["path"], lambda: self._app(scope, receive, send))
        elif scope["path"].startswith(REFUSED):
            status = 200 if self._parcels.was_refused(scope["path"].removeprefix(REFUSED)) else 404
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            if (told := dict(scope["headers"]).get(ASKED_HEADER.encode())) is not None:
                asked_for.set(ReplyBounds(*map(int, told.split())))
            await self._app(scope, receive, send)
