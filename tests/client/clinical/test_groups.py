"""Which group a case belongs to, by the tables, and what a site tells of the groups of its lesions' cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.clinical_site import Tables, site_of

from msfl_client.clinical.groups import levels_of
from msfl_client.segmentation.disclosed import disclosed_metrics


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "bids")


def test_a_case_is_of_its_patients_group_at_the_first_known_visit(tables: Tables) -> None:
    tables.participants(
        ("participant_id", "sex", "age"), ("sub-1", "F", 39.9), ("sub-2", "M", "n/a"), ("sub-3", "x", 50)
    )
    tables.sessions("sub-1", ("session_id", "days"), ("ses-1", 0), ("ses-2", 365))
    found = levels_of(tables.site, ["sub-1", "sub-1", "sub-2", "sub-3", "sub-4"])
    assert found["sex"].tolist() == [0, 0, 1, -1, -1]  # of who has a fault nothing is taken
    assert found["age"].tolist() == [0, 0, -1, -1, -1]


def test_field_strength_is_of_the_sidecars_and_not_known_of_who_has_both(tables: Tables) -> None:
    tables.participants(("participant_id", "sex"), *((f"sub-{number}", "F") for number in range(1, 7)))
    told = {"sub-1": ["1.5"], "sub-2": ["3.0", "2.89"], "sub-3": ["3", "1.5"], "sub-4": ["15000"], "sub-5": ['"3"']}
    for subject, values in told.items():
        for number, value in enumerate(values):
            (folder := tables.root / subject / f"ses-{number}" / "anat").mkdir(parents=True)
            (folder / f"{subject}_ses-{number}_T1w.json").write_text(f'{{"MagneticFieldStrength": {value}}}')
    names = [f"sub-{number}" for number in range(1, 7)]
    assert levels_of(tables.site, names)["field_strength"].tolist() == [0, 1, -1, 0, -1, -1]
    (tables.root / "T1w.json").write_text('{"MagneticFieldStrength": 3}')
    assert levels_of(tables.site, names)["field_strength"].tolist() == [0, 1, -1, 0, 1, -1]


def test_tables_that_cannot_be_read_cost_the_groups_alone(tables: Tables) -> None:
    tables.root.mkdir()
    (tables.root / "participants.tsv").write_text("participant_id\tsex\tsex\n")
    assert levels_of(site_of(tables.root), ["sub-1"]) == {}


def test_groups_of_lesions_cases_have_their_own_means() -> None:
    values = np.linspace(0.2, 0.9, 12)
    patients = [f"p{number}" for number in range(12)]
    levels = {"sex": np.repeat([0, 1], 6), "age": np.array([0] * 11 + [1])}
    told = disclosed_metrics([{"dsc": float(value)} for value in values], patients, 5, 1.0, levels)
    assert set(told.estimates) == {"dsc", "dsc_women", "dsc_men"}
    assert told.estimates["dsc_women"].mean == pytest.approx(values[:6].mean())
    assert (told.estimates["dsc_men"].num_cases, told.min_patients) == (6, 6)
