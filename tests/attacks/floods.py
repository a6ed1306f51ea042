"""What a stranger does to a port: `KIND PORT SECONDS CONNECTIONS [KEY]`, on this machine alone, and it ends by itself.

Each kind keeps that many connections busy, opens a new one soon after one is closed, and comes after others in the
machine's order of who computes: a stranger's computer is another one. With KEY, a site's private key, calls are signed.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

MOST_CONNECTIONS, MOST_SECONDS = 1200, 60.0
PAUSE_S = 0.2  # after a connection is closed
MOST_BYTES = 64 * 2**20  # that one connection sends


class Flood:
    """The state of one attacker."""

    def __init__(self, port: int, end: float, key: EllipticCurvePrivateKey | None) -> None:
        self.port = port
        self.end = end
        self.key = key
        self.calls = self.answers = 0
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    async def open(self, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        self.calls += 1
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context if tls else None)

    def head(self, path: str, length: int, *more: str) -> bytes:
        """A call's first lines."""
        lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/protobuf"]
        if length >= 0:
            lines.append(f"content-length: {length}")
        if self.key is not None:
            moment = datetime.now(UTC).isoformat()
            public = b64encode(
                self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            ).decode()
            signature = b64encode(self.key.sign(moment.encode(), ECDSA(SHA256()))).decode()
            lines += [f"flwr-public-key: {public}", f"flwr-timestamp: {moment}", f"flwr-signature: {signature}"]
        return "\r\n".join([*lines, *more, "", ""]).encode()

    async def pour(self, first: bytes, piece: bytes, most: int) -> None:
        """Send a call's beginning on a connection of its own, then a piece as often as it is taken."""
        reader, writer = await self.open()
        writer.write(first)
        for _ in range(most):
            if not self.left() or reader.at_eof():
                break
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def drip(self, first: bytes) -> None:
        """Send a call's beginning on a connection of its own, then a byte a second."""
        reader, writer = await self.open()
        writer.write(first)
        while self.left() and not reader.at_eof():
            writer.write(b"x")
            await asyncio.sleep(1)
        writer.close()

    async def say(self, content: bytes) -> None:
        """Send it all on a connection of its own, and read until that is closed."""
        reader, writer = await self.open()
        writer.write(content)
        await asyncio.wait_for(reader.read(), self.left())
        writer.close()

    def left(self) -> float:
        """Seconds until the end."""
        return max(0.0, self.end - time.monotonic())


async def half_a_handshake(flood: Flood) -> None:
    """Five bytes of TLS, and no more."""
    reader, writer = await flood.open(tls=False)
    writer.write(b"\x16\x03\x01\x02\x00")
    await asyncio.wait_for(reader.read(), flood.left())
    writer.close()


async def half_a_head(flood: Flood) -> None:
    """A byte of a header each second."""
    await flood.drip(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: localhost\r\nx-slow: ")


async def large_bodies(flood: Flood) -> None:
    """A gigabyte said, and sent as fast as it is taken."""
    piece = bytes(2**18)
    await flood.pour(flood.head("/v1/fleet/push-object", 10**9), piece, MOST_BYTES // len(piece))


async def endless_bodies(flood: Flood) -> None:
    """Pieces without a length."""
    piece = b"40000\r\n" + bytes(2**18) + b"\r\n"
    first = flood.head("/v1/fleet/push-messages", -1, "transfer-encoding: chunked")
    await flood.pour(first, piece, MOST_BYTES // len(piece))


async def slow_bodies(flood: Flood) -> None:
    """As large as may be, a byte a second."""
    await flood.drip(flood.head("/v1/fleet/push-object", 5 * 2**20))


async def junk(flood: Flood) -> None:
    """Thirty kilobytes that are no call."""
    await flood.say(random.choice((b"GET /", b"", b"POST /v1/fleet/")) + os.urandom(30_000) + b"\r\n\r\n")


async def other_paths(flood: Flood) -> None:
    """What a scanner looks for."""
    path = random.choice(("/", "/docs", "/v1/control/start-run", "/v1/fleet/get-fab", "/v1/fleet/x" * 200))
    await flood.say(flood.head(path, 0))


async def short_connections(flood: Flood) -> None:
    """Opened and closed."""
    _, writer = await flood.open(tls=False)
    writer.close()


async def many_headers(flood: Flood) -> None:
    """A head that does not end."""
    piece = b"".join(b"x-%d: y\r\n" % number for number in range(10_000))
    await flood.pour(b"POST /v1/fleet/pull-messages HTTP/1.1\r\n", piece, 100)


async def many_calls_at_once(flood: Flood) -> None:
    """A thousand calls in one breath."""
    await flood.say(flood.head("/v1/fleet/pull-messages", 0) * 1000)


async def calls_of_a_site(flood: Flood) -> None:
    """Signed, and as many as are answered."""
    reader, writer = await flood.open()
    body = b"\x0a\x02\x08\x01"  # a heartbeat, of a node that is not its own
    while flood.left():
        writer.write(flood.head("/v1/fleet/send-node-heartbeat", len(body)) + body)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), flood.left())
        length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length or 0))
        flood.answers += 1
    writer.close()


KINDS: dict[str, Callable[[Flood], Awaitable[None]]] = {
    kind.__name__: kind
    for kind in (
        half_a_handshake,
        half_a_head,
        large_bodies,
        endless_bodies,
        slow_bodies,
        junk,
        other_paths,
        short_connections,
        many_headers,
        many_calls_at_once,
        calls_of_a_site,
    )
}


async def keep_up(flood: Flood, kind: Callable[[Flood], Awaitable[None]]) -> None:
    """One connection after another until the end."""
    while flood.left():
        with suppress(OSError, EOFError, asyncio.TimeoutError, ValueError):  # cut off: that is what is tested
            await asyncio.wait_for(kind(flood), max(0.01, flood.left()))
        await asyncio.sleep(min(PAUSE_S, flood.left()))


async def main() -> None:
    """Entry point."""
    kind, port, seconds, connections, *key = sys.argv[1:]
    os.nice(5)
    flood = Flood(int(port), 0.0, load_ssh_private_key(Path(key[0]).read_bytes(), None) if key else None)  # type: ignore[arg-type]
    _, first = await flood.open(tls=False)  # its time begins when it can
    first.close()
    flood.end = time.monotonic() + min(float(seconds), MOST_SECONDS)
    workers = [keep_up(flood, KINDS[kind]) for _ in range(min(int(connections), MOST_CONNECTIONS))]
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await asyncio.gather(*workers, return_exceptions=True)
    print(flood.answers or flood.calls)


if __name__ == "__main__":
    asyncio.run(main())
