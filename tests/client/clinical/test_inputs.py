"""Observations, their inputs and split, and labels that leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.clinical_site import Tables, classification, site_of

from msfl_client.clinical.inputs import complete, dataset_of, refuse_equal, refuse_leak
from msfl_client.clinical.observations import observations, with_uncounted_lesions
from msfl_client.data.bids import Case
from msfl_client.features.table import FeatureRow, FeatureTable
from msfl_common.config.regression import Regression
from msfl_common.errors import InputError

SESSIONS = ("session_id", "days", "edss", "new_lesions", "status")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    tables = Tables(tmp_path / "bids")
    tables.participants(
        ("participant_id", "age", "diagnosis"),
        ("sub-01", 30, "MS"),
        ("sub-02", 40, "NMOSD"),
        ("sub-03", 50, "HC"),
        ("sub-04", 60, "n/a"),
    )
    tables.sessions("sub-01", SESSIONS, ("ses-01", 0, 2, "n/a", 0), ("ses-02", 365, 3, 0, 1), ("ses-03", 730, 3, 0, 0))
    tables.sessions("sub-02", SESSIONS, ("ses-01", 0, 2, "n/a", 0), ("ses-02", 365, 2, 1, 0))
    tables.sessions("sub-03", SESSIONS, ("ses-01", 0, 2, "n/a", 0), ("ses-02", 100, 2, 0, "n/a"))
    tables.sessions("sub-04", SESSIONS, ("ses-01", 0, 0.7, "n/a", 0))
    return tables


def case(subject: str, visit_id: str | None) -> Case:
    return Case(0, subject, visit_id, {}, None, None)


def row(subject: str, visit_id: str, **features: float) -> FeatureRow:
    return FeatureRow(subject, visit_id, "A1", 0, features)


def test_a_column_of_participants_labels_the_baseline(tables: Tables) -> None:
    study = classification(("age",), column="diagnosis", classes=("NMOSD", "MS"))
    found = observations([], tables.site, study)
    assert [(one.patient, one.visit_id, one.label, one.clinical) for one in found.kept] == [
        ("sub-01", "ses-01", 1, {"age": 30}),
        ("sub-02", "ses-01", 0, {"age": 40}),
    ]
    assert found.left_out == {"sub-03 ses-01": "other-label", "sub-04 ses-01": "no-label"}
    assert found.counts == {"no-label": 1, "other-label": 1}
    assert found.per_class(study.outcome) == {"NMOSD": 1, "MS": 1}


def test_a_label_of_participants_never_goes_with_a_later_visit(tables: Tables) -> None:
    features = ("bpf",)
    study = classification((), features, column="diagnosis", classes=("NMOSD", "MS"))
    found = observations([case("sub-01", "ses-02"), case("sub-02", "ses-01")], tables.site, study)
    assert [one.patient for one in found.kept] == ["sub-02"]
    assert found.left_out["sub-01"] == "no-images"
    with pytest.raises(InputError, match=r"diagnosis is one of participants\.tsv"):
        observations([], tables.site, classification(column="diagnosis", observations="every"))


def test_a_column_of_sessions_is_predicted_from_the_visit_before(tables: Tables) -> None:
    study = classification(column="status", observations="every")
    found = observations([], tables.site, study)
    assert {one.key: one.label for one in found.kept} == {"sub-01 ses-01": 1, "sub-01 ses-02": 0, "sub-02 ses-01": 0}
    assert found.left_out["sub-01 ses-03"] == "no-later-visit"
    assert found.left_out["sub-03 ses-01"] == "no-label"
    assert found.left_out["sub-04"] == "fault"
    later = next(one for one in found.kept if one.key == "sub-01 ses-02")
    assert [visit.clinical for visit in later.visits] == [{"edss": 2}, {"edss": 3}]


def test_an_endpoint_sees_only_its_inputs_and_the_past(tables: Tables) -> None:
    study = classification(("age",), endpoint="edss-worsening")
    found = observations([], tables.site, study)
    assert {one.key: one.label for one in found.kept} == {"sub-01 ses-01": 1, "sub-02 ses-01": 0}
    assert found.left_out == {"sub-03 ses-01": "short-follow-up", "sub-04": "fault"}
    assert all(set(visit.clinical) <= {"age"} for one in found.kept for visit in one.visits)
    assert [len(one.visits) for one in found.kept] == [1, 1]


def test_confirmation_needs_its_visit(tables: Tables) -> None:
    study = classification(endpoint="edss-worsening", confirmed_weeks=24)
    assert observations([], tables.site, study).kept[0].label == 1
    tables.sessions("sub-01", SESSIONS, ("ses-01", 0, 2, "n/a", 0), ("ses-02", 365, 3, 0, 1), ("ses-03", 500, 3, 0, 0))
    assert observations([], tables.site, study).left_out["sub-01 ses-01"] == "unconfirmed"


def test_activity_is_of_lesions_or_worsening(tables: Tables) -> None:
    found = observations([], tables.site, classification(("age",), endpoint="activity"))
    assert {one.patient: one.label for one in found.kept} == {"sub-01": 1, "sub-02": 1}  # worse; a new lesion
    assert found.left_out["sub-03 ses-01"] == "short-follow-up"


def test_activity_from_features_where_no_reader_counted(tables: Tables) -> None:
    header = ("session_id", "days", "edss")
    for subject in ("sub-01", "sub-02"):
        tables.sessions(subject, header, ("ses-01", 0, 2), ("ses-02", 365, 2))
    for subject in ("sub-03", "sub-04"):
        tables.sessions(subject, header, ("ses-01", 0, 2), ("ses-02", 365, 2))
    calm = {"new_lesion_count": 0.0, "enlarging_lesion_count": 0.0}
    rows = [row(name, "ses-01", bpf=0.8) for name in ("sub-01", "sub-02", "sub-03")]
    rows += [row("sub-01", "ses-02", **calm), row("sub-02", "ses-02", **calm | {"enlarging_lesion_count": 2.0})]
    study = classification(("age",), ("bpf",), endpoint="activity")
    found = observations([], tables.site, study, FeatureTable(tuple(rows)))
    assert {one.patient: one.label for one in found.kept} == {"sub-01": 0, "sub-02": 1}
    assert found.left_out == {"sub-03 ses-01": "no-follow-up", "sub-04": "no-images"}


def test_images_are_measured_where_a_later_visit_has_no_count_alone(tables: Tables) -> None:
    cases = [case(f"sub-0{who}", visit_id) for who in (1, 2, 3) for visit_id in ("ses-01", "ses-02")]
    assert with_uncounted_lesions(cases, tables.site) == frozenset()  # of a first visit nothing can be counted
    tables.sessions("sub-02", SESSIONS, ("ses-01", 0, 2, 3, 0), ("ses-02", 365, 2, "n/a", 0))
    assert with_uncounted_lesions(cases, tables.site) == {(0, "sub-02")}


def test_images_of_each_visit_and_of_those_before(tables: Tables) -> None:
    cases = [case("sub-01", "ses-01"), case("sub-01", "ses-02")]
    study = classification(("edss",), ("bpf",), column="status", observations="every")
    kept = observations(cases, tables.site, study).kept
    assert [one.case for one in kept] == cases
    assert [[visit.case for visit in one.visits[:-1]] for one in kept] == [[], [cases[0]]]


def test_sessions_numbered_against_time_are_refused(tables: Tables) -> None:
    tables.sessions("sub-01", SESSIONS, ("ses-B", 0, 2, "n/a", 0), ("ses-A", 365, 3, 0, 1))
    cases = [case("sub-01", "ses-A"), case("sub-01", "ses-B")]
    found = observations(cases, tables.site, classification(endpoint="edss-worsening"))
    assert found.left_out["sub-01"] == "visit-order"


def test_inputs_in_their_order_and_what_lacks_one_is_counted(tables: Tables) -> None:
    study = classification(("age",), ("lesion_volume_ml", "bpf"), column="diagnosis", classes=("NMOSD", "MS", "HC"))
    rows = (
        row("sub-01", "ses-01", bpf=0.81, lesion_volume_ml=3.5),
        row("sub-02", "ses-01", bpf=0.82),
        row("sub-03", "ses-01", bpf=0.83, lesion_volume_ml=0.0),
    )
    table = FeatureTable(rows)
    found = complete(observations([], tables.site, study, table), study, table)
    data = dataset_of(found, study, table)
    assert data.names == ("lesion_volume_ml", "bpf", "age")
    np.testing.assert_array_equal(data.features_NP, [[3.5, 0.81, 30], [0.0, 0.83, 50]])
    assert (data.labels_N.tolist(), data.patients, data.features_NP.dtype) == ([1, 2], ("sub-01", "sub-03"), np.float64)
    assert found.left_out["sub-02 ses-01"] == "no-input"
    assert dataset_of((), study, table).features_NP.shape == (0, 3)


def test_patients_of_two_folders_stay_apart(tables: Tables) -> None:
    study = classification(("age",), column="diagnosis", classes=("NMOSD", "MS"))
    other = Tables(tables.root.parent / "second")
    other.participants(("participant_id", "age", "diagnosis"), ("sub-01", 31, "NMOSD"))
    found = observations([], site_of(tables.root, other.root, same_ids="different-people"), study)
    assert [(one.patient, one.label) for one in found.kept][-1] == ("sub-01_data-1", 0)
    assert dataset_of(found, study, None).features_NP[:, 0].tolist() == [30, 40, 31]


@pytest.mark.parametrize("unit", [1.0, -1e-200, 1e200])
def test_a_number_that_is_an_input_in_another_unit_is_refused_and_no_other(unit: float) -> None:
    rng = np.random.default_rng(0)
    age, score = rng.normal(40, 8, (2, 12))
    inputs = np.column_stack([age, np.full(12, 3.0)])
    with pytest.raises(
        InputError, match="input age and outcome months are the same in all 12 cases, up to their units"
    ):
        refuse_equal(("age", "edss"), inputs, unit * (12 * age + 3), "months")
    refuse_equal(("age", "edss"), inputs, unit * score, "months")


def test_a_label_that_is_an_input_is_refused() -> None:
    labels = np.array([0, 1, 2] * 4)
    rng = np.random.default_rng(0)
    recoded = np.array([7.0, -1.0, 0.5])[labels]
    features = np.column_stack([rng.normal(size=12), recoded])
    with pytest.raises(InputError, match="input treated and outcome course are the same in all 12 cases"):
        refuse_leak(("age", "treated"), features, labels, "course")
    merged = np.where(recoded == 0.5, 7.0, recoded)  # two classes share a value
    refuse_leak(("age", "treated"), np.column_stack([features[:, 0], merged]), labels, "course")
    noisy = recoded.copy()
    noisy[0] = -1.0  # one case differs
    refuse_leak(("treated",), noisy[:, None], labels, "course")
    refuse_leak(("treated",), recoded[:6, None], labels[:6], "course")  # 90 ways: it may be chance
    refuse_leak(("sex",), np.zeros((30, 1)), np.zeros(30, int), "course")  # one class


def test_a_leaking_column_of_a_table_is_refused(tables: Tables) -> None:
    rows = [(f"sub-{n:02d}", n % 2, "MS" if n % 2 else "HC") for n in range(12)]
    tables.participants(("participant_id", "treated", "diagnosis"), *rows)
    study = classification(("treated",), column="diagnosis", classes=("HC", "MS"))
    with pytest.raises(InputError, match="input treated and outcome diagnosis"):
        dataset_of(observations([], tables.site, study), study, None)


def test_a_column_that_is_the_number_in_another_unit_is_refused(tables: Tables) -> None:
    rows = [(f"sub-{n:02d}", 30 + n * n % 7, 12 * (30 + n * n % 7) + 3) for n in range(12)]
    tables.participants(("participant_id", "age", "age_months"), *rows)
    outcome = {"column": "age_months", "unit": "months", "range": [0, 1500]}
    model = {"kind": "ridge"}
    study = Regression.model_validate({"outcome": outcome, "clinical": ["age"], "model": model})
    with pytest.raises(InputError, match="input age and outcome age_months are the same in all 12 cases"):
        dataset_of(observations([], tables.site, study), study, None)
    changed = [(*row[:2], row[2] + (row[0] == "sub-03")) for row in rows]  # one case is off the line
    tables.participants(("participant_id", "age", "age_months"), *changed)
    assert len(dataset_of(observations([], tables.site, study), study, None).patients) == 12


EVERY = ("session_id", "days", "edss", "new_lesions")


def test_an_edss_visit_between_two_scans_is_not_active_by_an_older_lesion(tables: Tables) -> None:
    tables.participants(("participant_id",), ("sub-01",))
    tables.sessions("sub-01", EVERY, ("ses-01", 0, 2, "n/a"), ("ses-02", 365, 2, 1), ("ses-03", 730, 2, 0))
    tables.edss(("participant_id", "days", "edss"), ("sub-01", 180, 2))
    tables.sessions("sub-02", EVERY, ("ses-01", 0, 2, "n/a"), ("ses-02", 365, 2, 0), ("ses-03", 730, 2, 0))
    tables.sessions("sub-03", EVERY)
    tables.sessions("sub-04", EVERY)
    study = classification(("edss",), endpoint="activity", observations="every")
    found = observations([], tables.site, study)
    assert {one.key: one.label for one in found.kept if one.patient == "sub-01"} == {
        "sub-01 ses-01": 1,
        "sub-01 ses-02": 0,
    }
    assert found.left_out["sub-01 day 180"] == "older-lesion"
    assert {one.key: one.label for one in found.kept if one.patient == "sub-02"} == {
        "sub-02 ses-01": 0,
        "sub-02 ses-02": 0,
    }


def with_relapses(tables: Tables, *days: float) -> None:
    tables.participants(("participant_id",), ("sub-01",))
    rows = [("ses-01", 0, 2, "n/a"), ("ses-02", 180, 3, 0), ("ses-03", 365, 2, 0), ("ses-04", 545, 2, 0)]
    tables.sessions("sub-01", EVERY, *rows)
    for subject in ("sub-02", "sub-03", "sub-04"):
        tables.sessions(subject, EVERY)
    tables.write("phenotype/relapses.tsv", ("participant_id", "days"), *(("sub-01", day) for day in days))


def test_a_relapses_score_is_neither_baseline_nor_worsening(tables: Tables) -> None:
    study = classification(endpoint="edss-worsening")
    with_relapses(tables)
    assert [one.label for one in observations([], tables.site, study).kept] == [1]
    with_relapses(tables, 170)
    found = observations([], tables.site, study)
    assert [(one.key, one.label) for one in found.kept] == [("sub-01 ses-01", 0)]
    counting = classification(endpoint="edss-worsening", relapse_days=0)
    assert [one.label for one in observations([], tables.site, counting).kept] == [1]
    with_relapses(tables, 10)  # the first visit that is not near a relapse is the first to predict from
    found = observations([], tables.site, study)
    assert [(one.key, one.label) for one in found.kept] == [("sub-01 ses-02", 0)]
    every = observations([], tables.site, classification(endpoint="edss-worsening", observations="every"))
    assert every.left_out["sub-01 ses-01"] == "relapse"


def test_who_had_relapses_has_to_be_known(tables: Tables) -> None:
    study = classification(endpoint="edss-worsening", confirmed_weeks=12, pira=True)
    found = observations([], tables.site, study)
    assert found.left_out["sub-01 ses-01"] == "no-relapses"
    plain = observations([], tables.site, classification(endpoint="edss-worsening"))
    assert "no phenotype/relapses.tsv" in plain.findings[-1].text
    with_relapses(tables, 170)
    assert [one.label for one in observations([], tables.site, study).kept] == [0]
