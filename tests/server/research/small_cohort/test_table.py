"""A hospital's own tables, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.common.config.test_clinical_values import SMOKER, TREATMENT, study

from msfl_common.errors import InputError
from msfl_server.research.small_cohort.table import alone_in_groups, read_cases, row_groups


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.tsv"):
        path = tmp_path / name
        path.write_text("\n".join("\t".join(line.split()) for line in text.strip().splitlines()) + "\n")
        return path

    return write


def test_tables_are_joined_by_participant_and_session(write) -> None:
    features = write(
        "participant_id session_id scanner gm wm\n"
        "s1 a X 1 2\n s1 b X 3 4\n s2 a Y 5 6.5e0\n s3 a Y 7 8\n s4 a Y 9 9"
    )  # fmt: skip
    people = write(
        "participant_id age course sex\n s3 40 n/a F\n s2 30 SPMS F\n s1 20 RRMS M\n s9 1 RRMS M\n s4 30 RRMS F",
        "people.tsv",
    )
    cases, left_out = read_cases([people, features], "course", ("RRMS", "SPMS"), {"sex"})
    assert cases.names == ("age", "gm", "wm")
    assert cases.features_NP.tolist() == [[20, 1, 2], [20, 3, 4], [30, 5, 6.5], [30, 9, 9]]
    assert cases.labels_N.tolist() == [0, 0, 1, 0]
    assert cases.patients == ("s1", "s1", "s2", "s4")
    assert left_out == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("participant_id gm y\n s1 1 a\n s1 2 b", "line 3: s1 is on line 2 already"),
        ("participant_id gm y\n s1 1 a\n s2 high b", "line 3, gm: expected a finite number, found 'high'"),
        ("participant_id gm y\n s1 1 a\n s2 n/a b", "line 3, gm: expected a finite number, found 'n/a'"),
        ("participant_id gm y\n s1 1 a\n s2 inf b", "line 3, gm: expected a finite number, found 'inf'"),
        ("participant_id gm y\n s1 1 a\n s2 2 c", "line 3, y: expected a, b or n/a, found 'c'"),
        ("participant_id gm y\n s1 1 a\n s2 2", "line 3: expected 3 cells as in the first line, found 2"),
        ("participant_id gm y\n s1 1 n/a\n s2 2 n/a", "no row has a label in y"),
        ("participant_id gm gm y\n s1 1 1 a", "column gm is there twice"),
        ("participant_id gm\n s1 1", "no column y, the outcome of study.yaml"),
        ("participant_id scanner y\n s1 X a", "no feature beside y"),
        ("subject gm y\n s1 1 a", "no tab-separated column participant_id"),
        ("participant_id gm leak y\n s1 1 7 a\n s2 2 7 a\n s3 2 9 b", "leak: tells y of every case"),
    ],
)
def test_bad_tables_are_refused_in_one_line(write, text, line) -> None:
    with pytest.raises(InputError) as caught:
        read_cases([write(text)], "y", ("a", "b"))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_that_do_not_fit_together(write) -> None:
    one = write("participant_id gm y\n s1 1 a\n s2 2 b")
    with pytest.raises(InputError, match="no row for s2"):
        read_cases([one, write("participant_id wm\n s1 1", "two.tsv")], "y", ("a", "b"))
    with pytest.raises(InputError, match="column gm is in"):
        read_cases([one, write("participant_id gm\n s1 1", "two.tsv")], "y", ("a", "b"))
    for column in ("y", "wm", "participant_id"):
        with pytest.raises(InputError, match=f"--drop {column}: no column of"):
            read_cases([one], "y", ("a", "b"), [column])
    with pytest.raises(InputError, match="no such file; correct its name"):
        read_cases([one.with_name("none.tsv")], "y", ("a", "b"))


def test_groups_are_the_names_up_to_the_separator() -> None:
    assert row_groups(("fa.left", "fa.right", "qt1.left"), ".") == ("fa", "fa", "qt1")
    assert row_groups(("fa.left", "edss", "fa.right", "age"), ".") == ("fa", None, "fa", None)
    assert row_groups(("fa.left", "edss", "fa.right"), None) == ("", None, "")
    assert row_groups(("fa.left", "fa.right"), None) is None
    assert alone_in_groups(("fa.left", "edss", "qt1.left", "fa.right"), ("fa", None, "qt1", "fa")) == ["qt1.left"]
    assert alone_in_groups(("fa.left", "fa.right"), None) == []
    with pytest.raises(InputError, match="no feature has it"):
        row_groups(("fa_left",), ".")
    with pytest.raises(InputError, match="--group-by: expected a text"):
        row_groups(("fa_left",), "")


def test_what_a_study_declares_is_read_by_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "cases.tsv"
    path.write_text(
        "participant_id\tfa\ttreatment\tsmoker\tcourse\nsub-1\t0.4\tinfusion\tyes\tRR\nsub-2\t0.3\tuntreated\tno\tSP\nsub-3\t0.4\tinfusion\tno\tSP\n"
    )
    declared = study(TREATMENT, SMOKER).declared
    cases, _ = read_cases([path], "course", ("RR", "SP"), ["smoker"], declared)
    assert cases.names == ("fa", "treatment_injection", "treatment_infusion")
    assert cases.features_NP.tolist() == [[0.4, 0, 1], [0.3, 0, 0], [0.4, 0, 1]]
    assert row_groups(cases.names, None, declared) == ("", None, None)
    whole = path.read_text()
    path.write_text(whole.replace("infusion", "n/a"))
    with pytest.raises(InputError, match=r"line 2, treatment: expected untreated, .* found n/a; give one, remove the"):
        read_cases([path], "course", ("RR", "SP"), ["smoker"], declared)
    path.write_text(whole.replace("infusion", "Tysabri"))
    with pytest.raises(InputError, match="line 2, treatment: expected untreated, injection, infusion, found 'Tysabri'"):
        read_cases([path], "course", ("RR", "SP"), ["smoker"], declared)
