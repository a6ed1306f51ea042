"""Requests of a study that segments and then classifies, and the stages that it has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from flwr.app import Message
from pydantic import ValidationError
from tests.server.rounds.test_stages import BOTH, STUDY, make_site

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.clinical.check import check_outcome
from msfl_client.connection.message_limits import bounds_of
from msfl_client.data.checks import check_site
from msfl_client.egress.gateway import check_agreed, check_request
from msfl_client.features.table import BY_MODEL, MANUAL, FeatureRow, FeatureTable, write_features_table
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.message_kinds import SEGMENTATION
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.stages import Stage, crossfit_note, stages_of, study_at
from msfl_common.config.study import Harmonization, Rounds, StudyConfig
from msfl_common.errors import Code, ConfigError, RefusedError
from msfl_common.messages.records import Content, RoundTask, pack_task, unpack_refusal, unpack_task
from msfl_common.models.lesion_models import handed_like
from msfl_common.models.starting_weights import starting_weights
from msfl_common.networks.registry import UNet
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.run.status import StatusFile, read_status

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[SiteConfig]:
    return [make_site(tmp_path_factory.mktemp("stages"), "site-a", 0)]


def answer(site: SiteConfig, kind: str, content: Content, agreed: StudyConfig | None = None) -> Code | None:
    app = build_app(lambda _: site, agreed=agreed)
    (reply,) = InProcessGrid(app, 1).send_and_receive([Message(content, 1, kind)])
    refusal = unpack_refusal(reply.content)
    return refusal.code if refusal else None


@pytest.mark.parametrize("task", BOTH)
@pytest.mark.parametrize("stage", ["segmentation", "final"])
def test_a_site_that_allows_one_task_refuses_the_study(sites: list[SiteConfig], task: str, stage: Stage) -> None:
    one = sites[0].model_copy(update={"policy": sites[0].policy.model_copy(update={"tasks": (task,)})})
    assert answer(one, "query", pack_task(RoundTask(STUDY, 1, stage=stage))) == Code.POLICY


def test_nothing_is_measured_before_the_model_is_there(sites: list[SiteConfig], tmp_path: Path) -> None:
    new = sites[0].model_copy(update={"state": tmp_path / "state"})
    assert answer(new, "query", pack_task(RoundTask(STUDY, 1))) == Code.BAD_MODEL
    strange = starting_weights(study_at(STUDY, "segmentation").model_copy(update={"network": UNet(channels=(2, 4))}))
    assert answer(new, f"query.{SEGMENTATION}", pack_task(RoundTask(STUDY, 1), strange)) == Code.BAD_MODEL
    alone = STUDY.model_copy(update={"segmentation": None})
    assert answer(new, f"query.{SEGMENTATION}", pack_task(RoundTask(alone, 1), strange)) == Code.BAD_STUDY
    assert not (tmp_path / "state" / "segmentation").exists()


def test_a_request_is_of_a_stage_that_the_study_has() -> None:
    task = RoundTask(STUDY, 2, stage="segmentation")
    content = pack_task(task)
    assert unpack_task(content) == task
    assert task.settings.rounds == STUDY.segmentation
    content.config_records["task"]["stage"] = "third"
    with pytest.raises(ConfigError, match="a stage of the study"):
        unpack_task(content)


def test_the_rounds_of_both_stages_are_held_against_the_policy() -> None:
    longer = STUDY.model_copy(update={"segmentation": Rounds(num_rounds=9)})
    with pytest.raises(RefusedError, match="9 rounds, at most 5"):
        check_request(Policy(tasks=BOTH, max_rounds=5, refuse_models=()), longer, 1)
    check_agreed(STUDY, longer)  # how rounds go may change within the policy
    with pytest.raises(RefusedError, match="segmentation"):
        check_agreed(STUDY, STUDY.model_copy(update={"segmentation": None}))


def test_a_request_may_be_as_large_as_the_larger_stage_needs() -> None:
    first, *_, final = (starting_weights(study_at(STUDY, stage)) for stage in stages_of(STUDY))
    assert bounds_of(first, final) == bounds_of(first)
    assert bounds_of(first, final).num_bytes > bounds_of(final).num_bytes
    assert bounds_of(handed_like(STUDY)).num_bytes > 2 * bounds_of(first).num_bytes - bounds_of(final).num_bytes


@pytest.mark.slow
def test_a_fold_says_no_more_of_those_that_it_leaves_out_than_the_floor_allows(sites: list[SiteConfig]) -> None:
    """Three train: a half of one, whom the other half's update is without, and a half of two."""
    contexts = {stage: open_context(sites[0], STUDY, lambda *_: None, stage) for stage in stages_of(STUDY)[:3]}
    assert {stage: one.learner.num_behind(1) for stage, one in contexts.items()} == {
        "segmentation": 3,
        "segmentation-1": 1,
        "segmentation-2": 1,
    }


