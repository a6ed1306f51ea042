"""A roster that was tampered with is none; its digest is what people compare."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError
from tests.common.secure_aggregation.hospitals import STUDY, entry_of, hospitals

from msfl_common.secure_aggregation.roster import Entry, Roster, make_roster, sign_mask_key


def entries(number: int = 4) -> list[Entry]:
    return list(hospitals(5).roster.sites[:number])


def test_a_roster_is_in_order_and_says_where_each_stands() -> None:
    roster = make_roster(STUDY, entries()[::-1], 3, 2)
    assert roster.names == ("site-00", "site-01", "site-02", "site-03")
    assert [roster.place(name) for name in roster.names] == [1, 2, 3, 4]
    assert Roster.model_validate_json(roster.model_dump_json()).digest == roster.digest
    with pytest.raises(KeyError):
        roster.place("site-09")


def test_another_key_threshold_study_or_site_is_another_digest() -> None:
    first = make_roster(STUDY, entries(), 3, 2)
    new = entry_of("site-03", ec.generate_private_key(ec.SECP384R1()), X25519PrivateKey.generate())
    others = [
        make_roster(STUDY, [*entries(3), new], 3, 2),
        make_roster(STUDY, entries(), 4, 2),
        make_roster(STUDY, entries(), 3, 3),
        make_roster(STUDY, entries(3), 3, 2),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_key": "2b" * 32}, "not signed by its registered key"),
        ({"site": "site-02b"}, "not signed by its registered key"),
        ({"signature": ""}, "not signed by its registered key"),
        ({"site_key": "ssh-ed25519 AAAA"}, "not signed by its registered key"),
        ({"site": "site-01"}, "each site once"),
    ],
)
def test_a_changed_entry_is_refused(change: dict[str, str], message: str) -> None:
    changed = entries()[2].model_copy(update=change)
    with pytest.raises(ValidationError, match=message):
        make_roster(STUDY, [*entries(2), changed], 2, 2)


def test_one_key_under_two_names_is_refused() -> None:
    site_key, mask_key = ec.generate_private_key(ec.SECP384R1()), X25519PrivateKey.generate()
    twice = [entry_of("a", site_key, mask_key), entry_of("b", site_key, X25519PrivateKey.generate())]
    with pytest.raises(ValidationError, match="one twice"):
        make_roster(STUDY, [*entries(2), *twice], 3, 2)
    same_mask = [entry_of(name, ec.generate_private_key(ec.SECP384R1()), mask_key) for name in "ab"]
    with pytest.raises(ValidationError, match="one twice"):
        make_roster(STUDY, [*entries(2), *same_mask], 3, 2)


def test_one_key_in_two_spellings_is_refused() -> None:
    """X25519 leaves out bit 255: a site that falls out under a second spelling would have the first's pairs opened."""
    site_key = ec.generate_private_key(ec.SECP384R1())
    raw = bytes.fromhex(entries()[0].mask_key)
    for spelling in (raw[:31] + bytes([raw[31] | 0x80]), (2**255 - 19 + 9).to_bytes(32, "little")):
        with pytest.raises(ValidationError, match="mask key of z is none"):
            make_roster(STUDY, [*entries(3), sign_mask_key(site_key, STUDY, "z", spelling)], 3, 2)
    remark = entry_of("z", site_key, X25519PrivateKey.generate())
    same = entry_of("y", site_key, X25519PrivateKey.generate()).model_copy(update={"site_key": f"{remark.site_key} y"})
    with pytest.raises(ValidationError, match="one twice"):
        make_roster(STUDY, [*entries(2), same, remark], 3, 2)


@pytest.mark.parametrize("number", [0, 1, 2**255 - 20])
def test_a_key_of_small_order_is_refused(number: int) -> None:
    entry = sign_mask_key(ec.generate_private_key(ec.SECP384R1()), STUDY, "z", number.to_bytes(32, "little"))
    with pytest.raises(ValidationError, match="mask key of z is none"):
        make_roster(STUDY, [*entries(3), entry], 3, 2)


def test_an_entry_of_another_study_is_refused() -> None:
    other = entry_of("site-03", ec.generate_private_key(ec.SECP384R1()), X25519PrivateKey.generate(), study="another")
    with pytest.raises(ValidationError, match="not signed"):
        make_roster(STUDY, [*entries(3), other], 3, 2)


@pytest.mark.parametrize(("threshold", "min_sites"), [(2, 2), (0, 2), (5, 2), (3, 1), (3, 5)])
def test_thresholds_that_cannot_hold_are_refused_with_those_that_do(threshold: int, min_sites: int) -> None:
    with pytest.raises(ValidationError, match=r"it takes (3|2) to 4"):
        make_roster(STUDY, entries(), threshold, min_sites)


def test_two_sites_are_too_few() -> None:
    with pytest.raises(ValidationError):
        make_roster(STUDY, entries(2), 2, 2)
