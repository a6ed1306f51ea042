"""What a site gains by taking part in a study of an outcome: measured on its own test patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler
from tests.server.rounds import test_classification as classes
from tests.server.rounds import test_regression as numbers

from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.clinical.inputs import dataset_of
from msfl_client.personal.arms import Own, own_of_model, own_of_study
from msfl_client.personal.gain import measure_gain
from msfl_client.personal.page import write_page
from msfl_client.personal.record import LOCAL, SHARED
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import InputError
from msfl_common.feature_models import predict_proba, predict_values
from msfl_common.models.model_folder import load_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort


def nothing(*_: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites of 80 patients, as tables."""
    folder = tmp_path_factory.mktemp("records") / "patients"
    make_records(folder, num_sites=3, cases_per_site=80)
    return folder


def parts_of(site: SiteConfig, study: StudyConfig) -> list[Any]:
    data = read_outcomes(site, study, nothing)
    assert study.classification is not None
    return [dataset_of(part, study.classification, data.features) for part in data.splits.each]


def test_a_site_alone_is_scikit_learn_on_its_own_patients(patients: Path, tmp_path: Path) -> None:
    study = classes.study_of(kind="logistic")
    sites = sites_of_cohort(patients, tmp_path, study)
    site = sites[1]
    with pytest.raises(InputError, match="run this again when the study is over"):
        own_of_study(site, study)
    classes.play(study, patients, tmp_path)
    answered = sorted((site.state / "answers").rglob("*")), (site.state / "ledger.jsonl").read_bytes()
    own = own_of_study(site, study)
    found = measure_gain(own, nothing)
    training, _, test = parts_of(site, study)
    scaler = StandardScaler().fit(training.features_NP)
    alone = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(
        scaler.transform(training.features_NP), training.labels_N
    )
    expected = {
        LOCAL: alone.predict_proba(scaler.transform(test.features_NP))[:, 1],
        SHARED: predict_proba(study.classification, load_model(tmp_path / "model")[1], test.features_NP)[:, 1],
    }
    for name, scores_N in expected.items():
        assert found.models[name]["auroc"].value.mean == pytest.approx(roc_auc_score(test.labels_N, scores_N), abs=1e-6)
    against = found.models[SHARED]["auroc"].against_local
    assert against is not None
    assert against.low is not None
    assert against.low <= against.mean <= (against.high or 0)
    assert (found.split, found.num_train_cases, found.steps) == ("test", len(training.labels_N), 0)
    assert answered == (sorted((site.state / "answers").rglob("*")), (site.state / "ledger.jsonl").read_bytes())
    assert measure_gain(own_of_model(site, tmp_path / "model"), nothing).models == found.models
    card, _ = load_model(Path(found.folders[LOCAL]))
    assert card.own_of == site.name
    page = write_page(own.folder, found).read_text("utf-8")
    assert "sub-" not in page
    assert "Brier score (lower is better)" in page


def test_errors_that_are_smaller_are_better(patients: Path, tmp_path: Path) -> None:
    study = numbers.study_of()
    sites = sites_of_cohort(patients, tmp_path, study)
    numbers.play(study, patients, tmp_path)
    found = measure_gain(own_of_model(sites[0], tmp_path / "model"), nothing)
    training, _, test = parts_of(sites[0], study)
    scaler = StandardScaler().fit(training.features_NP)
    alone = Ridge().fit(scaler.transform(training.features_NP), training.values_N)
    assert study.regression is not None
    predicted = {
        LOCAL: np.clip(alone.predict(scaler.transform(test.features_NP)), 0, 10),
        SHARED: np.clip(predict_values(study.regression, load_model(tmp_path / "model")[1], test.features_NP), 0, 10),
    }
    for name, values_N in predicted.items():
        rmse = root_mean_squared_error(test.values_N, values_N)
        assert found.models[name]["rmse"].value.mean == pytest.approx(rmse, abs=1e-6)
    figure = found.models[SHARED]["rmse"]
    assert figure.against_local is not None
    worse = figure.model_copy(update={"against_local": figure.against_local.model_copy(update={"low": 0.1, "high": 1})})
    told = found.model_copy(update={"models": {SHARED: {"rmse": worse}}}).sentences
    assert "worse" in told[0]
    found.models[SHARED].pop("rmse")
    assert found.sentences[0].startswith("shared: MAE")


def test_what_cannot_be_compared_is_refused_by_name(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = classes.study_of(kind="lda")
    site = sites_of_cohort(patients, tmp_path, study)[0]
    harmonized = study.model_copy(update={"harmonization": Harmonization(method="combat")})
    with pytest.raises(InputError, match="features are harmonized; name the model folder"):
        own_of_study(site, harmonized)
    staged = study.model_copy(update={"segmentation": study.rounds})
    with pytest.raises(InputError, match="no model is this site's alone"):
        own_of_study(site, staged)
    training = parts_of(site, study)[0]
    quiet = replace(training, labels_N=np.zeros_like(training.labels_N))
    monkeypatch.setattr(FeatureLearner, "own_training", quiet)
    own = Own(site, study, starting_weights(study), None, 1)
    with pytest.raises(
        InputError, match="no training patient of class 1 here, so no model can be made of this site alone"
    ):
        measure_gain(own, nothing)
