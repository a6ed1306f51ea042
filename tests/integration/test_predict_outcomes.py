"""Trained classifications put to use by `msfl-client predict`."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit
from tests.integration.conftest import Command, rows_of
from tests.server.rounds.test_loop import Recorder, grid_of

from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.feature_models import predict_proba
from msfl_common.metrics.reliability import interval_at
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulated_cohort import make_records
from msfl_server.rounds.loop import run_rounds

SITES = ("site-a", "site-b", "site-c")
CLINICAL = ("age", "sex", "edss", "relapses_prior_year")
FEATURES = ("lesion_volume_ml", "bpf")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("records") / "cohort"
    make_records(out, num_sites=len(SITES), cases_per_site=(40, 30, 30))
    return out


def trained(cohort: Path, folder: Path, **settings: Any) -> Path:
    """The model that a run of real rounds ends with."""
    study = StudyConfig(name="outcomes", task="classification", min_patients=1, **settings)
    policy = Policy(
        tasks=("classification",),
        allow=("model_update", "validation_metrics", "harmonization_sums", "node_facts"),
        min_patients=1,
        refuse_models=(),
    )
    sites = [SiteConfig(name=name, data=(cohort / name,), state=folder / name, policy=policy) for name in SITES]
    run_rounds(grid_of(sites), study, starting_weights(study), folder / "out", Recorder())
    return folder / "out" / "model"


@pytest.fixture(scope="module")
def logistic(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    classification = {
        "outcome": {"endpoint": "edss-worsening"},
        "features": FEATURES,
        "clinical": CLINICAL,
        "model": {"kind": "logistic"},
    }
    rounds = Rounds(num_rounds=15, quorum=2)
    return trained(cohort, tmp_path_factory.mktemp("logistic"), classification=classification, rounds=rounds)


@pytest.fixture(scope="module")
def boosted(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees on harmonized features."""
    classification = {
        "outcome": {"endpoint": "edss-worsening"},
        "features": FEATURES,
        "clinical": CLINICAL,
        "model": {"kind": "gradient-boosting"},
    }
    return trained(
        cohort,
        tmp_path_factory.mktemp("boosted"),
        classification=classification,
        rounds=Rounds(num_rounds=4, quorum=2),
        harmonization={"method": "combat", "features": FEATURES},
    )


@pytest.fixture
def folder(cohort: Path, tmp_path: Path) -> Path:
    """A copy of a site's folder to damage."""
    return Path(shutil.copytree(cohort / "site-a", tmp_path / "bids"))


def edit(path: Path, row: int, **cells: str) -> str:
    """Change cells of a line of a table, the first below the header being 0; returns the subject that it is of."""
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        names, lines = list(reader.fieldnames or ()), list(reader)
    lines[row] |= cells
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return lines[row].get("participant_id", "")


def test_the_card_says_what_came_of_the_patients(logistic: Path) -> None:
    card, _ = load_model(logistic)
    assert card.reliability is not None
    (groups,) = card.reliability.groups
    scores, cases, positives = map(np.array, zip(*groups, strict=True))
    assert len(groups) <= 10
    assert (np.diff(scores) > 0).all()
    assert 20 <= cases.sum() < 100 - sum(card.provenance.sites.values()) + 1
    assert 0 < positives.sum() < cases.sum()


def test_outcomes_of_a_folder(logistic: Path, cohort: Path, predict: Command, tmp_path: Path) -> None:
    code, out, _ = predict(logistic, cohort / "site-a")
    assert code == 0
    assert "40 of 40 predicted" in out
    assert "Research use only. Not a medical device." in out
    assert "It tells of such patients, not of this one alone" in " ".join(out.split())
    card, _ = load_model(logistic)
    assert f"Class: 1 from a probability of {card.threshold:.4g} on, the study's threshold." in out
    rows = rows_of(tmp_path)
    assert {word for row in rows for word in re.findall(r"sex \S+", row["reasons"])} <= {"sex female", "sex male"}
    assert any("sex " in row["reasons"] for row in rows)
    assert {row["status"] for row in rows} == {"ok"} | {row["status"] for row in rows if "passed over" in row["status"]}
    for row in rows:
        probability = float(row["probability_1"])
        assert probability + float(row["probability_0"]) == pytest.approx(1, abs=1e-5)
        assert row["class"] == str(int(probability >= card.threshold))
        assert int(row["interval_cases"]) >= 20
        assert 0 <= float(row["interval_low"]) < float(row["interval_high"]) <= 1
        assert row["reasons"].count(";") == 2
        low, high = float(row["interval_low"]), float(row["interval_high"])
        how = "above" if probability > high else "below" if probability < low else None
        assert (f"is {how} what was seen" in row["warnings"]) == (how is not None)
    described = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {*rows[0]} <= {*described}
    assert described["Notice"] == card.notice


