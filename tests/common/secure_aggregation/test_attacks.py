"""What a coordinator or a site could do that does not keep to the protocol: each is refused by name."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import pytest
from tests.common.secure_aggregation.hospitals import STUDY, hide_all, hospitals, plain_sum, sum_of, values_of

from msfl_common.errors import UpdateError
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.coordinator import CannotOpenError, MaskedSum
from msfl_common.secure_aggregation.ring import UPDATES
from msfl_common.secure_aggregation.roster import make_roster
from msfl_common.secure_aggregation.shamir import SHARE_BYTES
from msfl_common.secure_aggregation.site import Opening, expect_context, expect_opening

FIVE = hospitals(5)
CONTEXT = FIVE.context()
VALUES = values_of(FIVE.roster.names, UPDATES, 5)
HIDDEN = hide_all(FIVE, CONTEXT, UPDATES, VALUES)
A, B, C, D, E = FIVE.roster.names


def refused(opening: Opening, site: str, message: str) -> None:
    with pytest.raises(UpdateError, match=message):
        expect_opening(FIVE.roster, opening, site, earlier=None)


def test_a_sum_below_the_minimum_is_not_opened() -> None:
    opening = sum_of(FIVE, CONTEXT, UPDATES, {site: HIDDEN[site] for site in (A, B)}).opening(A)
    refused(opening, A, "the sum has 2 sites; 3 are needed")


def test_a_sum_that_is_asked_of_too_few_is_not_even_answered() -> None:
    with pytest.raises(UpdateError, match="the sum is of 2 sites; 3 are needed"):
        expect_context(FIVE.roster, FIVE.context([A, B]), A)


def test_sybils_are_no_members() -> None:
    with pytest.raises(UpdateError, match="not in the roster: sybil-1, sybil-2"):
        expect_context(FIVE.roster, FIVE.context([A, "sybil-1", "sybil-2"]), A)


def test_the_minimum_holds_where_it_is_more_than_opens_a_sum() -> None:
    roster = make_roster(STUDY, FIVE.roster.sites, 3, 4)
    context = Context(roster=roster.digest, request="0" * 64, asked=roster.names)
    keys = {site: replace(FIVE.keys[site], roster=roster) for site in roster.names}
    masked = MaskedSum(roster, context, UPDATES, 70)
    for site in (A, B, C):
        masked.take(site, keys[site].hide(context, UPDATES, VALUES[site]))
    with pytest.raises(UpdateError, match="the sum has 3 sites; 4 are needed"):
        expect_opening(roster, masked.opening(A), A, earlier=None)
    with pytest.raises(UpdateError, match="the sum is of 3 sites; 4 are needed"):
        expect_context(roster, context.model_copy(update={"asked": (A, B, C)}), A)


def test_an_opening_is_of_a_sum_that_a_site_takes_part_in() -> None:
    whole = sum_of(FIVE, CONTEXT, UPDATES, HIDDEN).opening(A)
    refused(replace(whole, context=hospitals(3).context()), A, "another roster")
    refused(whole, "site-09", "not one of this site's")
    refused(replace(whole, heads=whole.heads[::-1]), A, "out of order")


def test_another_roster_than_the_confirmed_one_is_refused() -> None:
    other = hospitals(3)
    with pytest.raises(UpdateError, match="another roster"):
        expect_context(FIVE.roster, other.context(), A)


def test_a_site_cannot_be_asked_for_a_sum_without_it() -> None:
    with pytest.raises(UpdateError, match="not one of this site's"):
        expect_context(FIVE.roster, FIVE.context([A, B, C]), D)


def test_members_cannot_be_made_up() -> None:
    """Heads that nobody signed, that are of another sum, or one head twice."""
    whole = sum_of(FIVE, CONTEXT, UPDATES, HIDDEN).opening(A)
    forged = replace(whole.heads[2], signature=whole.heads[1].signature)
    refused(replace(whole, heads=(*whole.heads[:2], forged)), A, f"{C} has not signed")
    other = FIVE.context(request="1" * 64)
    replayed = sum_of(FIVE, other, UPDATES, hide_all(FIVE, other, UPDATES, VALUES)).opening(A).heads
    refused(replace(whole, heads=replayed), A, "has not signed")
    refused(replace(whole, heads=(whole.heads[0],) * 3), A, "stands twice")
    renamed = replace(whole.heads[2], site=D)
    refused(replace(whole, heads=(*whole.heads[:2], renamed)), A, f"{D} has not signed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"payload": bytes(420)}, "not the one that it has signed"),
        ({"commitments": HIDDEN[B].commitments}, "not those that it has signed"),
        ({"commitments": HIDDEN[A].commitments[:4]}, "a commitment for each"),
        ({"boxes": HIDDEN[B].boxes}, "a box of shares for each other"),
        ({"boxes": dict.fromkeys((B, C, D, E), b"")}, "a box of shares for each other"),
        ({"head": HIDDEN[B].head}, "not signed by the site"),
        ({"head": replace(HIDDEN[A].head, payload="0" * 64)}, "not signed by the site"),
    ],
)
def test_a_value_that_is_not_what_was_signed_is_refused(change: dict[str, object], message: str) -> None:
    masked = sum_of(FIVE, CONTEXT, UPDATES, {})
    with pytest.raises(UpdateError, match=message):
        masked.take(A, replace(HIDDEN[A], **change))  # type: ignore[arg-type]
    assert not masked.total.any()
    assert masked.heads == {}


def test_a_value_counts_once_and_fits_its_sum() -> None:
    masked = sum_of(FIVE, CONTEXT, UPDATES, {A: HIDDEN[A]})
    with pytest.raises(UpdateError, match="in the sum already"):
        masked.take(A, HIDDEN[A])
    with pytest.raises(UpdateError, match="bytes for 71 numbers"):
        sum_of(FIVE, CONTEXT, UPDATES, {A: HIDDEN[A]}, length=71)
    other = FIVE.keys[B].hide(FIVE.context(request="1" * 64), UPDATES, VALUES[B])
    with pytest.raises(UpdateError, match="not signed by the site, for this sum"):
        masked.take(B, other)


def test_a_site_with_another_seed_than_it_has_agreed_on_is_named() -> None:
    liar = replace(FIVE.keys[B])
    object.__setattr__(liar, "mask_key", hospitals(3).keys["site-01"].mask_key)
    with pytest.raises(UpdateError, match=f"it and {A} do not commit"):
        sum_of(FIVE, CONTEXT, UPDATES, {A: HIDDEN[A], B: liar.hide(CONTEXT, UPDATES, VALUES[B])})


def test_a_false_share_is_named_and_the_sum_is_opened_without_it() -> None:
    masked = sum_of(FIVE, CONTEXT, UPDATES, HIDDEN)
    answers = {site: FIVE.answer(masked.opening(site), site) for site in (A, B, C, D)}
    lie = answers[A].own[C][:-1] + bytes([answers[A].own[C][-1] ^ 1])
    false = replace(answers[A], own={**answers[A].own, C: lie})
    opened = masked.open({**answers, A: false})
    assert opened.false == (A,)
    assert UPDATES.pack(opened.total) == UPDATES.pack(plain_sum(list(VALUES.values())))
    with pytest.raises(CannotOpenError, match=f"what {C} has masked its value with do not fit"):
        masked.open({A: false, B: answers[B], C: answers[C]})


def test_a_request_is_opened_once_whatever_was_attempted() -> None:
    """Else the sum of all, less that of all but one in a second attempt, is the last one's value."""
    whole = sum_of(FIVE, CONTEXT, UPDATES, HIDDEN).opening(A)
    expect_opening(FIVE.roster, whole, A, earlier=whole.digest)
    again = CONTEXT.model_copy(update={"attempt": 1})
    four = {site: FIVE.keys[site].hide(again, UPDATES, VALUES[site]) for site in (A, B, C, D)}
    for other in (sum_of(FIVE, again, UPDATES, four).opening(A), replace(whole, heads=whole.heads[:4])):
        expect_opening(FIVE.roster, other, A, earlier=None)
        with pytest.raises(UpdateError, match="opened already"):
            expect_opening(FIVE.roster, other, A, earlier=whole.digest)


