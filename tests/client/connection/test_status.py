"""What a site's own people read of its process."""

from __future__ import annotations

from pathlib import Path

from msfl_client.connection.status import NodeStatus, StatusFile, read_status
from msfl_client.connection.supervisor import one_line


def now(folder: Path) -> NodeStatus:
    status = read_status(folder)
    assert status is not None
    return status


def test_the_end_of_a_study_is_told_and_remembered(tmp_path: Path) -> None:
    with StatusFile(tmp_path, "pilot", "example.org:9092") as status:
        status.on_request("evaluate", "3")
        status.on_last()
        status.say("waiting")
        status.say("offline", "no connection")
        said = one_line(now(tmp_path))
        assert said.startswith("study pilot is finished: its last request is answered")
        assert said.endswith("next study (offline: no connection)")  # which may be that it was refused
    with StatusFile(tmp_path, "pilot", "example.org:9092") as again:
        again.say("offline", "no connection")
        assert one_line(now(tmp_path)).startswith("study pilot is finished")
        again.on_request("query", "1")
        again.say("offline", "no connection")
        assert one_line(now(tmp_path)) == "offline: no connection; trying again"
    with StatusFile(tmp_path, "masks", "example.org:9092") as masked:
        for last in (True, False):  # the sum of the last metrics is opened after they were sent
            masked.on_request("evaluate", "3")
            for _ in range(last):
                masked.on_last()
            masked.on_request("query.opening", "3")
            masked.say("waiting")
            assert ("finished" in one_line(now(tmp_path))) == last
    with StatusFile(tmp_path, "next", "example.org:9092") as other:
        other.say("waiting")
        assert one_line(now(tmp_path)).endswith("study next; waiting")


def test_a_refusal_is_shown_until_a_request_is_answered(tmp_path: Path) -> None:
    with StatusFile(tmp_path, "pilot", "example.org:9092") as status:
        status.say("waiting")
        assert one_line(now(tmp_path)) == "connected to example.org:9092, study pilot; waiting"
        status.on_request("train", "1")
        status.on_progress("site-a", "refused", 0, 0, "BAD_TABLE: participants.tsv: line 3")
        status.say("waiting")
        assert one_line(now(tmp_path)).endswith("; refused the last request: BAD_TABLE: participants.tsv: line 3")
        assert now(tmp_path).rounds_answered == 0
        status.on_request("train", "2")
        status.on_progress("site-a", "training", 5, 5, "loss 0.5")
        status.say("waiting")
        assert one_line(now(tmp_path)).endswith("; waiting")
        assert now(tmp_path).rounds_answered == 1
