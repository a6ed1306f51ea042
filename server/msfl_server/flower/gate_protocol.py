"""HTTP at the gate: a call's first lines are counted, timed and judged; what is refused reaches no application.

Subclasses uvicorn's protocol, whose parser is httptools'. A call that does not come to its end in time, a head that is
too long and a third call before the first is answered end the connection. So does a refusal, but on a connection on
which sites have called: a proxy has it, and would need a TLS handshake more for the next site's call.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from msfl_server.flower.gate import BAD_REQUEST, NODE, SITE, TOO_MANY_HEADERS, Gate, Site
from msfl_server.flower.listener import Connection

MOST_HEAD_BYTES = 8 * 2**10
HEAD_S = 10.0  # for a call's first lines, from the end of the TLS handshake or the first byte
BODY_S = 10.0  # for what a call carries, and one second more for each
BODY_BYTES_A_SECOND = 32 * 2**10  # a site behind .25 Mbit/s
MOST_SKIPPED_BYTES = 64 * 2**10  # what a refused call may carry that leaves its connection open
ANSWER_S = 120.0
IDLE_S = 75.0  # between two calls of a site


class GateProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self, config: Config, state: ServerState, app_state: dict[str, Any], gate: Gate, connection: Connection
    ) -> None:
        super().__init__(config, state, app_state)
        self.ws_protocol_class = None
        self._gate = gate
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._refused = False
        self._skips = False  # what a refused call carries, up to the next call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """TLS is up."""
        super().connection_made(transport)
        self._connection.transport = transport
        self._give(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; nothing of it stays."""
        self._give(None)
        self._unset_keepalive_if_required()
        self._connection.close()
        super().connection_lost(exc)
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Feed the parser, within what a head may have."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        view = memoryview(data)
        if self._in_head:
            if self._timer is None:
                self._give(HEAD_S)
            room = MOST_HEAD_BYTES - self._head_bytes
            first, view = view[:room], view[room:]
            self._head_bytes += len(first)
            self._feed(first)
            if self._in_head and not self._refused and self._head_bytes >= MOST_HEAD_BYTES:
                self._refuse(TOO_MANY_HEADERS)
        if view and not self._refused:
            self._feed(view)

    def _feed(self, data: memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(BAD_REQUEST)

    def on_headers_complete(self) -> None:
        """Judge the call."""
        if self._refused:
            return
        self._in_head, self._head_bytes = False, 0
        self._unset_keepalive_if_required()  # of another call that came in the same piece
        if self.pipeline:  # a third call before the first's answer; a second can come as its last byte is written
            self._refuse(BAD_REQUEST)
            return
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD_BYTES:
            self._refuse(TOO_MANY_HEADERS)
            return
        path = self.url.decode("latin-1")
        port = self.server[1] if self.server else None
        judged = self._gate.judge(self.parser.get_method(), path, self.headers, port)
        if isinstance(judged, bytes):
            if self._may_stay():
                self._skip(judged)
            else:
                self._refuse(judged)
            return
        node_id = None if judged is None else judged.node_id
        cast(dict[str, object], self.scope).update({NODE: node_id, SITE: judged})
        self._connection.proven(node_id)
        self.timeout_keep_alive = int(IDLE_S)
        self._give(BODY_S + _length(self.headers) / BODY_BYTES_A_SECOND if isinstance(judged, Site) else None)
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """The first byte of a call."""
        if not self._refused:
            super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if not self._refused:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A piece of what a call carries; of a refused one it is dropped."""
        if not (self._refused or self._skips):
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A call is here whole."""
        if self._skips:
            self._skips, self._in_head = False, True
            self._give(None)
            self.timeout_keep_alive_task = self.loop.call_later(IDLE_S, self.timeout_keep_alive_handler)
        elif not self._refused:
            self._in_head = True
            self._give(ANSWER_S if self.scope.get(NODE) is not None else None)
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Its answer is written."""
        if not self.pipeline:
            self._give(None)
        super().on_response_complete()

    def _may_stay(self) -> bool:
        """Whether the connection outlives a refusal."""
        told = dict(self.headers)
        length = told.get(b"content-length", b"0")
        is_short = length.isdigit() and len(length) < 8 and int(length) <= MOST_SKIPPED_BYTES
        is_next = self.cycle is not None and self.cycle.response_complete  # nobody's answer is on its way
        # The caller goes on, with HTTP, sends what it told of, and reads what it is answered.
        goes_on = self.parser.should_keep_alive() and not self.parser.should_upgrade()
        is_clear = goes_on and not (self.expect_100_continue or self.flow.write_paused or b"transfer-encoding" in told)
        return is_short and is_next and is_clear and self._connection.may_stay()

    def _skip(self, answer: bytes) -> None:
        """Refuse a call, and wait for the next one."""
        self._skips = True
        self._give(BODY_S)
        self._write(answer.replace(b"connection: close\r\n", b""))

    def _refuse(self, answer: bytes) -> None:
        """Refuse a call, and end the connection."""
        self._refused = True
        self._give(None)
        self._unset_keepalive_if_required()
        self._write(answer)
        if not self.transport.is_closing():
            cast(Any, self.transport).set_read_buffer_limits(0)  # what still comes of it is not even decrypted
            self.transport.pause_reading()
            self.transport.close()

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            status, rest = answer.split(b"\n", 1)
            date = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
            self.transport.write(status + b"\n" + date + rest)

    def _give(self, seconds: float | None) -> None:
        """Time for what comes next."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._connection.abort)


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    return int(dict(headers).get(b"content-length", b"0"))
