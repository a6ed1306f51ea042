"""Sums under masks among sites in memory: lost sites, false shares, and coordinators that are killed at every write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.common.secure_aggregation.hospitals import plain_sum
from tests.server.rounds.masking_sites import LENGTH, STUDY, Killed, MaskingSite, Waits, grid_of_masking, make_sites

from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import InputError, RunError
from msfl_common.messages.records import RoundTask, pack_task
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring
from msfl_common.secure_aggregation.site import Shares
from msfl_server.rounds import mask_roster, masked_sums, sum_store
from msfl_server.rounds.failures import BAD_SHARES, BAD_UPDATE
from msfl_server.rounds.mask_roster import Masks, open_masks
from msfl_server.rounds.masked_sums import Summed, SumRequest, ask_sum
from msfl_server.rounds.roster import Roster
from msfl_server.rounds.sum_store import FOLDER, drop_sums


def study_of(min_sites: int = 2, threshold: int | None = None) -> StudyConfig:
    masks = SecureAggregation(method="masks", min_sites=min_sites, threshold=threshold)
    return StudyConfig(name=STUDY, secure_aggregation=masks, rounds=Rounds(num_rounds=3, deadline_s=20))


def masks_of(sites: Sequence[MaskingSite], out: Path, study: StudyConfig) -> Masks:
    """A coordinator that has just started, and met these."""
    nodes = Roster(names={node: site.name for node, site in enumerate(sites, start=1)})
    masks = open_masks(grid_of_masking(sites), study, out, "final", nodes, Waits())
    assert masks is not None
    return masks


def ask_once(masks: Masks, study: StudyConfig, ring: Ring = UPDATES, number: int = 1) -> Summed:
    """The sum of what all sites answer in a round."""
    task = RoundTask(study, number)
    weights = {"w": np.ones(3, np.float32)}
    request = SumRequest("train", task, lambda: pack_task(task, weights), ring, LENGTH, BAD_UPDATE, 2, may_change=True)
    return ask_sum(masks, masks.nodes.names, request, lambda *_: None)


def expect_sum(summed: Summed, members: Sequence[MaskingSite]) -> None:
    """It is that of these sites, bit for bit."""
    assert summed.total is not None
    assert summed.members == tuple(site.name for site in members)
    expected = plain_sum([site.value() for site in members])
    if members[0].ring.bits < 64:
        expected, total = expected % 2**48, summed.total % 2**48
        assert np.array_equal(total, expected)
    else:
        assert np.array_equal(summed.total, expected)


@pytest.mark.parametrize(("num_sites", "ring"), [(3, UPDATES), (3, SUMS), (5, UPDATES)])
def test_a_sum_is_that_of_all_sites(tmp_path: Path, num_sites: int, ring: Ring) -> None:
    sites, study = make_sites(num_sites, ring), study_of()
    summed = ask_once(masks_of(sites, tmp_path, study), study, ring)
    expect_sum(summed, sites)
    assert not summed.failures
    assert sites[0].asked == ["query.mask_key", "query.roster", "train", "query.opening"]
    drop_sums(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["roster.json"]


def test_a_lost_site_is_not_in_the_sum_and_its_masks_go(tmp_path: Path) -> None:
    sites, study = make_sites(5), study_of(threshold=3)
    sites[1].refuses, sites[4].refuses = {"train", "query.opening"}, {"query.opening"}
    summed = ask_once(masks_of(sites, tmp_path, study), study)
    expect_sum(summed, [sites[0], *sites[2:]])
    assert [(one.site, one.code) for one in summed.failures] == [("site-01", "INTERNAL")]


def test_too_few_values_are_never_opened(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of(min_sites=3)
    sites[1].refuses = {"train"}
    summed = ask_once(masks_of(sites, tmp_path, study), study)
    assert summed.total is None
    assert not any("query.opening" in site.asked for site in sites)
    sites[1].refuses = set()
    expect_sum(ask_once(masks_of(sites, tmp_path, study), study), sites)
    assert len(sites[0].sent) == 1  # the same attempt: nobody has sent a second value


def test_another_attempt_asks_the_sites_that_are_there(tmp_path: Path) -> None:
    sites, study = make_sites(5), study_of(threshold=3)
    masks = masks_of(sites, tmp_path, study)
    masks.prepare(RoundTask(study, 1), may_change=True)
    every = masks.nodes.names

    def ask_those(*nodes: int) -> Summed:
        masks.nodes.names = {node: every[node] for node in nodes}
        return ask_once(masks, study)

    for site in sites[1:]:
        site.refuses = {"train"}
    assert ask_those(1, 2, 3, 4).total is None
    for site in sites[1:]:
        site.refuses = set()
    assert ask_those(4, 5).total is None
    expect_sum(ask_those(3, 4, 5), sites[2:])  # two of these were asked before
    (attempt,) = (tmp_path / FOLDER).glob("*/attempt.json")
    assert Context.model_validate_json(attempt.read_bytes()).attempt == 1


def forged(shares: Shares, bit: int = 1) -> Shares:
    """Shares with a bit turned; two sites that turn the same one may happen to be right together."""
    own = {member: share[:-1] + bytes([share[-1] ^ bit]) for member, share in shares.own.items()}
    return replace(shares, own=own)


def test_who_gives_false_shares_is_named(tmp_path: Path) -> None:
    sites, study = make_sites(5), study_of()
    sites[0].shares_of = forged
    summed = ask_once(masks_of(sites, tmp_path, study), study)
    expect_sum(summed, sites)
    assert [(one.site, one.code) for one in summed.failures] == [("site-00", BAD_SHARES)]


def test_a_sum_without_enough_shares_stays_closed_until_they_are_there(tmp_path: Path) -> None:
    sites, study = make_sites(5), study_of(threshold=3)
    for site in sites[1:4]:
        site.refuses = {"query.opening"}
    with pytest.raises(RunError, match=r"stays closed: 2 sites gave shares, 3 are needed.*site-01: INTERNAL"):
        ask_once(masks_of(sites, tmp_path, study), study)
    sites[1].refuses = set()
    sites[0].refuses = {"query.opening"}  # the study has ended there: its shares are kept
    sites[4].refuses = {"train"}  # nobody is asked again
    summed = ask_once(masks_of(sites, tmp_path, study), study)
    expect_sum(summed, sites)
    assert all(site.asked.count("train") == 1 for site in sites)


def test_who_seals_what_nobody_can_read_is_named_and_no_site_is_waited_for(tmp_path: Path) -> None:
    def damaged(shares: Shares) -> Shares:
        own = {member: share for member, share in shares.own.items() if member != "site-04"}
        return replace(shares, own=own, damaged=("site-04",))

    sites, study = make_sites(5), study_of()
    for site in sites[:3]:
        site.shares_of = damaged
    with pytest.raises(RunError, match="closed for good: too many sites could not read what site-04 sealed"):
        ask_once(masks_of(sites, tmp_path, study), study)


def test_two_of_four_shares_false_open_nothing(tmp_path: Path) -> None:
    sites, study = make_sites(5), study_of(threshold=4)
    sites[0].shares_of, sites[1].shares_of = forged, partial(forged, bit=2)
    with pytest.raises(RunError, match="do not fit together"):
        ask_once(masks_of(sites, tmp_path, study), study)


KILLED_AT = [
    (module, name, when)
    for module, name in (
        (mask_roster, "write_text"),
        (sum_store.SumFolder, "begin"),
        (masked_sums, "unpack_hidden"),
        (sum_store.SumFolder, "fix"),
        (masked_sums, "unpack_shares"),
        (sum_store.SumFolder, "keep_shares"),
        (sum_store.SumFolder, "keep"),
    )
    for when in ("before", "after")
]


def die_at(call: Callable[..., object], when: str) -> Callable[..., object]:
    """The call, that kills the coordinator before or after it."""

    def dies(*given: object, **named: object) -> object:
        if when == "after":
            call(*given, **named)
        raise Killed

    return dies


@pytest.mark.parametrize(("where", "name", "when"), KILLED_AT)
def test_a_coordinator_killed_anywhere_goes_on_to_the_same_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, name: str, when: str
) -> None:
    """Of the same sites, though one that was lost before the kill is back, where the values were fixed."""
    sites, study = make_sites(3), study_of()
    sites[2].refuses = {"train"}
    with monkeypatch.context() as patch:
        patch.setattr(where, name, die_at(getattr(where, name), when))
        with pytest.raises(Killed):
            ask_once(masks_of(sites, tmp_path, study), study)
    is_fixed = (name, when) == ("fix", "after") or name in ("unpack_shares", "keep_shares", "keep")
    sites[2].refuses = set()
    summed = ask_once(masks_of(sites, tmp_path, study), study)
    expect_sum(summed, sites[:2] if is_fixed else sites)
    assert all(len(site.opened) == 1 for site in sites[:2])
    assert [one.site for one in summed.failures] == (["site-02"] if is_fixed else [])


def test_an_opened_sum_is_not_opened_again(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of()
    ask_once(masks_of(sites, tmp_path, study), study)
    for site in sites:
        site.refuses = {"query.mask_key", "query.roster", "train", "query.opening"}  # the study has ended there
    expect_sum(ask_once(masks_of(sites, tmp_path, study), study), sites)


def test_a_damaged_sum_is_not_replaced_by_another(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of()
    sites[0].refuses = sites[1].refuses = {"query.opening"}
    with pytest.raises(RunError):
        ask_once(masks_of(sites, tmp_path, study), study)
    (masked,) = (tmp_path / FOLDER).glob("*/fixed/masked.bin")
    masked.write_bytes(masked.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged"):
        ask_once(masks_of(sites, tmp_path, study), study)
