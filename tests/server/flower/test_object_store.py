"""Objects in flight: each message's by themselves, large ones as files, and nothing left when the message is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.object_store.object_store import NoObjectInStoreError

from msfl_server.flower.object_folder import ObjectFolder, remove_traces
from msfl_server.flower.object_store import ParcelStore, TooMuchError
from msfl_server.rounds.reply_bounds import REST, ReplyBounds, bounds_of_answer

LONG = float("inf")
A, B = 11, 12  # two sites
ROOM = ReplyBounds(10**6, 10)


@pytest.fixture
def store(tmp_path: Path) -> ParcelStore:
    return ParcelStore(ObjectFolder(tmp_path / "link.db.objects"))


def content_of(num_values: int, seed: int = 0) -> tuple[str, bytes]:
    """A real object of Flower's, and its digest."""
    array = Array(np.random.default_rng(seed).random(num_values, dtype=np.float32))
    (chunk,) = array.children.values()
    return chunk.object_id, chunk.deflate()


def tree(name: str, *parts: str) -> ObjectTree:
    return ObjectTree(object_id=name, children=[ObjectTree(object_id=part) for part in parts])


def num_files(tmp_path: Path) -> int:
    return len(list((tmp_path / "link.db.objects").iterdir()))


@pytest.mark.parametrize(("num_values", "is_file"), [(10, False), (100_000, True)])
def test_a_reply_comes_back_until_it_is_read(
    store: ParcelStore, tmp_path: Path, num_values: int, is_file: bool
) -> None:
    name, content = content_of(num_values)
    assert store.get(name) is None
    assert store.announce_reply(1, A, tree(name), "s", LONG, ROOM) == [name]
    assert store.get(name) == b""
    assert store.receive("s", A, name, content)
    assert store.get(name) == content
    assert num_files(tmp_path) == is_file
    assert not store.receive("s", A, name, content), "once"
    store.delete(name)
    assert store.get(name) is None
    assert num_files(tmp_path) == 0


def test_a_request_to_many_is_kept_once_until_all_have_it(store: ParcelStore, tmp_path: Path) -> None:
    (part, content), (first, one), (second, two) = content_of(100_000), content_of(10, 1), content_of(10, 2)
    assert set(store.announce_request(1, A, tree(first, part), "s", LONG)) == {first, part}
    assert set(store.announce_request(1, B, tree(second, part), "s", LONG)) == {second, part}
    for name, value in ((part, content), (first, one), (second, two)):
        assert store.receive("s", None, name, value)
    assert num_files(tmp_path) == 1
    assert store.for_site(A, part) == store.for_site(B, part) == content
    assert store.for_site(A, second) is None, "another's"
    store.delete(first)
    assert store.for_site(A, part) is None
    assert store.for_site(B, part) == content
    store.delete(second)
    assert num_files(tmp_path) == 0


def test_two_sites_send_the_same_and_know_nothing_of_each_other(store: ParcelStore, tmp_path: Path) -> None:
    (part, content), (first, _), (second, _) = content_of(100_000), content_of(10, 1), content_of(10, 2)
    store.announce_reply(1, A, tree(first, part), "a", LONG, ROOM)
    store.receive("a", A, part, content)
    assert store.announce_reply(1, B, tree(second, part), "b", LONG, ROOM) == sorted([second, part])
    assert not store.receive("a", B, first, content_of(10, 1)[1]), "another's session"
    assert store.receive("b", B, part, content)
    assert num_files(tmp_path) == 2
    store.delete(first)
    assert store.get(part) == content
    assert store.for_site(A, part) is None


def test_more_bytes_than_asked_for_drop_the_reply(store: ParcelStore, tmp_path: Path) -> None:
    (first, one), (second, two) = content_of(100_000, 1), content_of(200_000, 2)
    store.announce_reply(1, A, tree(first, second), "s", LONG, ROOM)
    store.receive("s", A, first, one)
    with pytest.raises(TooMuchError):
        store.receive("s", A, second, two)
    assert store.was_refused(first)
    assert store.get(second) is None
    assert num_files(tmp_path) == len(store) == 0
    assert list(store.get_object_tree(first).children) == []


