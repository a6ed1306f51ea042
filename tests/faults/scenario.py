"""What a fault is, and what the scenarios share.

Sites are site-a and site-b, and site-c where sums are masked; all rounds wait for all of them unless a scenario lowers
the quorum.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.stage import Stage
from tests.integration.deployment import BIN

TRAIN = "msfl_client.training.rates:rate_at"  # called in each of a round's two steps
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
        all_sites: all sites take part in every round, so the weights are those of the undisturbed run.
        masked: three sites, and sums under masks.
    """

    name: str
    what: str
    play: Callable[[Stage], None]
    expected: str = ""
    rounds: dict[str, object] = field(default_factory=dict)
    all_sites: bool = True
    masked: bool = False


SCENARIOS: list[Scenario] = []


def scenario(
    what: str,
    expected: str = "",
    rounds: dict[str, object] | None = None,
    all_sites: bool = True,
    masked: bool = False,
) -> Callable[[Callable[[Stage], None]], None]:
    """Add a function to the scenarios under its own name."""

    def add(play: Callable[[Stage], None]) -> None:
        SCENARIOS.append(Scenario(play.__name__, what, play, expected, rounds or {}, all_sites, masked))

    return add


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
