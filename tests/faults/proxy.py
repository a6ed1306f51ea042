"""A TCP proxy between a site and the server that can cut the line, or let it go dead without a word."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal

Line = Literal["up", "cut", "dead"]


class Proxy:
    """Forwards to a local port.

    up      bytes pass
    cut     open connections are dropped, new ones refused
    dead    bytes are swallowed and nothing is closed; a connection that went dead stays so
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._line: Line = "up"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._dead: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, line: Line) -> None:
        """Change the line, for open connections and new ones."""
        self._line = line
        if line == "cut":
            self._drop()
        if line == "dead":
            self._dead.update(one for pair in self._pairs for one in pair)

    def close(self) -> None:
        """End it."""
        self._line = "cut"
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        for pair in self._pairs:
            for one in pair:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._pairs.clear()

    def _accept(self) -> None:
        while True:
            try:
                site, _ = self._listener.accept()
                if self._line == "cut":
                    site.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
            except ConnectionRefusedError:  # the server is not there
                site.close()
                continue
            except OSError:
                return
            self._pairs.append((site, server))
            if self._line == "dead":
                self._dead.update((site, server))
            for source, target in ((site, server), (server, site)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._dead:
                    target.sendall(data)
        if source not in self._dead:
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