def test_probabilities_reasons_and_intervals_are_the_models(
    logistic: Path, cohort: Path, predict: Command, tmp_path: Path
) -> None:
    code, out, err = predict(logistic, cohort / "site-a", "--json")
    document = json.loads(out)
    card, state = load_model(logistic)
    assert (code, err, document["notice"]) == (0, "", card.notice)
    settings = card.study.classification
    assert settings is not None
    assert card.reliability is not None
    at_mean = logit(predict_proba(settings, state, state["mean"][None])[0, 1])
    for case in document["cases"]:
        values = {reason["input"]: reason["value"] for reason in case["reasons"]}
        inputs_P = np.array([values[name] for name in settings.inputs])
        probability = predict_proba(settings, state, inputs_P[None])[0, 1]
        assert case["probabilities"]["1"] == pytest.approx(probability)
        effects = [reason["effect"] for reason in case["reasons"]]
        assert sum(effects) == pytest.approx(logit(probability) - at_mean)  # of the last class, probable or not
        assert np.abs(effects).tolist() == sorted(np.abs(effects), reverse=True)
        interval = interval_at(card.reliability.groups[0], probability, card.reliability.design_effect)
        assert interval is not None
        assert case["interval"] == {"low": interval.low, "high": interval.high, "num_cases": interval.num_cases}
    assert {case["predicted_class"] for case in document["cases"]} == {"0", "1"}


def test_a_patients_last_visit_with_the_inputs_or_every_visit(
    logistic: Path, folder: Path, predict: Command, tmp_path: Path
) -> None:
    table = folder / "features" / "features.tsv"
    sessions = [line.split("\t")[:2] for line in table.read_text().splitlines()[1:]]
    number, subject = next((at, name) for at, (name, visit_id) in enumerate(sessions) if visit_id == "ses-02")
    predict(logistic, folder)
    last = next(row for row in rows_of(tmp_path) if row["participant_id"] == subject)
    assert last["session_id"] == "ses-02"
    edit(table, number, bpf="n/a")
    predict(logistic, folder)
    last = next(row for row in rows_of(tmp_path) if row["participant_id"] == subject)
    assert (last["session_id"], last["days"]) == ("ses-01", "0")
    assert "passed over" in last["status"]
    predict(logistic, folder, "--every-visit")
    every = {row["session_id"]: row for row in rows_of(tmp_path) if row["participant_id"] == subject}
    assert every["ses-01"] == last | {"status": "ok"}
    assert every["ses-02"]["status"] == "left out: no bpf (not measured at the visit)"
    assert every["ses-02"]["probability_1"] == every["ses-02"]["interval_low"] == "n/a"


def test_a_patient_that_cannot_be_predicted_is_named_and_the_rest_go_on(
    logistic: Path, folder: Path, predict: Command, tmp_path: Path
) -> None:
    table = folder / "participants.tsv"
    without = edit(table, 0, sex="n/a")
    beyond = edit(table, 1, age="240")
    code, out, _ = predict(logistic, folder)
    assert code == 0
    assert "38 of 40 predicted" in out
    status = {row["participant_id"]: row["status"] for row in rows_of(tmp_path)}
    assert status[without] == "left out: no sex"
    assert status[beyond].startswith("left out: ")
    assert "line 3, age: expected a number from 0 to 120, found '240'" in status[beyond]


def test_a_scanner_that_cannot_be_brought_to_the_reference_is_refused(
    boosted: Path, folder: Path, predict: Command, tmp_path: Path
) -> None:
    predict(boosted, folder)
    before = {row["participant_id"]: row for row in rows_of(tmp_path)}
    assert all(row["status"].startswith("ok") for row in before.values())
    table = folder / "features" / "features.tsv"
    subject = edit(table, 0, scanner="new")
    for number, line in enumerate(table.read_text().splitlines()[1:]):
        if line.startswith(f"{subject}\t"):
            edit(table, number, scanner="new")
    assert predict(boosted, folder)[0] == 0
    after = {row["participant_id"]: row for row in rows_of(tmp_path)}
    assert "not harmonized: scanner new has no fit: too few training patients" in after[subject]["status"]
    assert sum(row["probability_1"] == "n/a" for row in after.values()) == 1
    card, _ = load_model(boosted)
    for line in (tmp_path / "out" / "predictions.json", boosted / "model.json"):
        assert "Research use only" in line.read_text()
    # The harmonized table of a site that took part is taken as it is.
    shutil.rmtree(folder / "features")
    shutil.copytree(boosted.parents[1] / "site-a" / "harmonization", folder / "features")
    assert json.loads((folder / "features" / "features.json").read_text())["HarmonizedTo"] == card.harmonization
    code, out, _ = predict(boosted, folder, "--json")
    assert code == 0
    assert all(case["reasons"] for case in json.loads(out)["cases"] if case["probabilities"])


