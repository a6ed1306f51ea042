"""Tables as BIDS has them, and files that only look like one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from msfl_common.errors import InputError
from msfl_common.system.tab_separated import number_of, read_tsv, tsv_text


def written(folder: Path, content: bytes) -> Path:
    path = folder / "participants.tsv"
    path.write_bytes(content)
    return path


def test_a_quotation_mark_is_a_character_and_swallows_nothing(tmp_path: Path) -> None:
    lines = b"".join(b"sub-%02d\t%s\tx\n" % (n, b'"fell' if n == 2 else b"fine") for n in range(1, 41))
    table = read_tsv(written(tmp_path, b"participant_id\tnote\tend\n" + lines))
    assert len(table.lines) == 40
    assert table.lines[1].cells == ("sub-02", '"fell', "x")
    assert table.lines[39].number == 41


def test_what_spreadsheets_add_is_taken_off(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfParticipant_ID\tAge \t\r\n\r\nsub-01\t 40\t\r\n\t\t\r\nsub-02\t41\t\r\n"
    table = read_tsv(written(tmp_path, content), ["participant_id", "age"])
    assert table.columns == ("participant_id", "age", "")
    assert [(line.number, line.cells[:2]) for line in table.lines] == [(3, ("sub-01", "40")), (5, ("sub-02", "41"))]
    assert read_tsv(written(tmp_path, b"A\tb\r1\t2\r"), any_case=False).whole_rows() == [(2, {"A": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("participant_id\tage\n".encode("utf-16"), "line 1: cannot be read as text: it is UTF-16, as spreadsheets"),
        ("participant_id\tage\n".encode("utf-16-le"), "line 1: cannot be read as text: it is UTF-16, or damaged"),
        (b"PK\x03\x04rest", "it is a spreadsheet's own file"),
        (b"participant_id\tage\n1\t2\nM\xfcller\t3\n", "line 3: cannot be read as text \\(byte 0xfc is not UTF-8"),
        (b"participant_id;age\n1;2\n", "line 1: no tab-separated column participant_id; .* separated by semicolons"),
        (b"participant_id,age\n1,2\n", "separated by commas: save it as tab-separated UTF-8"),
        (b'"participant_id"\t"age"\n', "BIDS tables have no quotation marks: save it without them"),
        (b"id\tage\n", "no tab-separated column participant_id; add it to the first line"),
        (b"participant_id\tage\tAge\n", "column age is there twice"),
        (b"", "no tab-separated column participant_id"),
    ],
)
def test_another_file_is_named_with_its_fix(tmp_path: Path, content: bytes, expected: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=expected) as caught:
        read_tsv(path, ["participant_id"])
    assert str(caught.value).startswith(f"{path}: ")


def test_a_line_of_another_length_is_no_row(tmp_path: Path) -> None:
    table = read_tsv(written(tmp_path, b"a\tb\n1\t2\n3\n4\t5\t6\n"))
    assert table.whole_rows() == [(2, {"a": "1", "b": "2"})]
    with pytest.raises(InputError, match="line 3: expected 2 cells as in the first line, found 1"):
        table.check_lengths()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, tsv_text([["a", "b"], ['3" "coil"', "two\tcells\nhere"]]).encode())
    assert read_tsv(path).whole_rows() == [(2, {"a": '3" "coil"', "b": "two cells here"})]


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("-.5", -0.5), ("5.", 5), ("+1e-3", 0.001), ("2E2", 200)])
def test_a_cell_states_a_number_in_digits(text: str, value: float) -> None:
    assert number_of(text) == value


@pytest.mark.parametrize("text", ["1_0", "\u0663", "inf", "nan", "1e999", "", "5,3", "0x5", "5 points"])
def test_what_python_alone_takes_for_a_number_is_none(text: str) -> None:
    assert math.isnan(number_of(text))
