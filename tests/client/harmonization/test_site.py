"""Which cases of a site are harmonized, by a stated rule, and what lies at the site afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfl_client.data.bids import Case
from msfl_client.features.table import FeatureRow, FeatureTable, read_features_table
from msfl_client.harmonization.combat import compute_moments, compute_residuals
from msfl_client.harmonization.selection import NO_AGE_LATER, NO_DAY, ONLY_SCANNER, select_cases
from msfl_client.harmonization.site import HarmonizedSite, harmonize_site, rows_of, training_rows
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.harmonization import Reference, column_widths, make_reference, solve_slopes

NAMES = tuple(FEATURES)[:6]
SETTINGS = Harmonization(method="combat", features=NAMES, min_cases=4)


def site_at(root: Path) -> SiteConfig:
    return SiteConfig(name="here", data=(root,), state=root / "state")


def make_cases(scanners: Sequence[str | None]) -> list[Case]:
    return [Case(0, f"sub-{number:02d}", None, {}, None, scanner) for number, scanner in enumerate(scanners)]


def write_participants(root: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    lines = ["participant_id\tage\tsex", *("\t".join(row) for row in rows)]
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")


def healthy_table(root: Path, cases: Sequence[Case]) -> None:
    write_participants(root, [(case.subject, str(25 + number), "FM"[number % 2]) for number, case in enumerate(cases)])


def features_of(cases: Sequence[Case]) -> FeatureTable:
    """Made of the subject's number, so that a case has the same at each call."""
    rows = []
    for case in cases:
        values = np.random.default_rng(int(case.subject[4:])).normal(10, 1, len(NAMES))
        features = dict(zip(NAMES, map(float, values), strict=True))
        rows.append(FeatureRow(case.subject, case.visit_id, case.scanner, case.dataset, features))
    return FeatureTable(tuple(rows))


def reference_of(cases: Sequence[Case], root: Path) -> Reference:
    rows, _ = training_rows(cases, site_at(root), SETTINGS, features_of(cases))
    moments = compute_moments(rows)
    slopes_QP = solve_slopes([moments])
    return make_reference("test", SETTINGS, [moments], [compute_residuals(rows, slopes_QP)], slopes_QP)


def harmonize(cases: Sequence[Case], root: Path, folder: Path) -> HarmonizedSite:
    return harmonize_site(cases, cases, site_at(root), reference_of(cases, root), features_of(cases), folder)


def test_cases_without_a_covariate_or_scanner_are_left_out(tmp_path: Path) -> None:
    cases = make_cases(["one", "one", "one", "one", None, "two"])
    rows = [("sub-00", "31", "F"), ("sub-01", "n/a", "M"), ("sub-02", "44", "x"), ("sub-03", "NaN", "F")]
    write_participants(tmp_path, [*rows, ("sub-04", "50", "m"), ("sub-05", "200", "female")])
    chosen, table = select_cases(cases, site_at(tmp_path), SETTINGS), tmp_path / "participants.tsv"
    assert [case.subject for case in chosen.cases] == ["sub-00"]
    assert chosen.covariates == ({"age": 31.0, "sex": 0.0},)
    assert chosen.left_out == {
        "sub-01": "no usable age in participants.tsv",
        "sub-02": f"{table}: line 4, sex: expected f, female, m, male, found 'x'; say in the site file what "
        "your words mean, as in `words: {sex: {W: female}}`",
        "sub-03": "no usable age in participants.tsv",
        "sub-04": "its scanner is not known; name it in participants.tsv or sessions.tsv",
        "sub-05": f"{table}: line 7, age: expected a number from 0 to 120, found '200'",
    }


def test_a_declared_value_is_a_covariate_and_goes_with_the_reference(tmp_path: Path) -> None:
    sdmt = {"name": "sdmt", "kind": "number", "unit": "points", "range": [0, 110]}
    course = {"name": "course", "kind": "category", "levels": ["RR", "SP"]}
    outcome = {"outcome": {"column": "worse"}, "clinical": ["sdmt"], "declared": [sdmt], "model": {"kind": "logistic"}}
    kept = {"method": "combat", "features": NAMES, "covariates": ["age", "sdmt", "course"], "declared": [course]}
    content = {"name": "own", "task": "classification", "classification": outcome, "harmonization": kept}
    study = StudyConfig.model_validate(content)
    assert StudyConfig.model_validate_json(study.model_dump_json()) == study
    cases = make_cases(["one"] * 4)
    lines = ["participant_id\tage\tsdmt\tcourse", "sub-00\t30\t50\tRR", "sub-01\t40\t60\tsp", "sub-02\t50\t200\tRR"]
    (tmp_path / "participants.tsv").write_text("\n".join([*lines, "sub-03\t60\tn/a\tRR"]) + "\n")
    chosen = select_cases(cases, site_at(tmp_path), study.harmonization)
    assert chosen.covariates == ({"age": 30.0, "sdmt": 50.0, "course": 0.0}, {"age": 40.0, "sdmt": 60.0, "course": 1.0})
    assert chosen.left_out["sub-03"] == "no usable sdmt in the tables"
    assert "sdmt: expected a number from 0 to 110" in chosen.left_out["sub-02"]
    rows = rows_of(chosen, {row.key: row for row in features_of(cases).rows}, study.harmonization)
    assert rows.covariates_NQ.tolist() == [[30, 50, 0], [40, 60, 1]]
    assert column_widths(study.harmonization) == {"age": 120.0, "sdmt": 110.0, "course_SP": 1.0}
    for wrong, said in (
        (["age", "nfl"], "nfl: expected age, sex, or a value that the study declares"),
        (["worse"], "worse"),
    ):
        with pytest.raises(ValueError, match=said):
            StudyConfig.model_validate({**content, "harmonization": {"method": "combat", "covariates": wrong}})


