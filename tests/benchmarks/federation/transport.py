"""What a round costs besides training: polling, processes, and moving a model of 100 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.system.processes import MEMORY, Child
from msfl_server.flower.control import LinkAddress, connect
from msfl_server.flower.coordinator import link_address, link_settings
from msfl_server.study.server_config import load_server
from tests.benchmarks.figure import Figure
from tests.integration.deployment import BIN, Deployment, deployment, free_ports, wait_for

SITES = ("site-a", "site-b", "site-c")
REPOSITORY = Path(__file__).parents[3]
SMALL_MB, LARGE_MB = 0.01, 100.0
HOW = "3 sites on loopback, TLS and node authentication, weights returned at once; median of rounds"


def measure() -> list[Figure]:
    """Seconds of a round with a small model and with 100 MB, ours and Flower's; memory and database of ours."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with our_federation(base / "ours") as (made, link):
            small = our_rounds(made, SMALL_MB, rounds=6, messages=2)
            large = our_rounds(made, LARGE_MB, rounds=4, messages=1, link=link)
        with stock_federation(base / "stock", made) as flower:
            stock_small = flower(SMALL_MB, 3, 1.0)
            stock_large = flower(LARGE_MB, 3, 0.0)
    seconds, stock = median(large["seconds"]), median(stock_large)
    database = large["database"]
    return [
        Figure("round without training, small model", median(small["seconds"]), "s", 5.0, "at_most",
               f"{median(stock_small):.1f} s with Flower as it comes", HOW),
        Figure("round of a 100 MB model, share of Flower's time", seconds / stock, "", 0.5, "at_most",
               f"{stock:.1f} s with Flower as it comes; ours {seconds:.1f} s", HOW),
        Figure("peak memory of SuperLink and server process, 100 MB model", large["peak_gb"], "GB", 1.0, "at_most",
               "", "sum of both processes' largest resident sizes"),
        Figure("growth of the database from round 2 to the last", (database[-1] - database[1]) / 1e6, "MB", 1.0,
               "at_most", "", "superlink.db with its log, and the objects beside it; 100 MB model"),
    ]  # fmt: skip


@contextmanager
def our_federation(base: Path) -> Iterator[tuple[Deployment, Child]]:
    """A study folder, our SuperLink and three sites that answer at once."""
    # The echoing sites have no patients, so that no floor applies.
    study = StudyConfig(name="bench", min_patients=1, rounds=Rounds(num_rounds=10, quorum=3, deadline_s=600))
    with deployment(base, study, dict.fromkeys(SITES, base)) as made:
        folder, server = made.study, load_server(made.study.server_file)
        link = Child(link_settings(folder, server).arguments(), folder.logs / "superlink.log")
        link.start()
        address = link_address(folder, server)
        sites = [
            Child(module("tests.benchmarks.echo_site", made.site(name) / "site.yaml"), base / f"{name}.log")
            for name in SITES
        ]
        try:
            wait_for("the SuperLink", lambda: _authorised(address, made))
            for site in sites:
                site.start()
            yield made, link
        finally:
            for child in (*sites, link):
                child.stop()


def our_rounds(made: Deployment, megabytes: float, rounds: int, messages: int, link: Child | None = None) -> dict:  # type: ignore[type-arg]
    """Play rounds in a server process of ours; with `link`, its peak memory and the SuperLink's."""
    out = made.base / f"{megabytes}.json"
    command = module("tests.benchmarks.echo_server", made.study.root, megabytes, rounds, messages, out)
    process = subprocess.Popen(command, cwd=REPOSITORY, env={**MEMORY, **os.environ})  # as `Child` starts it
    peak_kb = 0.0
    while process.poll() is None:
        peak_kb = max(peak_kb, _peak_kb(process.pid))
        time.sleep(0.2)
    assert process.returncode == 0, made.logs()
    result = dict(json.loads(out.read_text()))
    result["peak_gb"] = (peak_kb + (_peak_kb(link.pid) if link and link.pid else 0.0)) / 1e6
    return result


@contextmanager
def stock_federation(base: Path, made: Deployment):  # type: ignore[no-untyped-def]
    """Flower's own commands with their defaults, on the same certificates and keys; gives a function to play."""
    base.mkdir()
    port, *node_ports = free_ports(4)
    environment = {**os.environ, "FLWR_HOME": str(base / "home"), "FLWR_TELEMETRY_ENABLED": "0",
                   "FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}  # fmt: skip
    (base / "home").mkdir()
    authority = made.study.ca_certificate
    (base / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n'
        f'[superlink.here]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{authority}"\n'
    )
    commands = [[
        "flower-superlink", "--ssl-ca-certfile", authority, "--ssl-certfile", made.study.server_certificate,
        "--ssl-keyfile", made.study.server_key, "--enable-supernode-auth", "--database", base / "link.db",
        "--host", "127.0.0.1", "--port", port, "--disable-runtime-dependency-installation",
    ]] + [[
        "flower-supernode", "--root-certificates", authority, "--superlink", f"127.0.0.1:{port}",
        "--auth-supernode-private-key", made.site(name) / "site.key", "--node-config", f"shift=0.{number + 1}",
        "--host", "127.0.0.1", "--port", node_port,
    ] for number, (name, node_port) in enumerate(zip(SITES, node_ports, strict=True))]  # fmt: skip
    children = [
        Child([str(BIN / command[0]), *map(str, command[1:])], base / f"{number}.log", environment)
        for number, command in enumerate(commands)
    ]

    def flwr(*arguments: object) -> int:
        done = subprocess.run(
            [BIN / "flwr", *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode

    def play(megabytes: float, rounds: int, evaluate: float) -> list[float]:
        out = base / f"{megabytes}.json"
        config = f'megabytes={megabytes} rounds={rounds} evaluate={evaluate} out="{out}"'
        assert flwr("run", Path(__file__).parents[1] / "flower_app", "here", "--stream", "--run-config", config) == 0
        return list(json.loads(out.read_text()))

    try:
        children[0].start()
        for name in SITES:
            key = made.study.public_key_file(name)
            wait_for("Flower's SuperLink", lambda key=key: flwr("supernode", "register", key, "here") == 0)
        for child in children[1:]:
            child.start()
        yield play
    finally:
        for child in reversed(children):
            child.stop()


def module(name: str, *arguments: object) -> Sequence[str]:
    """The command of a module of ours."""
    return [sys.executable, "-m", name, *map(str, arguments)]


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def _authorised(address: LinkAddress, made: Deployment) -> bool:
    import httpx

    try:
        with connect(address) as control:
            control.authorise({name: made.study.public_key_file(name) for name in SITES})
    except httpx.HTTPError:
        return False
    return True


def _peak_kb(pid: int) -> float:
    """Largest resident size so far, kB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0.0)
