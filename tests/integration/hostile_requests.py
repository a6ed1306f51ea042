"""What a hostile coordinator asks of a site, and the code that it gets for each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ConfigRecord, RecordDict
from tests.integration.siege import Siege

from msfl_common import __version__

APP = ("msfl/msfl", __version__)


def with_study(change: Callable[[dict[str, object]], object], number: object = 1) -> Callable[[Siege], RecordDict]:
    """A request whose study's JSON was changed."""

    def make(siege: Siege) -> RecordDict:
        study = json.loads(siege.study.model_dump_json())
        changed = change(study)
        text = changed if isinstance(changed, str | bytes | list) else json.dumps(study)
        content = siege.task()
        content["task"] = ConfigRecord({"study": text, "round": number})  # type: ignore[dict-item]
        return content

    return make


def setting(part: str, name: str, value: object) -> Callable[[Siege], RecordDict]:
    """A request with one setting of the study changed."""
    return with_study(lambda study: study[part].__setitem__(name, value))  # type: ignore[index, attr-defined]


class Bomb:
    """Unpickled, it writes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.marker), "w"))


def replaced(change: Callable[[Siege, Array], Array]) -> Callable[[Siege], RecordDict]:
    """A request with another first array."""

    def make(siege: Siege) -> RecordDict:
        content = siege.task()
        name, array = next(iter(content.array_records["arrays"].items()))
        content.array_records["arrays"][name] = change(siege, array)
        return content

    return make


def without_first(siege: Siege) -> RecordDict:
    content = siege.task()
    del content.array_records["arrays"][next(iter(content.array_records["arrays"]))]
    return content


def with_path_name(siege: Siege) -> RecordDict:
    content = siege.task()
    content.array_records["arrays"]["../../outside"] = Array(np.zeros(1, np.float32))
    return content


def pickled(siege: Siege, array: Array) -> Array:
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb(siege.marker)], dtype=object), allow_pickle=True)
    return Array("float32", array.shape, "numpy.ndarray", stream.getvalue())
