"""Kills in a study whose sums are masked: three sites, all of them in each sum; confirmed by people once, at the start.

The weights have to be those of the undisturbed run without masks, as masked and plain sums are the same numbers.
"""

from __future__ import annotations

from tests.faults.scenario import IN_ROUND_2, TRAIN, scenario
from tests.faults.stage import Stage

_SITE = "msfl_client.secure_aggregation"
_SERVER = "msfl_server.rounds"


def _site_killed(stage: Stage, point: str, call: int) -> None:
    killed = stage.hook("site-b", point, call, "kill")
    stage.start()
    stage.confirm_roster()
    killed.wait()


def _server_killed(stage: Stage, point: str, call: int) -> None:
    killed = stage.hook("server", point, call, "kill")
    stage.start()
    stage.confirm_roster()
    killed.wait()


# ---- a site's process


@scenario("masked: kill -9 of a site's process when it has made its key for masks", masked=True)
def masked_site_killed_with_key(stage: Stage) -> None:
    _site_killed(stage, f"{_SITE}.site_masks:make_secrets", 1)


@scenario("masked: kill -9 of a site's process when the roster has come and is not kept", masked=True)
def masked_site_killed_with_roster(stage: Stage) -> None:
    _site_killed(stage, f"{_SITE}.rosters:Rosters.keep", 1)


@scenario("masked: kill -9 of a site's process while a person compares the roster", masked=True)
def masked_site_killed_unconfirmed(stage: Stage) -> None:
    stage.start()
    stage.wait_roster("site-b")
    stage.federation.find("connection.node", "site-b").kill()
    stage.confirm_roster()


@scenario("masked: kill -9 of a site's process in the middle of a round's training", masked=True)
def masked_site_killed_training(stage: Stage) -> None:
    _site_killed(stage, TRAIN, IN_ROUND_2)


@scenario("masked: kill -9 of a site's process when its update is kept and not yet masked", masked=True)
def masked_site_killed_with_value(stage: Stage) -> None:
    _site_killed(stage, f"{_SITE}.sum_answer:SumAnswer.hide", 3)


@scenario("masked: kill -9 of a site's process when its register is to say that a value leaves", masked=True)
def masked_site_killed_registering(stage: Stage) -> None:
    _site_killed(stage, f"{_SITE}.sum_answer:SumAnswer.claim", 3)


@scenario("masked: kill -9 of a site's process when it is to keep the shares that open a sum", masked=True)
def masked_site_killed_opening(stage: Stage) -> None:
    _site_killed(stage, f"{_SITE}.site_masks:keep_shares", 3)


# ---- the server's process


@scenario("masked: kill -9 of the server's process when it has the sites' keys and no roster", masked=True)
def masked_run_killed_with_keys(stage: Stage) -> None:
    _server_killed(stage, f"{_SERVER}.mask_roster:_roster_of", 1)


@scenario("masked: kill -9 of the server's process while it waits for people to confirm the roster", masked=True)
def masked_run_killed_unconfirmed(stage: Stage) -> None:
    stage.start()
    stage.wait_roster("site-b")
    stage.federation.find("flower.server_process").kill()
    stage.wait_said("the run ended (exit code -9")
    stage.confirm_roster()


@scenario("masked: kill -9 of the server's process when it has begun a sum and asks for its values", masked=True)
def masked_run_killed_asking(stage: Stage) -> None:
    _server_killed(stage, f"{_SERVER}.masked_sums:_Asked._ask_values", 3)


@scenario("masked: kill -9 of the server's process when all values have come and the sum is closed", masked=True)
def masked_run_killed_closed(stage: Stage) -> None:
    _server_killed(stage, f"{_SERVER}.masked_sums:_Asked.open", 3)


@scenario("masked: kill -9 of the server's process when a sum is opened and not yet kept", masked=True)
def masked_run_killed_opened(stage: Stage) -> None:
    _server_killed(stage, f"{_SERVER}.sum_store:SumFolder.keep", 3)


@scenario("masked: kill -9 of the server's process when half of a checkpoint is written", masked=True)
def masked_run_killed_in_checkpoint(stage: Stage) -> None:
    _server_killed(stage, f"{_SERVER}.checkpoint:write_text", 2)


@scenario("masked: kill -9 of `msfl-server start` while a site trains; started again", masked=True)
def masked_server_killed(stage: Stage) -> None:
    held = stage.hook("site-b", TRAIN, IN_ROUND_2, "hold")
    stage.start()
    stage.confirm_roster()
    held.wait()
    stage.federation.processes["server"].kill()
    stage.gone("msfl_server")
    held.go_on()
    stage.restart("server")
