"""Disks, MLflow, networks, clocks and sites that are not there: each function plays one fault on a fresh deployment."""

from __future__ import annotations

import subprocess
import time

from msfl_server.tracking.mlflow_server import (
    mlflow_command,
    mlflow_environment,
    password_file,
    tracking_uri,
    wait_ready,
)
from tests.faults.scenario import (
    ALONE,
    CLOCK,
    IN_ROUND_2,
    IN_UPLOAD_2,
    TRAIN,
    UPLOAD,
    end_completed,
    end_with_metrics,
    left_out,
    scenario,
)
from tests.faults.stage import Stage
from tests.integration.deployment import ENVIRONMENT, free_ports

# ---- disks


@scenario("a site's disk full in a round, freed later", "the run says DISK_FULL and goes on by itself")
def site_disk_full(stage: Stage) -> None:
    fill = stage.small_disk(stage.federation.site("site-b") / "state", 16)
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    free = fill()
    held.go_on()
    stage.wait_said("site-b: DISK_FULL")
    free()


@scenario("the server's disk full when a checkpoint is due, freed later", "the run says so and goes on by itself")
def server_disk_full(stage: Stage) -> None:
    fill = stage.small_disk(stage.federation.study.run, 8)
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    free = fill()
    held.go_on()
    stage.wait_said("no space left on the disk")
    free()


# ---- MLflow


@scenario("MLflow not there from the start until the third round", "all rounds are in MLflow at the end")
def mlflow_late(stage: Stage) -> None:
    (port,) = free_ports(1)
    stage.server_setting(mlflow=tracking_uri(port), mlflow_login=str(password_file(stage.federation.study.root)))
    held = stage.hook("site-b", TRAIN, IN_ROUND_2 + 2, "hold")
    stage.start()
    held.wait()
    command = mlflow_command(stage.federation.study.root, port)
    log = (stage.federation.base / "mlflow.log").open("ab")
    stage.federation.processes["mlflow"] = subprocess.Popen(
        command, env=mlflow_environment(ENVIRONMENT), stdout=log, stderr=log
    )
    assert wait_ready(port, 120)
    held.go_on()
    end_with_metrics(stage)


@scenario("kill -9 of the MLflow server in the last round", "all rounds are in MLflow at the end")
def mlflow_killed(stage: Stage) -> None:
    (port,) = free_ports(1)
    stage.server_setting(mlflow=None, mlflow_port=port)
    held = stage.hook("site-b", TRAIN, IN_ROUND_2 + 4, "hold")
    stage.start()
    held.wait()
    stage.federation.find(str(port)).kill()
    held.go_on()
    stage.wait_said("MLflow ended (exit code -9")
    end_with_metrics(stage)


# ---- sites that are not there


@scenario(
    "a site killed in round 2 and started again in round 3",
    "the quorum goes on after patience_s, the summary names the site, and it is back in the last round",
    ALONE,
    all_sites=False,
)
def site_absent(stage: Stage) -> None:
    trains = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    held = stage.hook("site-a", TRAIN, IN_ROUND_2 + 2, "hold")
    stage.start()
    trains.wait()
    stage.federation.kill_tree("site-b")
    held.wait()
    stage.restart("site-b")
    stage.wait_state("site-b", "waiting")
    held.go_on()
    end_completed(stage)
    left_out(stage, "site-b", rounds=(2, 3))


@scenario(
    "a site never started",
    "the quorum goes on after patience_s and the summary names the site",
    ALONE,
    all_sites=False,
)
def site_never_there(stage: Stage) -> None:
    stage.start("site-a")
    end_completed(stage)
    left_out(stage, "site-b", rounds=(1, 2, 3, 4))


@scenario(
    "fewer sites than the quorum from round 2 on; started again later",
    "the server says that it waits, for whom and why",
    {"deadline_s": 45.0, "patience_s": 20.0},
)
def below_quorum(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    stage.federation.kill_tree("site-b")
    stage.wait_said("the quorum is 2; site-b:")
    stage.wait_said("round 2 waits for site-b to come online, until")
    stage.restart("site-b")


# ---- the network


@scenario("network between a site and the server cut for a minute while the site waits", "the site says offline")
def network_cut_waiting(stage: Stage) -> None:
    line = stage.proxy("site-b")
    held = stage.hook("site-a", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    stage.wait_doing("training", "site-a")
    line.set("cut")
    stage.wait_state("site-b", "offline", "cannot be reached")
    time.sleep(60)
    line.set("up")
    held.go_on()


@scenario("network cut for a minute when half of an update is uploaded", "the site says offline")
def network_cut_uploading(stage: Stage) -> None:
    line = stage.proxy("site-b")
    held = stage.hook("site-b", UPLOAD, IN_UPLOAD_2, "hold")
    stage.start()
    held.wait()
    assert stage.federation.rounds() == 1
    line.set("cut")
    held.go_on()
    stage.wait_state("site-b", "offline", "cannot be reached")
    time.sleep(60)
    line.set("up")


@scenario("half-open connections for 40 s: bytes vanish, nothing is closed", "the site notices and connects again")
def network_half_open(stage: Stage) -> None:
    line = stage.proxy("site-b")
    held = stage.hook("site-b", UPLOAD, IN_UPLOAD_2, "hold")
    stage.start()
    held.wait()
    assert stage.federation.rounds() == 1
    line.set("dead")
    held.go_on()
    time.sleep(40)
    line.set("up")


# ---- clocks


def skewed(stage: Stage, minutes: int) -> None:
    """Start everything, site-b with a wrong clock, until it says why it is refused.

    libfaketime would move every clock of the process, but Python's waits then fail or never end.
    """
    stage.hook("site-b", CLOCK, 1, 60 * minutes)
    stage.start()
    stage.wait_said("clock", "site-b")


@scenario(
    "a site's clock 10 minutes behind; restarted with the right time in the last round",
    "refused with the reason at the site, the other goes on",
    ALONE,
    all_sites=False,
)
def clock_behind(stage: Stage) -> None:
    held = stage.hook("site-a", TRAIN, IN_ROUND_2 + 2, "hold")
    skewed(stage, -10)
    held.wait()
    stage.federation.stop("site-b")
    stage.restart("site-b")
    stage.wait_state("site-b", "waiting")
    held.go_on()
    end_completed(stage)
    left_out(stage, "site-b", rounds=(1, 2, 3))


@scenario(
    "a site's clock 10 minutes ahead; restarted with the right time",
    "refused with the reason at the site, the run waits for it",
)
def clock_ahead(stage: Stage) -> None:
    skewed(stage, 10)
    stage.federation.stop("site-b")
    stage.restart("site-b")
