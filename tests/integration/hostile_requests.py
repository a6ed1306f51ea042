"""What a hostile coordinator asks of a site, and the code that it gets for each."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id
from tests.integration.hostile_link import objects_of, request
from tests.integration.recording_proxy import Lie
from tests.integration.siege import Siege

from msfl_common import __version__
from msfl_common.errors import Code

PROTOBUF = {"content-type": "application/protobuf"}
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


# The requests, and the codes that they get.
HOSTILE_STUDIES: list[tuple[Callable[[Siege], RecordDict], Code]] = [
    (with_study(lambda study: study.__setitem__("shell", "rm -rf /")), Code.BAD_STUDY),
    (with_study(lambda study: study.__setitem__("../../etc/passwd\n\x1b[2J", 1)), Code.BAD_STUDY),
    (with_study(lambda study: study.__setitem__("name", "../../outside")), Code.BAD_STUDY),
    (with_study(lambda study: study.__setitem__("task", "skull-stripping")), Code.BAD_STUDY),
    (with_study(lambda study: study.__setitem__("seed", -1)), Code.BAD_STUDY),
    (with_study(lambda study: study.__setitem__("name", "another")), Code.WRONG_STUDY),
    (setting("inputs", "contrasts", ["../T1w"]), Code.BAD_STUDY),
    (setting("inputs", "spacing_mm", 1e308), Code.BAD_STUDY),
    (setting("inputs", "spacing_mm", 0.5), Code.WRONG_STUDY),
    (setting("training", "learning_rate", float("nan")), Code.BAD_STUDY),
    (setting("training", "learning_rate", 1e999), Code.BAD_STUDY),
    (setting("training", "batch_size", "many"), Code.BAD_STUDY),
    (setting("training", "batch_size", 1024), Code.WRONG_STUDY),
    (setting("training", "steps_per_round", 100_000), Code.POLICY),
    (setting("network", "channels", [10**30, 8]), Code.BAD_STUDY),
    (setting("network", "channels", [1024, 1024, 1024, 1024]), Code.WRONG_STUDY),
    (setting("rounds", "num_rounds", 100_000), Code.POLICY),
    (setting("rounds", "num_rounds", [[[]]]), Code.BAD_STUDY),
    (with_study(lambda study: "[" * 100_000), Code.BAD_STUDY),
    (with_study(lambda study: "null"), Code.BAD_STUDY),
    (with_study(lambda study: b"\x80\x04."), Code.BAD_STUDY),
    (with_study(lambda study: ["a", "b"]), Code.BAD_STUDY),
    (with_study(lambda study: study, -1), Code.BAD_STUDY),
    (with_study(lambda study: study, 1001), Code.POLICY),
    (with_study(lambda study: study, 2**62), Code.POLICY),
    (with_study(lambda study: study, 1.5), Code.BAD_STUDY),
    (with_study(lambda study: study, True), Code.BAD_STUDY),
    (with_study(lambda study: study, "../1"), Code.BAD_STUDY),
    (lambda siege: RecordDict(), Code.BAD_STUDY),
]

# All get BAD_MODEL.
WRONG_WEIGHTS: list[Callable[[Siege], RecordDict]] = [
    without_first,
    with_path_name,
    replaced(lambda siege, array: Array(np.zeros((3, 3), np.float32))),
    replaced(lambda siege, array: Array(array.numpy().astype(np.float64))),
    replaced(lambda siege, array: Array(np.full(array.shape, np.nan, np.float32))),
    replaced(lambda siege, array: Array(np.zeros((10, *array.shape), np.float32))),
    replaced(lambda siege, array: Array(array.dtype, array.shape, array.stype, b"no array")),
    replaced(lambda siege, array: Array(array.dtype, array.shape, array.stype, pickle.dumps(Bomb(siege.marker)))),
    replaced(lambda siege, array: Array(array.dtype, array.shape, "pickle", array.data)),
    replaced(pickled),
]


def damaged(siege: Siege, damage: str) -> tuple[ObjectTree, dict[str, bytes]]:
    """Tree and objects that make no message."""
    new = replaced(lambda siege, array: Array(np.zeros(array.shape, np.float32)))(siege)  # not held from before
    tree, objects = objects_of(request(new))
    root = objects[tree.object_id]
    match damage:
        case "bytes":
            objects = dict.fromkeys(objects, b"\xff" * 100)
        case "another object":  # kept by its name, it would be taken for the honest one next time
            objects = dict.fromkeys(objects, root)
        case _:
            root = {
                "no such class": root.replace(b"Message", b"os.walk", 1),
                "no such child": root.replace(root.split()[1], b"c" * 64, 1),
                "nothing": b"",
            }[damage]
            tree = ObjectTree(object_id=get_object_id(root), children=tree.children)
            objects = {**objects, tree.object_id: root}
    return tree, objects


LIES = {
    "endless": Lie(200, PROTOBUF, endless=True),
    "gzip": Lie(200, {**PROTOBUF, "content-encoding": "gzip"}, b"\x1f\x8b" + bytes(100)),
    "garbage": Lie(200, PROTOBUF, b"\xff" * 1000),
    "500": Lie(500, PROTOBUF, b'{"code": "x"}'),
    "307": Lie(307, {"location": "http://127.0.0.1:9/elsewhere"}),
    "308": Lie(308, {"location": "https://flower.invalid/"}),
}

# Of the SuperLink's port for sites: none is theirs.
OTHER_PATHS = [
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "//v1/control/list-nodes",
    "/v1/runtime/push-messages",
    "/v1/control/start-run",
    "/",
    "/docs",
    "/openapi.json",
    "/v1/fleet",
]
