"""Reading of clinical tables: where values come from, and that a fault costs one patient and names its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.clinical_site import Line, Tables, site_of

from msfl_client.clinical.records import ClinicalRecords, Patient, read_clinical
from msfl_common.errors import InputError

HEADER = ("participant_id", "session_id", "days", "edss", "fs_visual", "fs_ambulation")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "bids")


def read(tables: Tables, *columns: str) -> Patient:
    records = read_clinical(tables.site, columns or ("edss", "fs_visual", "fs_ambulation", "age"))
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
    records = read_clinical(tables.site, ["edss"], imaged={(0, "sub-01"): ["ses-01", "ses-02"]})
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
    records = read_clinical(tables.site, ["edss"])
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
        ([("n/a", -20, 2, 0, 0)], "line 3, days", "a visit before baseline"),
        ([("n/a", "03.04.2020", 2, 0, 0)], "line 3, days", "expected a number, found '03.04.2020'"),
        ([("n/a", 0, 2, 0)], "line 3", "expected 6 cells as in the first line, found 5"),
    ],
)
def test_a_fault_leaves_its_patient_out_and_names_its_place(
    tables: Tables, rows: list[Line], place: str, expected: str
) -> None:
    tables.edss(HEADER, ("sub-02", "n/a", 0, 1.0, 0, 0), *(("sub-01", *row) for row in rows))
    records = read_clinical(tables.site, ("edss", "fs_visual", "fs_ambulation"))
    assert list(records.patients) == [(0, "sub-02")]
    assert list(records.left_out) == ["sub-01"]
    texts = [finding.text for finding in records.findings if finding.case == "sub-01" and finding.level == "fail"]
    assert any(text.startswith(f"{tables.root}/phenotype/edss.tsv: {place}") and expected in text for text in texts)


@pytest.mark.parametrize(
    ("harmonization_rows", "edss_rows", "expected"),
    [
        ([("ses-02", "n/a", 2), ("ses-01", "n/a", 2)], [], "line 3, session_id: expected a time for each visit"),
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
    records = read_clinical(tables.site, ["edss"])
    assert not records.patients
    assert expected in records.left_out["sub-01"]


def test_what_the_study_does_not_read_may_hold_anything(tables: Tables) -> None:
    tables.participants(("participant_id", "edss", "treated", "date"), ("sub-01", 2, "see letter", "spring"))
    assert read(tables, "edss").visits[0].values == {"edss": 2}
    assert "sub-01" in read_clinical(tables.site, ["treated"]).left_out


def test_a_patient_listed_twice_must_be_the_same_twice(tables: Tables) -> None:
    tables.participants(("participant_id", "edss"), ("01", 2), ("sub-01", 2), ("02", 2), ("02", 3))
    records = read_clinical(tables.site, ["edss"])
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
        read_clinical(tables.site, ["edss"])
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_label_must_be_in_one_kind_of_table(tables: Tables) -> None:
    tables.participants(("participant_id", "course"), ("sub-01", "RR"))
    assert read_clinical(tables.site, [], "course").patients[0, "sub-01"].label == "RR"
    with pytest.raises(InputError, match=r"diagnosis: expected in .*, found in neither"):
        read_clinical(tables.site, [], "diagnosis")
    tables.sessions("sub-01", ("session_id", "course"), ("ses-01", "RR"))
    with pytest.raises(InputError, match="found in both"):
        read_clinical(tables.site, [], "course")


def people(tables: Tables, number: int = 8) -> list[str]:
    """So many people, with two visits each."""
    names = [f"sub-{n:03d}" for n in range(1, number + 1)]
    tables.participants(("participant_id", "sex"), *((name, "FM"[n % 2]) for n, name in enumerate(names)))
    tables.edss(("participant_id", "days", "edss"), *((name, day, 2.0) for name in names for day in (0, 365)))
    return names


def replaced(tables: Tables, name: str, old: str, new: str) -> None:
    path = tables.root / name
    path.write_text(path.read_text().replace(old, new))


def only_fault(records: ClinicalRecords) -> str:
    """The one line that tells what all patients have."""
    (text,) = [finding.text for finding in records.findings if finding.level == "fail"]
    return text


def test_visits_may_stand_newest_first_or_mixed(tables: Tables) -> None:
    rows = [("sub-01", "n/a", day, edss, 0, 0) for day, edss in ((730, 3), (365, 2.5), (0, 2))]
    tables.edss(HEADER, *rows)
    assert [(visit.days, visit.values["edss"]) for visit in read(tables, "edss").visits] == [
        (0, 2),
        (365, 2.5),
        (730, 3),
    ]
    tables.edss(HEADER, rows[1], rows[0], rows[2])
    (finding,) = read_clinical(tables.site, ["edss"]).findings
    assert (finding.level, "lines 2, 3, 4: visits stand neither oldest nor newest first" in finding.text) == (
        "warn",
        True,
    )


def test_ids_that_a_spreadsheet_shortened_are_named_once(tables: Tables) -> None:
    people(tables)
    replaced(tables, "phenotype/edss.tsv", "sub-00", "")
    records = read_clinical(tables.site, ["edss"])
    assert len(records.left_out) == 8
    assert not records.patients
    assert "edss.tsv: 8 lines, the first 2, participant_id: expected ids written alike, found '1' for sub-001, " in (
        only_fault(records)
    )


def test_relapses_of_shortened_ids_are_not_nobodys(tables: Tables) -> None:
    people(tables)
    tables.write("phenotype/relapses.tsv", ("participant_id", "days"), ("3", -20), ("sub-009", 10))
    records = read_clinical(tables.site, ["relapses_prior_year"])
    assert list(records.left_out) == ["sub-003"]
    assert (
        "relapses.tsv: line 2, participant_id: expected ids written alike, found '3' for sub-003"
        in (records.left_out["sub-003"])
    )
    assert "in no other table, and without a folder: sub-009" in records.findings[0].text


def test_two_names_in_one_table_are_two_people(tables: Tables) -> None:
    tables.participants(("participant_id",), ("sub-1",), ("sub-01",))
    tables.edss(("participant_id", "days", "edss"), ("sub-1", 0, 1), ("sub-01", 0, 2))
    found = read_clinical(tables.site, ["edss"]).patients
    assert {subject: patient.visits[0].values["edss"] for (_, subject), patient in found.items()} == {
        "sub-1": 1,
        "sub-01": 2,
    }


def test_visits_are_named_as_their_folders(tables: Tables) -> None:
    tables.sessions("sub-01", ("session_id", "days"), ("1", 0), ("2", 365))
    records = read_clinical(tables.site, ["edss"], imaged={(0, "sub-01"): ["ses-01", "ses-02"]})
    assert (
        "line 2, session_id: expected visits named as their folders, found '1' for ses-01"
        in (records.left_out["sub-01"])
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", None),
        (b"\r\n", None),
        (b"session\tdays\nses-01\t0\n", "line 1: no tab-separated column session_id"),
        (b"session_id\tdays\n\xff\t0\n", "line 2: cannot be read as text"),
    ],
)
def test_a_bad_sessions_table_costs_one_patient_at_most(tables: Tables, content: bytes, expected: str | None) -> None:
    people(tables)
    tables.sessions("sub-003").write_bytes(content)
    records = read_clinical(tables.site, ["edss"])
    assert len(records.patients) == 8 - (expected is not None)
    if expected is None:
        assert "sub-003_sessions.tsv: is empty; taken as if it were not there" in records.findings[0].text
    else:
        assert f"sub-003_sessions.tsv: {expected}" in records.left_out["sub-003"]


def test_a_phenotype_table_of_another_matter_may_be_anything(tables: Tables) -> None:
    people(tables)
    tables.write("phenotype/letters.tsv").write_bytes(b"participant_id\ttext\nsub-001\tM\xfcller\n")
    tables.write("phenotype/mri.xlsx")
    records = read_clinical(tables.site, ["edss"])
    assert len(records.patients) == 8
    assert [finding.text for finding in records.findings] == [
        f"{tables.root}/phenotype/mri.xlsx: is not read; save it as tab-separated text, mri.tsv"
    ]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("\t", ";", "its columns are separated by semicolons"),
        ("\t", ",", "its columns are separated by commas"),
        ("edss", '"edss"', "BIDS tables have no quotation marks"),
    ],
)
def test_a_phenotype_table_that_is_written_otherwise_is_not_passed_over(
    tables: Tables, old: str, new: str, text: str
) -> None:
    people(tables)
    path = tables.root / "phenotype" / "edss.tsv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=rf"edss\.tsv: line 1: no tab-separated column edss; {text}"):
        read_clinical(tables.site, ["edss"])


def test_an_empty_phenotype_table_is_said(tables: Tables) -> None:
    people(tables)
    (tables.root / "phenotype" / "edss.tsv").write_text("")
    found = read_clinical(tables.site, ["edss"]).findings
    assert [one.text for one in found] == [f"{tables.root}/phenotype/edss.tsv: is empty; taken as if it were not there"]


def test_words_of_the_site_are_said_once(tables: Tables) -> None:
    people(tables)
    replaced(tables, "participants.tsv", "\tF", "\tW")
    records = read_clinical(tables.site, ["sex"])
    assert len(records.left_out) == 8  # M alone beside W may mean another thing, as mujer beside hombre
    told = only_fault(records)
    assert (
        "8 lines, the first 2, sex: expected f, female, m, male, found 'W'; beside that, 'M' can mean either; " in told
    )
    for words in ({"W": "female"}, {"w": "f", "M": "m"}):
        site = site_of(tables.root, words={"sex": words})
        found = read_clinical(site, ["sex"]).patients
        assert [patient.visits[0].values["sex"] for patient in found.values()] == [0, 1] * 4
    tables.participants(("participant_id", "sex"), ("01", "H"), ("02", "M"))
    spanish = site_of(tables.root, words={"sex": {"H": "m", "M": "f"}})
    values = {
        key: one.visits[0].values.get("sex") for (_, key), one in read_clinical(spanish, ["sex"]).patients.items()
    }
    assert (values["sub-01"], values["sub-02"]) == (1, 0)


def test_an_unknown_word_beside_both_sexes_costs_its_patient(tables: Tables) -> None:
    people(tables)
    replaced(tables, "participants.tsv", "sub-001\tF", "sub-001\tX")
    records = read_clinical(tables.site, ["sex"])
    assert list(records.left_out) == ["sub-001"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (".0", ",0", "found '2,0'; write numbers with a decimal point"),
        ("\t2.0", "\t02. Jan", "found '02. Jan'; a spreadsheet made a date of it"),
        ("\t2.0", '\t"2.0"', "BIDS tables have no quotation marks"),
        ("\t2.0", "\t#WERT!", "a spreadsheet's error"),
        (
            "\t365\t",
            "\t1.095\t",
            "days: expected days, found '1.095'; write numbers with a decimal point, and thousands",
        ),
        ("\t365\t", "\t1,095\t", "days: expected a number, found '1,095'; write numbers with a decimal point"),
        ("days", "date", "date: expected a date as 2021-03-24, found '0'"),
    ],
)
def test_what_a_spreadsheet_made_of_a_table_is_named_once(tables: Tables, old: str, new: str, expected: str) -> None:
    people(tables)
    replaced(tables, "phenotype/edss.tsv", old, new)
    records = read_clinical(tables.site, ["edss"])
    assert len(records.left_out) == 8
    assert expected in only_fault(records)
    assert "8 patients are left out until then" in only_fault(records)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("43831", "a spreadsheet's number of a day: format the column as yyyy-mm-dd"),
        ("03/04/2020", "which is the day, and which the month? Format the column as yyyy-mm-dd"),
        ("3. April 2020", "which is the day"),
        ("2020-02-30", ""),
    ],
)
def test_dates_of_spreadsheets(tables: Tables, text: str, fix: str) -> None:
    tables.sessions("sub-01", ("session_id", "date"), ("ses-01", text))
    told = read_clinical(tables.site, ["edss"]).left_out["sub-01"]
    assert f"found '{text}'{fix and '; '}{fix}" in told


def test_days_with_three_decimals_are_days(tables: Tables) -> None:
    tables.sessions("sub-01", ("session_id", "days"), ("ses-01", "0.000"), ("ses-02", "182.625"))
    assert [visit.days for visit in read(tables).visits] == [0, 182.625]
