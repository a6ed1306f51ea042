"""One fresh deployment of a tiny study for each scenario, and the hands that hurt it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.system.files import write_bytes
from msfl_common.trust.kit import load_kit
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.run import run_simulated
from tests.conftest import BidsSite, tiny_settings
from tests.faults.proxy import Proxy
from tests.installation import hooked_installation
from tests.integration.deployment import BIN, Deployment, deployment, wait_for
from tests.kits import point_kit

HOOK = Path(__file__).parent / "hook" / "sitecustomize.py"
SITES, MASKED_SITES = ("site-a", "site-b"), ("site-a", "site-b", "site-c")
ROUNDS = 4
PHASE_S = 300.0  # how long a phase may take to come, on a busy machine


class SkippedError(Exception):
    """This machine cannot play the scenario; says why."""


@dataclass(frozen=True)
class Props:
    """What all scenarios share: the sites' folders and, by their number, the model of the undisturbed run."""

    base: Path
    data: dict[str, Path]
    expected: dict[int, bytes]


def study_of(**rounds: object) -> StudyConfig:
    """The tiny study; `rounds` are changes of its settings of that name."""
    tiny = tiny_settings()
    settings = {"num_rounds": ROUNDS, "quorum": 2, "patience_s": 150.0, "deadline_s": 300.0, **rounds}
    return tiny.model_copy(update={"name": "faults", "rounds": tiny.rounds.model_copy(update=settings)})


def make_props(base: Path) -> Props:
    """Data of the sites, and the study of two and of three of them simulated in this process."""
    data = {}
    for name in MASKED_SITES:
        site = BidsSite(base / "data" / name)
        site.root.mkdir(parents=True)
        for number in range(1, 4):
            site.add(f"sub-{name[-1]}{number}")
        data[name] = site.root
    return Props(base, data, {len(names): _simulated(base, data, names) for names in (SITES, MASKED_SITES)})


def _simulated(base: Path, data: dict[str, Path], names: tuple[str, ...]) -> bytes:
    out = base / f"simulated-{len(names)}"
    sites = tuple(
        SiteConfig(name=name, data=(data[name],), state=out / name, device="cpu", policy=Policy(min_patients=1))
        for name in names
    )
    run_simulated(RunSetup(study=study_of(quorum=len(names)), sites=sites), out, "inprocess", None)
    return (out / "model" / "model.safetensors").read_bytes()


@dataclass
class Hook:
    """A point in a process's code where it is struck once."""

    marker: Path

    def wait(self) -> None:
        """Until the process got there."""
        wait_for(f"{self.marker.name} to be reached", self.marker.exists, PHASE_S)

    def go_on(self) -> None:
        """Let a held process go on."""
        self.marker.with_suffix(".go").touch()


class RoundWatch:
    """Sees each round's checkpoint come; one that goes, or is written again, was lost."""

    def __init__(self, checkpoints: Path) -> None:
        self._folder = checkpoints
        self._seen: dict[str, set[tuple[int, int]]] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def lost(self) -> int:
        """Completed rounds that were lost."""
        self._look()
        self._stop.set()
        gone = [name for name in self._seen if not (self._folder / name / "state.json").exists()]
        return len(gone) + sum(len(versions) - 1 for versions in self._seen.values())

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self._look()

    def _look(self) -> None:
        for state in self._folder.glob("round_*/state.json"):
            try:
                found = state.stat()
            except OSError:
                continue
            self._seen.setdefault(state.parent.name, set()).add((found.st_ino, found.st_mtime_ns))


