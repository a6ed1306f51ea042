"""Reading of clinical tables: where values come from, and that a fault costs one patient and names its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.clinical_site import Line, Tables

from msfl_client.clinical.records import Patient, read_clinical
from msfl_common.errors import InputError

HEADER = ("participant_id", "session_id", "days", "edss", "fs_visual", "fs_ambulation")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "bids")


def read(tables: Tables, *columns: str) -> Patient:
    records = read_clinical([tables.root], columns or ("edss", "fs_visual", "fs_ambulation", "age"))
    assert not records.left_out
    return records.patients[0, "sub-01"]


def test_visits_come_together_from_three_places(tables: Tables) -> None:
    tables.participants(("participant_id", "Age", "sex", "edss", "disease_duration"), ("01", 40, "F", 3, 5.5))
    tables.sessions("sub-01", ("session_id", "days_from_baseline", "edss"), ("ses-01", 0, "n/a"), ("02", 365.25, 2.0))
    tables.edss(HEADER, ("01", "ses-02", "n/a", 2.0, 1, 0), ("01", "n/a", 0, "n/a", 2, 0), ("01", "", 400, 4, 6, 12))
    patient = read(tables, "edss", "fs_visual", "age", "sex", "disease_duration")
    assert [visit.visit_id for visit in patient.visits] == ["ses-01", "ses-02", None]
    assert [visit.days for visit in patient.visits] == [0, 365.25, 400]
    first, second, third = (visit.values for visit in patient.visits)
    assert first == {"edss": 3, "fs_visual": 2, "age": 40, "sex": 0, "disease_duration": 5.5}
    assert second == {"edss": 2, "fs_visual": 1, "age": 41, "sex": 0, "disease_duration": 6.5}
    assert third["age"] == pytest.approx(40 + 400 / 365.25)
    assert (third["edss"], third["fs_visual"]) == (4, 6)


def test_dates_count_from_the_first_session(tables: Tables) -> None:
    tables.sessions("sub-01", ("session_id", "acq_time"), ("ses-01", "2020-01-01T08:30:00"), ("ses-02", "2021-01-01"))
    tables.edss(("participant_id", "date", "edss"), ("sub-01", "2019-12-02", 1), ("sub-01", "2021-01-01", 2))
    assert [(visit.days, visit.values.get("edss")) for visit in read(tables).visits] == [(-30, 1), (0, None), (366, 2)]


def test_dates_count_from_the_first_visit_where_no_session_has_one(tables: Tables) -> None:
    tables.sessions("sub-01", ("session_id", "edss"), ("ses-01", 1))
    tables.edss(
        ("participant_id", "session_id", "date", "edss"), ("01", "ses-01", "2020-03-01", 1), ("01", "", "2020-03-31", 2)
    )
    assert [visit.days for visit in read(tables).visits] == [0, 30]


def test_a_session_without_a_date_is_passed_over(tables: Tables) -> None:
    tables.sessions("sub-01", ("session_id", "date"), ("ses-01", "2020-03-01"), ("ses-02", "n/a"))
    records = read_clinical([tables.root], ["edss"], imaged={(0, "sub-01"): ["ses-01", "ses-02"]})
    assert [visit.visit_id for visit in records.patients[0, "sub-01"].visits] == ["ses-01"]
    assert "no date in sessions.tsv: ses-02" in records.findings[0].text


def test_years_are_a_time_too(tables: Tables) -> None:
    tables.sessions("sub-01", ("session_id", "years"), ("ses-01", 0), ("ses-02", 2))
    assert [visit.days for visit in read(tables).visits] == [0, 730.5]


def test_a_patient_without_visits_has_the_baseline(tables: Tables) -> None:
    tables.participants(("participant_id", "edss"), ("sub-01", 6.5))
    (visit,) = read(tables).visits
    assert (visit.days, visit.values) == (0, {"edss": 6.5})


def test_relapses_of_the_year_before_are_counted_where_nothing_else_says(tables: Tables) -> None:
    tables.participants(("participant_id", "relapses_prior_year"), ("sub-01", 3))
    tables.sessions("sub-01", ("session_id", "days"), ("ses-01", 0), ("ses-02", 365), ("ses-03", 730))
    tables.write(
        "phenotype/relapses.tsv", ("participant_id", "days"), *(("sub-01", day) for day in (-50, 10, 365, 366))
    )
    counts = [visit.values["relapses_prior_year"] for visit in read(tables, "relapses_prior_year").visits]
    assert counts == [3, 2, 1]  # day 365 counts at ses-02, and no more a year later


def test_half_a_point_is_kept_with_a_warning(tables: Tables) -> None:
    tables.edss(HEADER, ("sub-01", "n/a", 0, 0.5, 0, 0))
    records = read_clinical([tables.root], ["edss"])
    assert records.patients[0, "sub-01"].visits[0].values == {"edss": 0.5}
    assert [finding.level for finding in records.findings] == ["warn"]
    assert "edss.tsv: line 2, edss: the scale has no 0.5" in records.findings[0].text


@pytest.mark.parametrize(
    ("rows", "place", "expected"),
    [
        ([("n/a", 0, 0.7, 0, 0)], "line 3, edss", "expected a number from 0 to 10 in steps of 0.5, found '0.7'"),
        ([("n/a", 0, 11, 0, 0)], "line 3, edss", "found '11'"),
        ([("n/a", 0, "2,5", 0, 0)], "line 3, edss", "found '2,5'"),
        ([("n/a", 0, "mild", 0, 0)], "line 3, edss", "found 'mild'"),
        ([("n/a", 0, "1_0", 0, 0)], "line 3, edss", "found '1_0'"),
        ([("n/a", 0, 2, 7, 0)], "line 3, fs_visual", "expected a number from 0 to 6, whole, found '7'"),
        ([("n/a", 0, 2, 1.5, 0)], "line 3, fs_visual", "found '1.5'"),
        ([("n/a", 0, 2, -1, 0)], "line 3, fs_visual", "found '-1'"),
        ([("n/a", 0, 2, 0, 13)], "line 3, fs_ambulation", "from 0 to 12"),
        ([("n/a", 0, 2, 0, 0), ("n/a", 0, 3, 0, 0)], "line 4, days", "the same visit as line 3"),
        ([("ses-1", 0, 2, 0, 0), ("1", "n/a", 2, 0, 0)], "line 4, session_id", "the visit is there twice"),
        ([("n/a", 365, 2, 0, 0), ("n/a", 0, 3, 0, 0)], "line 4, days", "in order of time"),
        ([("n/a", -20, 2, 0, 0)], "line 3, days", "a visit before baseline"),
        ([("n/a", "03.04.2020", 2, 0, 0)], "line 3, days", "expected a number, found '03.04.2020'"),
        ([("n/a", 0, 2, 0)], "line 3", "expected 6 cells as in the first line, found 5"),
    ],
)
def test_a_fault_leaves_its_patient_out_and_names_its_place(
    tables: Tables, rows: list[Line], place: str, expected: str
) -> None:
    tables.edss(HEADER, ("sub-02", "n/a", 0, 1.0, 0, 0), *(("sub-01", *row) for row in rows))
    records = read_clinical([tables.root], ("edss", "fs_visual", "fs_ambulation"))
    assert list(records.patients) == [(0, "sub-02")]
    assert list(records.left_out) == ["sub-01"]
    texts = [finding.text for finding in records.findings if finding.case == "sub-01" and finding.level == "fail"]
    assert any(text.startswith(f"{tables.root}/phenotype/edss.tsv: {place}") and expected in text for text in texts)


@pytest.mark.parametrize(
    ("harmonization_rows", "edss_rows", "expected"),
    [
        ([("ses-01", "2021-05-01", 2), ("ses-02", "2020-05-01", 2)], [], "sessions.tsv: line 3, date: expected"),
        ([("ses-01", "2020-02-30", 2)], [], "line 2, date: expected a date as 2021-03-24, found '2020-02-30'"),
        ([("ses-01", "2020-05-01", 2)], [("n/a", 365, 2, 0, 0)], "dates alone or numbers alone"),
        (
            [("ses-01", "2020-05-01", 2)],
            [("ses-01", "n/a", 2.5, 0, 0)],
            "edss: expected 2 as in another table, found 2.5",
        ),
    ],
)
def test_faults_of_sessions(
    tables: Tables, harmonization_rows: list[Line], edss_rows: list[Line], expected: str
) -> None:
    tables.sessions("sub-01", ("session_id", "date", "edss"), *harmonization_rows)
    tables.edss(HEADER, *(("sub-01", *row) for row in edss_rows))
    records = read_clinical([tables.root], ["edss"])
    assert not records.patients
    assert expected in records.left_out["sub-01"]


def test_what_the_study_does_not_read_may_hold_anything(tables: Tables) -> None:
    tables.participants(("participant_id", "edss", "treated", "date"), ("sub-01", 2, "see letter", "spring"))
    assert read(tables, "edss").visits[0].values == {"edss": 2}
    assert "sub-01" in read_clinical([tables.root], ["treated"]).left_out


def test_a_patient_listed_twice_must_be_the_same_twice(tables: Tables) -> None:
    tables.participants(("participant_id", "edss"), ("01", 2), ("sub-01", 2), ("02", 2), ("02", 3))
    records = read_clinical([tables.root], ["edss"])
    assert "line 5, participant_id: listed on line 4 with other values" in records.left_out["sub-02"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"participant_id,edss\nsub-01,2\n", "no tab-separated column participant_id"),
        (b"participant_id\tedss\nsub-01\t\xe9\n", "save it as tab-separated UTF-8"),
        (b"participant_id\tedss\tEDSS\nsub-01\t2\t2\n", "column edss is there twice"),
        (b"", "no tab-separated column participant_id"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tables: Tables, content: bytes, expected: str) -> None:
    path = tables.participants()
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        read_clinical([tables.root], ["edss"])
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_label_must_be_in_one_kind_of_table(tables: Tables) -> None:
    tables.participants(("participant_id", "course"), ("sub-01", "RR"))
    assert read_clinical([tables.root], [], "course").patients[0, "sub-01"].label == "RR"
    with pytest.raises(InputError, match=r"diagnosis: expected in .*, found in neither"):
        read_clinical([tables.root], [], "diagnosis")
    tables.sessions("sub-01", ("session_id", "course"), ("ses-01", "RR"))
    with pytest.raises(InputError, match="found in both"):
        read_clinical([tables.root], [], "course")
