"""A network's weights as plain arrays: all that the coordinator ever handles of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from msfl_common.errors import UpdateError
from msfl_common.strategies.base import STATISTICS as STATISTICS
from msfl_common.system.foreign_text import shown
from msfl_common.system.reading import parse_json

MOST_HEADER = 2**20  # bytes of a safetensors file before its first array
MOST_FREE_VALUES = 4 * (5 * 2**20 - 32)  # of weights that hold an array of any length: some 100 000 trees
_CODES = {"float32": "F32", "float64": "F64", "int64": "I64"}

# All of one type: float32 of networks, float64 of feature models. Where weights are what others are checked against,
# one array whose first axis is 0 stands for any length there: trees, whose number grows.
Weights = dict[str, NDArray[Any]]


def to_safetensors(weights: Weights, metadata: dict[str, str] | None = None) -> bytes:
    """Weights as a file's content; safetensors writes memory as it lies, so rows have to lie one after the other."""
    content: bytes = save({name: np.asarray(value, order="C") for name, value in weights.items()}, metadata)
    return content


def type_of(weights: Weights) -> np.dtype[Any]:
    """The one type of all arrays."""
    types = {value.dtype for value in weights.values()}
    if len(types) != 1:
        raise ValueError(f"expected arrays of one type, found {sorted(map(str, types))}")
    return types.pop()


def has_free_length(expected: Weights) -> bool:
    """Whether one array may have any length."""
    return any(value.shape[:1] == (0,) for value in expected.values())


def shapes_of(expected: Weights, num_values: int) -> dict[str, tuple[int, ...]]:
    """The shape of each array when all together hold `num_values` values.

    Raises:
        UpdateError: they cannot.
    """
    shapes = {name: value.shape for name, value in expected.items()}
    for name, shape in shapes.items():
        if shape[:1] == (0,):
            length, rest = divmod(num_values - sum(value.size for value in expected.values()), math.prod(shape[1:]))
            if rest or length < 0:
                raise UpdateError(f"{name}: {num_values} values do not make whole rows of {shape[1:]}")
            shapes[name] = (length, *shape[1:])
    return shapes


def most_bytes(expected: Weights) -> int:
    """Bytes of the largest file that can hold weights like these."""
    num_values = sum(value.size for value in expected.values())
    if has_free_length(expected):
        num_values += MOST_FREE_VALUES
    return type_of(expected).itemsize * num_values + MOST_HEADER


def check_header(content: bytes, expected: Weights) -> None:
    """Refuse a safetensors file that says that it holds other arrays; nothing of them is read.

    Raises:
        UpdateError: other names, shapes or types.
        ConfigError: the header is no JSON.
    """
    length = int.from_bytes(content[:8], "little")
    if length > min(MOST_HEADER, len(content) - 8):
        raise UpdateError("expected a safetensors file")
    header = parse_json(content[8 : 8 + length], "header")
    found = set(header) - {"__metadata__"} if isinstance(header, dict) else set()
    if found != set(expected):
        strange = [shown(name, 60) for name in sorted(found ^ set(expected))[:3]]
        raise UpdateError(f"expected {len(expected)} arrays, found {len(found)}; they differ in {strange}")
    for name, like in expected.items():
        entry, free = header[name], like.shape[:1] == (0,)
        shape = entry.get("shape") if isinstance(entry, dict) else None
        fits = isinstance(shape, list) and len(shape) == like.ndim and tuple(shape[free:]) == like.shape[free:]
        if not fits or entry.get("dtype") != _CODES[str(like.dtype)]:
            raise UpdateError(f"{name}: expected {like.dtype}{like.shape}, found {shown(str(entry), 80)}")


def check_weights(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Refuse weights that do not fit.

    Raises:
        UpdateError: other names, another shape or type, or a value that is not finite.
    """
    if list(found) != list(expected):
        missing = sorted(set(expected) - set(found))[:3]
        raise UpdateError(f"expected {len(expected)} arrays, found {len(found)}, without {missing} or in other order")
    for name, reference in expected.items():
        array = found[name]
        fits = array.shape == reference.shape or (
            reference.shape[:1] == (0,) and array.ndim == reference.ndim and array.shape[1:] == reference.shape[1:]
        )
        if not fits or array.dtype != reference.dtype:
            raise UpdateError(f"{name}: expected {reference.dtype}{reference.shape}, found {array.dtype}{array.shape}")
    expect_finite(found)


def expect_finite(weights: Mapping[str, NDArray[Any]]) -> None:
    """Refuse weights with a value that is not finite.

    Raises:
        UpdateError: there is one.
    """
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise UpdateError(f"{name}: {int((~np.isfinite(array)).sum())} values are not finite")
