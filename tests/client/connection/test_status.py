"""What a site's own people read of its process."""

from __future__ import annotations

from pathlib import Path

from msfl_client.connection.status import NodeStatus, StatusFile, read_status
from msfl_client.connection.supervisor import one_line


def now(folder: Path) -> NodeStatus:
    status = read_status(folder)
    assert status is not None
    return status


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
