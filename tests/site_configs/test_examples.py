from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from msfl_common.config.classification import MODEL_KINDS, Classification, Outcome
from msfl_common.config.clinical_values import CLINICAL_VALUES
from msfl_common.config.regression import NumericOutcome, Regression
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.feature_models import FEATURE_MODELS, REGRESSION_MODELS
from msfl_common.feature_models.logistic import Logistic
from msfl_common.feature_models.ridge import Ridge
from msfl_common.models.unused_settings import unused_settings
from msfl_common.networks.registry import KINDS as KINDS_OF_NETWORK

FOLDER = Path(__file__).parents[2] / "site_configs"
STUDIES = (
    "study",
    "lesions",
    "new-lesions",
    "transfer",
    "progression",
    "small-cohort",
    "five-visits",
    "regression",
    "own-inputs",
    "evaluation",
)
EXAMPLES = [("site.example.yaml", SiteConfig), ("study.example.yaml", StudyConfig)]


def compare(model: type[BaseModel], content: dict[str, Any], where: str = "") -> list[str]:
    """Faults: keys that the example lacks, keys that the model lacks, values that are not the default."""
    faults = [f"{where}{key}: not in the example" for key in model.model_fields if key not in content]
    faults += [f"{where}{key}: not in the model" for key in content if key not in model.model_fields]
    for key, field in model.model_fields.items():
        value, default = content.get(key), field.default
        if isinstance(default, BaseModel):
            faults += compare(type(default), value or {}, f"{where}{key}.")
        elif default is not PydanticUndefined:
            shown = list(default) if isinstance(default, tuple) else default
            shown = str(shown) if isinstance(shown, Path) else shown
            if value != shown:
                faults.append(f"{where}{key}: example says {value!r}, the default is {shown!r}")
    return faults


@pytest.mark.parametrize(("name", "model"), EXAMPLES)
def test_example_lists_every_field_with_its_true_default(name, model):
    assert compare(model, yaml.safe_load((FOLDER / name).read_text())) == []


@pytest.mark.parametrize(("name", "model"), EXAMPLES)
def test_every_key_of_an_example_is_explained(name, model):
    lines = (FOLDER / name).read_text().splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            above = number > 0 and lines[number - 1].lstrip().startswith("#")
            assert "  # " in line or above, f"{name}:{number + 1}: no comment"


def test_comparison_finds_what_it_is_for():
    content = yaml.safe_load((FOLDER / "study.example.yaml").read_text())
    content["rounds"]["quorum"] = 3
    content["training"]["augmentation"].pop("flip")
    content["extra"] = 1
    assert compare(StudyConfig, content) == [
        "extra: not in the model",
        "training.augmentation.flip: not in the example",
        "training.augmentation.flip: example says None, the default is 0.5",
        "rounds.quorum: example says 3, the default is 2",
    ]


def test_examples_load():
    study = load_study(FOLDER / "study.example.yaml")
    assert study == StudyConfig(name="my-study")
    site = load_site(FOLDER / "site.example.yaml")
    assert site.state == FOLDER / "state"


def test_progression_shows_every_field_with_its_true_default():
    name = "progression.example.yaml"
    study = load_study(FOLDER / name)
    section = yaml.safe_load((FOLDER / name).read_text())["classification"]
    faults = (
        compare(Classification, section) + compare(Outcome, section["outcome"]) + compare(Logistic, section["model"])
    )
    assert faults == ["endpoint: example says 'edss-worsening', the default is None"]
    assert study.classification is not None
    mentioned = (FOLDER / name).read_text()
    kinds = [kind for kind in MODEL_KINDS if kind not in REGRESSION_MODELS or kind in FEATURE_MODELS]
    assert [kind for kind in (*CLINICAL_VALUES, *kinds) if kind not in mentioned] == []


def test_regression_shows_every_field_with_its_true_default():
    name = "regression.example.yaml"
    assert load_study(FOLDER / name).regression is not None
    section = yaml.safe_load((FOLDER / name).read_text())["regression"]
    faults = (
        compare(Regression, section) + compare(NumericOutcome, section["outcome"]) + compare(Ridge, section["model"])
    )
    assert faults == ["endpoint: example says 'edss', the default is None"]
    mentioned = (FOLDER / name).read_text()
    assert [kind for kind in REGRESSION_MODELS if kind not in mentioned] == []


@pytest.mark.parametrize("name", [*(f"{name}.example.yaml" for name in STUDIES), "demo/study.yaml"])
def test_every_setting_of_an_example_has_an_effect_where_it_is_not_the_default(name):
    assert unused_settings(load_study(FOLDER / name)) == []


def test_demo_loads_and_its_sites_keep_apart():
    study = load_study(FOLDER / "demo" / "study.yaml")
    sites = [load_site(FOLDER / "demo" / f"site-{letter}.yaml") for letter in "abc"]
    assert [site.name for site in sites] == ["site-a", "site-b", "site-c"]
    assert len({site.data for site in sites}) == len({site.state for site in sites}) == 3
    build = FOLDER.parent / "build" / "demo"
    assert sites[0].data == (build / "cohort" / "site-a",)
    assert sites[0].state == build / "state" / "site-a"
    assert study.rounds.quorum <= len(sites)
    assert {site.policy.min_patients for site in sites} == {study.min_patients} == {3}


def test_no_config_is_left_out():
    named = {f"{name}.example.yaml" for name in ("site", *STUDIES)}
    named |= {f"demo/{name}.yaml" for name in ("study", "site-a", "site-b", "site-c")}
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml")} == named


def test_networks_that_stand_in_comments_are_all_and_have_their_defaults():
    lines = (FOLDER / "study.example.yaml").read_text().splitlines()
    found = [yaml.safe_load(line[2:])["network"] for line in lines if line.startswith("# network: ")]
    networks = {kind.model_fields["kind"].default: kind() for kind in KINDS_OF_NETWORK}
    for network in found:
        default = networks.pop(network["kind"])
        assert type(default).model_validate(network) == default
        assert {*network, "dimensions"} == {*type(default).model_fields}
    assert list(networks) == ["unet"]  # it stands there as a setting
