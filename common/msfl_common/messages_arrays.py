"""Named arrays as Flower records: weights in blocks, sums one by one; sizes are checked before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.harmonization import Floats
from msfl_common.weights import MOST_FREE_VALUES, Weights, check_weights, has_free_length, shapes_of, type_of

ARRAYS = "arrays"
_NPY_HEADER_BYTES = 1024  # more than any .npy header of our arrays
_BLOCK = "block{:05d}"
# Of float32, with the .npy header, just four of the 5 MB chunks in which Flower moves an array: each array, and each
# chunk, is a call of its own.
BLOCK_VALUES = 5 * 2**20 - 32


def pack_weights(weights: Weights) -> ArrayRecord:
    """One vector of all weights in their order, cut into blocks: each array that travels costs requests."""
    type_of(weights)
    return ArrayRecord({_BLOCK.format(number): Array(block) for number, block in enumerate(_blocks(weights))})


def _blocks(weights: Weights) -> Iterator[NDArray[Any]]:
    parts: list[NDArray[Any]] = []
    room = BLOCK_VALUES
    for value in weights.values():
        rest = value.reshape(-1)
        while rest.size:
            part, rest = rest[:room], rest[room:]
            parts.append(part)
            room -= part.size
            if not room:
                yield np.concatenate(parts)
                parts, room = [], BLOCK_VALUES
    if parts:
        yield np.concatenate(parts)


def unpack_weights(content: RecordDict, expected: Weights, *, consume: bool) -> Weights:
    """The weights in a message; with `consume` its blocks are dropped one by one, so that they are not there twice.

    Raises:
        UpdateError: they do not fit `expected`.
    """
    record = content.array_records.get(ARRAYS)
    if record is None:
        raise UpdateError("expected a record of weights")
    dtype = type_of(expected)
    num_values = _num_values(record, expected, dtype)
    sizes = [min(BLOCK_VALUES, num_values - start) for start in range(0, num_values, BLOCK_VALUES)]
    names = [_BLOCK.format(number) for number in range(len(sizes))]
    if list(record) != names:
        raise UpdateError(f"expected {len(names)} blocks of weights, found {len(record)} arrays or other names")
    for name, size in zip(names, sizes, strict=True):  # sizes before anything is decoded
        if len(record[name].data) > dtype.itemsize * size + _NPY_HEADER_BYTES:
            raise UpdateError(f"{name}: expected {dtype.itemsize * size} bytes, found {len(record[name].data)}")
    vector = np.empty(num_values, dtype)
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        block = _decode(name, record[name])
        if block.shape != (size,) or block.dtype != dtype:
            raise UpdateError(f"{name}: expected {dtype}({size},), found {block.dtype}{block.shape}")
        vector[number * BLOCK_VALUES :][:size] = block
        if consume:
            del record[name]
    weights, start = {}, 0
    for name, shape in shapes_of(expected, num_values).items():
        size = math.prod(shape)
        weights[name] = vector[start : start + size].reshape(shape)
        start += size
    check_weights(weights, expected)
    return weights


def _num_values(record: ArrayRecord, expected: Weights, dtype: np.dtype[Any]) -> int:
    """How many values a message should hold; where an array's length is free, as many as its blocks declare."""
    if not has_free_length(expected):
        return sum(value.size for value in expected.values())
    if not record:
        return 0
    last = _BLOCK.format(len(record) - 1)
    if len(record) > MOST_FREE_VALUES // BLOCK_VALUES or last not in record:
        raise UpdateError(f"expected at most {MOST_FREE_VALUES} values in numbered blocks, found {len(record)} arrays")
    if len(record[last].data) > dtype.itemsize * BLOCK_VALUES + _NPY_HEADER_BYTES:
        raise UpdateError(f"{last}: expected at most {BLOCK_VALUES} values")
    return (len(record) - 1) * BLOCK_VALUES + _decode(last, record[last]).size


def _decode(name: str, array: Array) -> NDArray[Any]:
    try:
        return array.numpy()
    except Exception as error:  # numpy reads the header with Python's own parser, whose errors are of many kinds
        raise UpdateError(f"{name}: cannot be decoded: {type(error).__name__}") from None


def unpack_floats(content: RecordDict, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Arrays of float64 with these names and shapes, and no others.

    Raises:
        UpdateError: they are not as declared.
    """
    record = content.array_records.get(ARRAYS)
    if record is None or set(record) != set(shapes):
        raise UpdateError(f"expected the arrays {sorted(shapes)}")
    arrays: dict[str, Floats] = {}
    for name, shape in shapes.items():
        if len(record[name].data) > 8 * math.prod(shape) + _NPY_HEADER_BYTES:
            raise UpdateError(f"{name}: expected {8 * math.prod(shape)} bytes, found {len(record[name].data)}")
        value = _decode(name, record[name])
        if value.shape != shape or value.dtype != np.float64 or not np.isfinite(value).all():
            raise UpdateError(f"{name}: expected finite float64{shape}, found {value.dtype}{value.shape}")
        arrays[name] = value
    return arrays
