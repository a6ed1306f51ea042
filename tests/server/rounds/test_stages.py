"""A segmentation and a classification in one study, among simulated sites with images of 4 mm."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from pydantic import ValidationError
from tests.conftest import BidsSite
from tests.server.rounds.test_loop import Killed, Recorder

from msfl_client.classification.trainer import split_segmentation
from msfl_client.clinical.observations import observations
from msfl_client.clinical.splits import Splits, split_patients
from msfl_client.connection.message_limits import bounds_of
from msfl_client.data.checks import check_site
from msfl_client.egress.gateway import check_agreed, check_request
from msfl_client.egress.ledger import read
from msfl_client.features.cache import features_of
from msfl_client.imaging.registration import load_template, template_brain
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_client.segmentation.lesion_model import load_lesion_model
from msfl_client.segmentation.upstream_model import handed_model
from msfl_common.config.classification import Fold
from msfl_common.config.message_kinds import SEGMENTATION
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.stages import Stage, stages_of, study_at
from msfl_common.config.study import Inputs, Rounds, StudyConfig, Training
from msfl_common.errors import Code, ConfigError, ModelFolderError, RefusedError
from msfl_common.messages.records import Content, RoundTask, pack_task, unpack_refusal, unpack_task
from msfl_common.models.model_folder import load_model, read_card, read_reference
from msfl_common.models.starting_weights import starting_weights
from msfl_common.networks.registry import DynUNet, UNet
from msfl_server.research.simulation.federation import simulate
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.research.simulation.harmonization_cases import cases_of_run
from msfl_server.research.simulation.overlays import example_overlays
from msfl_server.results.summary import Summary, read_summary
from msfl_server.rounds.loop import run_rounds
from msfl_server.rounds.stage import StageRun, folder_of
from msfl_server.run.display import run_display
from msfl_server.run.run import run_stages
from msfl_server.run.status import StatusFile, read_status

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

BOTH = ("lesion-segmentation", "classification")
STUDY = StudyConfig(
    name="both",
    task="classification",
    inputs=Inputs(spacing_mm=4.0),
    network=DynUNet(channels=(2, 4, 4), dimensions=2),  # another than most tests have
    training=Training(steps_per_round=2, batch_size=2, patch_voxels=16),
    segmentation=Rounds(num_rounds=2, quorum=2, deadline_s=120),
    rounds=Rounds(num_rounds=2, quorum=2, deadline_s=120),
    harmonization={"method": "combat", "features": ["brain_volume_ml", "bpf"], "covariates": ["age"], "min_cases": 3},
    classification={
        "outcome": {"column": "label", "classes": ["no", "yes"]},
        "features": ["lesion_volume_ml", "bpf"],
        "clinical": [],
        "model": {"kind": "logistic"},
    },
    min_patients=1,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def sites(base: Path) -> list[SiteConfig]:
    """Three sites of seven patients: the template's brain with noise and a lesion of its own in each."""
    return [make_site(base, f"site-{letter}", seed) for seed, letter in enumerate("abc")]


def make_site(base: Path, name: str, seed: int) -> SiteConfig:
    site, rng = BidsSite(base / name), np.random.default_rng(seed)
    template, brain_DHW = load_template(4.0), template_brain(4.0)
    t1_DHW = np.asarray(template.dataobj) / np.asarray(template.dataobj).max()
    lines = ["participant_id\tlabel\tage\tscanner"]
    for number in range(7):
        subject = f"sub-{number}"
        lesion_DHW = np.zeros(brain_DHW.shape, np.uint8)
        lesion_DHW[16 + number : 19 + number, 22:25, 22 : 24 + number % 3] = 1
        noise_DHW = rng.normal(1, 0.05, brain_DHW.shape)
        for contrast, image_DHW in (("T1w", t1_DHW), ("FLAIR", 0.7 * t1_DHW + 2 * lesion_DHW)):
            voxels = (brain_DHW * np.clip(100 * image_DHW * noise_DHW, 1, None)).astype(np.float32)
            site.save(site.image(subject, contrast), voxels, template.affine)
        site.save(site.mask(subject), lesion_DHW, template.affine)
        lines.append(f"{subject}\t{'yes' if number % 2 else 'no'}\t{30 + 3 * number}\t{name}")
    (site.root / "participants.tsv").write_text("\n".join(lines) + "\n")
    allow = ("model_update", "validation_metrics", "harmonization_sums", "node_facts")
    policy = Policy(tasks=BOTH, min_patients=1, allow=allow, refuse_models=())
    return SiteConfig(name=name, data=(site.root,), state=base / "states" / name, policy=policy)


