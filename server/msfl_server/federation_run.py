"""The coordinator's server process: opens a run at the SuperLink and plays the study's rounds in it.

`msfl-server start` watches over it. When it dies, or the SuperLink does, a new one opens a new run and goes on
from the last checkpoint: a run of Flower's is one life of this process, the study's run is the folder.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.app import Context
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from msfl_common.config import load_study
from msfl_common.errors import MsflError, RunError
from msfl_common.processes import end_with_starter
from msfl_server.app import RunSettings, build_app
from msfl_server.coordinator import control_secret, tracking_uri
from msfl_server.federation import Listener
from msfl_server.federation_control import Control, LinkAddress, connect
from msfl_server.federation_exchange import Presence
from msfl_server.run import play_and_report
from msfl_server.run_status import StatusFile
from msfl_server.server_config import load_server
from msfl_server.study_folder import StudyFolder, list_sites, open_study

LINK_START_S = 60.0
RETRY_S = 10.0  # a SuperLink that stays away longer is gone; a new process starts with the new one

log = logging.getLogger(__name__)


class DeployedGrid(HttpGrid):
    """Flower's grid of a SuperLink, through the gate of our control port."""

    def __init__(self, link: LinkAddress, token: str) -> None:
        super().__init__(link.address, False, link.ca_certificate.read_bytes(), token=token)
        self._link_key = link.key()
        self._retry_invoker = RetryInvoker(
            lambda: exponential(max_delay=2), httpx.TransportError, max_tries=None, max_time=RETRY_S
        )

    def _connect(self) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            self._addr,
            self._insecure,
            self._cert,
            [
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(self._token),
                self._link_key,
            ],
            retry_invoker=self._retry_invoker,
        )

    def presence(self) -> dict[int, Presence]:
        """The nodes that are online."""
        return {node.node_id: Presence(node.name, node.last_activated_at) for node in self.get_nodes()}


@contextmanager
def open_run(link: LinkAddress) -> Iterator[tuple[DeployedGrid, Context]]:
    """A new run at the SuperLink, once that answers, its heartbeat kept up; earlier ones are ended first."""
    with connect(link) as control:
        wait_for_link(control)
        control.stop_runs()
        token = control.start_run()
    grid = DeployedGrid(link, token)
    client = grid._runtime_client
    task = client.PullTaskInput(PullTaskInputRequest())
    run = run_from_proto(task.run)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, run.run_id, task.context.node_id
    grid.set_run(run)
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    status = SubStatus.FAILED
    try:
        yield grid, context_from_proto(task.context)
        status = SubStatus.COMPLETED
    finally:
        heartbeat.stop()
        try:
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        except httpx.HTTPError:
            log.warning("the SuperLink could not be told that the run is over")
        grid.close()


def wait_for_link(control: Control) -> None:
    """Both processes start at once; this one needs the other.

    Raises:
        RunError: it does not answer.
    """
    end = time.monotonic() + LINK_START_S
    while time.monotonic() < end:
        try:
            control.nodes()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise RunError("the SuperLink does not answer")


def run_study(folder: StudyFolder) -> None:
    """Play what is left of the study in `folder`.

    Raises:
        RunError: too few sites answered; everything so far is on disk.
    """
    study, server = load_study(folder.study_file), load_server(folder.server_file)
    link = LinkAddress(server.control_port, folder.ca_certificate, control_secret(folder))
    with StatusFile(folder.status, study) as status, open_run(link) as (grid, context):
        status.watch(grid.presence)

        def play(listener: Listener) -> None:
            build_app(lambda _: RunSettings(study, folder.run, listener, tuple(list_sites(folder))))(grid, context)

        play_and_report(study, folder.run, tracking_uri(server), status, play, patient=True)
        status.say("finished")


def main() -> None:
    """Entry point of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for chatty in ("httpx", "flwr"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_starter()
    try:
        run_study(open_study(Path(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
    except MsflError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)
    except httpx.HTTPError as error:
        log.error("the SuperLink does not answer: %s", type(error).__name__)
        sys.exit(1)


if __name__ == "__main__":
    main()
