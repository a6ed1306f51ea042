"""Objects in flight: large ones are files, and Flower's rules about them hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.object_store.object_store import NoObjectInStoreError

from msfl_server.federation_store import FileObjectStore
from msfl_server.object_folder import ObjectFolder

# Flower's migrations.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found in configuration:DeprecationWarning")


@pytest.fixture
def store(tmp_path: Path) -> FileObjectStore:
    made = FileObjectStore(str(tmp_path / "link.db"), ObjectFolder(tmp_path / "objects"))
    made.initialize()
    return made


def content_of(num_values: int, seed: int = 0) -> tuple[str, bytes]:
    """A real object of Flower's, and its digest."""
    array = Array(np.random.default_rng(seed).random(num_values, dtype=np.float32))
    (chunk,) = array.children.values()
    return chunk.object_id, chunk.deflate()


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "objects").iterdir())


@pytest.mark.parametrize(("num_values", "is_file"), [(10, False), (100_000, True)])
def test_what_is_put_comes_back_until_it_is_deleted(
    store: FileObjectStore, tmp_path: Path, num_values: int, is_file: bool
) -> None:
    name, content = content_of(num_values)
    assert store.get(name) is None
    assert store.preregister(1, ObjectTree(object_id=name)) == [name]
    assert store.get(name) == b""
    store.put(name, content)
    assert store.get(name) == content
    assert files(tmp_path) == ([name] if is_file else [])
    assert store.preregister(1, ObjectTree(object_id=name)) == []
    store.delete(name)
    assert store.get(name) is None
    assert files(tmp_path) == []


def test_what_is_referred_to_stays(store: FileObjectStore, tmp_path: Path) -> None:
    (part, content), (first, _), (second, _) = content_of(100_000), content_of(10, 1), content_of(10, 2)
    for parent in (first, second):
        store.preregister(1, ObjectTree(object_id=parent, children=[ObjectTree(object_id=part)]))
    store.put(part, content)
    store.delete(first)
    assert store.get(part) == content
    store.delete(second)
    assert store.get(part) is None
    assert files(tmp_path) == []


@pytest.mark.parametrize("forget", [lambda store: store.delete_objects_in_run(1), lambda store: store.clear()])
def test_a_run_leaves_no_file(
    store: FileObjectStore, tmp_path: Path, forget: Callable[[FileObjectStore], None]
) -> None:
    for seed in range(3):
        name, content = content_of(100_000, seed)
        store.preregister(1, ObjectTree(object_id=name))
        store.put(name, content)
    assert len(files(tmp_path)) == 3
    forget(store)
    assert files(tmp_path) == []


def test_what_was_not_announced_or_is_not_itself_is_refused(store: FileObjectStore, tmp_path: Path) -> None:
    name, content = content_of(100_000)
    with pytest.raises(NoObjectInStoreError):
        store.put(name, content)
    store.preregister(1, ObjectTree(object_id=name))
    with pytest.raises(ValueError, match="does not match"):
        store.put(name, content_of(100_000, 1)[1])
    assert files(tmp_path) == []
    assert store.get(name) == b""


def test_a_file_that_is_there_needs_no_content(store: FileObjectStore, tmp_path: Path) -> None:
    name, content = content_of(100_000)
    store.preregister(1, ObjectTree(object_id=name))
    with pytest.raises(ValueError, match="no content"):
        store.put(name, b"")
    ObjectFolder(tmp_path / "objects").write(name, content)
    assert store.preregister(1, ObjectTree(object_id=name)) == [name], "not before it is said to be there"
    store.put(name, b"")
    assert store.preregister(1, ObjectTree(object_id=name)) == []
    assert store.get(name) == content
    store.delete(name)
    assert files(tmp_path) == []


def test_a_file_alone_is_nothing(store: FileObjectStore, tmp_path: Path) -> None:
    (tmp_path / "objects" / "0").write_bytes(b"left over")
    assert store.get("0") is None
