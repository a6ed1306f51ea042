"""Named arrays as Flower records: weights in blocks, sums one by one; sizes are checked before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.harmonization import Floats
from msfl_common.models.weights import MOST_FREE_VALUES, Weights, check_weights, has_free_length, shapes_of, type_of

ARRAYS = "arrays"
_NPY_HEADER_BYTES = 1024  # more than any .npy header of our arrays
_NPY: Any = np.lib.format  # whose stubs lack the bound on a header
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
        _expect_bytes(name, record[name], dtype.itemsize * size)
    vector = np.empty(num_values, dtype)
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        vector[number * BLOCK_VALUES :][:size] = _decode(name, record[name], dtype, (size,))
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
    _expect_bytes(last, record[last], dtype.itemsize * BLOCK_VALUES)
    (size,) = _decode(last, record[last], dtype, (-1,)).shape
    return (len(record) - 1) * BLOCK_VALUES + size


def _expect_bytes(name: str, array: Array, num_bytes: int) -> None:
    """Refuse an array that takes more than so many bytes and its header.

    Raises:
        UpdateError: it does.
    """
    if len(array.data) > num_bytes + _NPY_HEADER_BYTES:
        raise UpdateError(f"{name}: expected {num_bytes} bytes, found {len(array.data)}")


def _decode(name: str, array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The values of an .npy file, as an array of its own; see `_view`."""
    return _view(name, array, dtype, shape).copy()


def _view(name: str, array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The values where they lie in an .npy file, held against its header before memory is taken; -1 in `shape` is free.

    Raises:
        UpdateError: other bytes, type or shape.
    """
    found_shape, is_fortran, found_dtype, start = _header(name, array)
    fits = len(found_shape) == len(shape) and all(
        size in (-1, found) for size, found in zip(shape, found_shape, strict=True)
    )
    if not fits or found_dtype != dtype:
        raise UpdateError(f"{name}: expected {dtype}{shape}, found {found_dtype.name}{found_shape}")
    if len(array.data) - start != dtype.itemsize * math.prod(found_shape):
        raise UpdateError(f"{name}: expected as many bytes as {dtype}{shape} takes")
    values = np.frombuffer(array.data, dtype, offset=start)
    return values.reshape(found_shape, order="F" if is_fortran else "C")


def _header(name: str, array: Array) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type and length of the header of an .npy file."""
    stream = BytesIO(array.data[:_NPY_HEADER_BYTES])
    try:
        if array.stype != "numpy.ndarray" or _NPY.read_magic(stream) != (1, 0):
            raise UpdateError(f"{name}: expected a NumPy array of format 1.0")
        return *_NPY.read_array_header_1_0(stream, max_header_size=_NPY_HEADER_BYTES), stream.tell()
    except (ValueError, TypeError, SyntaxError, TokenError, MemoryError, RecursionError, EOFError) as error:
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
        _expect_bytes(name, record[name], 8 * math.prod(shape))
        value = _decode(name, record[name], np.dtype(np.float64), shape)
        if not np.isfinite(value).all():
            raise UpdateError(f"{name}: expected finite values")
        arrays[name] = value
    return arrays


def pack_bytes(data: bytes) -> ArrayRecord:
    """Bytes as blocks of unsigned 8-bit numbers, of the size in which weights travel."""
    step = 4 * BLOCK_VALUES
    return ArrayRecord(
        {
            _BLOCK.format(number): Array(np.frombuffer(data[start : start + step], np.uint8))
            for number, start in enumerate(range(0, len(data), step))
        }
    )


def unpack_bytes(content: RecordDict, num_bytes: int) -> bytes:
    """The bytes in a message; its blocks are dropped one by one, so that they are not there twice.

    Raises:
        UpdateError: they are not so many.
    """
    record, step = content.array_records.get(ARRAYS), 4 * BLOCK_VALUES
    sizes = [min(step, num_bytes - start) for start in range(0, num_bytes, step)]
    names = [_BLOCK.format(number) for number in range(len(sizes))]
    if record is None or list(record) != names:
        raise UpdateError(f"expected {len(names)} blocks of {num_bytes} bytes together")
    for name, size in zip(names, sizes, strict=True):
        _expect_bytes(name, record[name], size)
    pieces = []
    for name, size in zip(names, sizes, strict=True):
        pieces.append(_view(name, record[name], np.dtype(np.uint8), (size,)).tobytes())
        del record[name]
    return b"".join(pieces)  # of one piece, that piece itself