@pytest.fixture(scope="module")
def whole(base: Path, sites: list[SiteConfig]) -> Summary:
    """The study, run at one go into `base / "whole"`."""
    setup = RunSetup(study=STUDY, sites=tuple(sites))
    with run_display(1) as display:
        return run_stages(
            STUDY,
            lambda stage, _: starting_weights(study_at(STUDY, stage)),
            base / "whole",
            None,
            display,
            lambda stage_run, listener: simulate(stage_run, sites, "inprocess", listener, display.on_progress),
            lambda stage_run: example_overlays(setup, stage_run),
        )


def grid_of(sites: list[SiteConfig]) -> InProcessGrid:
    open_context.cache_clear()
    return InProcessGrid(build_app(lambda context: sites[int(context.node_config["partition-id"])]), len(sites))


def play(sites: list[SiteConfig], out: Path, die_in: dict[Stage, int]) -> dict[Stage, int]:
    """All stages, as `run_stages` plays them but without reports; dies after a round where asked.

    Returns:
        Rounds that were played in each stage.
    """
    grid, before, played = grid_of(sites), None, {}
    for stage in stages_of(STUDY):
        here = StageRun(STUDY, starting_weights(study_at(STUDY, stage)), folder_of(stage, out), stage, before)
        recorder = Recorder(die_in.get(stage, 0))
        run_rounds(grid, STUDY, here.first, here.out, recorder, (), stage, before)
        played[stage] = len(recorder.states) - 1
        before = here.outcome() if stage == "segmentation" else None
    return played


@pytest.mark.slow
def test_a_study_segments_and_then_classifies(base: Path, sites: list[SiteConfig], whole: Summary) -> None:
    out = base / "whole"
    before = read_summary(out / "segmentation")
    assert (before.task, before.rounds_completed, whole.task) == ("lesion-segmentation", 2, "classification")
    assert "dsc" in before.metrics
    assert whole.classification is not None
    assert [len(run.sites) for run in (before, whole)] == [3, 3]
    card, _ = load_model(out / "model")
    lesions, _ = load_model(out / "model" / "segmentation")
    assert card.segmentation == lesions.weights_sha256 == read_card(out / "segmentation" / "model").weights_sha256
    assert card.harmonization is not None
    for site in sites:
        taken = handed_model(site, STUDY)
        assert taken is not None
        assert taken.sha256 == card.segmentation
    page = (out / "report.html").read_text()
    assert 'href="segmentation/report.html"' in page
    assert (out / "segmentation" / "report.html").exists()
    assert not (out / "segmentation" / "mlflow.db").exists()


@pytest.mark.slow
def test_the_ledger_names_the_stage_of_each_message(sites: list[SiteConfig], whole: Summary) -> None:
    assert whole.rounds_completed
    lines = [(line.study, line.kind, line.round) for line in read(sites[0].state / "ledger.jsonl")]
    first, final = "both-segmentation", "both"
    assert lines[:5] == [
        (first, "node_facts", 1),
        (first, "model_update", 1),
        (first, "validation_metrics", 1),
        (first, "model_update", 2),
        (first, "validation_metrics", 2),
    ]
    assert lines[5:9] == [
        (final, "node_facts", 1),  # the model of lesions was taken
        (final, "harmonization_sums", 1),
        (final, "harmonization_sums", 1),
        (final, "node_facts", 1),  # the reference was taken
    ]
    assert (final, "model_update", 1) in lines


@pytest.mark.slow
def test_the_model_outlines_every_case(base: Path, sites: list[SiteConfig], whole: Summary, tmp_path: Path) -> None:
    assert whole.rounds_completed
    context = open_context(sites[0], STUDY, lambda *_: None, "final", handed_model(sites[0], STUDY))
    assert context.features is not None
    assert len(context.features.rows) == 7
    case, model = context.cases[0], load_lesion_model(base / "whole" / "segmentation" / "model", "cpu")
    assert case.mask is not None
    (expected,), _ = features_of([replace(case, mask=None)], STUDY.inputs, tmp_path, model)
    (manual,), _ = features_of([case], STUDY.inputs, tmp_path, model)
    assert context.features.rows[0] == expected
    assert manual.features["lesion_volume_ml"] != expected.features["lesion_volume_ml"]


