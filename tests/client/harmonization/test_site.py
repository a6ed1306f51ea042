"""Which cases of a site are harmonized, by a stated rule, and what lies at the site afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfl_client.clinical.covariates import ONLY_SCANNER, select_cases
from msfl_client.data.bids import Case
from msfl_client.features.table import FeatureRow, FeatureTable, read_features_table
from msfl_client.harmonization.combat import compute_moments, compute_residuals
from msfl_client.harmonization.site import HarmonizedSite, harmonize_site, training_rows
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.study import Harmonization
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.harmonization import Reference, make_reference, solve_slopes

NAMES = tuple(FEATURES)[:6]
SETTINGS = Harmonization(method="combat", features=NAMES, min_cases=4)


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
    rows, _ = training_rows(cases, [root], SETTINGS, features_of(cases))
    moments = compute_moments(rows)
    slopes_QP = solve_slopes([moments])
    return make_reference("test", SETTINGS, [moments], [compute_residuals(rows, slopes_QP)], slopes_QP)


def harmonize(cases: Sequence[Case], root: Path, folder: Path) -> HarmonizedSite:
    return harmonize_site(cases, cases, [root], reference_of(cases, root), features_of(cases), folder)


def test_cases_without_a_covariate_or_scanner_are_left_out(tmp_path: Path) -> None:
    cases = make_cases(["one", "one", "one", "one", None, "two"])
    rows = [("sub-00", "31", "F"), ("sub-01", "n/a", "M"), ("sub-02", "44", "x"), ("sub-03", "NaN", "F")]
    write_participants(tmp_path, [*rows, ("sub-04", "50", "m"), ("sub-05", "200", "female")])
    chosen = select_cases(cases, [tmp_path], SETTINGS)
    assert [case.subject for case in chosen.cases] == ["sub-00"]
    assert chosen.covariates == ({"age": 31.0, "sex": 0.0},)
    assert chosen.left_out == {
        "sub-01": "no usable age in participants.tsv",
        "sub-02": "no usable sex in participants.tsv",
        "sub-03": "no usable age in participants.tsv",
        "sub-04": "its scanner is not known; name it in participants.tsv or sessions.tsv",
        "sub-05": "no usable age in participants.tsv",
    }


def test_a_site_that_names_no_scanner_is_one(tmp_path: Path) -> None:
    cases = make_cases([None] * 5)
    healthy_table(tmp_path, cases)
    assert set(select_cases(cases, [tmp_path], SETTINGS).scanners) == {ONLY_SCANNER}


def test_a_sessions_own_age_goes_before(tmp_path: Path) -> None:
    write_participants(
        tmp_path, [("sub-1", "30", "F"), ("sub-1", "30", "F"), ("sub-2", "30", "F"), ("sub-2", "31", "F")]
    )
    (tmp_path / "sub-1").mkdir()
    (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_text("session_id\tage\nses-a\t30.5\nb\t31.5\n")
    cases = [Case(0, "sub-1", context, {}, None, "one") for context in ("ses-a", "ses-b", "ses-c")]
    chosen = select_cases([*cases, Case(0, "sub-2", None, {}, None, "one")], [tmp_path], SETTINGS)
    assert [values["age"] for values in chosen.covariates] == [30.5, 31.5, 30.0]
    assert list(chosen.left_out) == ["sub-2"]  # its rows contradict each other


def test_a_scanner_with_few_cases_is_left_out_and_named(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 5 + ["two"])
    healthy_table(tmp_path, cases)
    rows, chosen = training_rows(cases, [tmp_path], SETTINGS, features_of(cases))
    assert set(rows.scanners) == {"one"}
    assert chosen.left_out == {"sub-05": "scanner two: 1 training cases with every covariate; at least 4 are needed"}
    with pytest.raises(RefusedError, match="scanner one: 3 training cases") as refused:
        training_rows(cases[:3], [tmp_path], SETTINGS, features_of(cases))
    assert refused.value.code is Code.TOO_FEW_PATIENTS


def test_a_case_without_a_feature_is_left_out(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 6)
    healthy_table(tmp_path, cases)

    rows = list(features_of(cases).rows)
    features = {name: value for name, value in rows[2].features.items() if name != NAMES[1]}
    table = FeatureTable((*rows[:2], replace(rows[2], features=features), *rows[3:5]))
    used, chosen = training_rows(cases, [tmp_path], SETTINGS, table)
    assert len(used) == 4
    assert chosen.left_out == {
        "sub-02": f"without {NAMES[1]}",
        "sub-05": f"without {NAMES[0]}, {NAMES[1]}, {NAMES[2]} and more",
    }


def test_what_lies_at_the_site_afterwards(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 6 + ["two"] * 5 + ["three"])
    healthy_table(tmp_path, cases)
    made = harmonize(cases, tmp_path, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "features.json", "features.tsv", "harmonization.json", "scanners.json",
    ]  # fmt: skip
    assert made.left_out == {"sub-11": "scanner three has no fit: too few training cases"}
    fits = (tmp_path / "out" / "scanners.json").read_text()
    assert "sub-" not in fits
    assert len(made.table.rows) == 11
    raw = {row.key: row.features for row in features_of(cases).rows}
    assert max(abs(row.features[NAMES[0]] - raw[row.key][NAMES[0]]) for row in made.table.rows) > 0.01
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
        harmonize_site(cases, cases, [tmp_path], reference, table, tmp_path / "out")
    assert (tmp_path / "out" / "features.tsv").read_bytes() == before


def test_a_reference_that_writes_covariates_into_features_is_refused(tmp_path: Path) -> None:
    cases = make_cases(["one"] * 6 + ["two"] * 5)
    healthy_table(tmp_path, cases)
    reference = reference_of(cases, tmp_path)
    hostile = reference.model_copy(update={"slopes": tuple(tuple(1e9 for _ in row) for row in reference.slopes)})
    with pytest.raises(RefusedError, match="the reference's slopes for"):
        harmonize_site(cases, cases, [tmp_path], hostile, features_of(cases), tmp_path / "out")
    assert not (tmp_path / "out").exists()