@pytest.mark.parametrize(("crossfit", "stages"), [(None, 4), (1, 2), (5, 7)])
def test_the_folds_are_stages_of_their_own(crossfit: int | None, stages: int) -> None:
    study = StudyConfig.model_validate({**STUDY.model_dump(mode="json"), "crossfit": crossfit})
    names = [study_at(study, stage).name for stage in stages_of(study)]
    assert len(set(names)) == stages
    assert (names[0], names[-1]) == ("both-segmentation", "both")
    long = study.model_copy(update={"name": "x" * 64})
    assert len({study_at(long, stage).name for stage in stages_of(long)}) == stages
    assert ("(crossfit: 1)" in crossfit_note(study)) == (crossfit == 1)


@pytest.mark.parametrize(
    "wrong", [{"task": "lesion-segmentation", "classification": None}, {"classification": {"features": ()}}]
)
def test_a_segmentation_must_be_for_features(wrong: dict[str, object]) -> None:
    content = STUDY.model_dump(mode="json")
    if isinstance(wrong.get("classification"), dict):
        content["classification"] |= {"features": (), "clinical": ("age",)}
    else:
        content |= wrong
    with pytest.raises(ValidationError, match="expected a classification with `features`"):
        StudyConfig.model_validate(content)


def test_the_status_says_which_stage(tmp_path: Path) -> None:
    with StatusFile(tmp_path / "status.json", STUDY) as status:
        status.on_stage("segmentation", 7)
        said = read_status(tmp_path / "status.json")
    assert said is not None
    assert (said.stage, said.num_rounds) == ("segmentation", 7)


@pytest.mark.slow
def test_check_says_where_lesions_are_of_a_model_that_trained_on_the_patients(
    sites: list[SiteConfig], tmp_path: Path
) -> None:
    cases = check_site(sites[0], STUDY.inputs, needs_mask=False).cases

    def said(study: StudyConfig) -> list[str]:
        found = check_outcome(sites[0], study, cases)
        assert found is not None
        return [one.text for one in found.findings if "Lesion features" in one.text]

    assert said(STUDY) == []
    assert "(crossfit: 1)" in "".join(said(STUDY.model_copy(update={"crossfit": 1})))
    rows = [
        FeatureRow(f"sub-{number}", None, "a", 0, {"lesion_volume_ml": 1.0 + number, "bpf": 0.8}, who)
        for number, who in enumerate((*[BY_MODEL["yes"]] * 3, BY_MODEL["unknown"], BY_MODEL["no"], MANUAL, None))
    ]
    root = tmp_path / "bids"
    shutil.copytree(sites[0].data[0], root)
    write_features_table(root / "features" / "features.tsv", FeatureTable(tuple(rows)))
    own = sites[0].model_copy(update={"data": (root,), "state": tmp_path / "state"})
    alone = STUDY.model_copy(update={"segmentation": None, "harmonization": Harmonization()})
    found = check_outcome(own, alone, [])
    assert found is not None
    texts = [one.text for one in found.findings if one.text.startswith("Lesion features of")]
    assert [text.split(":")[0] for text in texts] == [
        "Lesion features of 3 patients come from a model that trained on them",
        "Lesion features of 1 patient come from a model that this site's patients trained, and it is not known who",
    ]
    heard: list[str] = []
    read_outcomes(own, alone, lambda *told: heard.append(told[-1]))
    assert heard == texts