def test_a_site_takes_part_with_its_own_keys_alone() -> None:
    for change in ({"mask_key": FIVE.keys[B].mask_key}, {"site_key": FIVE.keys[B].site_key}, {"site": "site-09"}):
        with pytest.raises(UpdateError, match="not have this site with its own keys"):
            replace(FIVE.keys[A], **change)
    with pytest.raises(UpdateError, match="32 bytes, found 0"):
        replace(FIVE.keys[A], secret=b"")


def test_what_two_sites_share_is_of_the_two_by_name() -> None:
    """A seed that is opened, as a site has fallen out, is that of no other pair whatever its mask key."""
    seeds = FIVE.keys[A]._pair_seeds(CONTEXT)
    assert seeds[B] == FIVE.keys[B]._pair_seeds(CONTEXT)[A]
    twin = copy(FIVE.roster)
    object.__setattr__(twin, "entry", lambda _: FIVE.roster.entry(B))  # all of them under the same key
    keys = copy(FIVE.keys[A])
    object.__setattr__(keys, "roster", twin)
    assert len(set(keys._pair_seeds(CONTEXT).values())) == 4


@pytest.mark.parametrize("share", [b"", b"\xff" * SHARE_BYTES, bytes(SHARE_BYTES), b"\xff" * 40])
def test_shares_out_of_the_field_are_false_ones(share: bytes) -> None:
    masked = sum_of(FIVE, CONTEXT, UPDATES, HIDDEN)
    answers = {site: FIVE.answer(masked.opening(site), site) for site in FIVE.roster.names}
    opened = masked.open({**answers, A: replace(answers[A], own={**answers[A].own, C: share})})
    assert opened.false == (A,)


