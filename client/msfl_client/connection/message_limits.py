"""What a site takes from a coordinator at most: nothing said over the network is trusted to be of a sane size."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

import httpx
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.protobuf.client import ProtobufClient

from msfl_common.messages.arrays import BLOCK_VALUES
from msfl_common.models.weights import MOST_FREE_VALUES, Weights, has_free_length, type_of

_ANSWER_BYTES = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 2**20  # one piece of an array, and what names it
_REST_BYTES = 2**20  # the study, the records' names and Flower's heads; some 10 kB in an honest message
_REST_OBJECTS = 12  # the message, its records, and room
_CONNECTIONS, _KEEP_S, _TRIES = 4, 60.0, 3
_HEAD_BYTES = 4096  # more than what Flower, and the .npy format, add to each block


class BoundsError(Exception):
    """The coordinator sent more, or something else, than an honest one does."""


@dataclass(frozen=True)
class Bounds:
    """The largest message that can be a request of the study.

    Attributes:
        num_bytes: of all its objects.
        num_objects: records, arrays and pieces of arrays.
    """

    num_bytes: int
    num_objects: int

    def counted(self, pull: Callable[[str], bytes], held_bytes: int) -> Callable[[str], bytes]:
        """`pull`, which fetches one object, until the message is too large; `held_bytes` are there already.

        An object's name is its digest, and objects are kept by name: one under a wrong name would outlive its message.

        Raises:
            BoundsError: by the returned function.
        """
        total, lock = held_bytes, Lock()

        def pull_counted(object_id: str) -> bytes:
            nonlocal total
            content = pull(object_id)
            if get_object_id(content) != object_id:
                raise BoundsError("an object that is not what it is called")
            with lock:
                total += len(content)
                if total > self.num_bytes:
                    raise BoundsError(f"a request of more than {self.num_bytes} bytes")
            return content

        return pull_counted


def bounds_of(*stages: Weights) -> Bounds:
    """What a request can hold: the weights of one of the study's stages, and little else."""
    each = [_bounds_of(weights) for weights in stages]
    return Bounds(max(one.num_bytes for one in each), max(one.num_objects for one in each))


def _bounds_of(weights: Weights) -> Bounds:
    num_values = MOST_FREE_VALUES if has_free_length(weights) else sum(array.size for array in weights.values())
    num_bytes, num_blocks = type_of(weights).itemsize * num_values, math.ceil(num_values / BLOCK_VALUES)
    # Each block ends in a piece that is not full.
    num_pieces = num_bytes // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + num_blocks
    num_heads = num_blocks + num_pieces
    return Bounds(num_bytes + num_heads * _HEAD_BYTES + _REST_BYTES, num_heads + _REST_OBJECTS)


def guard(client: ProtobufClient, context: ssl.SSLContext) -> None:
    """Let a client of Flower's follow no redirect, which would carry its calls elsewhere, and bound each answer.

    It keeps few connections, and each for longer than a site is silent: a coordinator in a flood of strangers' calls
    takes new ones where there is room. A connection that does not come about is tried again.
    """
    timeout = client._client.timeout
    client._client.close()
    limits = httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_KEEP_S)
    client._client = httpx.Client(
        verify=context,
        limits=limits,
        timeout=timeout,
        follow_redirects=False,
        headers={"accept-encoding": "identity"},  # a few compressed bytes can become very many
        event_hooks={"response": [_bound]},
    )
    for transport in (client._client._transport, *client._client._mounts.values()):  # straight, or through a proxy
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._retries = _TRIES


def _bound(response: httpx.Response) -> None:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BoundsError("a compressed answer, which was not asked for")
    assert isinstance(response.stream, httpx.SyncByteStream)
    response.stream = _BoundedStream(response.stream)


class _BoundedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        left = _ANSWER_BYTES
        for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise BoundsError(f"an answer of more than {_ANSWER_BYTES} bytes")
            yield piece

    def close(self) -> None:
        self._stream.close()
