"""How soon the next round runs after everything on the server side was killed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from msfl_common.config.study import Rounds
from tests.benchmarks.figure import Figure
from tests.conftest import BidsSite, tiny_settings
from tests.integration.deployment import Deployment, deployment, wait_for

SITES = ("site-a", "site-b", "site-c")


def measure() -> list[Figure]:
    """Seconds from `kill -9` of all server processes, `msfl-server start` at once, to sites training again."""
    study = tiny_settings().model_copy(update={"name": "bench", "rounds": Rounds(num_rounds=50, quorum=3)})
    with tempfile.TemporaryDirectory() as folder:
        data = {name: bids(Path(folder) / "data" / name) for name in SITES}
        with deployment(Path(folder) / "federation", study, data) as made:
            made.start_sites(*SITES)
            made.start_server()
            made.wait_for_round(2)
            before = made.status()["pid"]
            made.kill_tree("server")
            started = time.monotonic()
            made.start_server()
            wait_for("sites training again", lambda: is_training(made, before), 120, made.logs)
            seconds = time.monotonic() - started
    how = "3 sites on loopback; the server's processes start, sites reconnect, the round's request is out"
    return [Figure("from kill -9 of the server side to the next round running", seconds, "s", 30.0, "at_most", "", how)]


def is_training(made: Deployment, before: object) -> bool:
    """Whether a server process other than `before` waits for a round's training."""
    status = made.status()
    return status.get("pid") not in (None, before) and status.get("doing") == "training"


def bids(folder: Path) -> Path:
    """A site of three tiny cases."""
    site = BidsSite(folder)
    folder.mkdir(parents=True)
    for number in range(1, 4):
        site.add(f"sub-{number}")
    return folder