@pytest.mark.slow
def test_the_report_of_a_simulation_has_the_same_features(base: Path, sites: list[SiteConfig], whole: Summary) -> None:
    assert whole.rounds_completed
    reference = read_reference(base / "whole" / "harmonization.json")
    cases = cases_of_run(RunSetup(study=STUDY, sites=tuple(sites)), reference)
    context = open_context(sites[0], STUDY, lambda *_: None, "final", handed_model(sites[0], STUDY))
    assert context.features is not None
    assert len(cases.patients) == 21
    ours = [[row.features[name] for name in reference.settings.feature_names] for row in context.features.rows]
    assert np.array_equal(cases.raw.features_NP[:7], ours)


@pytest.mark.slow
def test_who_measures_the_classification_does_not_train_the_segmentation(
    sites: list[SiteConfig], whole: Summary
) -> None:
    assert whole.rounds_completed
    for site in sites:
        first = open_context(site, STUDY, lambda *_: None, "segmentation")
        final = open_context(site, STUDY, lambda *_: None, "final", handed_model(site, STUDY))
        splits: Splits = final.learner._data.splits  # type: ignore[attr-defined]
        training, validation, test = ({one.patient for one in part} for part in splits.each)
        assert {case.patient for case in first.training} == training
        assert {case.patient for case in first.cases} == training | validation
        assert (len(training), len(validation), len(test)) == (3, 2, 2)


def test_who_is_held_out_in_a_fold_takes_no_part_in_either_stage(sites: list[SiteConfig]) -> None:
    assert STUDY.classification is not None
    for fold, sizes in ((Fold(number=2, of=3), (5, 5, 5)), (Fold(site="site-b"), (7, 0, 7))):
        settings = STUDY.classification.model_copy(update={"fold": fold})
        study = STUDY.model_copy(update={"classification": settings})
        for site, size in zip(sites, sizes, strict=True):
            cases = check_site(site, study.inputs).cases
            parts = split_patients(observations(cases, site, settings).kept, study, site.name)
            learned = [case.patient for part in split_segmentation(site, study, cases) for case in part]
            assert len(learned) == len(set(learned)) == size
            assert set(learned).isdisjoint((one.dataset, one.subject) for one in parts.test)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("die_in", "left"),
    [
        ({"segmentation": 1}, {"segmentation": 1, "final": 2}),
        ({"segmentation": 2}, {"segmentation": 0, "final": 2}),
        ({"final": 1}, {"segmentation": 0, "final": 1}),
    ],
    ids=["in-the-first", "between", "in-the-last"],
)
def test_a_killed_run_goes_on_in_its_stage(
    base: Path,
    sites: list[SiteConfig],
    whole: Summary,
    tmp_path: Path,
    die_in: dict[Stage, int],
    left: dict[Stage, int],
) -> None:
    assert whole.rounds_completed
    with pytest.raises(Killed):
        play(sites, tmp_path, die_in)
    shutil.rmtree(sites[2].state / "segmentation", ignore_errors=True)  # a site that comes back on a new machine
    assert play(sites, tmp_path, {}) == left
    for folder in ("model", "segmentation/model", "model/segmentation"):
        weights = (tmp_path / folder / "model.safetensors").read_bytes()
        assert weights == (base / "whole" / folder / "model.safetensors").read_bytes()


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
    first, final = (starting_weights(study_at(STUDY, stage)) for stage in stages_of(STUDY))
    assert bounds_of(first, final) == bounds_of(first)
    assert bounds_of(first, final).num_bytes > bounds_of(final).num_bytes


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


@pytest.mark.slow
def test_a_model_folder_with_another_segmentation_is_refused(base: Path, whole: Summary, tmp_path: Path) -> None:
    assert whole.rounds_completed
    shutil.copytree(base / "whole" / "model", tmp_path / "model")
    card = tmp_path / "model" / "segmentation" / "model.json"
    card.write_text(card.read_text().replace(read_card(card.parent).weights_sha256, "0" * 64))
    with pytest.raises(ModelFolderError, match="altered or damaged"):
        load_model(tmp_path / "model")


def test_the_status_says_which_stage(tmp_path: Path) -> None:
    with StatusFile(tmp_path / "status.json", STUDY) as status:
        status.on_stage("segmentation", 7)
        said = read_status(tmp_path / "status.json")
    assert said is not None
    assert (said.stage, said.num_rounds) == ("segmentation", 7)