def test_a_site_that_names_no_scanner_is_one(tmp_path: Path) -> None:
    cases = make_cases([None] * 5)
    healthy_table(tmp_path, cases)
    assert set(select_cases(cases, site_at(tmp_path), SETTINGS).scanners) == {ONLY_SCANNER}


def write_sessions(root: Path, subject: str, text: str) -> None:
    (root / subject).mkdir(exist_ok=True)
    (root / subject / f"{subject}_sessions.tsv").write_text(text)


def visits_of(subject: str, *visit_ids: str, scanner: str = "one") -> list[Case]:
    return [Case(0, subject, visit_id, {}, None, scanner) for visit_id in visit_ids]


@pytest.mark.parametrize(
    ("sessions", "ages", "reason"),
    [
        ("session_id\tage\nses-a\t30.5\nb\t31.5\nses-c\t33\n", [30.5, 31.5, 33.0], ""),
        ("session_id\tdate\na\t2020-01-01\nb\t2021-01-01\nc\t2024-01-01\n", [30, 30 + 366 / 365.25, 34.0], ""),
        ("session_id\tyears\na\t0\nb\t1.5\nc\t8\n", [30.0, 31.5, 38.0], ""),
        ("session_id\tage\tdays\na\tn/a\t0\nb\t32\t365\nc\tn/a\t730.5\n", [30.0, 32.0, 32.0], ""),
        ("session_id\tdays\na\t0\nb\t365.25\n", [30.0, 31.0], NO_DAY),
        ("session_id\tedss\na\t2\nb\t2\nc\t2\n", [30.0], NO_AGE_LATER),
    ],
)
def test_age_is_that_at_the_visit(tmp_path: Path, sessions: str, ages: list[float], reason: str) -> None:
    write_participants(tmp_path, [("sub-1", "30", "F")])
    write_sessions(tmp_path, "sub-1", sessions)
    cases = visits_of("sub-1", "ses-a", "ses-b", "ses-c")
    chosen = select_cases(cases, site_at(tmp_path), SETTINGS)
    assert [values["age"] for values in chosen.covariates] == pytest.approx(ages)
    assert chosen.left_out == {case.key: reason for case in cases[len(ages) :]}
    by_sex = select_cases(
        cases,
        site_at(tmp_path),
        SETTINGS.model_copy(update={"covariates": ("sex",)}),
    )
    assert by_sex.covariates == ({"sex": 0.0},) * 3


def test_rows_that_contradict_each_other_leave_the_patient_out(tmp_path: Path) -> None:
    rows = [("sub-1", "30", "F"), ("sub-1", "30", "F"), ("sub-2", "30", "F"), ("sub-2", "31", "F")]
    write_participants(tmp_path, rows)
    cases = [*visits_of("sub-1", "ses-a"), *visits_of("sub-2", "ses-a")]
    assert list(select_cases(cases, site_at(tmp_path), SETTINGS).left_out) == ["sub-2_ses-a"]


def test_a_patient_counts_once_on_a_scanner_by_the_first_usable_visit(tmp_path: Path) -> None:
    """Eight visits of one patient are no eight patients; a patient of two scanners counts on both."""
    write_participants(tmp_path, [(f"sub-{number:02d}", str(25 + number), "FM"[number % 2]) for number in range(6)])
    often = [f"ses-{number}" for number in range(8)]
    cases = [case for number in range(4) for case in visits_of(f"sub-{number:02d}", "ses-1", "ses-2")]
    cases += [*visits_of("sub-04", *often, scanner="two"), *visits_of("sub-00", "ses-3", "ses-4", scanner="two")]
    for subject in ("sub-00", "sub-01", "sub-02", "sub-03"):  # in order of time the names run backwards
        write_sessions(tmp_path, subject, "session_id\tdays\n2\t0\n1\t300\n3\t400\n4\t500\n")
    write_sessions(tmp_path, "sub-04", "session_id\tdays\n" + "".join(f"{n}\t{90 * n}\n" for n in range(8)))
    rows, chosen = training_rows(cases, site_at(tmp_path), SETTINGS, features_of(cases))
    assert [case.key for case in chosen.cases] == [f"sub-{number:02d}_ses-2" for number in range(4)]
    assert set(rows.scanners) == {"one"}
    reason = "scanner two: 2 training patients (10 visits) with every covariate; at least 4 patients are needed"
    assert set(chosen.left_out.values()) == {reason}
    assert len(chosen.left_out) == 10
    both = SETTINGS.model_copy(update={"min_cases": 2})
    rows, chosen = training_rows(cases, site_at(tmp_path), both, features_of(cases))
    on_two = [case.key for case, scanner in zip(chosen.cases, chosen.scanners, strict=True) if scanner == "two"]
    assert on_two == ["sub-04_ses-0", "sub-00_ses-3"]
    (tmp_path / "others").mkdir()
    others = make_cases(["one"] * 6 + ["two"] * 5)
    healthy_table(tmp_path / "others", others)
    reference = reference_of(others, tmp_path / "others")
    made = harmonize_site(cases, cases, site_at(tmp_path), reference, features_of(cases), tmp_path / "out")
    assert len(made.table.rows) == 8  # every visit on the scanner that is fitted
    assert [fit.num_cases for fit in made.fit.scanners] == [4]


