"""Rounds of a study that predicts an outcome, in this process: ends, splits, thresholds, resuming, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.serverapp import Grid

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.clinical.inputs import dataset_of
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.base import validate
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import FutileRunError, RunError
from msfl_common.feature_models import predict_proba
from msfl_common.metrics.classification import metrics_of
from msfl_common.metrics.registry import STRATA
from msfl_common.models.model_folder import load_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.results.classification import threshold_of
from msfl_server.rounds.checkpoint import RunState
from msfl_server.rounds.loop import run_rounds

STUDY = """\
name: progression
task: classification
min_patients: 2
classification:
  outcome: {endpoint: activity}
  features: [bpf, log_lesion_volume]
  clinical: [age, edss]
  model: {kind: logistic}
rounds: {num_rounds: 30, quorum: 3}
"""


class Killed(BaseException):
    """Stands for a kill: nothing in the product catches it."""


class Recorder:
    """A listener that keeps the states, and dies after a round if asked."""

    def __init__(self, die_after: int = 0) -> None:
        self.states: list[RunState] = []
        self.waited: list[str] = []
        self._die_after = die_after

    def on_start(self, state: RunState) -> None:
        self.states.append(state)

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        self.waited.append(what)

    def on_round(self, state: RunState) -> None:
        self.states.append(state)
        if state.round == self._die_after:
            raise Killed


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites of 80 patients, as tables."""
    folder = tmp_path_factory.mktemp("records") / "patients"
    make_records(folder, num_sites=3, cases_per_site=80)
    return folder


def study_of(**model: Any) -> StudyConfig:
    content = yaml.safe_load(STUDY)
    content["classification"]["model"] = model or {"kind": "logistic"}
    return validate(StudyConfig, content, "study")


def grid_of(sites: tuple[SiteConfig, ...], cache_answers: bool = False) -> Grid:
    open_context.cache_clear()
    app = build_app(
        lambda context: sites[int(context.node_config["partition-id"])], cache_answers=cache_answers, is_simulated=True
    )
    return InProcessGrid(app, len(sites))


def play(study: StudyConfig, patients: Path, out: Path, die_after: int = 0) -> Recorder:
    recorder = Recorder(die_after)
    sites = sites_of_cohort(patients, out, study)
    run_rounds(grid_of(sites), study, starting_weights(study), out, recorder)
    return recorder


@pytest.mark.slow
def test_rounds_end_when_the_model_has_and_the_last_measures_the_test_patients(patients: Path, tmp_path: Path) -> None:
    study = study_of()
    recorder = play(study, patients, tmp_path)
    final = recorder.states[-1]
    assert 3 < final.round < 15
    assert all(not state.test and state.threshold is None for state in recorder.states[:-1])
    assert final.threshold == threshold_of(final.validation)
    assert recorder.waited.count("test") >= 1
    card, state = load_model(tmp_path / "model")
    assert (card.threshold, card.labels) == (final.threshold, {0: "0", 1: "1"})
    assert study.classification is not None
    num_trained = 0
    for site in sites_of_cohort(patients, tmp_path, study):
        data = read_outcomes(site, study, lambda *_: None)
        test = dataset_of(data.splits.test, study.classification, data.features)
        probabilities_NK = predict_proba(study.classification, state, test.features_NP)
        truth = metrics_of(probabilities_NK, test.labels_N, card.threshold, np.ones((1, len(test.labels_N))))
        told = final.test[site.name].estimates
        assert {"auroc", "brier", "sensitivity"} <= set(told)
        for name, estimate in ((name, told[name]) for name in told if name not in STRATA):
            assert estimate.mean == pytest.approx(float(truth[name][0])), name
        assert told["auroc"].mean != final.validation[site.name].estimates["auroc"].mean
        num_trained += len(data.splits.training)
        people = [
            {one.patient for one in part} for part in (data.splits.training, data.splits.validation, data.splits.test)
        ]
        assert sum(map(len, people)) == len(set.union(*people))
    assert state["counts"].sum() == num_trained  # of no other patient


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"kind": "mlp", "hidden": [4]},
        pytest.param({"kind": "linear-svm"}, marks=pytest.mark.long),
        pytest.param({"kind": "random-forest"}, marks=pytest.mark.long),
    ],
)
def test_a_killed_run_goes_on_to_bit_identical_weights(patients: Path, tmp_path: Path, model: dict[str, Any]) -> None:
    study = study_of(**model)
    study = study.model_copy(update={"rounds": study.rounds.model_copy(update={"num_rounds": 5})})
    play(study, patients, tmp_path / "whole")
    for die_after in (1, 2):
        with pytest.raises(Killed):
            play(study, patients, tmp_path / f"killed-{die_after}", die_after)
        play(study, patients, tmp_path / f"killed-{die_after}")
    whole, *resumed = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed-1", "killed-2")
    )
    assert resumed == [whole, whole]