def test_a_call_larger_than_what_is_left_is_refused_before_it_is_read(store: ParcelStore) -> None:
    name, _ = content_of(10)
    assert not store.expects(A, 100_000), "it was asked nothing"
    store.announce_reply(1, A, tree(name), "s", LONG, ROOM)
    assert store.expects(A, 1_000_000)
    assert not store.expects(B, 1_000_000)
    assert not store.expects(A, 5_000_000)
    assert store.was_refused(name)


def test_more_objects_than_asked_for_are_not_announced(store: ParcelStore) -> None:
    names = [content_of(10, seed)[0] for seed in range(11)]
    with pytest.raises(TooMuchError):
        store.announce_reply(1, A, tree(*names), "s", LONG, ROOM)
    assert store.was_refused(names[0])


def test_a_reply_sent_again_is_the_first(store: ParcelStore) -> None:
    (first, _), (second, two) = content_of(10, 1), content_of(10, 2)
    store.announce_reply(1, A, tree(first, second), "s", LONG, ROOM)
    store.receive("s", A, second, two)
    others = tree(first, *(content_of(10, seed)[0] for seed in range(3, 6)))
    assert store.announce_reply(1, A, others, "t", LONG, ROOM) == [first]
    assert store.announce_reply(1, B, others, "u", LONG, ROOM) == []


@pytest.mark.parametrize(
    "forget",
    [
        lambda store: store.delete_objects_in_run(1),
        lambda store: store.clear(),
        lambda store: store.announce_request(2, B, tree(content_of(10, 9)[0]), "t", LONG),  # their time is over
    ],
)
def test_nothing_stays(store: ParcelStore, tmp_path: Path, forget: Callable[[ParcelStore], None]) -> None:
    for seed in range(3):
        name, content = content_of(100_000, seed)
        store.announce_reply(1, A, tree(name), f"s{seed}", 0.0, ROOM)
        store.receive(f"s{seed}", A, name, content)
    assert num_files(tmp_path) == 3
    forget(store)
    assert num_files(tmp_path) == len(store) == 0


def test_what_was_not_announced_or_is_not_itself_is_refused(store: ParcelStore, tmp_path: Path) -> None:
    name, content = content_of(100_000)
    assert not store.receive("s", A, name, content)
    with pytest.raises(NoObjectInStoreError):
        store.put(name, content)
    with pytest.raises(ValueError, match="digest"):
        store.announce_reply(1, A, tree("../../x"), "s", LONG, ROOM)
    store.announce_reply(1, A, tree(name), "s", LONG, ROOM)
    with pytest.raises(ValueError, match="not what it is called"):
        store.receive("s", A, name, content_of(100_000, 1)[1])
    with pytest.raises(ValueError, match="without content"):
        store.receive("s", A, name, b"")
    assert num_files(tmp_path) == 0
    assert store.get(name) == b""


def test_a_file_of_the_server_process_needs_no_content(store: ParcelStore, tmp_path: Path) -> None:
    name, content = content_of(100_000)
    store.announce_request(1, A, tree(name), "s", LONG)
    with pytest.raises(ValueError, match="without content"):
        store.receive("s", None, name, b"")
    ObjectFolder(tmp_path / "link.db.objects").write("", name, content)
    assert store.receive("s", None, name, b"")
    assert store.for_site(A, name) == content


def test_flowers_own_messages_reach_the_server_process(store: ParcelStore) -> None:
    name, content = content_of(10)
    assert store.preregister(1, tree(name)) == [name]
    store.put(name, content)
    assert store.get(name) == content
    assert store.for_site(A, name) is None


def test_no_trace_is_left_on_disk(store: ParcelStore, tmp_path: Path) -> None:
    name, content = content_of(100_000)
    store.announce_reply(1, A, tree(name), "s", LONG, ROOM)
    store.receive("s", A, name, content)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"link.db{suffix}").write_bytes(b"x")
    remove_traces(tmp_path / "link.db")
    assert list(tmp_path.iterdir()) == []


def test_bounds_are_just_above_an_honest_answer() -> None:
    assert bounds_of_answer(None) == REST
    like = {"w": np.zeros((1000, 1000), np.float32), "b": np.zeros(7, np.float32)}
    bounds = bounds_of_answer(like)
    assert 4_000_028 < bounds.num_bytes < 4_000_028 + 4.4e6