def test_a_scanner_with_few_cases_is_left_out_and_named(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 5 + ["two"])
    healthy_table(tmp_path, cases)
    rows, chosen = training_rows(cases, site_at(tmp_path), SETTINGS, features_of(cases))
    assert set(rows.scanners) == {"one"}
    assert chosen.left_out == {
        "sub-05": "scanner two: 1 training patient (1 visits) with every covariate; at least 4 patients are needed"
    }
    with pytest.raises(
        RefusedError, match=r"3 \(sub-00, sub-01, sub-02\): scanner one: 3 training patients"
    ) as refused:
        training_rows(cases[:3], site_at(tmp_path), SETTINGS, features_of(cases))
    assert refused.value.code is Code.TOO_FEW_PATIENTS


def test_a_case_without_a_feature_is_left_out(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 6)
    healthy_table(tmp_path, cases)

    rows = list(features_of(cases).rows)
    features = {name: value for name, value in rows[2].features.items() if name != NAMES[1]}
    nothing = replace(rows[4], features={})
    table = FeatureTable((*rows[:2], replace(rows[2], features=features), rows[3], nothing))
    settings = SETTINGS.model_copy(update={"min_cases": 3})
    used, chosen = training_rows(cases, site_at(tmp_path), settings, table)
    assert len(used) == 3
    assert chosen.left_out == {
        "sub-02": f"without {NAMES[1]}",
        "sub-04": f"without {NAMES[0]}, {NAMES[1]}, {NAMES[2]} and more",
        "sub-05": "no row in the table of features",
    }


def test_what_lies_at_the_site_afterwards(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 6 + ["two"] * 5 + ["three"])
    healthy_table(tmp_path, cases)
    made = harmonize(cases, tmp_path, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "features.json", "features.tsv", "harmonization.json", "scanners.json",
    ]  # fmt: skip
    assert made.left_out == {"sub-11": "scanner three has no fit: too few training patients"}
    fits = (tmp_path / "out" / "scanners.json").read_text()
    assert "sub-" not in fits
    assert len(made.table.rows) == 11
    raw = {row.key: row.features for row in features_of(cases).rows}
    assert max(abs(row.features[NAMES[0]] - raw[row.key][NAMES[0]]) for row in made.table.rows) > 0.01
    assert made.far == []
    assert made.spread.low < -1.5 < 1.5 < made.spread.high <= abs(made.spread.furthest)
    assert made.spread.of.split(" of ")[1] in {row.key for row in made.table.rows}
    again = read_features_table(tmp_path / "out" / "features.tsv")
    assert again == made.table
    assert again.harmonized_to == reference_of(cases, tmp_path).version


def test_harmonizing_twice_is_refused(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 6 + ["two"] * 5)
    healthy_table(tmp_path, cases)
    harmonize(cases, tmp_path, tmp_path / "out")
    reference, table = reference_of(cases, tmp_path), read_features_table(tmp_path / "out" / "features.tsv")
    before = (tmp_path / "out" / "features.tsv").read_bytes()
    with pytest.raises(InputError, match=f"harmonized already, to reference {reference.version}; use the raw ones"):
        harmonize_site(cases, cases, site_at(tmp_path), reference, table, tmp_path / "out")
    assert (tmp_path / "out" / "features.tsv").read_bytes() == before


def test_a_reference_that_writes_covariates_into_features_is_refused(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 6 + ["two"] * 5)
    healthy_table(tmp_path, cases)
    reference = reference_of(cases, tmp_path)
    hostile = reference.model_copy(update={"slopes": tuple(tuple(1e9 for _ in row) for row in reference.slopes)})
    with pytest.raises(RefusedError, match="the reference's slopes for"):
        harmonize_site(cases, cases, site_at(tmp_path), hostile, features_of(cases), tmp_path / "out")
    assert not (tmp_path / "out").exists()
