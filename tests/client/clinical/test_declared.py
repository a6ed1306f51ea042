"""Values that a study declares, read from a site's tables: right, or the patient left out by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.clinical_site import Tables
from tests.common.config.test_clinical_values import SCHOOL, SDMT, SMOKER, TREATMENT, study

from msfl_client.clinical.inputs import as_values, dataset_of, never_trained
from msfl_client.clinical.observations import observations
from msfl_client.clinical.records import ClinicalRecords, read_clinical
from msfl_client.disclosure.small_groups import describe_small_group, in_large_groups
from msfl_common.config.classification import Classification
from msfl_common.dataset import Dataset
from msfl_common.errors import InputError

STUDY = study(SDMT, TREATMENT, SCHOOL, SMOKER)
HEADER = ("participant_id", "SDMT", "treatment", "school", "smoker")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "bids")


def read(tables: Tables, *rows: tuple[Any, ...]) -> ClinicalRecords:
    tables.participants(HEADER, *rows)
    return read_clinical(tables.site, STUDY.clinical, declared=STUDY.declared)


def test_cells_are_read_by_their_kind(tables: Tables) -> None:
    found = read(tables, ("sub-01", 54, "Infusion", "primary", "yes"), ("sub-02", "n/a", "untreated", "university", 0))
    values = [found.patients[0, name].visits[0].values for name in ("sub-01", "sub-02")]
    assert values == [
        {"sdmt": 54.0, "treatment": 2.0, "school": 0.0, "smoker": 1.0},
        {"treatment": 0.0, "school": 2.0, "smoker": 0.0},
    ]
    assert not found.findings


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        (
            1,
            "5400",
            "expected a number from 0 to 110, whole, found '5400'; expected in points: correct it, or write n/a",
        ),
        (1, "54.5", "expected a number from 0 to 110, whole, found '54.5'"),
        (1, "fifty", "expected a number from 0 to 110, whole, found 'fifty'"),
        (1, "5,4", "write numbers with a decimal point"),
        (
            2,
            "Tysabri",
            "expected untreated, injection, infusion, found 'Tysabri'; write one of these, as the study decl",
        ),
        (3, "2", "expected primary, secondary, university, found '2'"),
        (4, "maybe", "expected 0, no, false, 1, yes, true, found 'maybe'"),
    ],
)
def test_a_cell_that_cannot_be_leaves_its_patient_out_by_name(
    tables: Tables, column: int, cell: str, said: str
) -> None:
    row = ["sub-02", 60, "injection", "secondary", "no"]
    row[column] = cell
    good = ("sub-01", 54, "infusion", "primary", "yes"), ("sub-03", 50, "untreated", "primary", "no")
    found = read(tables, good[0], tuple(row), good[1])
    assert {subject for _, subject in found.patients} == {"sub-01", "sub-03"}
    assert f"line 3, {HEADER[column].lower()}: " in found.left_out["sub-02"]
    assert said in found.left_out["sub-02"]


def test_a_value_that_a_site_lacks_is_named(tables: Tables) -> None:
    tables.participants(HEADER[:-1], ("sub-01", 54, "infusion", "primary"))
    found = read_clinical(tables.site, STUDY.clinical, declared=STUDY.declared)
    (finding,) = found.findings
    assert finding.level == "fail"
    assert "the study declares smoker (0, no, false, 1, yes, true), and no table has a column smoker" in finding.text


def test_values_of_a_visit_come_from_tables_of_visits(tables: Tables) -> None:
    tables.participants(("participant_id", "school"), ("sub-01", "primary"))
    tables.sessions("sub-01", ("session_id", "days", "smoker"), ("ses-01", 0, "no"), ("ses-02", 365, "yes"))
    tables.write("phenotype/sdmt.tsv", ("participant_id", "session_id", "sdmt"), ("sub-01", "ses-02", 47))
    visits = read_clinical(tables.site, STUDY.clinical, declared=STUDY.declared).patients[0, "sub-01"].visits
    assert [visit.values for visit in visits] == [{"school": 0.0, "smoker": 0.0}, {"smoker": 1.0, "sdmt": 47.0}]


def labelled(*levels: str) -> tuple[Classification, list[tuple[Any, ...]]]:
    """A study of a treatment and a label, and the rows of its table."""
    content = STUDY.model_dump() | {"outcome": {"column": "course", "classes": ("RR", "SP")}, "clinical": ["treatment"]}
    content["declared"] = [TREATMENT]
    rows = [(f"sub-{at:02}", level, ("RR", "SP")[at % 2]) for at, level in enumerate(levels)]
    return Classification.model_validate(content), rows


def dataset(tables: Tables, *levels: str) -> tuple[Classification, Dataset]:
    settings, rows = labelled(*levels)
    tables.participants(("participant_id", "treatment", "course"), *rows)
    return settings, dataset_of(observations([], tables.site, settings), settings, None)


def test_the_first_level_of_a_category_is_a_group_of_its_own(tables: Tables) -> None:
    """Its members are in no sum of an input, and follow from all the others."""
    settings, cases = dataset(tables, "untreated", *["injection"] * 12, *["infusion"] * 12)
    assert cases.names == ("treatment_injection", "treatment_infusion")
    kept = in_large_groups(settings, cases, 5)
    assert [*cases.patients[1:]] == [*kept.patients]
    assert describe_small_group(settings, cases, 5) == (
        "1 training patient whom treatment sets apart; expected none, or at least 5"
    )


def test_a_category_is_one_value_whatever_its_levels(tables: Tables) -> None:
    settings, cases = dataset(tables, *["untreated", "injection", "infusion", "infusion"] * 3)
    names, values_NV = as_values(settings, cases.features_NP)
    assert names == ("treatment",)
    assert values_NV[:4, 0].tolist() == [0, 1, 2, 2]


def test_a_category_that_is_the_label_is_refused(tables: Tables) -> None:
    with pytest.raises(InputError, match="input treatment and outcome course are the same in all 24 cases"):
        dataset(tables, *["untreated", "infusion"] * 12)


def test_a_level_that_nobody_had_in_training_is_named(tables: Tables) -> None:
    settings, _ = labelled()
    known = {"treatment_injection": 0.0, "treatment_infusion": 1.0}
    assert never_trained(settings, np.array([0.4, 0.0]), known) == "treatment: infusion"
    assert never_trained(settings, np.array([0.4, 0.1]), known) is None
    nobody = dict.fromkeys(known, 0.0)
    assert never_trained(settings, np.array([0.4, 0.6]), nobody) == "treatment: untreated"
    assert never_trained(settings, np.array([0.4, 0.5]), nobody) is None
