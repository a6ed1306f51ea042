"""What a site may answer to a request at most; the SuperLink cuts it off beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass

from msfl_common.messages.arrays import BLOCK_VALUES
from msfl_common.models.weights import MOST_FREE_VALUES, Weights, has_free_length, type_of

_PIECE_BYTES = 5 * 2**20  # in which Flower moves an array
_HEAD_BYTES = 4096  # more than what Flower, and the .npy format, add to each block
_REST_BYTES = 4 * 2**20  # metrics, sums, facts and Flower's heads: some 10 kB in most, 1 MB of sums of many features
_REST_OBJECTS = 64  # each array of sums is an object, in a piece that is one too


@dataclass(frozen=True)
class ReplyBounds:
    """The largest answer.

    Attributes:
        num_bytes: of all its objects.
        num_objects: records, arrays and pieces of arrays.
    """

    num_bytes: int
    num_objects: int


REST = ReplyBounds(_REST_BYTES, _REST_OBJECTS)


def bounds_of_answer(like: Weights | None) -> ReplyBounds:
    """What an answer can hold: arrays like these, where any are asked for, and little else."""
    if not like:
        return REST
    num_values = MOST_FREE_VALUES if has_free_length(like) else sum(array.size for array in like.values())
    return bounds_of_bytes(type_of(like).itemsize * num_values, math.ceil(num_values / BLOCK_VALUES))


def bounds_of_bytes(num_bytes: int, num_arrays: int) -> ReplyBounds:
    """What an answer with so many bytes in so many arrays can hold."""
    num_heads = 2 * num_arrays + num_bytes // _PIECE_BYTES  # each array ends in a piece that is not full
    return ReplyBounds(num_bytes + num_heads * _HEAD_BYTES + _REST_BYTES, num_heads + _REST_OBJECTS)