def test_a_box_that_was_exchanged_or_damaged_is_said_and_gives_no_share() -> None:
    opening = sum_of(FIVE, CONTEXT, UPDATES, HIDDEN).opening(A)
    for box in (opening.boxes[C], bytes(len(opening.boxes[B])), b"", opening.boxes[B][:-1]):
        shares = FIVE.keys[A].shares_for(replace(opening, boxes={**opening.boxes, B: box}))
        assert shares.damaged == (B,)
        assert B not in shares.own
    missing = {site: box for site, box in opening.boxes.items() if site != B}
    assert FIVE.keys[A].shares_for(replace(opening, boxes=missing)).damaged == (B,)


def test_an_answer_to_an_opening_holds_no_seed_and_nothing_of_the_lost_ones_own() -> None:
    masked = sum_of(FIVE, CONTEXT, UPDATES, {site: HIDDEN[site] for site in (A, B, C)})
    shares = FIVE.answer(masked.opening(A), A)
    assert sorted(shares.own) == [A, B, C]
    assert sorted(shares.pairs) == [(member, lost) for member in (A, B, C) for lost in (D, E)]
    given = {*shares.own.values(), *shares.pairs.values()}
    keys = FIVE.keys[A]
    seeds = {keys._own_seed(CONTEXT), *keys._pair_seeds(CONTEXT).values()}
    assert not any(seed in share for seed in seeds for share in given)


def test_one_colluder_of_five_shows_two_views_where_three_open_a_sum() -> None:
    """Each honest site opens one sum; with the colluder's shares, which it gives twice, both are open."""

    def opened(members: list[str], asked: list[str]) -> MaskedSum:
        masked = sum_of(FIVE, CONTEXT, UPDATES, {site: HIDDEN[site] for site in members})
        masked.total = masked.open({site: FIVE.answer(masked.opening(site), site) for site in asked}).total
        return masked

    whole, without = opened([A, B, C, D, E], [A, B, E]), opened([A, B, C, E], [C, D, E])
    assert UPDATES.pack(whole.total - without.total) == UPDATES.pack(VALUES[D])
    assert FIVE.roster.fewest_colluders == 1, "so `msfl-client roster` says it"


@pytest.mark.parametrize(
    ("num_sites", "threshold", "min_sites", "fewest"),
    [
        (3, 2, 2, 1),
        (3, 2, 3, 2),
        (5, 3, 3, 1),
        (5, 3, 5, 4),
        (5, 4, 3, 3),
        (10, 6, 3, 2),
        (10, 7, 3, 4),
        (30, 16, 3, 2),
    ],
)
def test_so_many_colluders_open_a_site(num_sites: int, threshold: int, min_sites: int, fewest: int) -> None:
    roster = hospitals(num_sites).roster.model_copy(update={"threshold": threshold, "min_sites": min_sites})
    assert roster.fewest_colluders == fewest
