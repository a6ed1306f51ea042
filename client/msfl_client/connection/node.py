"""The site's process in a federation: connect, wait for requests, answer each with the installed app, for ever.

`msfl-client start` supervises it. A lost connection is made again with growing pauses; after it the coordinator
sends again what it still waits for, and a round that was already trained is answered from disk.
"""

from __future__ import annotations

import logging
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from msfl_client.connection.fleet_client import DisconnectedError, Fleet, RunEndedError, UnusableError, join
from msfl_client.connection.message_limits import bounds_of
from msfl_client.connection.server_trust import trust_of
from msfl_client.connection.status import StatusFile
from msfl_client.egress.gateway import gateway_of
from msfl_client.egress.ledger_witness import Witness
from msfl_client.rounds.app import build_app, refuse
from msfl_client.site.kit_approval import kit_to_use, what_waits
from msfl_client.site.passphrase import unlock
from msfl_common import __version__
from msfl_common.config.message_kinds import REQUESTS
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.config.stages import stages_of, study_at
from msfl_common.errors import Code, InputError
from msfl_common.messages.records import unpack_refusal, unpack_task
from msfl_common.models.lesion_models import handed_like
from msfl_common.models.starting_weights import starting_weights
from msfl_common.system.files import private_folder, write_text
from msfl_common.system.foreign_text import log_to_stderr
from msfl_common.system.lock import held
from msfl_common.system.processes import end_with_starter

POLL_S = (0.3, 2.0)  # pause between two looks for a request: short after one was answered, then growing
LONGEST_PAUSE_S = 30.0
APP = f"msfl/msfl {__version__}"

log = logging.getLogger(__name__)
Answer = Callable[[Message, Context], Message]


def run_node(site: SiteConfig, passphrase: int | None = None) -> None:
    """Serve the coordinator until the process is told to stop.

    Args:
        site: whose process it is.
        passphrase: number of an open file that holds the key's, where a person typed it.

    Raises:
        InputError: key or kit are missing or unsound, or another process of this site is running.
    """
    private_folder(site.state)
    approved, key = kit_to_use(site), unlock(site, passphrase)
    kit, study = approved.kit, approved.study
    like = study.model_copy(update={"evaluate": None})  # a model that is measured has the arrays of one to be trained
    stages = [starting_weights(study_at(like, stage)) for stage in stages_of(study)]
    bounds = bounds_of(*stages, *([handed] if (handed := handed_like(study)) else []))
    witness = Witness(gateway_of(site), kit.study, approved.authority)
    if waits := what_waits(site):
        log.warning("%s", waits)
    taken = f"{site.state}: the site is running already; see `msfl-client status`"
    with held(site.state / "node.lock", taken), StatusFile(site.state, kit.study, kit.address) as status:
        app = build_app(lambda _: site, status.on_progress, cache_answers=True, agreed=study)
        node_id_file = site.state / "session"  # while online; one that is left behind was not ended cleanly
        pause = 1.0
        while True:
            status.say("connecting")
            try:
                stale = int(node_id_file.read_text()) if node_id_file.exists() else None
                with join(kit.address, trust_of(approved), key, stale, bounds) as fleet:
                    write_text(node_id_file, str(fleet.node_id))
                    pause = 1.0
                    serve(fleet, app, site, status, witness)
            except DisconnectedError as error:
                log.warning("%s; next try in %.0f s", error, pause)
                status.say("offline", str(error))
                time.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except BaseException:
                node_id_file.unlink(missing_ok=True)
                raise


def serve(fleet: Fleet, app: Answer, site: SiteConfig, status: StatusFile, witness: Witness) -> None:
    """Answer requests as they come.

    Raises:
        DisconnectedError: the connection is lost.
    """
    status.say("waiting")
    pause, longest = POLL_S
    while True:
        try:
            answered = answer_next(fleet, app, site, status, witness)
        except DisconnectedError:
            raise
        except RunEndedError:
            log.info("the coordinator ended the run; its request is dropped")
            answered = True
        except Exception:  # no request may end the process
            log.exception("a request could not be answered and is dropped")
            answered = True
        if answered:
            pause, _ = POLL_S
            status.say("waiting")
        else:
            time.sleep(pause)
            pause = min(1.1 * pause, longest)


def answer_next(fleet: Fleet, app: Answer, site: SiteConfig, status: StatusFile, witness: Witness) -> bool:
    """Answer the request that waits, if one does, and keep the receipt that comes with it; whether one did.

    Raises:
        DisconnectedError, RunEndedError.
    """
    try:
        message = fleet.receive()
    except UnusableError as error:
        log.warning("the coordinator sent %s", error)
        fleet.send(Message(refuse(site, Code.BAD_MODEL, f"the coordinator sent {error}"), reply_to=error.head))
        return True
    if message is None:
        return False
    if message.has_content():
        witness.take(message.content)
    app_name = fleet.app_of(message.metadata.run_id)
    reply = answer(message, app, app_name, fleet.node_id, site, status)
    fleet.send(reply)
    if _ends_the_study(message, reply):
        status.on_last()
    return True


def _ends_the_study(request: Message, reply: Message) -> bool:
    measured = request.metadata.message_type == "evaluate" and unpack_refusal(reply.content) is None
    return measured and unpack_task(request.content).is_last


def answer(message: Message, app: Answer, app_name: str, node_id: int, site: SiteConfig, status: StatusFile) -> Message:
    """The installed app's reply; a run of another app, or another kind of request, is refused."""
    # Flower stamps a reply with the identity of the task that its own processes run; here, this process.
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, message.metadata.run_id, node_id
    kind = message.metadata.message_type
    if app_name != APP or kind not in REQUESTS or not message.has_content():
        what = kind if message.has_content() else f"{kind}, without content"
        return Message(refuse(site, Code.WRONG_APP, f"{app_name!r:.200} asks {what!r:.200}"), reply_to=message)
    status.on_request(kind, message.metadata.group_id)
    context = Context(
        run_id=message.metadata.run_id, node_id=node_id, node_config={}, state=RecordDict(), run_config={}
    )
    return app(message, context)


def main() -> None:
    """Entry point of the process."""
    log_to_stderr()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_starter()
    try:
        run_node(load_site(Path(sys.argv[1])), int(sys.argv[2]) if sys.argv[2:] else None)
    except KeyboardInterrupt:
        sys.exit(0)
    except InputError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
