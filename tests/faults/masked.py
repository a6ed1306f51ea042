"""Kills in a study whose sums are masked: three sites, all of them in each sum; confirmed by people once, at the start.

The weights have to be those of the undisturbed run without masks, as masked and plain sums are the same numbers.
"""

from __future__ import annotations

from functools import partial

from tests.faults.scenario import IN_ROUND_2, SCENARIOS, TRAIN, Scenario, scenario
from tests.faults.stage import Stage

# Name, who is killed, when, and which call of a function that is.
_KILLS = (
    ("site_key", "site-b", "has made its key for masks", "site_masks:make_secrets", 1),
    ("site_roster", "site-b", "has got the roster and not kept it", "rosters:Rosters.keep", 1),
    ("site_value", "site-b", "has kept its update and not masked it", "sum_answer:SumAnswer.hide", 3),
    ("site_register", "site-b", "is to write down that a value leaves", "sum_answer:SumAnswer.claim", 3),
    ("site_shares", "site-b", "is to keep the shares that open a sum", "site_masks:keep_shares", 3),
    ("run_keys", "server", "has the sites' keys and no roster", "mask_roster:_roster_of", 1),
    ("run_asking", "server", "has begun a sum and asks for its values", "masked_sums:_Asked._ask_values", 3),
    ("run_closed", "server", "has all values of a sum that is closed", "masked_sums:_Asked.open", 3),
    ("run_opened", "server", "has opened a sum and not kept it", "sum_store:SumFolder.keep", 3),
    ("run_checkpoint", "server", "has written half of a checkpoint", "checkpoint:write_text", 2),
)
_IN = {"site-b": "msfl_client.secure_aggregation", "server": "msfl_server.rounds"}


def _killed(process: str, point: str, call: int, stage: Stage) -> None:
    killed = stage.hook(process, point, call, "kill")
    stage.start()
    stage.confirm_roster()
    killed.wait()


def _add(name: str, process: str, when: str, point: str, call: int) -> None:
    who = "a site's process" if process == "site-b" else "the server's process"
    play = partial(_killed, process, point, call)
    SCENARIOS.append(Scenario(f"masked_{name}", f"masked: kill -9 of {who} when it {when}", play, masked=True))


for _name, _process, _when, _point, _call in _KILLS:
    _add(_name, _process, _when, f"{_IN[_process]}.{_point}", _call)
_add("site_training", "site-b", "is in the middle of a round's training", TRAIN, IN_ROUND_2)


@scenario("masked: kill -9 of a site's process while a person compares the roster", masked=True)
def masked_site_unconfirmed(stage: Stage) -> None:
    stage.start()
    stage.wait_roster("site-b")
    stage.federation.find("connection.node", "site-b").kill()
    stage.confirm_roster()


@scenario("masked: kill -9 of the server's process while it waits for people to confirm the roster", masked=True)
def masked_run_unconfirmed(stage: Stage) -> None:
    stage.start()
    stage.wait_roster("site-b")
    stage.federation.find("flower.server_process").kill()
    stage.wait_said("the run ended (exit code -9")
    stage.confirm_roster()


@scenario("masked: kill -9 of `msfl-server start` while a site trains; started again", masked=True)
def masked_server(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    stage.confirm_roster()
    held.wait()
    stage.federation.processes["server"].kill()
    stage.gone("msfl_server")
    held.go_on()
    stage.restart("server")
