"""A site's real process under attack: its coordinator has the SuperLink in hand, and a proxy between the two."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from tests.conftest import BidsSite
from tests.installation import hooked_installation
from tests.integration.deployment import ENVIRONMENT, Deployment, deployment, wait_for
from tests.integration.hostile_link import HostileLink
from tests.integration.recording_proxy import RecordingProxy, proxy_to
from tests.kits import point_kit, private_key, trust_at

from msfl_client.connection.fleet_client import Fleet, join
from msfl_client.connection.message_limits import Bounds
from msfl_client.egress.ledger import verify
from msfl_client.site.keys import load_key
from msfl_common import __version__
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code
from msfl_common.messages.ledger import take_head
from msfl_common.messages.records import RoundTask, describe, pack_task, unpack_refusal
from msfl_common.models.network import build_network, get_weights
from msfl_common.trust.kit import read_certificate
from msfl_server.flower import control as federation_control
from msfl_server.flower.control import LinkAddress, connect
from msfl_server.flower.coordinator import link_address, link_settings
from msfl_server.flower.server_process import DeployedGrid, open_run
from msfl_server.study.certificates import Pair, issue_server_certificate, make_authority
from msfl_server.study.folder import list_sites
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import load_server

SITE, STRANGER = "site-a", "site-b"

# Written into the site's process, and into each that it starts: what is executed, started and connected to.
AUDIT = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
seen = set()
def hook(event, arguments):
    if event == "exec":
        what = arguments[0].co_filename
    elif event == "socket.connect":
        what = repr(arguments[1])
    elif event == "subprocess.Popen":
        what = repr(arguments[:2])
    elif event in ("os.system", "os.exec", "os.posix_spawn", "pty.spawn"):
        what = repr(arguments[0])
    else:
        return
    if (event, what) not in seen:
        seen.add((event, what))
        os.write(log, f"{{event}}\\t{{what}}\\n".encode())
sys.addaudithook(hook)
"""


@dataclass
class Siege:
    """A site's process, the SuperLink that its coordinator has in hand, and the proxy between them."""

    made: Deployment
    proxy: RecordingProxy
    link: LinkAddress
    study: StudyConfig
    site: subprocess.Popen[bytes]
    home: Path
    marker: Path
    audit: Path
    lines: int = 0
    nodes: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.made.site(SITE) / "state"

    @property
    def node(self) -> int:
        return self.nodes[SITE]

    def task(self, **changes: object) -> RecordDict:
        """An honest request, or one with another study."""
        study = self.study.model_copy(update=changes)
        return pack_task(RoundTask(study, 1), get_weights(build_network(self.study)))

    def status(self) -> dict[str, object]:
        try:
            return dict(json.loads((self.state / "status.json").read_text()))
        except FileNotFoundError:
            return {}

    def wait_for_reason(self, reason: str, seconds: float = 90) -> None:
        wait_for(
            f"offline: {reason}",
            lambda: (s := self.status()).get("state") == "offline" and reason in s["reason"],
            seconds,
        )

    def wait_until_online(self) -> None:
        wait_for(f"the site to be online\n{self.made.logs()}", lambda: self.status().get("state") == "waiting", 90)

    def hand_out(self, hostile: HostileLink) -> HostileLink:
        """Let the site pull from a link that lies."""
        self.proxy.tamper = hostile
        return hostile

    def rss_mb(self) -> float:
        """Memory of the site's process."""
        return float(psutil.Process(self.site.pid).memory_info().rss / 1e6)

    def check_line(self, reply: RecordDict) -> None:
        """The answer is the ledger's one new line."""
        assert verify(self.state / "ledger.jsonl") == self.lines + 1
        self.lines += 1
        last = json.loads((self.state / "ledger.jsonl").read_text().splitlines()[-1])
        described = describe(reply)
        assert (last["sha256"], last["num_bytes"]) == (described.sha256, described.num_bytes)

    def refusal(self, reply: RecordDict) -> Code:
        """The code of a refusal, which holds nothing else and is in the ledger."""
        refusal = unpack_refusal(reply)
        assert refusal is not None, reply
        assert refusal.site == SITE
        assert {name: set(record) for name, record in reply.items()} == {"refusal": {"code", "site"}}
        self.check_line(reply)
        return refusal.code

    def check_unharmed(self) -> None:
        """The same process is there, and nothing that was sent was run or unpacked."""
        assert self.site.poll() is None, self.made.logs()
        assert not self.marker.exists()
        assert not self.home.exists()
        assert "/v1/fleet/get-fab" not in self.proxy.paths()
        children = [child.cmdline() for child in psutil.Process(self.site.pid).children(recursive=True)]
        assert [command for command in children if "multiprocessing" not in " ".join(command)] == []
        events = [line.split("\t", 1) for line in self.audit.read_text().splitlines()]
        port = int(self.proxy.address.rpartition(":")[2])
        addresses = {what for event, what in events if event == "socket.connect"}
        assert {address for address in addresses if f", {port}" not in address and "/" not in address} == set()
        roots = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), str(self.audit.parent / "audit"), "<")
        executed = {what for event, what in events if event == "exec"}
        assert len(executed) > 100, "the hook sees what is imported"
        assert {file for file in executed if not file.startswith(roots)} == set()


