"""A message as a file, and back: its digest stays the same. For a site that keeps what it sends."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from msfl_common.errors import InputError
from msfl_common.messages.arrays import ARRAYS
from msfl_common.messages.ledger import BESIDE
from msfl_common.messages.records import describe

Shapes = Mapping[str, list[int]]
_REST = "rest"
_BYTES = "base64"


@dataclass(frozen=True)
class Opened:
    """A message that was kept.

    Attributes:
        sha256: of names and values, as in the ledger.
        arrays: by the name that the ledger has for each.
        numbers: record to name to value; bytes as hexadecimal digits.
    """

    sha256: str
    arrays: dict[str, NDArray[Any]]
    numbers: dict[str, dict[str, Any]]


def to_bytes(content: RecordDict, arrays: Shapes) -> bytes:
    """A message, with the names and shapes of the arrays that its blocks hold, in their order."""
    records = {name: value for name, value in content.items() if name not in BESIDE}
    parts, kinds = {}, {}
    for record_name, record in records.items():
        if isinstance(record, ArrayRecord):
            for name, array in record.items():
                parts[f"{record_name}/{name}"] = np.frombuffer(array.data, np.uint8)
                kinds[f"{record_name}/{name}"] = [array.dtype, list(array.shape), array.stype]
    rest = {
        "shapes": list(arrays.items()),
        "arrays": kinds,
        "metrics": {name: dict(record) for name, record in records.items() if isinstance(record, MetricRecord)},
        "configs": {name: _written(record) for name, record in records.items() if isinstance(record, ConfigRecord)},
    }
    parts[_REST] = np.frombuffer(json.dumps(rest).encode(), np.uint8)
    return bytes(save(parts))


def from_bytes(kept: bytes) -> Opened:
    """The message of `to_bytes`.

    Raises:
        InputError: it is none.
    """
    try:
        parts = load(kept)
        rest = json.loads(parts.pop(_REST).tobytes())
        content = RecordDict()
        for path, part in parts.items():
            record_name, name = path.split("/", 1)
            dtype, shape, stype = rest["arrays"][path]
            record = content.array_records.setdefault(record_name, ArrayRecord())
            record[name] = Array(dtype=dtype, shape=tuple(shape), stype=stype, data=part.tobytes())
        for name, values in rest["metrics"].items():
            content[name] = MetricRecord(values)
        configs = {name: _read(values) for name, values in rest["configs"].items()}
        for name, values in configs.items():
            content[name] = ConfigRecord(values)
        arrays = _named(content.array_records.get(ARRAYS, ArrayRecord()), dict(rest["shapes"]))
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"holds no message ({type(error).__name__})") from None
    shown = {
        record: {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}
        for record, values in configs.items()
    }
    return Opened(describe(content).sha256, arrays, {**rest["metrics"], **shown})


def _written(record: ConfigRecord) -> dict[str, Any]:
    """A record's values as JSON has them; bytes in base64."""
    return {
        name: {_BYTES: base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in record.items()
    }


def _read(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: base64.b64decode(value[_BYTES], validate=True) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def _named(record: ArrayRecord, shapes: dict[str, list[int]]) -> dict[str, NDArray[Any]]:
    """The arrays by the names that the ledger has; weights travel as one vector in blocks."""
    sent = {name: array.numpy() for name, array in sorted(record.items())}
    if set(sent) == set(shapes):
        return sent
    vector = np.concatenate(list(sent.values())) if sent else np.empty(0, np.float32)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    if not len(ends) or ends[-1] != vector.size:
        raise ValueError
    pieces = np.split(vector, ends[:-1])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