def test_a_run_killed_while_it_tests_keeps_its_threshold(patients: Path, tmp_path: Path) -> None:
    """With a site fewer afterwards the threshold would be another, and those that have tested would refuse it."""

    class DiesTesting(Recorder):
        def on_wait(self, number: int, what: str, names: list[str], left_s: float) -> None:
            if (what, len(names)) == ("test", 1):
                raise Killed

    study, out = study_of(kind="lda"), tmp_path / "out"
    sites, first = sites_of_cohort(patients, out, study), starting_weights(study)
    with pytest.raises(Killed):
        run_rounds(grid_of(sites, cache_answers=True), study, first, out, DiesTesting())
    recorder = Recorder()
    run_rounds(grid_of(sites[:2], cache_answers=True), study, first, out, recorder)
    final = recorder.states[-1]
    assert (set(final.validation), set(final.test)) == ({"site-a", "site-b", "site-c"}, {"site-a", "site-b"})
    assert final.threshold == threshold_of(final.validation)
    assert final.threshold != threshold_of({name: final.validation[name] for name in final.test})
    assert not [failure for record in final.history for failure in record.sites_failed]


def test_sites_of_the_same_patients_grow_forests_of_their_own(patients: Path, tmp_path: Path) -> None:
    study = study_of(kind="random-forest", num_trees=5, max_depth=2)
    one, *_ = sites_of_cohort(patients, tmp_path, study)
    sites = tuple(one.model_copy(update={"name": name, "state": tmp_path / name}) for name in ("a", "b", "c"))
    run_rounds(grid_of(sites), study, starting_weights(study), tmp_path / "out", Recorder())
    rows_R = load_model(tmp_path / "out" / "model")[1]["trees"]
    assert len(np.unique(rows_R, axis=0)) > len(rows_R) / 2


def test_a_site_with_too_few_patients_of_a_class_is_named_and_left_out(patients: Path, tmp_path: Path) -> None:
    study = study_of(kind="lda")
    sites = sites_of_cohort(patients, tmp_path, study)
    strict = sites[0].model_copy(update={"policy": sites[0].policy.model_copy(update={"min_patients": 60})})
    with pytest.raises(RunError, match="site-a: NO_CASES"):
        run_rounds(grid_of((strict, *sites[1:])), study, starting_weights(study), tmp_path / "out", Recorder())


def test_a_site_that_has_not_allowed_the_task_is_not_asked_for_more(patients: Path, tmp_path: Path) -> None:
    study = study_of()
    sites = sites_of_cohort(patients, tmp_path, study)
    policy = sites[0].policy.model_copy(update={"tasks": ("lesion-segmentation",)})
    with pytest.raises(RunError, match="site-a: POLICY"):
        run_rounds(
            grid_of((sites[0].model_copy(update={"policy": policy}), *sites[1:])),
            study,
            starting_weights(study),
            tmp_path / "out",
            Recorder(),
        )


@pytest.mark.slow
def test_a_class_that_no_site_has_ends_the_run_for_good_once_all_have_answered(patients: Path, tmp_path: Path) -> None:
    content = study_of(kind="lda").model_dump(mode="json", exclude_unset=True)
    content["classification"]["outcome"] = {"column": "activity_1y", "classes": ["0", "1", "2"]}
    content["rounds"]["quorum"] = 2
    study = validate(StudyConfig, content, "study")
    first, *others = sites_of_cohort(patients, tmp_path, study)
    refusing = first.model_copy(update={"policy": first.policy.model_copy(update={"min_patients": 70})})
    with pytest.raises(RunError, match="class 2: no training case") as may_change:
        run_rounds(
            grid_of((refusing, *others)), study, starting_weights(study), tmp_path / "waits", Recorder()
        )  # the third site may bring one yet
    assert may_change.value.exit_code == 1
    sites = sites_of_cohort(patients, tmp_path / "again", study)
    with pytest.raises(FutileRunError, match="class 2: no training case") as final:
        run_rounds(grid_of(sites), study, starting_weights(study), tmp_path / "ends", Recorder())
    assert final.value.exit_code == 2


def test_a_site_whose_table_cannot_be_read_is_told_why_and_nobody_else(patients: Path, tmp_path: Path) -> None:
    study, told = study_of(), []
    broken = tmp_path / "broken"
    shutil.copytree(patients / "site-a", broken)
    (broken / "participants.tsv").write_bytes(b"\xff\xfe")
    first, *others = sites_of_cohort(patients, tmp_path, study)
    sites = (first.model_copy(update={"data": (broken,)}), *others)
    open_context.cache_clear()
    app = build_app(lambda context: sites[int(context.node_config["partition-id"])], lambda *args: told.append(args))
    with pytest.raises(RunError, match="site-a: BAD_TABLE") as raised:
        run_rounds(InProcessGrid(app, len(sites)), study, starting_weights(study), tmp_path / "out", Recorder())
    assert str(broken) not in str(raised.value)
    notes = [note for site, what, *_, note in told if (site, what) == ("site-a", "refused")]
    assert notes
    assert all(f"{broken / 'participants.tsv'}: line 1: cannot be read as text" in note for note in notes)
