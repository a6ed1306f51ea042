"""What Flower's SuperLink does in each of a model's hundred calls and this one has no use for, done otherwise.

Layers around each call, and SQL beside each object, take more of the SuperLink's time than moving a model's bytes.
Who may do what is decided by the gate, from a call's first lines, and by the store of objects in flight.

Uses Flower's private parts by name; flwr is pinned exactly for it.
"""

from __future__ import annotations

import time
from pathlib import Path

from flwr.server.superlink.linkstate import linkstate_factory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.server.superlink.utils import check_abort
from flwr.supercore import sql_mixin
from flwr.supercore.object_store import object_store_factory
from flwr.superlink import main
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.servicer.fleet import fleet_handlers

from msfl_server.flower.gate import Registered
from msfl_server.flower.object_folder import ObjectFolder
from msfl_server.flower.object_store import ParcelStore
from msfl_server.flower.state import LinkState

RUN_CHECK_S = 1.0  # how long a run that was running is taken to be running
# Logs and licences that are not configured, and headers for browsers. Each layer costs a call a millisecond or more.
_UNUSED_LAYERS = (
    "ControlSensitiveResponseMiddleware",
    "ControlLicenseMiddleware",
    "RuntimeTracingMiddleware",
    "ControlEventLogMiddleware",
    "FleetEventLogMiddleware",
)


def make_lean(database: Path) -> tuple[Registered, ParcelStore]:
    """Change Flower's modules, before its application is made, for a SuperLink with this database.

    Returns:
        The sites' keys and the objects in flight, as Flower will fill them.
    """
    _frugal_sqlite()
    flowers_layers = vars(main)["_get_middleware"]
    vars(main)["_get_middleware"] = lambda: [
        layer for layer in flowers_layers() if layer.cls.__name__ not in _UNUSED_LAYERS
    ]
    registered, parcels = Registered(), ParcelStore(ObjectFolder.beside(database))
    vars(object_store_factory)["SqlObjectStore"] = lambda _: parcels
    vars(linkstate_factory)["SqlLinkState"] = lambda *arguments: LinkState(registered, parcels, *arguments)
    vars(fleet_handlers)["check_abort"] = _RunCheck()
    vars(node_auth)["authenticate_node"] = registered.authenticate
    return registered, parcels


class _RunCheck:
    """Flower's look at whether a run goes on, three statements for each object, once a second."""

    def __init__(self) -> None:
        self._running_until: dict[int, float] = {}

    def __call__(self, run_id: int, abort_status_list: list[str], state: SqlLinkState) -> str | None:
        if time.monotonic() < self._running_until.get(run_id, 0.0):
            return None
        why = check_abort(run_id, abort_status_list, state)
        if why is None:
            self._running_until = {run_id: time.monotonic() + RUN_CHECK_S}
        return why


def _frugal_sqlite() -> None:
    """SQLite without a map of the whole database and 64 MB of cache for each of a dozen connections.

    Nor does it wait for the disk: the database does not outlive this process.
    """
    ours = {"cache_size": "-4000", "mmap_size": "0", "journal_size_limit": "67108864", "synchronous": "OFF"}
    pragmas = {**dict(vars(sql_mixin)["SQLITE_PRAGMAS"]), **ours}
    vars(sql_mixin)["SQLITE_PRAGMAS"] = tuple(pragmas.items())
