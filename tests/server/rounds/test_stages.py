"""A segmentation and a classification in one study, among simulated sites with images of 4 mm."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import BidsSite
from tests.server.rounds.test_loop import Killed, Recorder

from msfl_client.classification.trainer import split_segmentation
from msfl_client.clinical.observations import observations
from msfl_client.clinical.splits import Splits, split_patients
from msfl_client.data.checks import check_site
from msfl_client.egress.ledger import read
from msfl_client.features.cache import features_of
from msfl_client.features.table import FeatureTable, read_features_table, says_of_lesions, write_features_table
from msfl_client.imaging.registration import load_template, template_brain
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_client.segmentation.lesion_model import load_lesion_model, site_lesion_model
from msfl_client.segmentation.trained_patients import trained_on
from msfl_client.segmentation.upstream_model import handed_model
from msfl_common.config.classification import Fold
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.stages import Stage, stages_of, study_at
from msfl_common.config.study import Inputs, Rounds, StudyConfig, Training
from msfl_common.errors import ModelFolderError
from msfl_common.models.model_folder import load_model, read_card, read_reference
from msfl_common.models.starting_weights import starting_weights
from msfl_common.networks.registry import DynUNet
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

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

FOLDS: tuple[Stage, Stage] = ("segmentation-1", "segmentation-2")
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
        run_rounds(grid, STUDY, here.first, here.out, recorder, (), stage, here.handed)
        played[stage] = len(recorder.states) - 1
        before = here.outcome() if stage != "final" else None
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
    assert "come from 2 models that each trained without a part of them" in page
    for stage in FOLDS:
        assert (out / stage / "report.html").exists()
    assert not (out / "segmentation" / "mlflow.db").exists()


@pytest.mark.slow
def test_the_ledger_names_the_stage_of_each_message(sites: list[SiteConfig], whole: Summary) -> None:
    assert whole.rounds_completed
    lines = [(line.study, line.kind, line.round) for line in read(sites[0].state / "ledger.jsonl")]
    final = "both"
    assert lines[:15] == [
        line
        for first in ("both-segmentation", *(f"both-{stage}" for stage in FOLDS))
        for line in (
            (first, "node_facts", 1),
            (first, "model_update", 1),
            (first, "validation_metrics", 1),
            (first, "model_update", 2),
            (first, "validation_metrics", 2),
        )
    ]
    assert lines[15:19] == [
        (final, "node_facts", 1),  # the model of lesions was taken
        (final, "harmonization_sums", 1),
        (final, "harmonization_sums", 1),
        (final, "node_facts", 1),  # the reference was taken
    ]
    assert (final, "model_update", 1) in lines


@pytest.mark.slow
def test_a_model_that_did_not_train_on_a_patient_outlines_every_case(
    base: Path, sites: list[SiteConfig], whole: Summary, tmp_path: Path
) -> None:
    assert whole.rounds_completed
    taken = {stage: open_context(sites[0], STUDY, lambda *_: None, stage) for stage in ("segmentation", *FOLDS)}
    trained = {stage: {case.patient for case in one.training} for stage, one in taken.items()}
    assert trained[FOLDS[0]] | trained[FOLDS[1]] == trained["segmentation"]
    assert not trained[FOLDS[0]] & trained[FOLDS[1]]
    assert {case.patient for case in taken[FOLDS[0]].cases} < {case.patient for case in taken["segmentation"].cases}
    context = open_context(sites[0], STUDY, lambda *_: None, "final", handed_model(sites[0], STUDY))
    assert context.features is not None
    chosen = {}
    for case, row in zip(context.cases, context.features.rows, strict=True):
        seen = case.patient in trained["segmentation"]
        chosen[FOLDS[case.patient in trained[FOLDS[0]]] if seen else "segmentation"] = case, row
    assert set(chosen) == set(trained)
    for stage, (case, row) in chosen.items():
        model = load_lesion_model(base / "whole" / stage / "model", "cpu")
        (expected,), _ = features_of([replace(case, mask=None)], STUDY.inputs, tmp_path, model)
        assert row == expected
        assert row.lesions == "model"
    (manual,), _ = features_of(context.cases[:1], STUDY.inputs, tmp_path, model)
    assert manual.features["lesion_volume_ml"] != context.features.rows[0].features["lesion_volume_ml"]
    assert manual.lesions == "manual"


@pytest.mark.slow
def test_a_site_measures_its_own_patients_by_a_model_that_did_not_train_on_them(
    base: Path, sites: list[SiteConfig], whole: Summary, tmp_path: Path
) -> None:
    """As `features --model` does with the model that the study ended with; without folds it says so."""
    assert whole.rounds_completed
    handed = base / "whole" / "model" / "segmentation"
    model = site_lesion_model(handed, sites[0])
    assert model.patients is not None
    assert (len(model.patients), len(model.folds)) == (3, 2)
    for patient in model.patients:
        assert model.has_seen(patient) == "yes"
        assert model.for_patient(patient) in model.folds
        assert model.for_patient(patient).has_seen(patient) == "no"
    assert model.for_patient("sub-99") is model
    own = site_lesion_model(base / "whole" / "segmentation-1" / "model", sites[0])  # another than it was handed
    (patient, *_) = sorted(own.patients or ())
    assert own.for_patient(patient).has_seen(patient) == "yes"
    elsewhere = sites[0].model_copy(update={"state": tmp_path})
    assert site_lesion_model(base / "whole" / "segmentation-1" / "model", elsewhere).patients is None
    case = next(case for case in check_site(sites[0], STUDY.inputs).cases if case.patient == patient)
    (row,), _ = features_of([replace(case, mask=None)], STUDY.inputs, tmp_path / "cache", own)
    (said,) = says_of_lesions([row])
    assert said.startswith("Lesion features of 1 patient come from a model that trained on them")
    write_features_table(tmp_path / "features.tsv", FeatureTable((row,)))
    assert read_features_table(tmp_path / "features.tsv").rows == (row,)


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
        assert trained_on(site.state, study_at(STUDY, "segmentation")) == {case.patient for case in first.training}
        final = open_context(site, STUDY, lambda *_: None, "final", handed_model(site, STUDY))
        splits: Splits = final.learner._data.splits  # type: ignore[attr-defined]
        training, validation, test = ({one.patient for one in part} for part in splits.each)
        assert {case.patient for case in first.training} == training
        assert {case.patient for case in first.cases} == training | validation
        assert (len(training), len(validation), len(test)) == (3, 2, 2)


@pytest.mark.slow
def test_who_is_held_out_in_a_fold_takes_no_part_in_either_stage(sites: list[SiteConfig]) -> None:
    assert STUDY.classification is not None
    for fold, sizes in ((Fold(number=2, of=3), (5, 5, 5)), (Fold(site="site-b"), (7, 0, 7))):
        settings = STUDY.classification.model_copy(update={"fold": fold})
        study = STUDY.model_copy(update={"classification": settings})
        for site, size in zip(sites, sizes, strict=True):
            cases = check_site(site, study.inputs).cases
            parts = split_patients(observations(cases, site, settings).kept, study, site.name)
            split = split_segmentation(site, study, cases)
            learned = [case.patient for part in (split.training, split.validation) for case in part]
            assert not split.test
            assert len(learned) == len(set(learned)) == size
            assert set(learned).isdisjoint((one.dataset, one.subject) for one in parts.test)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("die_in", "left"),
    [
        pytest.param(
            {"segmentation-1": 1},
            {"segmentation": 0, "segmentation-1": 1, "segmentation-2": 2, "final": 2},
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"final": 1},
            {"segmentation": 0, "segmentation-1": 0, "segmentation-2": 0, "final": 1},
            marks=pytest.mark.long,
        ),
    ],
    ids=["in-a-fold", "in-the-last"],
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
    for stage in ("segmentation", *FOLDS):  # a site that comes back on a new machine
        shutil.rmtree(sites[2].state / stage, ignore_errors=True)
    assert play(sites, tmp_path, {}) == left
    for folder in ("model", "segmentation/model", "model/segmentation"):
        weights = (tmp_path / folder / "model.safetensors").read_bytes()
        assert weights == (base / "whole" / folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_model_folder_with_another_segmentation_is_refused(base: Path, whole: Summary, tmp_path: Path) -> None:
    assert whole.rounds_completed
    shutil.copytree(base / "whole" / "model", tmp_path / "model")
    card = tmp_path / "model" / "segmentation" / "model.json"
    card.write_text(card.read_text().replace(read_card(card.parent).weights_sha256, "0" * 64))
    with pytest.raises(ModelFolderError, match="altered or damaged"):
        load_model(tmp_path / "model")
