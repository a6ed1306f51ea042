"""Values that a study declares, from its file to a report and a prediction: rounds, figures and refusals are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LinearRegression
from tests.commands import run_main
from tests.common.config.test_clinical_values import SCHOOL, SDMT, SMOKER, TREATMENT
from tests.server.rounds.test_regression import joined, play

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.cli.main import main as client
from msfl_client.clinical.inputs import dataset_of
from msfl_client.disclosure.small_groups import in_large_groups
from msfl_common.config.base import validate
from msfl_common.config.differential_privacy import bounds_of
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_folder import load_model
from msfl_server.report.page import write_report
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.run.summarise import summarise_run

SECTION = {
    "outcome": {"endpoint": "edss", "unit": "points", "range": [0, 10]},
    "clinical": ["age", "edss", "sdmt", "treatment", "school", "smoker"],
    "declared": [SDMT, TREATMENT, SCHOOL, SMOKER],
    "model": {"kind": "linear-regression"},
}
CONTENT = {"name": "own", "task": "regression", "min_patients": 2, "rounds": {"num_rounds": 4, "quorum": 3}}
STUDY = validate(StudyConfig, {**CONTENT, "regression": SECTION}, "study")
LEVELS = ("untreated", "injection")  # nobody is on infusions


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites of 40 patients, with four columns more."""
    folder = tmp_path_factory.mktemp("declared") / "patients"
    make_records(folder, num_sites=3, cases_per_site=40)
    rng = np.random.default_rng(0)
    for path in sorted(folder.glob("site-*/participants.tsv")):
        header, *rows = path.read_text().splitlines()
        lines = [f"{header}\tSDMT\ttreatment\tschool\tsmoker"]
        for row in rows:
            school, smoker = rng.choice(SCHOOL["levels"]), rng.choice(["yes", "no"])
            lines.append(f"{row}\t{rng.integers(20, 80)}\t{rng.choice(LEVELS)}\t{school}\t{smoker}")
        path.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("run")
    return out, play(STUDY, patients, out).states[-1]


def test_a_run_is_pooled_scikit_learn_of_the_same_columns(patients: Path, run: tuple[Path, Any]) -> None:
    out, final = run
    settings = STUDY.regression
    assert settings is not None
    data = [read_outcomes(site, STUDY, lambda *_: None) for site in sites_of_cohort(patients, out, STUDY)]
    parts = [in_large_groups(settings, dataset_of(one.splits.training, settings, None), 2) for one in data]
    assert parts[0].names == ("age", "edss", "sdmt", "treatment_injection", "treatment_infusion", "school", "smoker")
    inputs_NP, values_N = joined(parts)
    assert {*inputs_NP[:, 5].tolist()} == {0, 1, 2}
    card, state = load_model(out / "model")
    summary = summarise_run(STUDY, final, state)
    assert summary.regression is not None
    found = {one.input: one.per_unit for one in summary.regression.coefficients}
    fitted = LinearRegression().fit(np.delete(inputs_NP, 4, axis=1), values_N)
    names = [name for name in settings.inputs if name != "treatment_infusion"]
    assert [found[name] for name in names] == pytest.approx(fitted.coef_.tolist(), abs=1e-6)
    assert found["treatment_infusion"] == 0
    assert card.study.classification is not None
    assert card.study.classification.declared == settings.declared
    page = write_report(out, summary, STUDY).read_text("utf-8")
    for expected in ("treatment: injection", "injection, against untreated", "sdmt, points", "smoker, against not"):
        assert expected in page


def predict(run: tuple[Path, Any], folder: Path, out: Path) -> tuple[int, str]:
    done = run_main(client, "predict", "--model", run[0] / "model", "--input", folder, "--output", out)
    table = out / "predictions.tsv"
    return done.returncode, (table.read_text() if table.exists() else "") + " ".join(done.stderr.split())


def test_a_level_that_nobody_had_in_training_and_one_of_no_study_are_named(
    patients: Path, run: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    header, first, second, third, *_ = (patients / "site-a" / "participants.tsv").read_text().splitlines()
    columns = header.split("\t")

    def with_level(row: str, level: str) -> str:
        cells = row.split("\t")
        cells[columns.index("treatment")] = level
        return "\t".join(cells)

    rows = [header, with_level(first, "injection"), with_level(second, "infusion"), with_level(third, "Tysabri")]
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    code, told = predict(run, folder, tmp_path / "out")
    assert code == 0
    lines = [line for line in told.splitlines() if line.startswith("sub-")]
    assert "injection" not in lines[0]
    assert lines[0].rstrip().endswith("n/a")
    assert "treatment: infusion, which no training patient had: the model cannot tell what it means" in lines[1]
    assert "line 4, treatment: expected untreated, injection, infusion, found 'Tysabri'" in lines[2]


def test_a_folder_without_the_models_inputs_is_one_line(patients: Path, run: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    lines = (patients / "site-a" / "participants.tsv").read_text().splitlines()
    (folder / "participants.tsv").write_text("".join(line.rsplit("\t", 1)[0] + "\n" for line in lines))
    code, told = predict(run, folder, tmp_path / "out")
    assert code == 2
    assert "the study declares smoker (0, no, false, 1, yes, true), and no table has a column smoker; add it" in told


def test_a_site_is_told_what_it_lacks(patients: Path, tmp_path: Path) -> None:
    other = {"name": "nfl", "kind": "number", "unit": "pg/ml", "range": [0, 2000]}
    section = {**SECTION, "clinical": ["age", "nfl"], "declared": [other]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**CONTENT, "regression": section}))
    site = {"name": "site-a", "data": str(patients / "site-a"), "state": str(tmp_path / "state")}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({**site, "policy": {"tasks": ["regression"]}}))
    done = run_main(client, "check", tmp_path / "site.yaml", "--study", tmp_path / "study.yaml")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2
    assert "the study declares nfl (a number from 0 to 2000, pg/ml), and no table has a column nfl" in told


def test_a_declared_range_is_a_bound_of_differential_privacy() -> None:
    section = {**SECTION, "model": {"kind": "ridge"}}
    private = {"noise_multiplier": 1.4, "bounds": {"age": [18, 80], "edss": [0, 10]}}
    content = {**CONTENT, "regression": section, "differential_privacy": private}
    study = validate(StudyConfig, content, "study")
    assert study.classification is not None
    assert study.differential_privacy is not None
    found = bounds_of(study.classification, study.differential_privacy)
    assert [*found.values()] == [(18, 80), (0, 10), (0, 110), (0, 1), (0, 1), (0, 2), (0, 1)]
