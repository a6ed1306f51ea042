"""A study that measures a trained model: on whom, with which reference and threshold, and what sites refuse."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.commands import run_main
from tests.conftest import BidsSite
from tests.server.rounds.test_classification import Recorder, grid_of, play
from tests.server.rounds.test_folds import SITES, study_of

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.classification.trainer import split_segmentation
from msfl_client.egress.ledger import read
from msfl_client.rounds.evaluation import check_asked, check_weights
from msfl_client.rounds.forecast import forecast
from msfl_common.config.base import validate
from msfl_common.config.message_kinds import REQUESTS, asked_for
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig, load_study, parse_study
from msfl_common.errors import Code, ConfigError, InputError, RefusedError, RunError
from msfl_common.messages.records import RoundTask, pack_task, unpack_refusal
from msfl_common.models.evaluated_model import check_evaluated, evaluation_of, load_evaluated
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.cli.main import main as server
from msfl_server.report.page import write_report
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.results.metrics import summarise_metrics
from msfl_server.rounds.checkpoint import RunState
from msfl_server.rounds.evaluation import run_evaluation
from msfl_server.rounds.stage import StageRun
from msfl_server.run.cost import cost_of
from msfl_server.run.summarise import summarise_run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")]

HARMONIZATION = {"method": "combat", "features": ["bpf", "log_lesion_volume"]}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`trained`: four sites of 40 patients; `all`: these and a fifth."""
    folder = tmp_path_factory.mktemp("evaluation")
    make_records(folder / "all", num_sites=5, cases_per_site=40)
    (folder / "trained").mkdir()
    for name in SITES:
        (folder / "trained" / name).symlink_to(folder / "all" / name)
    return folder


@pytest.fixture(scope="module")
def trained(cohorts: Path) -> Path:
    """The folder of a harmonized model of four sites."""
    study = study_of({"number": 1, "of": 4}, harmonization=HARMONIZATION)
    play(study, cohorts / "trained", cohorts / "run")
    return cohorts / "run" / "model"


def measured(study: StudyConfig, model: Path, cohort: Path, out: Path) -> RunState:
    recorder = Recorder()
    run = StageRun(study, load_evaluated(study, model), out, model=model)
    run_evaluation(grid_of(sites_of_cohort(cohort, out, study), cache_answers=True), run, recorder)
    return recorder.states[-1]


def means(state: RunState) -> dict[str, dict[str, float]]:
    return {site: {name: one.mean for name, one in told.estimates.items()} for site, told in state.test.items()}


def changed(study: StudyConfig, **changes: Any) -> StudyConfig:
    return validate(StudyConfig, study.model_dump(mode="json") | changes, "study")


def test_each_site_measures_the_model_on_patients_that_did_not_train_it(
    cohorts: Path, trained: Path, tmp_path: Path
) -> None:
    study = evaluation_of(trained, "measured")
    assert study.evaluate is not None
    assert study.evaluate.trained_at == SITES
    assert parse_study(study.model_dump_json()) == study
    before = load_model(trained)[0]
    state = measured(study, trained, cohorts / "all", tmp_path)
    assert (state.round, state.threshold, sorted(state.test)) == (1, before.threshold, [*SITES, "site-e"])
    sites = {one.name: one for one in sites_of_cohort(cohorts / "all", tmp_path, study)}
    tested = {name: read_outcomes(site, study, lambda *_: None).splits.test for name, site in sites.items()}
    assert {name: state.test[name].num_cases for name in sites} == {name: len(tested[name]) for name in sites}
    assert len(tested["site-e"]) > 2 * len(tested["site-a"])
    for name, site in sites.items():
        kinds = [line.kind for line in read(site.state / "ledger.jsonl")]
        assert kinds == ["node_facts", "node_facts", "validation_metrics"], name
    assert load_model(tmp_path / "model")[0] == before
    assert measured(study, trained, cohorts / "all", tmp_path).model_dump_json() == state.model_dump_json()
    shutil.rmtree(tmp_path / "checkpoints")  # killed after the answers came: the same is asked again, and answered
    assert means(measured(study, tmp_path / "model", cohorts / "all", tmp_path)) == means(state)
    summary = summarise_run(study, state, load_model(trained)[1])
    assert summary.evaluated is not None
    assert (summary.strategy, summary.evaluated.trained_at) == ("evaluation", SITES)
    assert sorted(summary.metrics["auroc"].per_site) == [*SITES, "site-e"]
    page = write_report(tmp_path, summary, study).read_text()
    assert "Nothing was trained" in page
    assert "as the model&#39;s folder says" in page
    assert "model updates" not in page.split("<main")[0]


def test_under_masks_the_sum_over_sites_alone_is_seen(cohorts: Path, trained: Path, tmp_path: Path) -> None:
    study = evaluation_of(trained, "measured")
    plain = measured(study, trained, cohorts / "all", tmp_path / "plain")
    masks = changed(study, name="masked", secure_aggregation={"method": "masks"})
    assert "masked_sums" in asked_for(masks)
    assert "masked_update" not in asked_for(masks)
    state = measured(masks, trained, cohorts / "all", tmp_path / "masked")
    assert [*state.test] == ["pooled"]
    assert state.history[0].sites_ok == (*SITES, "site-e")
    told = state.test["pooled"]
    assert told.num_cases == sum(one.num_cases for one in plain.test.values())
    assert told.estimates["auroc"].mean == pytest.approx(summarise_metrics(plain.test)["auroc"].mean)


