"""Shares of a secret."""

from __future__ import annotations

from itertools import combinations

from msfl_common.secure_aggregation.shamir import is_on, join, split

PLACES = [1, 2, 3, 5, 8]


def test_any_three_of_five_tell_the_secret_and_no_two_do() -> None:
    for secret in (bytes(32), b"\xff" * 32, bytes(range(32))):
        shares = split(secret, 3, PLACES, b"seed")
        for group in combinations(PLACES, 3):
            assert join({place: shares[place] for place in group}) == secret
        for group in combinations(PLACES, 2):
            assert join({place: shares[place] for place in group}) != secret


def test_two_shares_fit_every_secret() -> None:
    """What two holders of three needed know: for any other secret there are shares that look the same to them."""
    shares = split(bytes(32), 3, PLACES, b"seed")
    known = {place: shares[place] for place in (1, 2)}
    other = (7).to_bytes(32, "big")
    third = split(other, 1, [3], b"")[3]
    assert join({**known, 3: third}) not in (bytes(32), None)  # a third share makes another secret of them


def test_a_false_share_is_known_by_the_others() -> None:
    shares = split(bytes(range(32)), 3, PLACES, b"seed")
    right = {place: shares[place] for place in (1, 2, 3)}
    assert is_on(right, 5, shares[5])
    assert not is_on(right, 8, shares[5])
    assert not is_on(right, 5, shares[5][:-1] + bytes([shares[5][-1] ^ 1]))


def test_other_seeds_give_other_shares_of_the_same_secret() -> None:
    one, two = split(bytes(32), 3, PLACES, b"one"), split(bytes(32), 3, PLACES, b"two")
    assert not set(one.values()) & set(two.values())
    assert split(bytes(32), 3, PLACES, b"one") == one
