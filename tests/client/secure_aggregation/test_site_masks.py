"""What a site refuses of masked sums, each with a reason; and that it gives the same again."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.client.secure_aggregation.members import (
    NAMES,
    STUDY,
    Members,
    confirm,
    masked,
    masks_at,
    members_at,
    roster_of,
    site_at,
)

from msfl_client.secure_aggregation import register
from msfl_client.secure_aggregation.rosters import Rosters, roster_lines, waiting_rosters
from msfl_client.secure_aggregation.secrets import SECRETS_FILE
from msfl_client.secure_aggregation.site_masks import answer_anew, site_masks
from msfl_common.config.site import Policy
from msfl_common.errors import Code, RefusedError
from msfl_common.secure_aggregation.ring import SUMS


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return members_at(tmp_path)


def refused(code: Code, act: Callable[[], object], says: str | None = None) -> None:
    with pytest.raises(RefusedError, match=says) as error:
        act()
    assert error.value.code is code


def test_three_sites_open_a_sum_and_each_gives_the_same_again(members: Members) -> None:
    context = members.context()
    summed = members.summed(context)
    shares = {name: members[name].open(summed.opening(name)) for name in NAMES[:2]}
    opened = summed.open(shares)
    assert opened.false == ()
    assert SUMS.decode(opened.total).shape == (7,)
    assert {name: members[name].open(summed.opening(name)) for name in NAMES[:2]} == shares
    assert members.hidden("bern", context).payload == members.hidden("bern", context).payload


def test_the_key_stays_as_long_as_the_state_is_there(members: Members) -> None:
    masks = members["bern"]
    assert masks.entry().mask_key == masks.entry().mask_key == members.roster.entry("bern").mask_key
    modes = [path.stat().st_mode & 0o777 for path in (masks.folder / SECRETS_FILE, masks.folder, masks.folder.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_a_site_without_a_key_takes_no_part(tmp_path: Path) -> None:
    site = site_at(tmp_path, "bern")
    refused(Code.NO_MASK_KEY, lambda: site_masks(site, STUDY, None, is_simulated=False), "registered key")


def test_a_simulated_site_has_a_key_and_needs_no_person(tmp_path: Path) -> None:
    sites = {name: site_masks(site_at(tmp_path, name), STUDY, None, is_simulated=True) for name in NAMES}
    roster = roster_of([masks.entry() for masks in sites.values()])
    again = site_masks(site_at(tmp_path, "bern"), STUDY, None, is_simulated=True)
    again.take(roster)
    members = Members(tmp_path, {"bern": again}, roster)
    assert members.hidden("bern", members.context()).head.site == "bern"
    assert list(waiting_rosters(again.site.state)) == []
    assert again.registers.read().sent
    assert again.entry().mask_key != roster.entry("bern").mask_key, "another run, and its requests again"
    assert again.registers.read().sent == {}


def test_nothing_is_summed_before_a_person_has_confirmed_the_roster(members: Members) -> None:
    renewed = masks_at(members.root, "oslo")
    shutil.rmtree(renewed.folder)
    roster = roster_of([members.sites["bern"].entry(), members.sites["graz"].entry(), renewed.entry()])
    masks = members["bern"]
    masks.take(roster)
    changed = Members(members.root, members.sites, roster)
    assert roster.digest != members.roster.digest
    refused(Code.ROSTER_UNCONFIRMED, lambda: masks.expect(changed.context(), changed.context().request), roster.digest)
    assert list(waiting_rosters(masks.site.state)) == ["pilot"]
    assert "roster of bern, graz, oslo, waits for a person here" in next(roster_lines(masks.site.state))[1]
    assert masks.expect(members.context(), members.context().request).roster == members.roster, "still confirmed"
    confirm(masks, roster)
    assert masks.expect(changed.context(), changed.context().request).roster == roster
    assert list(waiting_rosters(masks.site.state)) == []
    assert "roster of bern, graz, oslo, confirmed on 2" in next(roster_lines(masks.site.state))[1]


def test_the_roster_that_was_confirmed_last_serves_alone(members: Members) -> None:
    """A site that people have put out of the study must not come back with a roster of before."""
    masks, names = members["bern"], ("bern", "graz", "rome")
    opening, request = members.opening("bern", members.context()), members.context().request
    entries = [one.entry() for one in (masks, members["graz"], masks_at(members.root, "rome"))]
    without = roster_of(entries)
    masks.take(without)
    masks.expect(members.context(), request)  # as nobody has confirmed the new one
    confirm(masks, without)
    changed = Members(members.root, members.sites, without)
    assert masks.expect(changed.context(asked=names), request).roster == without
    for act in (
        lambda: masks.expect(members.context(), request),
        lambda: masks.expect_confirmed(members.roster.digest),
    ):
        refused(Code.ROSTER_UNCONFIRMED, act, "another was confirmed since")
    masks.take(members.roster)
    refused(Code.ROSTER_UNCONFIRMED, lambda: masks.expect(members.context(), request), "confirmed again")
    assert list(waiting_rosters(masks.site.state)) == ["pilot"]
    assert masks.open(opening).damaged == (), "what was sent before may be opened"
    confirm(masks, members.roster)
    assert list(waiting_rosters(masks.site.state)) == []
    assert Rosters(masks.folder).confirmed_before() == without


def test_a_roster_that_does_not_hold_is_not_taken(members: Members, tmp_path: Path) -> None:
    entries = [masks.entry() for masks in members.sites.values()]
    masks = members["bern"]
    mine, *others = entries
    strict = replace(masks, site=site_at(tmp_path, "bern", Policy(min_sites_in_sum=4)))
    other = masked(STUDY.model_copy(update={"name": "other"}))
    cases = {
        "opens sums of 2 sites": (masks, roster_of(entries, min_sites=2), Code.BAD_SUM),
        "by 3 of them": (masks, roster_of(entries, threshold=3), Code.BAD_SUM),
        "of study other": (
            masks,
            roster_of([masks_at(tmp_path, name, study=other).entry() for name in NAMES], other),
            Code.BAD_SUM,
        ),
        "at least 4": (strict, members.roster, Code.POLICY),
        "does not have this site": (masks, roster_of([*others, masks_at(tmp_path, "rome").entry()]), Code.BAD_SUM),
    }
    for says, (taker, roster, code) in cases.items():
        refused(code, lambda taker=taker, roster=roster: taker.take(roster), says)  # type: ignore[misc]
    swapped = masks_at(tmp_path, "bern", study=other).entry().mask_key
    assert swapped != mine.mask_key
    shutil.rmtree(masks.folder)
    masks.entry()
    refused(Code.BAD_SUM, lambda: masks.take(members.roster), "own keys")


def test_a_sum_that_is_not_this_sites_is_refused(members: Members, tmp_path: Path) -> None:
    masks, request = members["bern"], members.context().request
    two = ("bern", "graz")
    (tmp_path / "few").mkdir()
    few = members_at(tmp_path / "few", masked(STUDY, min_sites=2))
    for context, says in (
        (members.context(request="cd" * 32), "another request"),
        (members.context(asked=("graz", "oslo", "rome")), "not in the roster"),
        (members.context(asked=two), "of 2 sites; 3 are needed"),
    ):
        refused(Code.BAD_SUM, lambda context=context: masks.expect(context, request), says)  # type: ignore[misc]
    stricter = replace(few["bern"], site=site_at(tmp_path / "few", "bern", Policy(min_sites_in_sum=3)))
    refused(Code.POLICY, lambda: stricter.expect(few.context(asked=two), request), "at least 3")
    refused(Code.NO_MASK_KEY, lambda: masks.expect(few.context(), request), "not handed out here")


def test_no_second_value_under_one_mask(members: Members) -> None:
    context = members.context()
    members.hidden("bern", context)
    refused(Code.ANSWERED, lambda: members.hidden("bern", context, seed=1), "another value has left")
    assert members.hidden("bern", members.context(attempt=1), seed=1)


@pytest.mark.parametrize("what", ["other members", "another attempt"])
def test_no_second_sum_of_a_request_is_opened(tmp_path: Path, what: str) -> None:
    few = members_at(tmp_path, masked(STUDY, min_sites=2))
    masks = few["bern"]
    first = few.opening("bern", few.context(), NAMES[:2])
    if what == "other members":
        second = few.opening("bern", few.context())
    else:
        second = few.opening("bern", few.context(attempt=1))
    masks.open(first)
    refused(Code.BAD_SUM, lambda: masks.open(second), "was opened already")
    if what == "another attempt":
        return
    third = few.context(attempt=2)
    refused(Code.BAD_SUM, lambda: masks.expect(third, third.request), "not added up once more")
    assert masks.expect(few.context(), third.request), "the same sum may still be asked for"


def test_an_opening_that_does_not_hold(members: Members, tmp_path: Path) -> None:
    masks, context = members["bern"], members.context()
    good = members.opening("bern", context)
    forged = replace(good.heads[1], signature=good.heads[0].signature)
    own = replace(good.heads[0], payload="0" * 64)
    for heads, says in (
        (good.heads[:2], "has 2 sites; 3 are needed"),
        ((good.heads[0], forged, good.heads[2]), "graz has not signed"),
        ((own, *good.heads[1:]), "bern has not signed"),
        ((*good.heads[:2], good.heads[1]), "twice"),
    ):
        refused(Code.BAD_SUM, lambda heads=heads: masks.open(replace(good, heads=heads)), says)  # type: ignore[misc]
    strict = replace(masks, site=site_at(tmp_path, "bern", Policy(min_sites_in_sum=4)))
    refused(Code.POLICY, lambda: strict.open(good), "at least 4")
    assert masks.open(good).damaged == ()


def test_a_box_for_another_site_is_named(members: Members) -> None:
    opening = members.opening("bern", members.context())
    boxes = {**opening.boxes, "oslo": opening.boxes["graz"]}
    assert members["bern"].open(replace(opening, boxes=boxes)).damaged == ("oslo",)


def test_a_state_that_was_set_back_makes_a_new_key(members: Members, tmp_path: Path) -> None:
    masks, backup = members["bern"], tmp_path / "backup"
    members.hidden("bern", members.context())
    shutil.copytree(masks.folder, backup)
    members.hidden("bern", members.context(request="cd" * 32))
    shutil.rmtree(masks.folder)
    shutil.copytree(backup, masks.folder)
    context = members.context(request="ef" * 32)
    refused(Code.NO_MASK_KEY, lambda: masks.expect(context, context.request), "set back")
    refused(Code.NO_MASK_KEY, lambda: masks.open(members.opening("bern", members.context())), "set back")
    assert masks.entry().mask_key != members.roster.entry("bern").mask_key
    refused(Code.NO_MASK_KEY, lambda: masks.expect(context, context.request), "earlier key of this site")
    roster = roster_of([one.entry() for one in members.sites.values()])
    masks.take(roster)
    confirm(masks, roster)
    renewed = Members(members.root, members.sites, roster)
    assert masks.expect(renewed.context(), renewed.context().request)


def test_a_state_that_is_lost_makes_a_new_key(members: Members) -> None:
    masks = members["bern"]
    shutil.rmtree(masks.folder)
    refused(Code.NO_MASK_KEY, lambda: masks.expect(members.context(), members.context().request), "no key for masks")
    assert masks.entry().mask_key == masks.entry().mask_key != members.roster.entry("bern").mask_key


def test_a_crash_between_the_two_writes_is_no_set_back(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, marks = members["bern"], members["bern"].registers.marks
    assert marks is not None
    before = marks.read_bytes()
    members.hidden("bern", members.context())
    marks.write_bytes(before)
    refused(Code.ANSWERED, lambda: members.hidden("bern", members.context(), seed=1))
    assert members.hidden("bern", members.context(request="cd" * 32))
    marks.write_bytes(b"{")
    refused(Code.NO_MASK_KEY, masks.registers.read, "site.key.masks: damaged")


def test_a_register_whose_mark_is_gone_or_anothers_is_no_register(members: Members) -> None:
    masks, marks = members["bern"], members["bern"].registers.marks
    assert marks is not None
    members.hidden("bern", members.context())
    path = masks.folder / register.REGISTER_FILE
    one, mark = path.read_bytes(), marks.read_bytes()
    path.write_bytes(one.replace(members.context().digest.hex().encode(), b"0" * 64))  # as a copy of the state goes on
    refused(Code.NO_MASK_KEY, masks.registers.read, "set back or exchanged")
    path.write_bytes(one)
    assert masks.registers.read().sent
    marks.unlink()
    refused(Code.NO_MASK_KEY, masks.registers.read, "says 0")
    marks.write_bytes(mark)
    path.write_bytes(b"{")
    refused(Code.NO_MASK_KEY, masks.registers.read, "damaged")


def test_a_value_that_this_site_knows_nothing_of_is_not_opened(members: Members) -> None:
    """Where the register and the mark beside the key were both set back."""
    masks, opening = members["bern"], members.opening("bern", members.context())
    assert masks.registers.marks is not None
    masks.registers.marks.unlink()
    (masks.folder / register.REGISTER_FILE).unlink()
    refused(Code.BAD_SUM, lambda: masks.open(opening), "not the one that this site has sent")


def test_a_full_disk_lets_nothing_leave(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = members.opening("bern", members.context())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(register, "write_bytes", full)
    for act in (
        lambda: members.hidden("bern", members.context(request="cd" * 32)),
        lambda: members["bern"].open(opening),
    ):
        with pytest.raises(OSError, match="No space"):
            act()
        with pytest.raises(OSError, match="No space"):
            act()


def test_when_the_study_has_ended_the_key_goes_and_the_last_shares_can_be_given_again(members: Members) -> None:
    masks, opening = members["bern"], members.opening("bern", members.context())
    shares = masks.open(opening)
    masks.end()
    assert not (masks.folder / SECRETS_FILE).exists()
    assert masks.open(opening) == shares
    refused(Code.NO_MASK_KEY, lambda: masks.expect(members.context(), members.context().request))
    assert masks.registers.read().opened == {members.context().request: opening.digest}
    assert Rosters(masks.folder).newest() == members.roster
    assert masks.entry().mask_key != members.roster.entry("bern").mask_key


def test_a_study_that_is_answered_anew_has_a_new_key_and_opens_its_requests_again(members: Members) -> None:
    masks = members["bern"]
    masks.open(members.opening("bern", members.context()))
    answer_anew(masks.site, STUDY.name)
    assert masks.registers.read().opened == {}
    roster = roster_of([one.entry() for one in members.sites.values()])
    assert roster.digest != members.roster.digest
    for one in members.sites.values():
        one.take(roster)
        confirm(one, roster)
    again = Members(members.root, members.sites, roster)
    assert masks.open(again.opening("bern", again.context())).damaged == ()