def test_a_site_refuses_to_train_and_to_measure_another_model(trained: Path) -> None:
    study = evaluation_of(trained, "measured")
    assert asked_for(study) == ("validation_metrics", "node_facts")
    for name, purpose in (("train", "train"), ("query.moments", "moments"), ("evaluate", "validation")):
        with pytest.raises(RefusedError, match="the study measures a model") as refused:
            check_asked(REQUESTS[name], purpose, study)
        assert refused.value.code is Code.BAD_STUDY
        check_asked(REQUESTS[name], purpose, study_of({"number": 1, "of": 4}))
    check_asked(REQUESTS["evaluate"], "test", study)
    check_asked(REQUESTS["query"], None, study)
    weights = load_evaluated(study, trained)
    check_weights(study, weights)
    name = next(iter(weights))
    with pytest.raises(RefusedError, match="sent weights with the SHA-256") as refused:
        check_weights(study, {**weights, name: weights[name] + 1})
    assert refused.value.code is Code.BAD_MODEL


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"training": {"steps_per_round": 5, "clip_norm": 2}},
            "leave out training.steps_per_round, training.clip_norm",
        ),
        ({"strategy": {"kind": "fedavg"}, "crossfit": 2}, "leave out strategy, crossfit"),
        ({"validation": {"every_rounds": 2}}, "leave out validation.every_rounds"),
        ({"rounds": {"num_rounds": 3}}, "measured once"),
        ({"rounds": {"fraction": 0.5}}, r"leave out rounds\.fraction"),
        ({"training": {"augmentation": {"gamma": 0.1}}}, r"leave out training\.augmentation\.gamma"),
    ],
)
def test_settings_of_training_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    evaluate = {"weights_sha256": "0" * 64}
    assert validate(StudyConfig, {"name": "m", "evaluate": evaluate}, "study").rounds.num_rounds == 1
    with pytest.raises(ConfigError, match=named):
        validate(StudyConfig, {"name": "m", "evaluate": evaluate, **changes}, "study")


def test_a_model_of_other_inputs_or_splits_is_refused_with_what_differs(trained: Path) -> None:
    study = evaluation_of(trained, "measured")
    assert check_evaluated(study, trained).study.name == "progression"
    check_evaluated(changed(study, rounds={"quorum": 1}, min_patients=9), trained)
    assert study.evaluate is not None
    outcome = study.model_dump(mode="json")["classification"]
    for changes, named in (
        ({"seed": 3}, "seed is 3, not 0"),
        ({"classification": outcome | {"clinical": ["age"]}}, "classification.clinical"),
        ({"evaluate": {"weights_sha256": "0" * 64, "trained_at": SITES}}, "evaluate.weights_sha256"),
        ({"evaluate": {"weights_sha256": study.evaluate.weights_sha256}}, "evaluate.trained_at"),
        ({"validation": {"fraction": 0.5}}, "validation.fraction is 0.5, not 0.25"),
    ):
        with pytest.raises(InputError, match=re.escape(named)):
            check_evaluated(changed(study, **changes), trained)
    with pytest.raises(InputError, match="name its folder, by --model"):
        load_evaluated(study, None)


def test_too_few_sites_end_the_run_and_a_site_foresees_its_answer(cohorts: Path, trained: Path, tmp_path: Path) -> None:
    study = evaluation_of(trained, "measured")
    lonely = changed(study, rounds={"quorum": 9})
    with pytest.raises(RunError, match="5 sites measured the model, the quorum is 9"):
        measured(lonely, trained, cohorts / "all", tmp_path)
    site = sites_of_cohort(cohorts / "all", tmp_path / "other", study)[4]
    assert forecast(site, study, lambda *_: None).hopeless(study) is None
    strict = changed(study, min_patients=1000)
    refusal = forecast(site, strict, lambda *_: None).hopeless(strict)
    assert refusal is not None
    assert (refusal.step, refusal.code) == ("test", Code.TOO_FEW_PATIENTS)
    (cost,) = cost_of(study)
    assert (cost.from_site_bytes, "measured and not trained" in cost.in_words) == (0, True)


