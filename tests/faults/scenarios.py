"""The faults: each function plays one on a fresh deployment, up to the point where the study can go on by itself.

Sites are site-a and site-b; all rounds wait for both unless a scenario lowers the quorum.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from msfl_server.mlflow_server import mlflow_command, mlflow_environment, tracking_uri, wait_ready
from tests.faults.stage import Stage
from tests.integration.deployment import BIN, ENVIRONMENT, free_ports

TRAIN = "msfl_client.training:learning_rate"  # called in each of a round's two steps
UPLOAD = (
    "flwr.supernode.fleet_http_client:FleetHttpClient.PushObject"  # 3 for the facts, 6 for an update, 3 for metrics
)
IN_ROUND_2, IN_UPLOAD_2 = 4, 16
CLOCK = "flwr.supernode.node_auth_http_interceptor:now"  # what a site signs its calls with
ALONE: dict[str, object] = {"quorum": 1, "patience_s": 5.0}


@dataclass(frozen=True)
class Scenario:
    """A fault.

    Attributes:
        name: what to call it on the command line.
        what: what is done, and in which phase.
        play: does it.
        expected: how it is to end, beyond a completed run without a lost round.
        rounds: settings of the study's rounds that it needs.
        all_sites: both sites take part in every round, so the weights are those of the undisturbed run.
    """

    name: str
    what: str
    play: Callable[[Stage], None]
    expected: str = ""
    rounds: dict[str, object] = field(default_factory=dict)
    all_sites: bool = True


SCENARIOS: list[Scenario] = []


def scenario(
    what: str, expected: str = "", rounds: dict[str, object] | None = None, all_sites: bool = True
) -> Callable[[Callable[[Stage], None]], None]:
    """Add a function to the scenarios under its own name."""

    def add(play: Callable[[Stage], None]) -> None:
        SCENARIOS.append(Scenario(play.__name__, what, play, expected, rounds or {}, all_sites))

    return add


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
    stage.federation.find("federation_node", "site-b").kill()
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
    stage.federation.find("federation_superlink").kill()
    stage.restart("site-b")


@scenario("kill -9 of the SuperLink when half of an update is uploaded")
def superlink_killed_uploading(stage: Stage) -> None:
    held = stage.hook("site-b", UPLOAD, IN_UPLOAD_2, "hold")
    stage.start()
    held.wait()
    assert stage.federation.rounds() == 1
    stage.federation.find("federation_superlink").kill()
    held.go_on()


@scenario("kill -9 of the server's process when it has begun to send a round's request")
def run_killed_sending(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.federation_grid:make_push_object_fn_protobuf", 4, "kill")
    stage.start()
    killed.wait()
    assert stage.federation.rounds() == 1


@scenario("kill -9 of the server's process while it waits for training")
def run_killed_in_training(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    held.wait()
    stage.wait_doing("training", "site-b")
    stage.federation.find("federation_run").kill()
    stage.wait_said("the run ended (exit code -9")
    held.go_on()


@scenario("kill -9 of the server's process while it aggregates")
def run_killed_aggregating(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.strategy:aggregate", 2, "kill")
    stage.start()
    killed.wait()


@scenario("kill -9 of the server's process while it waits for validation")
def run_killed_in_validation(stage: Stage) -> None:
    held = stage.hook("site-b", "msfl_client.segmentation:validate", 2, "hold")
    stage.start()
    held.wait()
    stage.wait_doing("validation", "site-b")
    stage.federation.find("federation_run").kill()
    held.go_on()


@scenario("kill -9 of the server's process when half of a checkpoint is written")
def run_killed_in_checkpoint(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.checkpoint:write_text", 2, "kill")
    stage.start()
    killed.wait()
    assert stage.federation.rounds() == 1


@scenario("kill -9 of the server's process when the last round is done and the model is not yet written")
def run_killed_before_model(stage: Stage) -> None:
    killed = stage.hook("server", "msfl_server.federation:save_model", 1, "kill")
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
    stage.server_setting(mlflow=tracking_uri(port))
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


# ---- what the scenarios share


def run(stage: Stage, *command: object) -> None:
    """Run a command of ours to its end."""
    subprocess.run([BIN / str(command[0]), *map(str, command[1:])], check=True, timeout=120, capture_output=True)


def end(stage: Stage, name: str, how: str, *command: object) -> None:
    """End a command of ours by a signal, or by `stop` of the same program."""
    if how == "stop":
        process = stage.federation.processes.pop(name)
        run(stage, command[0], "stop", command[1])
        code = process.wait(60)
    else:
        code = stage.federation.stop(name, signal.Signals[how])
    assert code == 130, f"{how}: exit code {code}"


def end_completed(stage: Stage) -> None:
    """Until the study is done."""
    code = stage.federation.wait_for_end(300)
    assert code == 0, f"exit code {code}"


def end_with_metrics(stage: Stage) -> None:
    """Until the study is done, with every round in MLflow's own store."""
    end_completed(stage)
    with sqlite3.connect(stage.federation.study.root / "mlflow" / "mlflow.db") as store:
        steps = [step for (step,) in store.execute("select step from metrics where key = 'seconds' order by step")]
    assert steps == [1, 2, 3, 4], f"MLflow has rounds {steps}"


def left_out(stage: Stage, site: str, rounds: tuple[int, ...]) -> None:
    """The summary names the site as left out of these rounds, and no other."""
    history = stage.summary()["history"]
    failed = {one["round"] for one in history if site in [failure["site"] for failure in one["sites_failed"]]}
    took_part = {one["round"] for one in history if site in one["sites_ok"]}
    assert failed == set(rounds), f"{site} is named as left out of rounds {sorted(failed)}"
    assert took_part == {1, 2, 3, 4} - set(rounds), f"{site} took part in rounds {sorted(took_part)}"