def ask(grid: DeployedGrid, node: int, content: RecordDict, kind: str = "train", seconds: float = 60) -> RecordDict:
    """The site's answer, through the real SuperLink, less the end of the ledger that comes beside it."""
    message = Message(content, node, kind, group_id="1", ttl=seconds)
    with suppress(ObjectPushError):  # the site was done with the message before it was there whole
        assert list(grid.push_messages([message])) == [message.metadata.message_id]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for reply in grid.pull_messages([message.metadata.message_id]):
            assert take_head(reply.content) is not None
            return reply.content
        time.sleep(0.1)
    raise AssertionError(f"{kind}: no answer")


def bundle(
    marker: Path, name: str = "msfl", publisher: str = "msfl", component: str = "clientapp", version: str = __version__
) -> bytes:
    """An app whose modules write a file when they are imported, under their own names and under installed ones."""
    code = f"open({str(marker)!r}, 'w').close()\napp = None\n"
    project = f"""
[project]
name = "{name}"
version = "{version}"
[tool.flwr.app]
publisher = "{publisher}"
[tool.flwr.app.components]
serverapp = "hostile.task:app"
{component} = "hostile.task:app"
"""
    if component == "agentapp":
        project = project.replace('serverapp = "hostile.task:app"\n', "")
    modules = ["hostile", "hostile/task", "msfl_client", "msfl_client/app", "msfl_common", "torch", "sitecustomize"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", project)
        for module in modules:
            archive.writestr(f"{module}.py", code)
            archive.writestr(f"{module}/__init__.py", code)
    return buffer.getvalue()


@contextmanager
def run_of(siege: Siege, content: bytes) -> Iterator[DeployedGrid]:
    """A run of that bundle, its server task in our hands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federation_control, "_bundle", lambda: content)
        with open_run(siege.link) as (grid, _):
            yield grid


def authorise(link: LinkAddress, study: StudyFolder) -> dict[str, int]:
    """What `msfl-server start` does when `sites/` changes; the node id of each site."""
    with connect(link) as control:
        control.authorise({name: study.public_key_file(name) for name in list_sites(study)})
        return {name: node.node_id for name, node in control.nodes().items()}


@contextmanager
def lay_siege(tiny: StudyConfig, base: Path) -> Iterator[Siege]:
    """One SuperLink and one site's process."""
    bids = BidsSite(base / "bids")
    bids.root.mkdir()
    for number in range(3):
        bids.add(f"sub-{number}")
    study = tiny.model_copy(update={"name": "siege"})
    with ExitStack() as stack:
        made = stack.enter_context(deployment(base / "federation", study, {SITE: bids.root, STRANGER: bids.root}))
        folder, server = made.study, load_server(made.study.server_file)
        made._spawn("superlink", link_settings(folder, server).arguments())
        proxy = stack.enter_context(proxy_to(server.port, folder.root / "pki"))
        for name in (SITE, STRANGER):
            point_kit(made.site(name) / "site.yaml", folder.ca_key, proxy.address)
        installed = hooked_installation(base / "audit", AUDIT.format(log=str(base / "audit.log")))
        switches = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("FLWR_")}
        with (made.base / "site.log").open("wb") as log:
            made.processes[SITE] = site = subprocess.Popen(
                [installed / "python", "-I", "-m", "msfl_client.connection.node", str(made.site(SITE) / "site.yaml")],
                env={**switches, "FLWR_HOME": str(base / "flwr-home")},
                stdout=log,
                stderr=log,
            )
        link = link_address(folder, server)
        nodes: dict[str, int] = {}

        def authorised() -> bool:
            try:
                nodes.update(authorise(link, folder))
            except httpx.HTTPError:
                return False
            return True

        wait_for("the SuperLink", authorised, 120)
        siege = Siege(
            made, proxy, link, study, site, base / "flwr-home", base / "marker", base / "audit.log", nodes=nodes
        )
        siege.wait_until_online()
        yield siege


@contextmanager
def joined(siege: Siege, key: Path) -> Iterator[Fleet]:
    """A client of ours at the SuperLink, with a key of somebody's."""
    with join(siege.proxy.address, trust_at(siege.made.site(SITE)), load_key(key), None, Bounds(10**7, 1000)) as fleet:
        yield fleet


def show(siege: Siege, what: str, folder: Path) -> None:
    """Let the proxy answer with the certificate of another server, or with none."""
    if what == "plain HTTP":
        siege.proxy.show(None)
        return
    start = None
    if what == "another authority":
        authority = make_authority("siege")
    else:
        study, start = siege.made.study, datetime.now(UTC) - timedelta(days=800)
        authority = Pair(read_certificate(study.ca_certificate), private_key(study.ca_key))
    pair = issue_server_certificate(authority, ["localhost"], now=start)
    certificate, key = folder / "shown.crt", folder / "shown.key"
    certificate.write_bytes(pair.certificate_pem)
    key.write_bytes(pair.key_pem)
    siege.proxy.show(certificate, key)
