"""Which settings of a study do not apply to what it is: each is said once, where a person looks.

A rule names keys and what must be true for them to act. A test runs a study of every kind of model and records which
settings are read: one that is not has a rule here, and one that a rule speaks of is not (tests/common/models).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from msfl_common.config.classification import Classification, DeepModel
from msfl_common.config.evaluation import TRAINING_SETTINGS
from msfl_common.config.strategy_choice import suits_features
from msfl_common.config.study import StudyConfig


@dataclass(frozen=True)
class Rule:
    """When some settings of a study do not apply.

    Attributes:
        keys: patterns of dotted keys: `training.*` is all below.
        why: the reason, where they do not apply; None where they do.
    """

    keys: tuple[str, ...]
    why: Callable[[StudyConfig], str | None]


def unused_settings(study: StudyConfig) -> list[str]:
    """What to tell a person of a study's settings that differ from their defaults and do not apply: a line each."""
    differing = dict(_differing(study, ""))
    return [
        f"{key}: {value!r} has no effect: {why}"
        for key, why in inapplicable(study).items()
        if (value := differing.get(key, PydanticUndefined)) is not PydanticUndefined
    ]


def inapplicable(study: StudyConfig) -> dict[str, str]:
    """Every setting that does not apply, whatever its value, and why."""
    model = _model(study)
    found = {} if model is None or _is_deep(study) else {f"{_MODEL}.{key}": why for key, why in model.unused().items()}
    for key in leaf_keys(study):
        for rule in RULES:
            if any(fnmatchcase(key, pattern) for pattern in rule.keys) and (why := rule.why(study)):
                found.setdefault(key, why)
    if study.regression is not None:  # whose section is read as a classification's
        return {key.replace("classification.", "regression.", 1): why for key, why in found.items()}
    return found


def acting_settings(study: StudyConfig) -> dict[str, Any]:
    """A study as plain values, without the settings that do not apply; read again, they have their defaults."""
    plain = study.model_dump(mode="json")
    for key in inapplicable(study):
        *path, name = key.split(".")
        section = plain
        for part in path:
            section = section.get(part, {})  # at its default it may not be written at all
        section.pop(name, None)  # one at its default may not be written at all
    return _without_empty(plain, study)


def _without_empty(plain: dict[str, Any], config: BaseModel) -> dict[str, Any]:
    """The same without sections of which nothing is left."""
    kept = {}
    for name, value in plain.items():
        if isinstance(section := getattr(config, name), BaseModel):
            value = _without_empty(value, section)
            if not value:
                continue
        kept[name] = value
    return kept