def test_what_cannot_be_done_at_all_is_one_line(
    logistic: Path, boosted: Path, folder: Path, predict: Command, tmp_path: Path, tiny: StudyConfig
) -> None:
    def line(model: Path, source: Path, *more: str) -> str:
        code, out, err = predict(model, source, *more)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        return err

    assert "no such folder" in line(logistic, tmp_path / "nowhere")
    segmentation = tmp_path / "segmentation"
    save_model(segmentation, tiny, get_weights(build_network(tiny)), Provenance(rounds_completed=0, sites={}))
    assert "leave it out" in line(segmentation, folder, "--every-visit")
    altered = Path(shutil.copytree(logistic, tmp_path / "altered"))
    (altered / "model.safetensors").write_bytes(b"other")
    assert "altered or damaged" in line(altered, folder)
    harmonized = Path(shutil.copytree(folder, tmp_path / "harmonized"))
    shutil.rmtree(harmonized / "features")
    shutil.copytree(boosted.parents[1] / "site-a" / "harmonization", harmonized / "features")
    assert "trained on raw ones" in line(logistic, harmonized)
    # With a model of lesions in the model's folder, a table with lesions of other hands is left aside.
    with_lesions = Path(shutil.copytree(logistic, tmp_path / "with-lesions"))
    shutil.copytree(segmentation, with_lesions / "segmentation")
    (with_lesions / "signature.json").unlink()  # which lists what the folder held
    assert "no lesion_volume_ml, bpf (not measured at the visit)" in line(with_lesions, folder)
    participants = folder / "participants.tsv"
    participants.write_text(participants.read_text().replace("\tF\t", "\tn/a\t").replace("\tM\t", "\tn/a\t"))
    assert "none of 40 patients or visits could be predicted; sub-001: left out: no sex" in line(logistic, folder)


def test_of_several_classes_the_most_probable_is_explained(predict: Command, tmp_path: Path) -> None:
    make_records(tmp_path / "cohort", num_sites=len(SITES), cases_per_site=24, num_nmosd=16, num_controls=16)
    classes = ("HC", "MS", "NMOSD")
    classification = {
        "outcome": {"column": "diagnosis", "classes": classes},
        "features": FEATURES,
        "clinical": ("age", "sex"),
        "model": {"kind": "lda"},
    }
    rounds = Rounds(num_rounds=1, quorum=3)
    model = trained(tmp_path / "cohort", tmp_path / "lda", classification=classification, rounds=rounds)
    code, out, _ = predict(model, tmp_path / "cohort" / "site-a", "--json")
    card, _ = load_model(model)
    cases = json.loads(out)["cases"]
    assert (code, len(cases)) == (0, 56)
    assert card.reliability is not None
    for case in cases:
        assert tuple(case["probabilities"]) == classes
        best = max(case["probabilities"], key=lambda name: float(case["probabilities"][name]))
        assert case["predicted_class"] == case["explained_class"] == best
        groups = card.reliability.groups[classes.index(best)]
        interval = interval_at(groups, case["probabilities"][best], card.reliability.design_effect)
        assert interval is not None
        assert case["interval"] == {"low": interval.low, "high": interval.high, "num_cases": interval.num_cases}
    assert len({case["predicted_class"] for case in cases}) > 1
    assert {f"probability_{name}" for name in classes} <= {*rows_of(tmp_path)[0]}


@pytest.mark.parametrize("which", ["logistic", "boosted"])
def test_chosen_patients_are_predicted_as_among_all(
    which: str, request: pytest.FixtureRequest, cohort: Path, predict: Command, tmp_path: Path
) -> None:
    model = request.getfixturevalue(which)
    assert predict(model, cohort / "site-a")[0] == 0
    whole = (tmp_path / "out" / "predictions.tsv").read_text()
    first, second, *_ = rows_of(tmp_path)
    shutil.rmtree(tmp_path / "out")
    chosen = ["--subject", first["participant_id"], "--subject", second["participant_id"].removeprefix("sub-")]
    code, out, _ = predict(model, cohort / "site-a", *chosen)
    assert (code, rows_of(tmp_path)) == (0, [first, second])
    assert "2 of 2 predicted" in out
    assert predict(model, cohort / "site-a", *chosen[:2], "--visit", "ses-01")[0] == 0
    assert [row["session_id"] for row in rows_of(tmp_path)][:1] == ["ses-01"]
    assert rows_of(tmp_path)[-1] == second
    code, _, err = predict(model, cohort / "site-a", "--subject", "sub-000")
    assert code == 2
    assert "no such patient: sub-000; did you mean sub-0" in err
    assert predict(model, cohort / "site-a")[0] == 0
    assert (tmp_path / "out" / "predictions.tsv").read_text() == whole


def test_another_threshold_of_a_class_is_said(logistic: Path, cohort: Path, predict: Command, tmp_path: Path) -> None:
    own = load_model(logistic)[0].threshold
    code, out, _ = predict(logistic, cohort / "site-a", "--threshold", "0.9")
    assert code == 0
    assert f"from a probability of 0.9 on, which was asked for. Threshold 0.9 is not the study's own, {own:g}" in out
    assert all(row["class"] == str(int(float(row["probability_1"]) >= 0.9)) for row in rows_of(tmp_path))
    assert {row["threshold"] for row in rows_of(tmp_path)} == {"0.9"}
    for name in ("predictions.json", "dataset_description.json"):
        facts = json.loads((tmp_path / "out" / name).read_text())
        assert (facts["Threshold"], facts["StudyThreshold"]) == (0.9, own)
    code, _, err = predict(logistic, cohort / "site-a")
    assert (code, "at threshold 0.9, not" in err) == (2, True)
