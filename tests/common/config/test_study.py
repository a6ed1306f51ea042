"""Study and site files: what is accepted, and how a fault is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from msfl_common.config.site import SiteConfig, load_site
from msfl_common.config.study import StudyConfig, load_study, parse_study
from msfl_common.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_needs_only_a_name(tmp_path: Path) -> None:
    study = load_study(write(tmp_path / "study.yaml", "name: pilot\n"))
    assert study == StudyConfig(name="pilot")


def test_a_study_survives_the_wire() -> None:
    study = StudyConfig.model_validate({"name": "pilot", "inputs": {"contrasts": ["FLAIR"], "spacing_mm": 1.0}})
    assert parse_study(study.model_dump_json()) == study


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        StudyConfig(name="pilot").name = "other"


def test_relative_paths_start_at_the_site_file(tmp_path: Path) -> None:
    site = load_site(write(tmp_path / "site.yaml", "name: a\ndata: scans\nstate: ../state\n"))
    assert site.data == (tmp_path / "scans",)
    assert site.state == tmp_path.parent / "state"


def test_every_field_is_described() -> None:
    def fields(schema: dict[str, object], names: tuple[str, ...]) -> None:
        for name, field in schema["properties"].items():  # type: ignore[attr-defined]
            described = "description" in field or "$ref" in field or "allOf" in field
            assert described, ".".join((*names, name))

    for model in (StudyConfig, SiteConfig):
        schema = model.model_json_schema()
        fields(schema, ())
        for name, definition in schema["$defs"].items():
            fields(definition, (name,))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: pilot\nround: 3\n", "round: unknown key"),
        ("seed: 1\n", "name: required, but not there"),
        ("name: a b\n", "name: found 'a b'; expected letters, digits, dots"),
        (
            "name: p\nrounds: {quorum: 0}\n",
            "rounds.quorum: found 0; expected 1 or more",
        ),
        (
            "name: p\ninputs: {contrasts: [T1w, T9w]}\n",
            "inputs.contrasts, entry 2: found 'T9w'; no such contrast: T9w; did you mean T2w or T1w",
        ),
        ("name: p\ntraining: {patch_voxels: 50}\n", "training.patch_voxels: 50 must be a multiple of 8"),
        ("name: p\nrouns: {quorum: 1}\n", "rouns: unknown key; did you mean rounds?"),
        (
            "name: p\nlearning_rate: 0.1\n",
            "learning_rate: unknown key; it belongs under classification.model, under regression.model or under "
            "training",
        ),
        ("name: p\nnetwork: {kind: unet, chanels: [8, 8]}\n", "network.chanels: unknown key; did you mean channels?"),
        (
            "name: p\nnetwork: {kind: unett}\n",
            "network.kind: found 'unett'; did you mean unet? Expected attention-unet",
        ),
        ("name: 7\n", 'name: found 7; expected a text; quote it, "7"'),
        ("name: p\ntraining: fast\n", "training: found 'fast'; expected a section, `key: value` lines below it"),
        ("name: p\ninputs: {contrasts: T1w}\n", "inputs.contrasts: found 'T1w'; expected a list"),
        (
            "name: p\ntraining: {augmentation: {flip: }}\n",
            "training.augmentation.flip: found nothing; expected a number",
        ),
        (
            "name: p\ntask: cure\n",
            "task: found 'cure'; expected lesion-segmentation, new-lesions, classification or regression",
        ),
        ("name: p\ninputs: {visits: 2}\n", "inputs.visits: 2, and the task lesion-segmentation takes 1"),
        ("name: p\ntask: new-lesions\ninputs: {visits: 1}\n", "inputs.visits: 1, and the task new-lesions takes 2"),
        (
            "name: p\ntask: new-lesions\nharmonization: {method: combat}\n",
            "harmonization: features are of one visit, and the task new-lesions has none",
        ),
        ("name: p\ntraining: {learning_rate: .inf}\n", "training.learning_rate: found inf; "),
        (
            "name: p\ntask: classification\ninputs: {contrasts: [FLAIR]}\nsegmentation: {}\nclassification: "
            "{outcome: {column: label}, features: [lesion_volume_ml], clinical: [], model: {kind: lda}}\n",
            "inputs.contrasts: expected T1w among them",
        ),
        ("- name\n", "expected `key: value` lines at the top, found a list"),
        ('name: "C:\\Users"\n', "write a backslash twice, or leave the double quotes out"),
        ("name: x\nsites: `a`\n", "not valid YAML: line 2: found character '`' that cannot start any token"),
    ],
)
def test_a_fault_is_one_line_with_field_value_and_rule(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(write(tmp_path / "study.yaml", text))
    assert len(caught.value.faults) == 1
    assert line in caught.value.faults[0]
    assert "\n" not in caught.value.faults[0]
    assert caught.value.exit_code == 2


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(write(tmp_path / "study.yaml", "name: p\nseed: -1\ntask: cure\nextra: 1\n"))
    assert len(caught.value.faults) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_site(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("fold", "line"),
    [
        ("{number: 6, of: 5}", "expected a number from 1 to 5, as there are 5 folds; found 6"),
        ("{number: 0, of: 5}", "number: found 0; "),
        ("{number: 1, of: 51}", "of: found 51; "),
        ("{number: 1}", "expected `number` and `of`, or `site`"),
        ("{of: 5, site: a}", "expected `number` and `of`, or `site`"),
        ("{}", "expected `number` and `of`, or `site`"),
        ("{site: a b}", "site: found 'a b'; "),
    ],
)
def test_a_fold_is_a_part_of_each_site_or_a_site(tmp_path: Path, fold: str, line: str) -> None:
    text = (
        "name: p\ntask: classification\n"
        f"classification: {{outcome: {{column: label}}, model: {{kind: lda}}, fold: {fold}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_study(write(tmp_path / "study.yaml", text))
    assert len(caught.value.faults) == 1
    assert line in caught.value.faults[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("validation: {test_fraction: 0.75}", "test_fraction 0.75 and fraction 0.25 leave nobody to train on"),
        ("validation: {test_fraction: 1}", "test_fraction: found 1; "),
        ("validation: {fold: {number: 3, of: 2}}", "expected a number from 1 to 2"),
        (
            "validation: {fold: {site: a}}\nstrategy: {kind: fedbn}",
            "fedbn keeps layers at the sites, and a, which is left out, has none to test with",
        ),
        (
            "validation: {fold: {site: a}}\nbaselines: {local: true}",
            "baselines.local: the site that is left out trains nothing",
        ),
        (
            "validation: {test_fraction: 0.2}\ntask: classification\n"
            "classification: {outcome: {column: label}, model: {kind: lda}}",
            "expected `classification.test_fraction` here, which both stages keep to",
        ),
    ],
)
def test_who_tests_a_segmentation_is_said_once_and_leaves_some_to_train(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(write(tmp_path / "study.yaml", f"name: p\n{text}\n"))
    assert len(caught.value.faults) == 1
    assert line in caught.value.faults[0]


def test_a_study_that_keeps_no_test_patients_is_written_as_before_and_has_no_test() -> None:
    study = StudyConfig(name="p")
    assert not {"test_fraction", "min_test_patients", "fold"} & {*study.model_dump()["validation"]}
    assert (study.has_test, StudyConfig(name="p", validation={"test_fraction": 0.1}).has_test) == (False, True)
    assert StudyConfig(name="p", validation={"fold": {"site": "a"}}).left_out == "a"
