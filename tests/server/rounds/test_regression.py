"""Rounds of a study that predicts a number, in this process: exact figures, model card, report, resuming, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler
from tests.commands import run_main
from tests.server.rounds.test_classification import Killed, Recorder, grid_of

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.cli.main import main as client
from msfl_client.clinical.inputs import dataset_of
from msfl_client.disclosure.small_groups import in_large_groups
from msfl_common.config.base import validate
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.dataset import Dataset
from msfl_common.errors import ConfigError
from msfl_common.models.model_folder import load_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.report.page import write_report
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.rounds.loop import run_rounds
from msfl_server.run.summarise import summarise_run

STUDY = """\
name: numbers
task: regression
min_patients: 2
regression:
  outcome: {endpoint: edss, unit: points, range: [0, 10]}
  clinical: [age, sex, edss]
  model: {kind: ridge}
rounds: {num_rounds: 4, quorum: 3}
"""


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites of 60 patients, as tables."""
    folder = tmp_path_factory.mktemp("records") / "patients"
    make_records(folder, num_sites=3, cases_per_site=60)
    return folder


def content_of(model: dict[str, Any] | None = None, **outcome: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(STUDY)
    content["regression"]["model"] = model or {"kind": "ridge"}
    if outcome:
        content["regression"]["outcome"] = outcome
    return content


def study_of(model: dict[str, Any] | None = None, **outcome: Any) -> StudyConfig:
    return validate(StudyConfig, content_of(model, **outcome), "study")


def play(study: StudyConfig, patients: Path, out: Path, die_after: int = 0) -> Recorder:
    recorder = Recorder(die_after)
    run_rounds(grid_of(sites_of_cohort(patients, out, study)), study, starting_weights(study), out, recorder)
    return recorder


def joined(parts: list[Dataset]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    inputs_NP = np.concatenate([part.features_NP for part in parts])
    return inputs_NP, np.concatenate([part.values_N for part in parts if part.values_N is not None])


def test_a_run_is_pooled_scikit_learn_and_so_are_its_figures(patients: Path, tmp_path: Path) -> None:
    study = study_of()
    final = play(study, patients, tmp_path).states[-1]
    assert final.round == 1
    settings = study.regression
    assert settings is not None
    data = [read_outcomes(site, study, lambda *_: None) for site in sites_of_cohort(patients, tmp_path, study)]
    each = [[dataset_of(part, settings, None) for part in one.splits.each] for one in data]
    training = joined([in_large_groups(settings, parts[0], 2) for parts in each])
    validation, test = (joined([parts[place] for parts in each]) for place in (1, 2))
    card, state = load_model(tmp_path / "model")
    assert state["counts"].sum() == len(training[1])
    scaler = StandardScaler().fit(training[0])
    ridge = Ridge().fit(scaler.transform(training[0]), training[1])
    predicted = [np.clip(ridge.predict(scaler.transform(inputs)), 0, 10) for inputs, _ in (validation, test)]
    summary = summarise_run(study, final, state)
    found = {name: metric.mean for name, metric in summary.metrics.items()}
    assert found["rmse"] == pytest.approx(root_mean_squared_error(test[1], predicted[1]), abs=1e-6)
    assert found["r2"] == pytest.approx(r2_score(test[1], predicted[1]), abs=1e-6)
    assert card.prediction_error is not None
    both = np.concatenate([validation[1] - predicted[0], test[1] - predicted[1]])
    assert card.prediction_error.rmse == pytest.approx(np.sqrt((both**2).mean()), abs=1e-6)
    assert (card.prediction_error.num_patients, card.labels) == (len(both), {})
    page = write_report(tmp_path, summary, study).read_text("utf-8")
    for expected in ("Research use only", "RMSE", "Calibration intercept", "Residual (observed less predicted)"):
        assert expected in page
    assert "sub-0" not in page


def test_a_study_travels_with_its_own_section(patients: Path, tmp_path: Path) -> None:
    study = study_of()
    told = json.loads(study.model_dump_json())
    assert "classification" not in told
    assert told["regression"]["outcome"]["range"] == [0, 10]
    again = parse_study(study.model_dump_json())
    assert (again, again.classification) == (study, study.regression)


def test_a_number_is_predicted_with_an_interval(patients: Path, tmp_path: Path) -> None:
    study = study_of({"kind": "elastic-net", "alpha": 0.01}, endpoint="edss-change", unit="points", range=[-10, 10])
    play(study, patients, tmp_path / "run")
    asked = ["predict", "--model", tmp_path / "run" / "model", "--input", patients / "site-a", "--output"]
    done = run_main(client, *asked, tmp_path / "predicted", "--json")
    cases = json.loads(done.stdout)["cases"]
    told = [one for one in cases if one["predicted"] is not None]
    assert len(told) > 50
    for one in told:
        assert one["interval"]["low"] < one["predicted"] < one["interval"]["high"]
        assert {reason["input"] for reason in one["reasons"]} == {"age", "sex", "edss"}
    table = (tmp_path / "predicted" / "predictions.tsv").read_text().splitlines()
    assert table[0].split("\t")[3:6] == ["predicted", "interval_low", "interval_high"]
    done = run_main(client, *asked, tmp_path / "again", "--threshold", "0.5")
    assert done.returncode == 2
    assert "predicts a number" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", [{"kind": "ridge"}, {"kind": "mlp", "hidden": [4]}, {"kind": "gradient-boosting"}])
def test_a_killed_run_goes_on_to_bit_identical_weights(patients: Path, tmp_path: Path, model: dict[str, Any]) -> None:
    study = study_of(model)
    play(study, patients, tmp_path / "whole")
    with pytest.raises(Killed):
        play(study, patients, tmp_path / "killed", 1)
    play(study, patients, tmp_path / "killed")
    whole, resumed = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == resumed


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("seventy", "expected a number from 18 to 80 (years), found 'seventy'"),
        ("81", "expected a number from 18 to 80 (years), found '81'"),
        ("inf", "expected a number from 18 to 80 (years), found 'inf'"),
    ],
)
def test_a_cell_that_cannot_be_is_one_line(patients: Path, tmp_path: Path, cell: str, said: str) -> None:
    broken = tmp_path / "cohort"
    shutil.copytree(patients, broken)
    path = broken / "site-a" / "participants.tsv"
    header, first, *rest = path.read_text().splitlines()
    cells = [*first.split("\t"), cell]
    lines = ["\t".join([*header.split("\t"), "years_old"]), "\t".join(cells), *(f"{line}\t40" for line in rest)]
    path.write_text("\n".join(lines) + "\n")
    study = tmp_path / "study.yaml"
    outcome = {"column": "years_old", "unit": "years", "range": [18, 80]}
    study.write_text(yaml.safe_dump(content_of(**outcome)))
    site = tmp_path / "site.yaml"
    folders = {"data": [str(broken / "site-a")], "state": str(tmp_path / "state")}
    site.write_text(yaml.safe_dump({"name": "site-a", **folders, "policy": {"tasks": ["regression"]}}))
    done = run_main(client, "check", site, "--study", study)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "sub-001" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"kind": "svm-rbf"}}, "svm-rbf tells classes apart; of a number expected one of linear-regression"),
        ({"model": {"kind": "resnet3d"}}, "resnet3d tells classes apart"),
        ({"outcome": {"column": "age2", "unit": "years"}}, "range"),
        ({"outcome": {"column": "age2", "unit": "years", "range": [3, 2]}}, "the lowest number and then a higher one"),
        ({"outcome": {"column": "age2", "unit": "years", "range": [0, 1e10]}}, "1000000000"),
        ({"outcome": {"endpoint": "edss", "unit": "points", "range": [0, 5]}}, "of edss is [0, 10]"),
        ({"outcome": {"endpoint": "activity", "unit": "points", "range": [0, 10]}}, "endpoint"),
        ({"outcome": {"column": "age2", "classes": ["0", "1"], "unit": "a", "range": [0, 1]}}, "classes"),
        ({"clinical": ["age"], "outcome": {"column": "age", "unit": "years", "range": [0, 99]}}, "is the outcome"),
    ],
)
def test_a_study_that_cannot_be_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    content = content_of()
    content["regression"] |= change
    with pytest.raises(ConfigError) as refused:
        validate(StudyConfig, content, "study.yaml")
    assert said in str(refused.value)


def test_a_section_of_another_task_is_refused() -> None:
    content = content_of()
    for task in ("classification", "lesion-segmentation"):
        with pytest.raises(ConfigError, match=r"expected a section `(classification|regression)` with the task"):
            validate(StudyConfig, content | {"task": task}, "study.yaml")
