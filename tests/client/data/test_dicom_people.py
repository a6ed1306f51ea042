"""Who is who: which person and visit a study is of, over imports, and what the tables of the folder then say."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_client.clinical.records import read_clinical
from msfl_client.data.dicom_people import SUBJECTS, Labels, People, Person, Study, label_studies
from msfl_client.data.dicom_tables import VisitFacts, describe_visits
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError


def study(uid: str, date: str, patient: str = "H1", birth: str = "1970-05-06", sex: str = "F", name: str = "") -> Study:
    return Study(uid, date, Person(patient, birth, sex, name))


def label(bids: Path, *studies: Study, people: People = "by-identity") -> Labels:
    bids.mkdir(exist_ok=True)
    return label_studies(bids, studies, people)


def subjects(labels: Labels, *uids: str) -> int:
    return len({labels.of_study[uid][0] for uid in uids})


def describe(bids: Path, labels: Labels) -> list[str]:
    for subject, visit in labels.of_study.values():
        (bids / subject / visit).mkdir(parents=True, exist_ok=True)
    return describe_visits(bids, {key: VisitFacts("F", "50") for key in labels.of_study.values()}, labels.dates)


def sessions(bids: Path, subject: str = "sub-001") -> list[list[str]]:
    return [line.split("\t") for line in (bids / subject / f"{subject}_sessions.tsv").read_text().splitlines()]


def test_one_number_of_several_people_is_told_apart(tmp_path: Path) -> None:
    labels = label(
        tmp_path,
        study("a", "2020-01-01", "ANON", "1970-05-06", "F"),
        study("b", "2020-01-01", "ANON", "1980-05-06", "F"),
        study("c", "2020-01-01", "ANON", "1970-05-06", "M"),
        study("d", "2021-01-01", "ANON", "1970-05-06", "F"),
    )
    assert (subjects(labels, "a", "b", "c"), subjects(labels, "a", "d")) == (3, 1)
    assert labels.of_study["d"][1] == "ses-02"
    assert labels.notes == ["PatientID ANON is 3 people, by birth date, sex or name: sub-001, sub-002, sub-003"]


def test_a_person_stays_one_where_something_is_not_said_or_a_name_changes(tmp_path: Path) -> None:
    labels = label(
        tmp_path,
        study("a", "2020-01-01", name="Quibble^Zenobia"),
        study("b", "2021-01-01", birth="", name="QUIBBLE ZENOBIA"),
        study("c", "2022-01-01", sex=""),
        study("d", "2023-01-01", name="Married^Zeno"),
    )
    assert subjects(labels, "a", "b", "c", "d") == 1
    other = label(tmp_path, study("e", "2023-05-01", birth="", name="Else^Somebody"))
    assert other.of_study["e"][0] != labels.of_study["a"][0]


def test_where_nothing_tells_who_it_is_nobody_is_made_up(tmp_path: Path) -> None:
    nobodies = [study(uid, f"202{uid}-01-01", "anonymous", "", "", "Anonymized") for uid in "123"]
    labels = label(tmp_path, *nobodies)
    assert labels.of_study == {}
    assert "PatientID anonymous without birth date and name stands for 3 studies" in labels.questions["1"]
    assert not (tmp_path / SUBJECTS).exists()
    assert subjects(label(tmp_path / "one", *nobodies, people="by-patient-id"), *"123") == 1
    assert subjects(label(tmp_path / "three", *nobodies, people="by-study"), *"123") == 3
    alone = label(tmp_path / "alone", nobodies[0])
    assert alone.of_study == {"1": ("sub-001", "ses-01")}
    assert list(label(tmp_path / "alone", *nobodies).questions) == ["2", "3"]


def test_a_made_up_birth_date_confirms_nobody(tmp_path: Path) -> None:
    labels = label(tmp_path, *(study(uid, f"202{uid}-01-01", "ANON", "1900-01-01", name="") for uid in "12"))
    assert (len(labels.of_study), list(labels.questions.values())) == (
        1,
        ["PatientID ANON: it may be of sub-001 or of somebody else; say `people` in a rules file"],
    )


def test_one_study_of_several_people_is_in_question(tmp_path: Path) -> None:
    labels = label(tmp_path, study("a", "2020-01-01"), study("a", "2020-01-01", "H2"), study("b", "2020-01-01", "H3"))
    assert labels.questions == {"a": "its StudyInstanceUID is given to several people"}
    assert list(labels.of_study) == ["b"]
    later = label(tmp_path, study("b", "2020-01-01", "H3", "1950-01-02"))
    assert "under another person, sub-001" in later.questions["b"]


def test_a_study_over_midnight_is_a_visit_and_so_are_two_of_a_day(tmp_path: Path) -> None:
    """A study's day is the one it began on (see `study_of`), so its number alone decides."""
    labels = label(tmp_path, study("a", "2020-01-01"), study("b", "2020-01-01"), study("c", "2020-01-02"))
    assert [labels.of_study[uid][1] for uid in "abc"] == ["ses-01", "ses-01", "ses-02"]
    assert labels.notes == ["sub-001 ses-01 holds 2 studies of one day"]
    again = label(tmp_path, study("a", "2020-01-03"))
    assert again.of_study["a"][1] == "ses-01"


