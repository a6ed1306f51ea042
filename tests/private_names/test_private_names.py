"""What others may change without a word, held by name: what they have, and what MSFL uses of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.proto.fleet_pb2 import DeactivateNodeRequest

from tests.private_names.names import LISTED
from tests.private_names.shapes import INSTANCES, faults_of, thing_at
from tests.private_names.uses import uses_in, uses_of

REPOSITORY = Path(__file__).parents[2]
MODULES = sorted(path for side in ("common", "client", "server") for path in (REPOSITORY / side).rglob("*.py"))

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::starlette.exceptions.StarletteDeprecationWarning"
)


@pytest.mark.parametrize("path", LISTED)
def test_a_name_of_others_is_what_is_relied_on(path: str) -> None:
    assert faults_of(path, LISTED[path]) == []


def test_the_list_has_every_name_that_is_used_and_no_other() -> None:
    used = uses_in(MODULES)
    assert {name: where for name, where in used.items() if name not in LISTED} == {}, (
        "not in tests/private_names/names.py"
    )
    assert LISTED.keys() - used.keys() == set(), "no longer used: take them out of tests/private_names/names.py"


def change(monkeypatch: pytest.MonkeyPatch, path: str, to: object = None) -> list[str]:
    """What the test of a name says once its makers have changed it, or taken it away."""
    owner, name = path.rsplit(".", 1)
    if to is None:
        monkeypatch.delattr(thing_at(owner), name)
    else:
        monkeypatch.setattr(thing_at(owner), name, to)
    return faults_of(path, LISTED[path])


@pytest.mark.parametrize(
    ("path", "to", "told"),
    [
        ("flwr.superlink.main._get_middleware", None, "is gone"),
        ("flwr.common.constant.TIMESTAMP_TOLERANCE", 60, "is 60, no longer 300"),
        ("flwr.superlink.grid.http_grid.HttpGrid._try_push_messages", lambda self, messages: [], "takes (messages)"),
        ("flwr.supercore.inflatable.inflatable_utils.push_objects", lambda objects, push_object_fn, pace: None, "pace"),
        ("flwr.common.constant.SubStatus", type("SubStatus", (), {"COMPLETED": ""}), "has no FAILED"),
        ("flwr.proto.fleet_pb2.PullMessagesRequest", DeactivateNodeRequest, "has no node"),
    ],
)
def test_a_change_is_told_by_name(monkeypatch: pytest.MonkeyPatch, path: str, to: object, told: str) -> None:
    (fault,) = change(monkeypatch, path, to)
    assert path in fault
    assert told in fault


def test_an_attribute_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INSTANCES, "flwr.superlink.grid.http_grid.HttpGrid", lambda: object())
    name = "flwr.superlink.grid.http_grid.HttpGrid._addr"
    assert faults_of(name, LISTED[name]) == ["an instance of flwr.superlink.grid.http_grid.HttpGrid has no _addr"]


USES = """
from flwr.app import Message
from flwr.common.constant import SubStatus as Status
from flwr.supercore import sql_mixin
from flwr.superlink.grid.http_grid import HttpGrid

class Grid(HttpGrid):
    def close(self) -> None:
        self._disconnect()
        Message().metadata.__dict__["_ttl"] = vars(sql_mixin)["SQLITE_PRAGMAS"]
        grid._secret
"""


def test_each_way_of_using_a_name_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(USES)
    grid = "flwr.superlink.grid.http_grid.HttpGrid"
    found = {"flwr.common.constant.SubStatus", "flwr.supercore.sql_mixin.SQLITE_PRAGMAS", "*._ttl", "*._secret"}
    assert uses_of(module) == found | {grid, f"{grid}.close", f"{grid}._disconnect"}
