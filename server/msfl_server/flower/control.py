"""What the coordinator tells its own SuperLink: which sites may connect, and which run they are to serve."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import NodeStatus, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient

from msfl_common import __version__
from msfl_common.errors import RunError
from msfl_server.flower.control_port import SECRET_HEADER

# The bundle that Flower wants with every run. It names the apps and holds no code; no site fetches it.
_BUNDLE = f"""
[project]
name = "msfl"
version = "{__version__}"
[tool.flwr.app]
publisher = "msfl"
[tool.flwr.app.components]
serverapp = "msfl_server.rounds.app:app"
clientapp = "msfl_client.rounds.app:app"
[tool.flwr.app.config]
"""


@dataclass(frozen=True)
class LinkAddress:
    """How the coordinator's own processes reach its SuperLink, and where large objects lie: beside its database."""

    control_port: int
    ca_certificate: Path
    secret: Path
    database: Path

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.control_port}"

    def key(self) -> SecretHeader:
        """What opens the control port."""
        return SecretHeader(self.secret.read_text().strip())


class SecretHeader:
    """Adds the study's secret to a request to the control port."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """See `flwr.supercore.protobuf.client`."""
        context.request.headers[SECRET_HEADER] = self.secret
        return call_next(context)


class Control:
    """An open connection to the control port. Made by `connect`."""

    def __init__(self, control: ControlHttpClient, runtime: RuntimeHttpClient) -> None:
        self._control = control
        self._runtime = runtime

    def nodes(self) -> dict[str, NodeInfo]:
        """All registered nodes by the name of their site."""
        nodes = self._control.ListNodes(ListNodesRequest()).nodes_info
        return {node.name: node for node in nodes if node.status != NodeStatus.UNREGISTERED}

    def authorise(self, keys: Mapping[str, Path]) -> tuple[list[str], list[str], list[str]]:
        """Make the registered nodes equal to the given public keys (OpenSSH files) by site name.

        Returns:
            Names added, names removed (a site whose key changed is both), and names whose key was taken away
            before: Flower does not take such a key again.
        """
        wanted = {name: public_key_to_bytes(load_ssh_public_key(path.read_bytes())) for name, path in keys.items()}  # type: ignore[arg-type]
        nodes = self.nodes()
        gone = [name for name, node in nodes.items() if wanted.get(name) != node.public_key]
        for name in gone:
            self._control.UnregisterNode(UnregisterNodeRequest(node_id=nodes[name].node_id))
        new = [name for name in wanted if name not in nodes or name in gone]
        spent = []
        for name in new:
            try:
                self._control.RegisterNode(RegisterNodeRequest(public_key=wanted[name], name=name))
            except httpx.HTTPStatusError as error:  # the other sites must not suffer
                fault = FlowerError.from_json(error.response.text)
                if fault is None or fault.code != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                    raise
                spent.append(name)
        return [name for name in new if name not in spent], gone, spent

    def stop_runs(self) -> None:
        """End every run that an earlier server process left."""
        for run in self._control.ListRuns(ListRunsRequest()).run_dict.values():
            if run.status.status != "finished":
                self._control.StopRun(StopRunRequest(run_id=run.run_id))

    def start_run(self) -> str:
        """Open a run and claim its server task; returns the task's token.

        Raises:
            RunError: the SuperLink gave no task.
        """
        bundle = _bundle()
        run_id = self._control.StartRun(StartRunRequest(fab=Fab(content=bundle))).run_id
        answer = self._runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        if answer.task.run_id != run_id:
            raise RunError("the SuperLink did not hand out the run's task; another server process may be at work")
        return str(answer.token)


@contextmanager
def connect(link: LinkAddress) -> Iterator[Control]:
    """Connect to the control port."""
    root = link.ca_certificate.read_bytes()
    version = RuntimeVersionHttpInterceptor(component_name="flwr-serverapp")
    with (
        ControlHttpClient.from_server_address(link.address, False, root, [link.key()]) as control,
        RuntimeHttpClient.from_server_address(link.address, False, root, [version, link.key()]) as runtime,
    ):
        yield Control(control, runtime)


def _bundle() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), _BUNDLE)
    return buffer.getvalue()