def test_a_table_of_an_earlier_version_is_read_and_renewed(tmp_path: Path) -> None:
    table = tmp_path / SUBJECTS
    table.parent.mkdir()
    rows = ["sub-001\tses-01\tH1\t2019-01-01", "sub-002\tses-01\tH_2\t2019-01-01", "sub-009\tses-01\tANON\t2019-01-01"]
    table.write_text("\n".join(["participant_id\tsession_id\tpatient\tdate", *rows]) + "\n")
    labels = label(
        tmp_path,
        study("a", "2019-01-01"),
        study("b", "2021-01-01"),
        study("c", "2020-01-01", "H 2"),
        study("d", "2020-01-01", "ANON"),
    )
    assert labels.of_study == {"a": ("sub-001", "ses-01"), "b": ("sub-001", "ses-02"), "c": ("sub-002", "ses-02")}
    assert "an earlier version took PatientID ANON for one person, sub-009" in labels.questions["d"]
    lines = table.read_text().splitlines()
    assert lines[0] == "participant_id\tsession_id\tpatient\tdate\tbirth_date\tsex\tname\tstudy"
    assert lines[1] == "sub-001\tses-01\tH1\t2019-01-01\t1970-05-06\tF\t\ta"
    assert len(lines) == 6
    assert label(tmp_path, study("b", "2021-01-01")).of_study == {"b": ("sub-001", "ses-02")}


@pytest.mark.parametrize("text", ["", "participant_id\tsession_id\nsub-001\tses-01\n", "\xff\xfe\0\n"])
def test_a_damaged_table_of_subjects_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / SUBJECTS).parent.mkdir()
    (tmp_path / SUBJECTS).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"subjects\.tsv: .*restore it from a backup"):
        label(tmp_path, study("a", "2020-01-01"))


def test_days_are_from_the_first_visit_and_reach_the_clinical_tables(tmp_path: Path) -> None:
    describe(tmp_path, label(tmp_path, study("a", "2020-01-11"), study("b", "2020-07-29")))
    assert sessions(tmp_path) == [["session_id", "age", "days"], ["ses-01", "50", "0"], ["ses-02", "50", "200"]]
    describe(tmp_path, label(tmp_path, study("c", "2020-01-01")))  # an earlier one, imported later
    assert [row[::2] for row in sessions(tmp_path)[1:]] == [["ses-03", "0"], ["ses-01", "10"], ["ses-02", "210"]]
    patient = read_clinical(SiteConfig(name="here", data=(tmp_path,), state=tmp_path), ["age"]).patients[0, "sub-001"]
    assert [(visit.visit_id, visit.days) for visit in patient.visits] == [
        ("ses-03", 0.0), ("ses-01", 10.0), ("ses-02", 210.0)
    ]  # fmt: skip


def test_a_table_with_more_of_the_site_keeps_it_and_its_own_day_0(tmp_path: Path) -> None:
    labels = label(tmp_path, study("a", "2020-01-11"))
    describe(tmp_path, labels)
    table = tmp_path / "sub-001" / "sub-001_sessions.tsv"
    table.write_text("session_id\tage\tdays\tedss\nses-00\tn/a\t0\t2.0\nses-01\t50\t30\t2.5\n")
    assert describe(tmp_path, label(tmp_path, study("b", "2020-01-21"))) == []
    assert sessions(tmp_path)[1:] == [
        ["ses-00", "n/a", "0", "2.0"],
        ["ses-01", "50", "30", "2.5"],
        ["ses-02", "50", "40", "n/a"],
    ]
    table.write_text("session_id\tdate\nses-01\t2020-01-11\n")
    notes = describe(tmp_path, label(tmp_path, study("b", "2020-01-21")))
    assert notes == [f"{table}: add date of ses-02; the table has days in its own way"]
    assert table.read_text() == "session_id\tdate\nses-01\t2020-01-11\nses-02\tn/a\n"
    table.write_text("")
    describe(tmp_path, label(tmp_path, study("a", "2020-01-11")))
    assert sessions(tmp_path) == [["session_id", "age", "days"], ["ses-01", "50", "0"]]
