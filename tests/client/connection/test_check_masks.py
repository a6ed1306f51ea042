"""What `check` says of the masked sums of a study, before a round needs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.client.secure_aggregation.members import STUDY, confirm, masked, members_at, site_at

from msfl_client.cli.kit_view import describe_kit
from msfl_client.connection import check
from msfl_client.egress.gateway import check_request
from msfl_client.secure_aggregation.rosters import NEWEST_FILE
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError

PLAIN = StudyConfig(name="pilot")


def levels(root: Path, study: StudyConfig = STUDY) -> list[tuple[str, str]]:
    return [(row.level, row.text) for row in check._masks(site_at(root, "bern"), study)]


def test_whether_the_roster_is_confirmed(tmp_path: Path) -> None:
    assert levels(tmp_path, PLAIN) == []
    ((level, text),) = levels(tmp_path)
    assert (level, "comes with the coordinator's first request" in text) == ("pass", True)
    members = members_at(tmp_path)
    ((level, text),) = levels(tmp_path)
    assert (level, "roster of bern, graz, oslo, confirmed on 2" in text) == ("pass", True)
    (members["bern"].folder / "confirmed-rosters.json").unlink()
    (row,) = check._masks(site_at(tmp_path, "bern"), STUDY)
    assert (row.level, row.text.endswith("waits for a person here")) == ("warn", True)
    assert "msfl-client roster" in row.fix
    confirm(members["bern"], members.roster)
    (members["bern"].folder / NEWEST_FILE).write_text("{")
    ((level, text),) = levels(tmp_path)
    assert (level, text.endswith("newest-roster.json: damaged")) == ("fail", True)


def test_a_folder_of_the_key_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.os, "access", lambda *_: False)
    ((level, text),) = levels(tmp_path)
    assert (level, "cannot be written" in text) == ("fail", True)


@pytest.mark.parametrize(
    ("study", "policy", "says"),
    [
        (PLAIN, Policy(require_masks=True), "`policy.require_masks` lets nothing leave without"),
        (masked(PLAIN, min_sites=2), Policy(), "sums of 2 sites (secure_aggregation.min_sites), at least 3"),
        (STUDY, Policy(min_sites_in_sum=5), "sums of 3 sites (secure_aggregation.min_sites), at least 5"),
    ],
)
def test_a_study_beyond_the_policy(study: StudyConfig, policy: Policy, says: str) -> None:
    with pytest.raises(RefusedError) as error:
        check_request(policy, study, 1)
    assert error.value.code is Code.POLICY
    assert says in error.value.detail
    check_request(Policy(require_masks=study is STUDY, min_sites_in_sum=2), study, 1)


def test_a_kit_says_that_sums_are_masked() -> None:
    class Kit:
        kit = type("K", (), {"site": "bern", "address": "x:1"})()
        study = STUDY

    lines = describe_kit(Kit())  # type: ignore[arg-type]
    assert "  sums:          under masks, of at least 3 sites: the coordinator sees no site's own figures" in lines