@dataclass
class Stage:
    """A deployment, and what was found of it."""

    federation: Deployment
    props: Props
    stack: ExitStack
    notes: list[str] = field(default_factory=list)
    _hooks: int = 0

    def hook(self, process: str, point: str, call: int, what: Literal["kill", "hold"] | int) -> Hook:
        """Strike `server` or a site, to be started yet, at the given call of `module:function` in it.

        See `hook/sitecustomize.py`.
        """
        self._hooks += 1
        marker = self.federation.base / f"{process}-{self._hooks}.struck"
        self.federation.bin[process] = hooked_installation(marker.with_suffix(".installed"), HOOK.read_text())
        fault = f"{point}:{call}:{what}:{marker}"
        self.federation.environment[process] = {"MSFL_TEST_FAULT": fault}
        return Hook(marker)

    @property
    def sites(self) -> tuple[str, ...]:
        """Who may join."""
        return tuple(sorted(path.parent.name for path in self.federation.base.glob("site-*/site.yaml")))

    def start(self, *sites: str) -> None:
        """Sites (all, unless named) and server."""
        self.federation.start_server()
        self.wait_said(f"{self.sites[-1]}: authorised")  # sites that find no server try again with growing pauses
        self.federation.start_sites(*(sites or self.sites))

    def wait_roster(self, site: str) -> str:
        """Until the roster of masked sums is at a site; its digest."""
        found: list[dict[str, str]] = []

        def there() -> bool:
            command = [BIN / "msfl-client", "roster", self.federation.site(site) / "site.yaml", "--json"]
            done = subprocess.run(command, capture_output=True, check=False)
            found[:] = json.loads(done.stdout)["rosters"] if done.returncode == 0 else []
            return bool(found)

        wait_for(f"the roster to come to {site}", there, PHASE_S)
        return found[0]["digest"]

    def confirm_roster(self) -> None:
        """As the sites' people do, once it has come to each."""
        for name in self.sites:
            digest = self.wait_roster(name)
            command = [BIN / "msfl-client", "roster", self.federation.site(name) / "site.yaml", "--confirm", digest]
            subprocess.run(command, check=True, capture_output=True)

    def restart(self, name: str) -> None:
        """Start a site or the server that has ended, unhurt."""
        self.federation.environment.pop(name, None)
        self.federation.bin.pop(name, None)
        if name == "server":
            self.federation.start_server()
        else:
            self.federation.start_sites(name)

    def status_of(self, site: str) -> dict[str, str]:
        """What a site's process says of itself."""
        try:
            return dict(json.loads((self.federation.site(site) / "state" / "status.json").read_text()))
        except (OSError, ValueError):
            return {}

    def wait_state(self, site: str, state: str, reason: str = "") -> None:
        """Until a site is in a state, for a reason."""

        def there() -> bool:
            found = self.status_of(site)
            return found.get("state") == state and reason in found.get("reason", "")

        wait_for(f"{site} to be {state} {reason}", there, PHASE_S)

    def wait_doing(self, what: str, *sites: str) -> None:
        """Until the run waits for just these sites to do `what`."""

        def there() -> bool:
            found = self.federation.status()
            return found.get("doing") == what and found.get("waits_for") == list(sites)

        wait_for(f"the run to wait for {sites}: {what}", there, PHASE_S)

    def wait_said(self, text: str, name: str = "server", seconds: float = PHASE_S) -> None:
        """Until a command of ours has printed a text."""
        log = self.federation.base / f"{name}.log"
        wait_for(f"{name} to say {text!r}", lambda: text in log.read_text(), seconds)

    def gone(self, part: str) -> None:
        """Until no process of this deployment has `part` in its command line."""
        wait_for(f"no {part} left", lambda: not [one for one in self.federation.orphans() if part in one], 30)

    def summary(self) -> dict[str, list[dict[str, object]]]:
        """The run's summary."""
        return dict(json.loads((self.federation.study.run / "summary.json").read_text()))

    def proxy(self, site: str) -> Proxy:
        """Put a proxy between a site and the server."""
        site_file = self.federation.site(site) / "site.yaml"
        made = Proxy(int(load_kit(site_file.parent / "kit").address.rsplit(":", 1)[1]))
        self.stack.callback(made.close)
        point_kit(site_file, self.federation.study.ca_key, f"localhost:{made.port}")
        return made

    def small_disk(self, folder: Path, megabytes: int) -> Callable[[], Callable[[], None]]:
        """Put a small file system at `folder`, with the files that are there.

        What comes back fills it, and what that returns frees it.
        """
        folder.mkdir(exist_ok=True)
        files = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}  # a site's approved kit
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            raise SkippedError("a small file system needs root and mount")
        # The last thing to go: the processes end first.
        self.stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        for path, content in files.items():
            write_bytes(path, content, secret=True)
        filler = folder / "filler"

        def fill() -> Callable[[], None]:
            with filler.open("wb", buffering=0) as stream:
                try:
                    while True:
                        stream.write(b"0" * 4096)
                except OSError:
                    return filler.unlink

        return fill

    def server_setting(self, **settings: object) -> None:
        """Change server.yaml."""
        path = self.federation.study.server_file
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))


@contextmanager
def set_stage(props: Props, name: str, rounds: dict[str, object], masked: bool = False) -> Iterator[Stage]:
    """A fresh deployment; its processes end and its folder goes with the block."""
    base = props.base / name
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        outer = stack.enter_context(ExitStack())
        study = study_of(**({"quorum": len(MASKED_SITES)} if masked else {}), **rounds)
        if masked:
            study = study.model_copy(update={"secure_aggregation": SecureAggregation(method="masks")})
        data = {site: props.data[site] for site in (MASKED_SITES if masked else SITES)}
        federation = stack.enter_context(deployment(base, study, data))
        yield Stage(federation, props, outer)
