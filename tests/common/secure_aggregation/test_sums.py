"""The masked sum is the plain one to the bit, whoever is lost and in whatever order values and shares arrive."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tests.common.secure_aggregation.hospitals import (
    RINGS,
    THRESHOLDS,
    hide_all,
    hospitals,
    plain_sum,
    sum_of,
    values_of,
)

from msfl_common.secure_aggregation.coordinator import CannotOpenError
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("num_sites", sorted(THRESHOLDS))
@pytest.mark.parametrize("lost", ["none", "one", "all that may be"])
def test_masked_equals_plain_bit_for_bit(num_sites: int, lost: str, ring: Ring) -> None:
    some, threshold = hospitals(num_sites), THRESHOLDS[num_sites]
    num_lost = {"none": 0, "one": 1, "all that may be": num_sites - threshold}[lost]
    context, chance = some.context(), random.Random(num_sites)
    values = values_of(some.roster.names, ring, num_sites)
    arriving = chance.sample(some.roster.names, num_sites - num_lost)
    hidden = hide_all(some, context, ring, {site: values[site] for site in arriving})
    masked = sum_of(some, context, ring, hidden)
    answering = chance.sample(sorted(hidden), threshold)
    opened = masked.open({site: some.answer(masked.opening(site), site) for site in answering})
    expected = plain_sum([values[site] for site in arriving])
    assert ring.pack(opened.total) == ring.pack(expected)
    assert opened.false == ()
    assert np.array_equal(ring.decode(opened.total), ring.decode(expected))


def test_a_site_that_lost_its_connection_after_sending_stays_in_the_sum() -> None:
    some = hospitals(3)
    context, values = some.context(), values_of(some.roster.names, SUMS, 3)
    masked = sum_of(some, context, SUMS, hide_all(some, context, SUMS, values))
    answering = some.roster.names[1:]  # site-00 does not answer any more
    opened = masked.open({site: some.answer(masked.opening(site), site) for site in answering})
    assert SUMS.pack(opened.total) == SUMS.pack(plain_sum(list(values.values())))


def test_fewer_than_the_threshold_open_nothing() -> None:
    some = hospitals(5)
    context, values = some.context(), values_of(some.roster.names, UPDATES, 5)
    masked = sum_of(some, context, UPDATES, hide_all(some, context, UPDATES, values))
    answers = {site: some.answer(masked.opening(site), site) for site in some.roster.names[:2]}
    with pytest.raises(CannotOpenError, match="2 sites have given their share; it takes 3"):
        masked.open(answers)


def test_the_same_request_gives_the_same_bytes_and_another_one_others() -> None:
    some = hospitals(3)
    context, value = some.context(), UPDATES.encode(np.zeros(500), 3)
    keys = some.keys["site-01"]
    first, again = keys.hide(context, UPDATES, value), keys.hide(context, UPDATES, value)
    other = keys.hide(some.context(request="1" * 64), UPDATES, value)
    assert (first.payload, first.commitments, first.boxes) == (again.payload, again.commitments, again.boxes)
    assert first.payload != other.payload
    assert not set(first.commitments) & set(other.commitments)


@pytest.mark.parametrize("ring", RINGS)
def test_a_value_under_its_masks_looks_like_chance(ring: Ring) -> None:
    """Ones among the bits of 40,000 zeros under masks: a share of one half, within five standard deviations."""
    some = hospitals(3)
    payload = some.keys["site-00"].hide(some.context(), ring, ring.encode(np.zeros(40_000), 3)).payload
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    assert len(payload) == 40_000 * ring.bits // 8
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)


def test_a_single_value_does_not_fall_out_of_its_opened_pair_masks() -> None:
    """A value that arrives late: its masks with the others are opened, its own one is not."""
    some = hospitals(3)
    context, values = some.context(), values_of(some.roster.names, UPDATES, 3)
    hidden = hide_all(some, context, UPDATES, values)
    masked = sum_of(some, context, UPDATES, {site: hidden[site] for site in some.roster.names[:2]})
    answers = {site: some.answer(masked.opening(site), site) for site in some.roster.names}
    assert all(site != "site-02" for shares in answers.values() for site in shares.own)
    assert all(member != "site-02" for shares in answers.values() for member, _ in shares.pairs)