def leaf_keys(config: BaseModel, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a config and of the sections in it, those of its own kinds of model alone."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from leaf_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _differing(config: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that are not the default; of a section that is not there by default, those of its own."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _differing(value, f"{prefix}{name}.")
        elif value != field.get_default(call_default_factory=True):
            yield f"{prefix}{name}", value


def _trains_network(study: StudyConfig) -> bool:
    """Whether a segmentation network is trained, in this stage or in the one before."""
    return study.classification is None or study.segmentation is not None


def _model(study: StudyConfig) -> Any:
    return study.classification.model if study.classification is not None else None


def _is_deep(study: StudyConfig) -> bool:
    return isinstance(_model(study), DeepModel)


def _reads_images(study: StudyConfig) -> bool:
    settings = study.classification
    if settings is None or _is_deep(study):
        return True
    return bool(settings.features) or settings.outcome.endpoint == "activity"


def _no_network(study: StudyConfig) -> str | None:
    if _trains_network(study):
        return None
    return f"{_model(study).kind} trains no segmentation network"


def _no_lesions(study: StudyConfig) -> str | None:
    return None if study.segmentation is not None else "the study trains no model of lesions before it classifies"


def _no_unet(study: StudyConfig) -> str | None:
    is_lesion_encoder = _is_deep(study) and _model(study).kind == "lesion-encoder"
    return None if is_lesion_encoder else _no_network(study)


def _measures(study: StudyConfig) -> str | None:
    return None if study.evaluate is None else "the study measures a model, and trains nothing"


def _no_strategy(study: StudyConfig) -> str | None:
    if study.strategy is not None and suits_features(study.strategy, _model(study)):
        return None
    return _no_averages(study)


def _no_averages(study: StudyConfig) -> str | None:
    return None if study.averages else f"{_model(study).kind} is no network: it is made of the sites' answers"


def _no_steps(study: StudyConfig) -> str | None:
    return None if _trains_network(study) or _is_deep(study) else f"{_model(study).kind} is not trained by such steps"


def _no_images(study: StudyConfig) -> str | None:
    return None if _reads_images(study) else "the study reads no image: its inputs are clinical values"


def _no_features(study: StudyConfig) -> str | None:
    own, harmonizes = study.classification, study.harmonization.method != "none"
    if harmonizes or (own is not None and (own.features or own.outcome.endpoint == "activity")):
        return None
    return "the study measures no feature of images"


def _no_spacing(study: StudyConfig) -> str | None:
    if study.classification is None or not _is_deep(study) or study.classification.features:
        return None
    return None if _model(study).kind == "lesion-encoder" else f"{_model(study).kind} sees slices of its own size"


def _ends_by_itself(study: StudyConfig) -> str | None:
    needed = study.classification.model.num_rounds_needed if study.classification else None
    if needed is None or study.rounds.num_rounds <= needed:
        return None
    return f"{_model(study).kind} ends by itself after at most {needed} round{'s' if needed > 1 else ''}"


def _counts_cases(study: StudyConfig) -> str | None:
    model = _model(study)
    if model is not None and not _is_deep(study) and not model.uses_shares:
        return f"{model.kind} is learned from sums, which count each case once"
    return None


def _counts_sites(study: StudyConfig) -> str | None:
    strategy = study.strategy
    return None if strategy is None or strategy.uses_shares else f"{strategy.kind} counts all sites the same"


def _tested_otherwise(study: StudyConfig) -> str | None:
    return "`classification` says who tests" if study.classification else None


def _harmonizes_not(study: StudyConfig) -> str | None:
    return "harmonization.method is none" if study.harmonization.method == "none" else None


def _masks_not(study: StudyConfig) -> str | None:
    return "secure_aggregation.method is none" if study.secure_aggregation.method == "none" else None


def _age_unkept(study: StudyConfig) -> str | None:
    return None if "age" in study.harmonization.covariates else "harmonization.covariates does not name age"


def _unprepared(study: StudyConfig) -> str | None:
    return f"{_model(study).kind} sees images and clinical values in ranges of their own" if _is_deep(study) else None


def _selects_all(study: StudyConfig) -> str | None:
    own = study.classification
    if own is None or own.preparation.selection == "none" or own.preparation.num_selected < len(own.inputs):
        return None
    return f"num_selected, {own.preparation.num_selected}, keeps all {len(own.inputs)} inputs"


def _more_than_there_are(setting: str, among: Callable[[Classification], int]) -> Callable[[StudyConfig], str | None]:
    """A rule of a number that is larger than what it is taken from."""

    def why(study: StudyConfig) -> str | None:
        own = study.classification
        if own is None or _is_deep(study) or getattr(own.preparation, setting) <= among(own):
            return None
        return f"{among(own)} are all that there are"

    return why


def _num_selected(own: Classification) -> int:
    num = len(own.inputs)
    return num if own.preparation.selection == "none" else min(own.preparation.num_selected, num)


def _clipped_by_patient(study: StudyConfig) -> str | None:
    return None if study.differential_privacy is None else "differential_privacy.max_gradient_norm takes its place"


def _no_private_steps(study: StudyConfig) -> str | None:
    return None if study.averages else f"{_model(study).kind} is made private in its sums"


def _one_sequence_each(study: StudyConfig) -> str | None:
    own = study.classification
    if study.differential_privacy is None or own is None or not _is_deep(study) or study.segmentation is not None:
        return None
    return "each patient has one sequence, as observations is first" if own.outcome.observations == "first" else None


def _no_private_sums(study: StudyConfig) -> str | None:
    return (
        "bounds are of the inputs of a model of features" if study.classification is None or _is_deep(study) else None
    )


def _of(section: Callable[[Classification], bool], why: str) -> Callable[[StudyConfig], str | None]:
    """A rule of a classification: `why` where it is so."""
    return lambda study: why if study.classification is not None and section(study.classification) else None


_MODEL, _PREPARATION, _OUTCOME = "classification.model", "classification.preparation", "classification.outcome"

RULES: tuple[Rule, ...] = (
    Rule(("network.*",), _no_unet),
    Rule(("training.*",), _no_steps),
    Rule((*(f"{key}*" for key in TRAINING_SETTINGS),), _measures),
    Rule(("differential_privacy",), lambda study: None if study.differential_privacy else "no noise is asked for"),
    Rule(
        ("training.freeze_rounds",), lambda study: None if study.training.freeze else "`training.freeze` names no layer"
    ),
    Rule(("training.clip_norm",), _clipped_by_patient),
    Rule(("differential_privacy.sampling_rate", "differential_privacy.max_gradient_norm"), _no_private_steps),
    Rule(("differential_privacy.bounds",), _no_private_sums),
    Rule(("training.batch_size",), _one_sequence_each),
    Rule(("strategy",), _no_strategy),
    Rule(("crossfit",), _no_lesions),
    Rule(("secure_aggregation.min_sites", "secure_aggregation.threshold"), _masks_not),
    Rule(("secure_aggregation.max_update_norm",), _no_averages),
    Rule(("training.patch_voxels", "training.lesion_patch_fraction", "training.augmentation.*"), _no_network),
    Rule(("validation.window_overlap", "validation.mirroring"), _no_network),
    Rule(("validation.test_fraction", "validation.min_test_patients", "validation.fold"), _tested_otherwise),
    Rule(
        ("validation.test_fraction", "validation.min_test_patients"),
        lambda study: "`validation.fold` says who tests" if study.validation.fold else None,
    ),
    Rule(
        ("validation.min_test_patients",),
        lambda study: None if study.validation.test_fraction else "`validation.test_fraction` is 0",
    ),
    Rule(("validation.bootstrap_samples",), lambda _: "intervals are computed without resampling"),
    Rule(("inputs.*",), _no_images),
    Rule(("inputs.radiomics",), _no_features),
    Rule(("inputs.masks",), lambda study: None if _is_deep(study) else "deep models of outcomes alone see masks"),
    Rule(("inputs.spacing_mm",), _no_spacing),
    Rule(("rounds.num_rounds",), _ends_by_itself),
    Rule(("rounds.max_share",), _counts_cases),
    Rule(("rounds.max_share", "segmentation.max_share"), _counts_sites),
    Rule(
        tuple(f"harmonization.{key}" for key in ("features", "covariates", "age_knots_years", "min_cases", "declared")),
        _harmonizes_not,
    ),
    Rule(("harmonization.age_knots_years",), _age_unkept),
    Rule((f"{_PREPARATION}.*",), _unprepared),
    Rule((f"{_PREPARATION}.num_selected",), _of(lambda own: own.preparation.selection == "none", "selection is none")),
    Rule((f"{_PREPARATION}.num_selected",), _more_than_there_are("num_selected", lambda own: len(own.inputs))),
    Rule((f"{_PREPARATION}.selection",), _selects_all),
    Rule(
        (f"{_PREPARATION}.num_components",), _of(lambda own: own.preparation.reduction == "none", "reduction is none")
    ),
    Rule((f"{_PREPARATION}.num_components",), _more_than_there_are("num_components", _num_selected)),
    Rule(
        (f"{_PREPARATION}.subject_scaling",),
        _of(
            lambda own: not own.features and own.preparation.subject_scaling != "none",
            "the model sees no feature of images",
        ),
    ),
    Rule(
        (f"{_PREPARATION}.group_by",),
        _of(lambda own: own.preparation.subject_scaling == "none", "subject_scaling is none"),
    ),
    Rule(
        tuple(f"{_OUTCOME}.{key}" for key in ("horizon_years", "confirmed_weeks", "relapse_days", "baseline", "pira")),
        _of(lambda own: own.outcome.endpoint is None, "a column's labels are taken as they are"),
    ),
    Rule(("classification.test_fraction",), _of(lambda own: own.fold is not None, "`fold` says what is held out")),
    Rule(
        (f"{_MODEL}.max_visits",),
        _of(lambda own: own.outcome.observations == "first", "with observations first, the model sees one visit"),
    ),
    Rule(
        (f"{_MODEL}.dropout",),
        _of(lambda own: own.model.kind in ("resnet3d", "pretrained-resnet2d"), "this network has none"),
    ),
)
