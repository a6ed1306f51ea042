"""Replies that no honest site sends, made of real ones: structure first, bytes last."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

Rng = np.random.Generator
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 0.5, 1e-300, 3e38, -3e38, 1e300, 1e15, -1e15, 5e-324)
VALUES: tuple[Any, ...] = (
    *FLOATS, 0, -1, 2, 10**15, 2**62, -(2**62), True, False, "abc", "", "9" * 5000, None, [1.0, 2.0], [], b"\x00", {},
)  # fmt: skip
NAMES = ("", "x", "num-examples", "dsc.mean", "../../etc/passwd", "[red]a[/]", "a\nb", "é" * 100, "n" * 10_000)
FLOAT64 = "<f8"


def copy_of(content: RecordDict) -> RecordDict:
    """A reply that can be taken apart without touching the recorded one; arrays' bytes are shared."""
    made = RecordDict()
    for name, record in content.items():
        fresh: Any = type(record)()
        for key, value in record.items():
            put(fresh, key, value)
        put(made, name, fresh)
    return made


def put(record: Any, name: Any, value: Any) -> None:
    """Set what Flower's own types would refuse; other programs can send it."""
    vars(record)["_data"][name] = value


def array_of(data: bytes, stype: str = "numpy.ndarray") -> Array:
    """An array that travels as these bytes."""
    return Array(dtype="float32", shape=(1,), stype=stype, data=data)


def npy(value: np.ndarray[Any, Any], *, allow_pickle: bool = False, version: tuple[int, int] | None = None) -> bytes:
    """The bytes of an .npy file."""
    stream = BytesIO()
    np.lib.format.write_array(stream, value, version=version, allow_pickle=allow_pickle)
    return stream.getvalue()


def npy_claiming(shape: tuple[int, ...], descr: str = "<f4", fortran: bool = False, body: bytes = b"") -> bytes:
    """An .npy file whose header says what is not so."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def mutate(content: RecordDict, rng: Rng) -> RecordDict:
    """A reply with one to three things wrong; now and then it is still one that is right."""
    made = copy_of(content)
    for _ in range(int(rng.integers(1, 4))):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        change(made, rng)
    return made


def _pick(items: Any, rng: Rng) -> Any:
    items = list(items)
    return items[int(rng.integers(len(items)))] if items else None


def _change_records(content: RecordDict, rng: Rng) -> None:
    name = _pick(content, rng)
    if name is None:
        return
    record = content[name]
    match int(rng.integers(7)):
        case 0:
            del content[name]
        case 1:
            put(content, _pick(NAMES, rng), record)
        case 2:
            put(content, name, ConfigRecord({"text": "x"}))
        case 3:
            put(content, name, MetricRecord({"num-examples": 1}))
        case 4:
            put(content, name, ArrayRecord())
        case 5:
            refusal = ConfigRecord()
            put(refusal, "code", _pick((*VALUES, "POLICY", "NO_CASES"), rng))
            put(refusal, "site", _pick((*NAMES, *VALUES), rng))
            put(content, "refusal", refusal)
        case _:
            for other in list(content):
                del content[other]


def _change_numbers(content: RecordDict, rng: Rng) -> None:
    record = _pick([*content.metric_records.values(), *content.config_records.values()], rng)
    name = _pick(record or (), rng)
    if name is None:
        return
    match int(rng.integers(6)):
        case 0:
            del record[name]
        case 1:
            put(record, _pick(NAMES, rng), record[name])
        case 2 if isinstance(record[name], int | float):
            put(record, name, record[name] * _pick((-1, 2, 1e3, 1e6, 1e300, 0.5), rng))
        case 3 if isinstance(record[name], int | float):
            put(record, name, record[name] + _pick((-1, 1, 0.1, 10, 1000), rng))
        case _:
            put(record, name, _pick(VALUES, rng))


def _change_array(content: RecordDict, rng: Rng) -> None:
    record = _pick(content.array_records.values(), rng)
    name = _pick(record or (), rng)
    if name is None or not isinstance(record[name], Array):
        return
    match int(rng.integers(5)):
        case 0:
            _change_bytes(record, name, rng)
        case 1:
            del record[name]
            put(record, _pick((*NAMES, "block00000", "block00001", "curvature"), rng), array_of(b""))
        case _:
            try:
                value = record[name].numpy().copy()
            except Exception:
                return
            if value.dtype.kind == "f":
                put(record, name, Array(_change_values(value, rng)))


def _change_values(value: np.ndarray[Any, Any], rng: Rng) -> np.ndarray[Any, Any]:
    flat = value.reshape(-1)
    with np.errstate(all="ignore"):
        match int(rng.integers(12)):
            case 0 if flat.size:
                flat[int(rng.integers(flat.size))] = _pick(FLOATS, rng)
            case 1:
                value = value * value.dtype.type(_pick((-1.0, 0.0, 2.0, 100.0, 1e6, 1e30, 1e-30, 1e38), rng))
            case 2:
                value = value + rng.normal(scale=float(_pick((1e-3, 1.0, 1e3), rng)), size=value.shape)
                value = value.astype(flat.dtype)
            case 3:
                value = rng.permutation(flat).reshape(value.shape)
            case 4:
                value = value.T
            case 5:
                value = value.astype(_pick((">f4", "<f8", "<i8", "<f2", "<c16", "?"), rng))
            case 6:
                value = flat[: flat.size // 2]
            case 7:
                value = np.concatenate([flat, flat])
            case 8:
                value = np.full_like(value, _pick(FLOATS, rng))
            case 9 if flat.size > 1:
                flat[int(rng.integers(flat.size))] += flat.dtype.type(_pick((1.0, -1.0, 1e-6, 10.0), rng))
            case 10 if flat.size > 1:
                first, second = rng.integers(flat.size, size=2)
                flat[[first, second]] = flat[[second, first]]
            case _:
                value = value[..., None]
    return value


def _change_bytes(record: Any, name: str, rng: Rng) -> None:
    data = record[name].data
    match int(rng.integers(10)):
        case 0:
            made = array_of(npy_claiming((10**14,)))
        case 1:
            made = array_of(npy_claiming((2**63,), FLOAT64))
        case 2:
            made = array_of(npy_claiming((-5,), body=data[-64:]))
        case 3:
            made = array_of(data[: int(rng.integers(len(data) + 1))])
        case 4:
            made = array_of(data + b"\x00" * int(rng.integers(1, 4000)))
        case 5:
            made = array_of(npy(np.array([{"a": 1}], object), allow_pickle=True))
        case 6:
            made = array_of(pickle.dumps({"a": 1}), _pick(("pickle", "", "numpy.ndarray"), rng))
        case 7:
            made = array_of(npy(np.ones(3, np.float32), version=(2, 0)))
        case 8:
            made = array_of(b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"(" * 900)
        case _:
            torn = bytearray(data)
            for _ in range(int(rng.integers(1, 9)) if torn else 0):
                torn[int(rng.integers(len(torn)))] = int(rng.integers(256))
            made = array_of(bytes(torn))
    put(record, name, made)


CHANGES: tuple[Callable[[RecordDict, Rng], None], ...] = (
    _change_records, _change_numbers, _change_numbers, _change_array, _change_array, _change_array,
)  # fmt: skip
