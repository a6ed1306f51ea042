"""The coordinator's server process: opens a run at the SuperLink and runs the study's rounds in it.

`msfl-server start` watches over it. When it dies, or the SuperLink does, a new one opens a new run and resumes
from the last checkpoint: a run of Flower's is one life of this process, the study's run is the folder.
"""

from __future__ import annotations

import logging
import os
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
from flwr.supercore.task_identity import TaskIdentity

from msfl_common.config.optimisation import written_out
from msfl_common.config.stages import Stage, study_at
from msfl_common.config.study import StudyConfig, load_study, parse_study
from msfl_common.errors import InputError, MsflError, RunError
from msfl_common.models.first_weights import FIRST_FILE, first_weights
from msfl_common.models.weights import Weights
from msfl_common.system.cli import explain
from msfl_common.system.files import write_text
from msfl_common.system.foreign_text import log_to_stderr
from msfl_common.system.processes import end_with_starter
from msfl_server.flower.control import Control, LinkAddress, connect
from msfl_server.flower.coordinator import link_address, tracking_login, tracking_uri
from msfl_server.flower.grid import DeployedGrid
from msfl_server.rounds.app import RunSettings, build_app
from msfl_server.rounds.loop import Listener
from msfl_server.rounds.stage import StageRun, evaluated_folder, own_start
from msfl_server.run.found import DEPLOYED_FILE
from msfl_server.run.run import run_stages
from msfl_server.run.status import StatusFile
from msfl_server.study.folder import list_sites, open_notary, open_study
from msfl_server.study.model_signer import model_signer
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import load_server
from msfl_server.study.site_keys import read_public_key

LINK_START_S = 60.0

log = logging.getLogger(__name__)


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


def claim(folder: StudyFolder, study: StudyConfig) -> None:
    """Bind the run's folder to the study as it is now: rounds of other settings do not resume from its checkpoints.

    Raises:
        InputError: it was begun with other settings.
    """
    file = folder.run / DEPLOYED_FILE
    text = study.model_dump_json(indent=2) + "\n"
    if not file.exists():
        write_text(file, text)
    elif written_out(parse_study(file.read_text(encoding="utf-8"), str(file))) != written_out(study):
        raise InputError(
            f"{folder.study_file}: was changed since the run began; change it back, or move {folder.run} away"
        )


def run_study(folder: StudyFolder) -> None:
    """Run what is left of the study in `folder`.

    Raises:
        RunError: too few sites answered; everything so far is on disk.
    """
    study, server = load_study(folder.study_file), load_server(folder.server_file)
    claim(folder, study)
    if study.left_out is not None and study.left_out not in list_sites(folder):
        told = "%s.fold.site: %s is no site of the study; nobody will test the model"
        log.warning(told, study.test_section, study.left_out)
    link = link_address(folder, server)
    if (login := tracking_login(folder, server)) is not None:  # MLflow's client reads them here; no other process does
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = login
    with StatusFile(folder.status, study) as status, open_run(link) as (grid, context):
        status.watch(grid.presence)
        grid.notary = open_notary(folder)
        grid.members = lambda: list_sites(folder)
        grid.registered_key = lambda site: read_public_key(folder.public_key_file(site))

        model = evaluated_folder(folder.run, server.model) if study.evaluate is not None else None

        def first_of(stage: Stage, out: Path) -> Weights:
            start_from = model or server.start_from or own_start(study, folder.run) if stage == "final" else None
            return first_weights(study_at(study, stage), out / FIRST_FILE, start_from)

        def run_rounds(stage_run: StageRun, listener: Listener) -> None:
            build_app(lambda _: RunSettings(stage_run, listener, tuple(list_sites(folder))))(grid, context)

        summary = run_stages(
            study,
            first_of,
            folder.run,
            tracking_uri(server),
            status,
            run_rounds,
            patient=True,
            signer=model_signer(folder),
            model=model,
        )
        status.finish(summary.rounds_completed)


def main() -> None:
    """Entry point of the process."""
    log_to_stderr()
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
    except OSError as error:  # a full disk: `msfl-server start` shows this line and tries again
        log.error("%s", *explain(error)[1])
        sys.exit(1)


if __name__ == "__main__":
    main()
