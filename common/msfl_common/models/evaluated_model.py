"""The model that a study measures, and the study that its folder can be measured in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msfl_common.config.base import validate
from msfl_common.config.secure_aggregation import POOLED
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.model_card import ModelCard
from msfl_common.models.model_folder import load_model, read_card
from msfl_common.models.unused_settings import acting_settings, inapplicable
from msfl_common.models.weights import Weights

# What has to be as in the study that trained the model; who trained it is known by its splits.
_SAME = ("task", "seed", "inputs", "network", "harmonization", "classification", "regression", "evaluate")
_SAME_VALIDATION = ("fraction", "test_fraction", "fold", "window_overlap", "mirroring")


def evaluation_of(folder: Path, name: str) -> StudyConfig:
    """The study that measures a model at sites.

    Args:
        folder: the model's.
        name: of the study.

    Raises:
        InputError: no study can measure it, or its card cannot be read.
    """
    card = read_card(folder)
    if card.segmentation is not None:
        raise InputError(
            f"{folder}: its features are of lesions that a model in it outlines, and a study that measures a model "
            "hands out no second one; measure it at a site, by `msfl-client predict`"
        )
    trained, outcome = card.study, card.study.classification
    plain = trained.model_dump(mode="json")
    sections = [
        "task",
        "seed",
        "inputs",
        "network",
        "min_patients",
        *(["regression" if trained.regression else "classification"] if outcome else []),
    ]
    if card.harmonization is not None and outcome is not None and outcome.features:
        sections.append("harmonization")
    if "training.patch_voxels" not in inapplicable(trained):
        sections.append("training")
        axes = {"flip_axes": list(trained.training.augmentation.flip_axes)}  # of the mirrored images that are averaged
        plain["training"] = {"patch_voxels": trained.training.patch_voxels, "augmentation": axes}
    content = {
        "name": name,
        **{key: plain[key] for key in sections},
        "validation": {
            key: plain["validation"][key]
            for key in (*_SAME_VALIDATION, "min_test_patients")
            if key in plain["validation"]
        },
        "evaluate": {"weights_sha256": card.weights_sha256, "trained_at": sorted(_trained_at(card))},
    }
    return validate(StudyConfig, content, str(folder))


def check_evaluated(study: StudyConfig, folder: Path) -> ModelCard:
    """The card of the model that a study measures.

    Raises:
        InputError: it is not the one, or is of other inputs or splits than the study has: the first settings that
            differ, and what they would have to be.
    """
    card = read_card(folder)
    expected = _compared(evaluation_of(folder, study.name))
    found = _compared(study)
    differ = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if differ:
        told = "; ".join(f"{key} is {found.get(key)!r}, not {expected.get(key)!r}" for key in differ[:3])
        more = f" (and {len(differ) - 3} more)" if len(differ) > 3 else ""
        raise InputError(
            f"{folder}: study {study.name} measures another model, or in other patients than its training left out: "
            f"{told}{more}; `msfl-server evaluation {folder}` writes the study that measures it"
        )
    return card


def load_evaluated(study: StudyConfig, folder: Path | None) -> Weights:
    """The weights that a study measures.

    Raises:
        InputError: see `check_evaluated`; or no folder is named, or its files were altered.
    """
    if folder is None:
        raise InputError(
            f"study {study.name} measures a model: name its folder, by --model of `simulate` or as `model` in "
            "server.yaml"
        )
    check_evaluated(study, folder)
    return load_model(folder)[1]


def _trained_at(card: ModelCard) -> set[str]:
    """The sites whose patients trained a model."""
    told = {*card.provenance.sites, *card.provenance.summed_sites}
    return {site for site in told if card.provenance.is_of(site)} - {POOLED}


def _compared(study: StudyConfig) -> dict[str, Any]:
    """By their keys, the settings that a study and the model which it measures have in common."""
    acting = acting_settings(study)
    found = dict(_leaves({key: acting.get(key) for key in _SAME}, ""))
    if study.evaluate is not None:
        found["evaluate.trained_at"] = sorted(study.evaluate.trained_at)
    if (edge := acting.get("training", {}).get("patch_voxels")) is not None:
        found["training.patch_voxels"] = edge  # the window in which a network sees an image
        found["training.augmentation.flip_axes"] = study.training.augmentation.flip_axes
    if study.validation.test_fraction:
        found["min_test_patients"] = study.min_test_patients
    return found | {f"validation.{key}": getattr(study.validation, key) for key in _SAME_VALIDATION}


def _leaves(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
