"""A model card lists the settings that act on its model, and no others; so do reports and MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from msfl_common.config import classification
from msfl_common.config.base import validate
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_card import ModelCard, Provenance, labels_of, normalisation_of
from msfl_common.models.unused_settings import inapplicable, leaf_keys
from msfl_server.results.settings import flat_settings

DEEP = ("resnet3d", "lesion-encoder")


def leaves(plain: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in plain.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def card_of(study: StudyConfig) -> ModelCard:
    return ModelCard(
        study=study,
        labels=labels_of(study),
        normalisation=normalisation_of(study),
        weights_sha256="0" * 64,
        versions={},
        provenance=Provenance(rounds_completed=1, sites={}),
    )


@pytest.mark.parametrize("kind", [*classification.FEATURE_MODELS, *DEEP])
def test_a_card_lists_what_acts_on_its_model_alone(kind: str) -> None:
    content: dict[str, Any] = {
        "name": "card",
        "task": "classification",
        "network": {"kind": "unet", "channels": [4, 8]},
        "training": {"batch_size": 3},
        "validation": {"bootstrap_samples": 500},
        "rounds": {"num_rounds": 90},
        "classification": {
            "outcome": {"endpoint": "edss-worsening"},
            "clinical": ["age", "edss"],
            "model": {"kind": kind},
        },
    }
    study = validate(StudyConfig, content, "study")
    text = card_of(study).model_dump_json()
    written = json.loads(text)["study"]
    expected = {key for key in leaf_keys(study) if key not in inapplicable(study)}
    # A section at its default is not written, and neither are settings that came later.
    later = {
        "classification.declared",
        "validation.best_by",
        "validation.patience",
        "rounds.weighting",
        "rounds.fraction",
        "evaluate",
        "regression",
    }
    later |= {
        "classification.declared",
        "baselines.local",
        "inputs.visits",
        "inputs.denoising",
        "inputs.masks",
        "inputs.lesion_classes",
        "inputs.parcellation",
        "harmonization.declared",
        "classification.model.coef0",
        "training.freeze",
    }
    at_default = {key for key in expected if key.startswith("secure_aggregation.") or key in later}
    assert {key for key in leaves(written) if not key.startswith("strategy")} == expected - {"strategy"} - at_default
    listed = {setting.name for setting in flat_settings(study) if not setting.name.startswith("strategy")}
    assert listed == expected - {"strategy"}
    assert ("network" in written) == (kind == "lesion-encoder")
    assert ("training" in written) == (kind in DEEP)
    again = ModelCard.model_validate_json(text).study.classification
    assert again is not None
    assert study.classification is not None
    assert (again.inputs, again.outcome) == (study.classification.inputs, study.classification.outcome)
    assert again.model.kind == kind


def test_a_card_of_an_earlier_version_with_all_settings_is_read() -> None:
    study = StudyConfig(name="pilot")
    earlier = card_of(study).model_dump(mode="json") | {"study": study.model_dump(mode="json")}
    assert ModelCard.model_validate_json(json.dumps(earlier)).study == study


def test_a_model_that_scaled_clinical_values_with_features_is_refused() -> None:
    section = {
        "outcome": {"endpoint": "edss-worsening"},
        "features": ["bpf", "gm_volume_ml"],
        "clinical": ["age"],
        "preparation": {"subject_scaling": "minmax"},
        "model": {"kind": "lda"},
    }
    study = StudyConfig.model_validate({"name": "rows", "task": "classification", "classification": section})
    with pytest.raises(ValueError, match="scaled clinical values with the features of a case; train the model anew"):
        card_of(study)
    without = section | {"clinical": []}
    card_of(StudyConfig.model_validate({"name": "rows", "task": "classification", "classification": without}))


def test_who_trained_is_known_under_masks_too() -> None:
    plain = Provenance(rounds_completed=1, sites={"a": 5, "b": 0})
    assert [plain.is_of(site) for site in ("a", "b", "c")] == [True, False, False]
    assert "summed_sites" not in plain.model_dump()  # as earlier versions read it
    masked = Provenance(rounds_completed=1, sites={"pooled": 50}, summed_sites=("a", "b"))
    assert [masked.is_of(site) for site in ("a", "b", "c")] == [True, True, False]
    assert Provenance.model_validate_json(masked.model_dump_json()) == masked