def test_the_commands_write_look_through_and_refuse(cohorts: Path, trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    done = run_main(server, "evaluation", trained, "--name", "measured", "-o", file)
    assert done.returncode == 0
    assert "site-a, site-b, site-c, site-d trained it" in done.stdout
    assert load_study(file) == evaluation_of(trained, "measured")
    assert run_main(server, "evaluation", trained, "-o", file).returncode == 2
    assert "measures a trained model, which needs 2 sites" in run_main(server, "check", file).stdout
    wanted = ("simulate", file, "--cohort", cohorts / "all")
    lacking = run_main(server, *wanted, "--output", tmp_path / "run")
    assert (lacking.returncode, lacking.stderr) == (2, "study measured measures a model: name its folder by --model\n")
    assert not (tmp_path / "run").exists()
    dry = run_main(server, *wanted, "--model", trained, "--dry-run")
    assert (dry.returncode, "a trained model is measured" in dry.stdout) == (0, True)


def test_a_segmentation_is_measured_on_all_where_it_was_not_trained(make_site: Callable[..., BidsSite]) -> None:
    site = make_site(subjects=[f"sub-{number}" for number in range(8)])
    content: dict[str, Any] = {"name": "m", "evaluate": {"weights_sha256": "0" * 64}}
    cases = list(site.cases().values())
    elsewhere = split_segmentation(site.config(), validate(StudyConfig, content, "study"), cases)
    assert (len(elsewhere.training), len(elsewhere.validation)) == (0, 8)
    content["evaluate"]["trained_at"] = ["here"]
    at_home = split_segmentation(site.config(), validate(StudyConfig, content, "study"), cases)
    assert (len(at_home.training), len(at_home.validation)) == (6, 2)


def test_a_segmentation_that_kept_test_patients_is_measured_on_them(
    make_site: Callable[..., BidsSite], tmp_path: Path
) -> None:
    trained = StudyConfig(
        name="t", min_patients=2, network={"kind": "unet", "channels": (2, 4)}, validation={"test_fraction": 0.4}
    )
    save_model(
        tmp_path / "model", trained, starting_weights(trained), Provenance(rounds_completed=1, sites={"here": 5})
    )
    study = evaluation_of(tmp_path / "model", "measured")
    assert (study.validation.test_fraction, study.has_test) == (0.4, True)
    check_evaluated(study, tmp_path / "model")
    with pytest.raises(InputError, match="min_test_patients is 5, not 2"):  # a trained patient would be measured
        check_evaluated(changed(study, min_patients=5), tmp_path / "model")
    site = make_site(subjects=[f"sub-{number}" for number in range(8)])
    cases = list(site.cases().values())
    at_home = split_segmentation(site.config(), study, cases)
    assert at_home == split_segmentation(site.config(), trained, cases)
    assert [len(part) for part in (at_home.training, at_home.validation, at_home.test)] == [2, 2, 4]
    elsewhere = split_segmentation(site.config().model_copy(update={"name": "there"}), study, cases)
    assert (list(elsewhere.training), list(elsewhere.validation), elsewhere.test) == ([], [], cases)


def test_a_model_of_a_fold_is_measured_on_that_fold_and_mirrored_as_it_was(tmp_path: Path) -> None:
    content = {
        "name": "folded",
        "network": {"kind": "unet", "channels": (2, 4)},
        "training": {"patch_voxels": 8, "augmentation": {"flip_axes": ("left-right", "front-back")}},
        "validation": {"fold": {"number": 3, "of": 5}, "mirroring": False},
    }
    trained = validate(StudyConfig, content, "study")
    save_model(tmp_path / "model", trained, starting_weights(trained), Provenance(rounds_completed=1, sites={"a": 5}))
    study = evaluation_of(tmp_path / "model", "measured")
    assert (study.validation.fold, study.validation.mirroring) == (trained.validation.fold, False)
    assert study.training.augmentation.flip_axes == ("left-right", "front-back")
    check_evaluated(study, tmp_path / "model")
    for changes, named in (
        ({"validation": {"mirroring": False}}, "validation.fold"),
        ({"validation": {"fold": {"number": 3, "of": 5}}}, "validation.mirroring"),
        ({"training": {"patch_voxels": 8}}, "training.augmentation.flip_axes"),
    ):
        with pytest.raises(InputError, match=re.escape(named)):
            check_evaluated(changed(study, **changes), tmp_path / "model")


def test_other_cases_of_a_site_are_not_told_by_the_same_weights_twice(
    make_site: Callable[..., BidsSite], tiny: StudyConfig, tmp_path: Path
) -> None:
    """All patients' Dice less that of all but one would be that one's."""
    data = make_site("s", [f"sub-{number}" for number in range(5)]).root
    site = SiteConfig(name="s", data=(data,), state=tmp_path / "state", policy=Policy(min_patients=1))
    model = tmp_path / "model"
    save_model(model, tiny, starting_weights(tiny), Provenance(rounds_completed=1, sites={"elsewhere": 5}))
    whole = changed(evaluation_of(model, "whole"), rounds={"quorum": 1})
    fewer = changed(whole, name="fewer", evaluate={**whole.model_dump(mode="json")["evaluate"], "trained_at": ["s"]})
    grid, codes = grid_of((site,), cache_answers=True), []
    for study in (whole, whole, fewer):
        task = RoundTask(study, 1, split="test")
        message = grid.create_message(pack_task(task, starting_weights(tiny)), "evaluate", 1, "")
        (reply,) = grid.send_and_receive([message])
        refusal = unpack_refusal(reply.content)
        codes.append(refusal and refusal.code)
    assert codes == [None, None, Code.ANSWERED]
