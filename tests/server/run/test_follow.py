"""What the person at `msfl-server start` sees of a run in another process: each round once, whom it waits for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.common.secure_aggregation.hospitals import hospitals

from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.secure_aggregation.spoken import digest_of
from msfl_common.system.progress import console
from msfl_server.results.summary import RoundSummary, SiteFailure
from msfl_server.rounds.checkpoint import Checkpoint, RunState, save_checkpoint
from msfl_server.rounds.mask_roster import CONFIRMING, ROSTER_FILE
from msfl_server.run import follow
from msfl_server.run.display import ONLINE, run_display
from msfl_server.run.follow import FollowedRun
from msfl_server.run.roster_lines import roster_document
from msfl_server.run.status import StatusFile

STUDY = StudyConfig(name="followed", rounds=Rounds(num_rounds=3))


def record(number: int) -> RoundSummary:
    """A round that one of three sites did not answer, and that another one was not asked in."""
    return RoundSummary(
        round=number,
        train_loss=0.5 / number,
        metrics={"dsc": 0.1 * number},
        sites_ok=("a", "b"),
        sites_failed=(SiteFailure(site="c", code="NOT_ONLINE"),),
        seconds=2.0,
    )


def complete(out: Path, number: int) -> RunState:
    state = RunState(round=number, history=tuple(record(one) for one in range(1, number + 1)))
    save_checkpoint(out, Checkpoint(state, {"w": np.zeros(1, np.float32)}))
    return state


def lines(shown: pytest.CaptureFixture[str]) -> list[str]:
    return shown.readouterr().err.splitlines()


def test_each_round_is_shown_once_and_a_wait_when_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_file, out = tmp_path / "status.json", tmp_path / "run"
    with run_display(3) as display, StatusFile(status_file, STUDY) as status:
        followed = FollowedRun(STUDY, out, status_file, display)
        status.on_wait(1, ONLINE, ["c"], 60.0)
        followed.look()
        followed.look()
        assert [line.split(",")[0] for line in lines(capsys)] == ["round 1 waits for c to come online"]
        status.on_round(complete(out, 1))
        status.on_round(complete(out, 2))  # between two looks
        followed.look()
        followed.look()
        assert lines(capsys) == [
            "round   1  loss 0.500  DSC 0.100  2 of 3 sites  2.0 s  c: NOT_ONLINE",
            "round   2  loss 0.250  DSC 0.200  2 of 3 sites  2.0 s  c: NOT_ONLINE",
        ]
        status.on_round(complete(out, 3))
        status.finish(3)
        followed.look()
        assert [line[:9] for line in lines(capsys)] == ["round   3"]


def test_what_was_completed_before_is_counted_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_file, out = tmp_path / "status.json", tmp_path / "run"
    with StatusFile(status_file, STUDY) as status:
        status.on_wait(1, ONLINE, ["c"], 60.0)  # of the earlier process: nobody waits for c now
        status.on_round(complete(out, 2))
    with run_display(3) as display, pytest.MonkeyPatch.context() as patched:
        patched.setattr(follow, "datetime", _Later)
        followed = FollowedRun(STUDY, out, status_file, display)
        followed.look()
        assert lines(capsys) == ["rounds completed before: 2"]


def test_a_roster_is_said_while_people_are_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_file, out = tmp_path / "status.json", tmp_path / "run"
    out.mkdir()
    roster = hospitals(3).roster
    (out / ROSTER_FILE).write_text(roster.model_dump_json())
    with run_display(3) as display, StatusFile(status_file, STUDY) as status:
        followed = FollowedRun(STUDY, out, status_file, display)
        status.on_wait(1, CONFIRMING, ["site-00", "site-02"], 60.0)
        followed.look()
        followed.look()
        first, *said = lines(capsys)
        assert first == "round 1: confirmation of the roster at site-00, site-02"
        assert said[0].startswith("roster of the sums under masks: site-00, site-01, site-02; a sum has 2 of them")
        assert said[1] == f"its digest: {roster.digest}"
        assert digest_of(" ".join(said[2:6])) == roster.digest
        assert said[6].startswith("waiting for people at site-00, site-02: ")
        status.on_wait(1, CONFIRMING, ["site-02"], 60.0)
        followed.look()
        assert [line[:33] for line in lines(capsys)] == ["waiting for people at site-02: re"]
        status.on_wait(1, "training", ["site-02"], 60.0)
        followed.look()
        assert [line[:17] for line in lines(capsys)] == ["round 1: training"]


def test_a_roster_for_programs(tmp_path: Path) -> None:
    assert roster_document(tmp_path, ()) is None
    roster = hospitals(3).roster
    (tmp_path / ROSTER_FILE).write_text(roster.model_dump_json())
    told = roster_document(tmp_path, ("site-01",))
    assert told is not None
    assert (told["digest"], told["sites"], told["waits_for"]) == (roster.digest, roster.names, ["site-01"])


def test_a_quiet_start_shows_no_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "quiet", True)
    status_file, out = tmp_path / "status.json", tmp_path / "run"
    with run_display(3) as display, StatusFile(status_file, STUDY) as status:
        followed = FollowedRun(STUDY, out, status_file, display)
        status.on_round(complete(out, 1))
        followed.look()
    assert lines(capsys) == []


class _Later(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime(2100, 1, 1, tzinfo=UTC)
