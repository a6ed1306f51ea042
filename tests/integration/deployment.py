"""A whole federation of real processes on loopback, for tests: TLS, keys, SuperLink, sites, and ways to hurt them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from tests.kits import take_over

from msfl_client.site.keys import make_key
from msfl_common.config.site import load_site
from msfl_common.config.study import StudyConfig
from msfl_server.study.folder import init_study
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site

BIN = Path(sys.executable).parent
# One thread a process: bit-identical sums need equal threads, and many processes share few cores.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel takes for outgoing connections."""
    ports: set[int] = set()
    while len(ports) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


def wait_for(
    what: str, condition: Callable[[], object], seconds: float = 90.0, detail: Callable[[], str] = str
) -> None:
    """Poll until the condition holds; when it does not in time, `detail` tells more."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for: {what}\n{detail()}"
        time.sleep(0.1)


@dataclass
class Deployment:
    """A study folder, sites that may join it, and their processes."""

    base: Path
    study: StudyFolder
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    environment: dict[str, dict[str, str]] = field(default_factory=dict)  # more of it for a command, by name
    bin: dict[str, Path] = field(default_factory=dict)  # where a command is installed, by name
    prefix: dict[str, list[str]] = field(default_factory=dict)  # what a command is run through, by name

    def site(self, name: str) -> Path:
        """Folder of a site: site.yaml, key, kit, state."""
        return self.base / name

    def start_server(self) -> None:
        """`msfl-server start`."""
        self._spawn("server", ["msfl-server", "start", self.study.root])

    def start_sites(self, *names: str) -> None:
        """`msfl-client start` for each."""
        for name in names:
            self._spawn(name, ["msfl-client", "start", self.site(name) / "site.yaml"])

    def status(self) -> dict[str, object]:
        """The run's status file, or nothing yet."""
        try:
            return dict(json.loads(self.study.status.read_text()))
        except (OSError, ValueError):
            return {}

    def rounds(self) -> int:
        """The newest round on disk; 0 before the first."""
        return max((int(path.name[6:]) for path in (self.study.run / "checkpoints").glob("round_*")), default=0)

    def wait_for_round(self, number: int, seconds: float = 180.0) -> None:
        """Until round `number` is a checkpoint."""
        folder = self.study.run / "checkpoints" / f"round_{number:04d}"
        wait_for(f"round {number}", folder.exists, seconds, self.logs)

    def wait_for_end(self, seconds: float = 240.0) -> int:
        """Until the server ends by itself; its exit code."""
        try:
            return self.processes["server"].wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the study did not end\n{self.logs()}") from None

    def find(self, module: str, part: str = "") -> psutil.Process:
        """The process that runs a module of ours, with `part` in its command line."""
        found: list[psutil.Process] = []

        def there() -> bool:
            for process in psutil.process_iter(["cmdline", "status"]):
                command = " ".join(process.info["cmdline"] or [])
                is_it = module in command and str(self.base) in command and part in command
                if is_it and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(process)
            return bool(found)

        wait_for(f"a process of {module}", there, 60)
        return found[0]

    def kill_tree(self, name: str) -> None:
        """kill -9 of a command of ours and of everything that it started."""
        process = self.processes.pop(name)
        with suppress(psutil.NoSuchProcess):
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
        process.wait()

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        process = self.processes.pop(name)
        process.send_signal(how)
        return process.wait(60)

    def orphans(self) -> list[str]:
        """Command lines of processes of this deployment that still run."""
        return [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cmdline"])
            if str(self.base) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
        ]

    def logs(self) -> str:
        """Ends of all logs, for the message of a failed test."""
        files = [*self.base.glob("*.log"), *self.study.logs.glob("*.log"), *self.base.glob("site-*/state/*.log")]
        return "\n".join(f"== {path.name}\n" + "\n".join(path.read_text().splitlines()[-12:]) for path in files)

    def _spawn(self, name: str, command: Sequence[object]) -> None:
        with (self.base / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.prefix.get(name, []), str(self.bin.get(name, BIN) / str(command[0])), *map(str, command[1:])],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**ENVIRONMENT, **self.environment.get(name, {})},
            )


@contextmanager
def deployment(
    base: Path,
    study: StudyConfig,
    data: dict[str, Path],
    host: str = "localhost",
    public_port: int | None = None,
    store: Path | None = None,
) -> Iterator[Deployment]:
    """A study folder with a site for each BIDS folder in `data`; nothing runs yet, and nothing is left running.

    Sites reach it at `host`, at `public_port` where something stands in front. Its MLflow store starts as a copy of
    `store`.
    """
    port, control_port = free_ports(2)
    server = ServerConfig(
        hosts=(host,),
        bind="127.0.0.1",
        port=port,
        public_port=public_port,
        control_port=control_port,
        mlflow=f"sqlite:///{base / 'mlflow.db'}",  # no MLflow server: it takes longer to start than all the rest
    )
    base.mkdir(exist_ok=True)
    if store is not None:
        shutil.copy(store, base / "mlflow.db")
    (base / "study.yaml").write_text(yaml.safe_dump(json.loads(study.model_dump_json())))
    folder = init_study(base / "study", server, base / "study.yaml")
    made = Deployment(base, folder)
    for name, bids in data.items():
        made.site(name).mkdir()
        make_key(made.site(name) / "site.key", name)
        archive = add_site(folder, name, made.site(name) / "site.key.pub")
        write_site(made.site(name), name, bids)
        take_over(archive, load_site(made.site(name) / "site.yaml"))
    try:
        yield made
    finally:
        for name in list(made.processes):
            made.kill_tree(name)


def write_site(folder: Path, name: str, bids: Path) -> None:
    """A site's own file."""
    site = {"name": name, "data": str(bids), "state": "state", "device": "cpu", "policy": {"min_patients": 1}}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
