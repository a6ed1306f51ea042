"""Processes that are killed, stopped and started again: each function plays one fault on a fresh deployment."""

from __future__ import annotations

import shutil

from tests.faults.scenario import (
    IN_ROUND_2,
    IN_UPLOAD_2,
    TRAIN,
    UPLOAD,
    end,
    run,
    scenario,
)
from tests.faults.stage import Stage

# ---- a site's processes


@scenario("kill -9 of `msfl-client start` while its site trains; started again", "its child ends with it")
def site_supervisor_killed(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    stage.federation.processes["site-b"].kill()
    stage.gone("site-b")
    stage.restart("site-b")


@scenario("kill -9 of a site's process while it waits for the other site")
def site_killed_waiting(stage: Stage) -> None:
    held = stage.hook("site-a", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    stage.wait_doing("training", "site-a")
    stage.wait_state("site-b", "waiting")
    stage.federation.find("connection.node", "site-b").kill()
    held.go_on()


@scenario("kill -9 of a site's process in the middle of a round's training")
def site_killed_training(stage: Stage) -> None:
    killed = stage.hook("site-b", TRAIN, IN_ROUND_2, "kill")
    stage.start()
    killed.wait()


@scenario("kill -9 of a site's process when half of its update is uploaded")
def site_killed_uploading(stage: Stage) -> None:
    killed = stage.hook("site-b", UPLOAD, IN_UPLOAD_2, "kill")
    stage.start()
    killed.wait()
    assert stage.federation.rounds() == 1


@scenario("a site restarted with `msfl-client stop` and `start` while it trains")
def site_restarted_in_round(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    run(stage, "msfl-client", "stop", stage.federation.site("site-b") / "site.yaml")
    stage.restart("site-b")


@scenario("SIGTERM, Ctrl-C and `msfl-client stop` of a site, a round each", "exit code 130, no process left")
def site_told_to_stop(stage: Stage) -> None:
    stage.start()
    site = stage.federation.site("site-b")
    for number, how in enumerate(("SIGTERM", "SIGINT", "stop"), start=1):
        stage.federation.wait_for_round(number, 180)
        end(stage, "site-b", how, "msfl-client", site / "site.yaml")
        stage.gone("site-b")
        stage.restart("site-b")


@scenario("a second `msfl-client start` with a copy of a running site's key", "refused with the reason, site unharmed")
def two_clients_one_key(stage: Stage) -> None:
    federation = stage.federation
    held = stage.hook("site-a", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    shutil.copytree(federation.site("site-a"), federation.site("copy"), ignore=shutil.ignore_patterns("state"))
    federation.start_sites("copy")
    stage.wait_said("another process is online with it", "copy")
    held.go_on()
    federation.wait_for_round(3, 180)
    federation.kill_tree("copy")


# ---- the server's processes


@scenario("kill -9 of the SuperLink while no request is under way")
def superlink_killed_idle(stage: Stage) -> None:
    stage.start("site-a")
    stage.wait_doing("coming online", "site-b")
    stage.wait_state("site-a", "waiting")
    stage.federation.find("flower.superlink").kill()
    stage.restart("site-b")


@scenario("kill -9 of the SuperLink when half of an update is uploaded")
def superlink_killed_uploading(stage: Stage) -> None:
    held = stage.hook("site-b", UPLOAD, IN_UPLOAD_2, "hold")
    stage.start()
    held.wait()
    assert stage.federation.rounds() == 1
    stage.federation.find("flower.superlink").kill()
    held.go_on()


@scenario("kill -9 of the server's process when it has begun to send a round's request")
def run_killed_sending(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.flower.grid:make_push_object_fn_protobuf", 4, "kill")
    stage.start()
    killed.wait()
    assert stage.federation.rounds() == 1


@scenario("kill -9 of the server's process while it waits for training")
def run_killed_in_training(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    stage.wait_doing("training", "site-b")
    stage.federation.find("flower.server_process").kill()
    stage.wait_said("the run ended (exit code -9")
    held.go_on()


@scenario("kill -9 of the server's process while it aggregates")
def run_killed_aggregating(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.aggregation.strategy:aggregate", 2, "kill")
    stage.start()
    killed.wait()


@scenario("kill -9 of the server's process while it waits for validation")
def run_killed_in_validation(stage: Stage) -> None:
    held = stage.hook("site-b", "msfl_client.segmentation.trainer:validate", 2, "hold")
    stage.start()
    held.wait()
    stage.wait_doing("validation", "site-b")
    stage.federation.find("flower.server_process").kill()
    held.go_on()


@scenario("kill -9 of the server's process when half of a checkpoint is written")
def run_killed_in_checkpoint(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.rounds.checkpoint:write_text", 2, "kill")
    stage.start()
    killed.wait()
    assert stage.federation.rounds() == 1


@scenario("kill -9 of the server's process when the last round is done and the model is not yet written")
def run_killed_before_model(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.rounds.loop:save_model", 1, "kill")
    stage.start()
    killed.wait()


@scenario("kill -9 of `msfl-server start` while a site trains; started again", "its children end with it")
def server_killed(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    stage.federation.processes["server"].kill()
    stage.gone("msfl_server")
    held.go_on()
    stage.restart("server")


@scenario("SIGTERM, Ctrl-C and `msfl-server stop` of the server, a round each", "exit code 130, no process left")
def server_told_to_stop(stage: Stage) -> None:
    stage.start()
    for number, how in enumerate(("SIGTERM", "SIGINT", "stop"), start=1):
        stage.federation.wait_for_round(number, 180)
        end(stage, "server", how, "msfl-server", stage.federation.study.root)
        stage.gone("msfl_server")
        stage.restart("server")
