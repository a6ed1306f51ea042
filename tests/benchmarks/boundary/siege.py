"""Three real sites train while strangers flood the SuperLink's port: how much slower rounds are, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from msfl_common.config.study import Rounds
from msfl_server.study.server_config import load_server
from tests.attacks.floods import KINDS
from tests.benchmarks.federation.recovery import SITES, bids
from tests.benchmarks.figure import Figure
from tests.conftest import tiny_settings
from tests.integration.deployment import ENVIRONMENT, Deployment, deployment

CONNECTIONS = 200
ROUNDS = 4  # of each flood
FLOOD_S = 60.0  # at most; it is ended with its rounds
REPOSITORY = Path(__file__).parents[3]
HOW = f"3 sites on loopback, {CONNECTIONS} connections from the sites' own address, {ROUNDS} rounds each, the quicker"


def measure() -> list[Figure]:
    """Seconds of a round beside each flood, against quiet rounds before and after; the gate's memory."""
    rounds = Rounds(num_rounds=500, quorum=3, deadline_s=120)
    study = tiny_settings().model_copy(update={"name": "siege", "rounds": rounds})
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        data = {name: bids(Path(folder) / "data" / name) for name in SITES}
        with deployment(Path(folder) / "federation", study, data) as made:
            made.start_server()
            made.start_sites(*SITES)
            made.wait_for_round(2)
            gate = made.find("flower.superlink")
            quiet = round_s(made)
            for kind in sorted(KINDS.keys() - {"calls_of_a_site"}):
                figures += _beside(made, gate, kind, quiet)
    return figures


def round_s(made: Deployment) -> float:
    """Seconds of a round: the quickest of the next ones, as other work on the machine only adds to them."""
    seconds, number = [], made.rounds() + 1
    made.wait_for_round(number, 120)  # from the end of one round to the end of the next
    for _ in range(ROUNDS):
        start, number = time.monotonic(), number + 1
        made.wait_for_round(number, 120)
        seconds.append(time.monotonic() - start)
    return min(seconds)


def _beside(made: Deployment, gate: psutil.Process, kind: str, quiet_s: float) -> list[Figure]:
    before = gate.memory_info().rss
    peak, over = [before], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak.append(gate.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    port = load_server(made.study.server_file).port
    command = [sys.executable, "-m", "tests.attacks.floods", kind, port, FLOOD_S, CONNECTIONS]
    flood = subprocess.Popen(list(map(str, command)), cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        time.sleep(2)
        flooded_s = round_s(made)
    finally:
        flood.terminate()
        flood.wait()
        time.sleep(2)
        over.set()
        watcher.join()
    after = gate.memory_info().rss
    name = kind.replace("_", " ")
    quiet = f"{quiet_s:.1f} s a round in quiet, {flooded_s:.1f} s beside it"
    return [
        Figure(f"{name}: a round's time", flooded_s / quiet_s, "", 1.5, "at_most", quiet, HOW),
        Figure(f"{name}: the gate's peak memory", max(peak) / 1e6, "MB", 300.0, "at_most", "", "resident, every 0.1 s"),
        Figure(f"{name}: memory afterwards", after / before, "", 1.2, "at_most", f"{before / 1e6:.0f} MB before",
               "2 s after it"),
    ]  # fmt: skip
