"""What a curious coordinator gets from surveys at different times, of different studies: no number of few patients."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from msfl_client.disclosure.survey_record import Record, read_record
from msfl_common.errors import RefusedError

FLOOR = 5


def people(number: int, first: int = 0) -> frozenset[str]:
    return frozenset(f"sub-{one}" for one in range(first, first + number))


def told(path: Path, *surveys: frozenset[str], floor: int = FLOOR) -> list[int]:
    """The number of one cell in each survey, the record being kept in between."""
    numbers = []
    for patients in surveys:
        found, record = read_record(path).tell({"age": [patients]}, floor)
        record.keep()
        numbers += found["age"]
    return numbers


def test_one_patient_who_comes_or_goes_is_not_seen_at_any_edge(tmp_path: Path) -> None:
    """With 14 told as 10, the fifteenth would make it 15: so it stays 10, and 9 after 10 would tell of one who left."""
    assert told(tmp_path / "comes", people(14), people(15), people(14)) == [10, 10, 10]
    assert told(tmp_path / "goes", people(15), people(14)) == [15, 15]
    assert told(tmp_path / "changes", people(15), people(15, first=1)) == [15, 15]


def test_a_number_is_told_anew_when_as_many_as_the_floor_have_come(tmp_path: Path) -> None:
    assert told(tmp_path, people(12), people(16), people(17)) == [10, 10, 15]


def test_patients_who_trickle_in_are_held_against_every_number_told_before(tmp_path: Path) -> None:
    """Of 10, 15 and 11: the last differs from the second by four, and from the first by one."""
    assert told(tmp_path, people(10), people(15), people(11), people(10)) == [10, 15, 15, 10]


def test_patients_whose_folders_were_renamed_are_nobody_new(tmp_path: Path) -> None:
    """Of 14 under other names, or in folders of another order, a fifteenth is in no difference either."""
    renamed = {number: frozenset(f"data-1_{one}" for one in people(number)) for number in (14, 15, 19)}
    assert told(tmp_path / "comes", people(14), renamed[15], renamed[14]) == [10, 10, 10]
    assert told(tmp_path / "goes", people(15), renamed[14]) == [15, 15]
    assert told(tmp_path / "many", people(14), renamed[19]) == [10, 15]
    assert told(tmp_path / "back", people(14), renamed[14], people(15)) == [10, 10, 10]


def test_no_part_grows_beyond_all(tmp_path: Path) -> None:
    """With all of 15 still told as 10, an age known of 15 would tell of the one who came."""

    def survey(everyone: frozenset[str], aged: frozenset[str]) -> dict[str, list[int]]:
        numbers, record = read_record(tmp_path).tell({"patients": [everyone], "age": [aged]}, FLOOR)
        record.keep()
        return numbers

    assert survey(people(14), frozenset()) == {"patients": [10], "age": [0]}
    assert survey(people(15), people(15)) == {"patients": [10], "age": [0]}
    assert survey(people(19), people(17)) == {"patients": [15], "age": [15]}


def test_no_other_floor_narrows_a_number(tmp_path: Path) -> None:
    """Multiples of 5, 6 and 7 would meet in one number: that of the same people stays as it was told."""
    for floor in (5, 6, 7, 8):
        assert told(tmp_path, people(23), floor=floor) == [20]


def test_a_record_that_cannot_be_read_is_not_told_around(tmp_path: Path) -> None:
    told(tmp_path, people(10))
    path = tmp_path / "survey" / "told.encrypted"
    for damage in (b"{", path.read_bytes()[:-1]):
        path.write_bytes(damage)
        with pytest.raises(RefusedError, match="cannot be read"):
            read_record(tmp_path)


def test_nobody_is_found_in_the_record_by_trying_names_without_the_key(tmp_path: Path) -> None:
    told(tmp_path, people(10))
    digest = hashlib.sha256(b"sub-3").hexdigest()[:16]
    assert not any(digest.encode() in one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
    (tmp_path / "account.key").unlink()
    with pytest.raises(RefusedError, match=r"account\.key: .* is not there"):
        read_record(tmp_path)


def test_what_an_earlier_version_told_is_encrypted_and_goes_on(tmp_path: Path) -> None:
    digests = sorted(hashlib.sha256(one.encode()).hexdigest()[:16] for one in people(14))
    (tmp_path / "survey").mkdir(mode=0o700)
    former = tmp_path / "survey" / "told.json"
    former.write_text(json.dumps({"age/0": [{"number": 10, "patients": digests}]}))
    assert told(tmp_path, people(15)) == [10]
    assert [one.name for one in (tmp_path / "survey").iterdir()] == ["told.encrypted"]
    former.write_text("{}")
    os.utime(former, ns=(1, 1))  # as where the first reading was cut short before it was removed
    assert (told(tmp_path, people(15)), former.exists()) == ([10], False)
    former.write_text("{}")
    os.utime(former, (2**31, 2**31))
    with pytest.raises(RefusedError, match="an earlier version of MSFL told numbers here"):
        read_record(tmp_path)


def test_what_is_told_again_is_not_new(tmp_path: Path) -> None:
    _, record = Record(tmp_path / "survey" / "told.encrypted", {}).tell({"age": [people(10)]}, FLOOR)
    assert record.is_new
    _, again = Record(record.path, record.told).tell({"age": [people(11)]}, FLOOR)
    assert not again.is_new


def test_a_table_that_is_new_tells_nothing_of_who_came_since(tmp_path: Path) -> None:
    """Nine were told as 5; with ten, who would still be told as 5, a first table of all of them would say 10."""

    def survey(**cells: frozenset[str]) -> dict[str, list[int]]:
        numbers, record = read_record(tmp_path).tell({table: [members] for table, members in cells.items()}, FLOOR)
        record.keep()
        return numbers

    assert survey(patients=people(9)) == {"patients": [5]}
    assert survey(patients=people(10), voxel=people(10)) == {"patients": [5], "voxel": [0]}
    assert survey(patients=people(15), voxel=people(15)) == {"patients": [15], "voxel": [15]}
